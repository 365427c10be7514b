"""Tables of a million rows: what an importer keeps in memory must not follow them."""

from __future__ import annotations

__all__ = ["csv_million_rows"]

from tests.client.long_tables import peak_growth
from tests.prove.finding import Finding

FEW, MANY, LIMIT = 10_000, 1_000_000, 200


def csv_million_rows() -> Finding:
    """The rows besides 100 images name files that are not there, or the same images again; the larger growth counts."""
    worst = max(peak_growth(few=FEW, many=MANY, others=others) for others in ("absent", "again"))
    want = f"≤ {LIMIT} MiB more at the peak for {MANY:,} rows that name 100 images than for {FEW:,}"
    return Finding(round(worst, 1), want, worst <= LIMIT)

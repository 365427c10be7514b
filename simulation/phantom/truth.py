"""`truth.csv`: what was drawn, one row for each picture."""

from __future__ import annotations

__all__ = ["Value", "csv_text"]

import csv
import io
from collections.abc import Sequence

Value = str | float | bool


def csv_text(rows: Sequence[dict[str, Value]]) -> str:
    """The rows as a table with the first one's names; truth values as 0 and 1, floats to six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def _cell(value: Value) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

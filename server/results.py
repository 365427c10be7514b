"""`results.json`: rows, contrasts, what they say across centers, budget and provenance.

No times, so that one seed gives the same bytes twice.
"""

from __future__ import annotations

__all__ = ["Row", "Subgroup", "as_subgroup", "by_class", "write_results"]

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.auc import ClusteredAuc
from common.detail_orders import Group
from common.files import write_json
from common.pooled import NetBenefit
from common.provenance import Provenance
from server.centers import across_centers
from server.repairs import Repaired
from server.spending import Spending

_WHERE_ANY = ("artificial_sites", "models")
"""What of the provenance is left out where it is empty."""


@dataclass(frozen=True)
class Row:
    """How one model does at one site (or `all`). A number that does not exist is None, and `why` says why.

    Rows of `all`, in-federation, also hold what sums alone give: `auc_federated` is off the exact AUC by
    `auc_federated_bound` at most (`auc_federated_why` says why it or its interval is not there); the mean of the sites'
    own AUCs, which is another thing than the AUC of all cases; and the decision curve. `suppressed` names sites whose
    policy kept their cases out of the federated numbers. With more than two classes `auc` is their mean and
    `auc_by_class` has each against the rest, by its name. A deployed run has the exact decision curve of each held-out
    center in `net_benefit`; `net_benefit_why` says why another has none.
    """

    arm: str
    protocol: str
    seed: int
    site: str
    held_out: bool
    trained_on: tuple[str, ...]
    predictions: str | None
    n_images: int | None
    n_patients: int | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    auc_variance: float | None
    auc_patient: float | None
    sensitivity: float | None
    specificity: float | None
    calibration_slope: float | None
    calibration_intercept: float | None
    brier: float | None
    ece: float | None
    threshold: float | None
    why: str | None
    observed: int | None = None
    expected: float | None = None
    log_oe_variance: float | None = None
    auc_federated: float | None = None
    auc_federated_bound: float | None = None
    auc_federated_low: float | None = None
    auc_federated_high: float | None = None
    auc_federated_why: str | None = None
    auc_federated_by_class: Mapping[str, Mapping[str, float | str | None]] | None = None
    auc_mean_of_sites: float | None = None
    auc_mean_of_sites_low: float | None = None
    auc_mean_of_sites_high: float | None = None
    net_benefit: tuple[NetBenefit, ...] = ()
    suppressed: tuple[str, ...] = ()
    auc_by_class: Mapping[str, ClusteredAuc] | None = None
    calibration_slope_low: float | None = None
    calibration_slope_high: float | None = None
    calibration_intercept_low: float | None = None
    calibration_intercept_high: float | None = None
    net_benefit_why: str | None = None


def by_class(classes: Sequence[str], areas: Sequence[ClusteredAuc]) -> dict[str, ClusteredAuc] | None:
    """The areas by the names of their classes; None where there are none, as with two classes."""
    return dict(zip(classes, areas, strict=True)) if areas else None


@dataclass(frozen=True)
class Subgroup:
    """One model on one group (`covariate` at `level`) of a center's tested cases.

    A number that does not exist is None, and `why` says why (`common.detail_orders.Group`). `shares_patients`: some are
    in another group of the covariate too (a left and a right breast).
    """

    arm: str
    protocol: str
    seed: int
    site: str
    covariate: str
    level: str
    n_images: int
    n_patients: int
    n_positive: int | None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    why: str | None = None
    shares_patients: bool = False


def as_subgroup(group: Group, *, arm: str, protocol: str, seed: int, site: str) -> Subgroup:
    """A site's group as it stands in results."""
    return Subgroup(arm=arm, protocol=protocol, seed=seed, site=site, **asdict(group))


def write_results(
    run: Path,
    *,
    config: Mapping[str, Any],
    budget: Mapping[str, Any],
    provenance: Provenance,
    rows: Sequence[Row],
    contrasts: Sequence[Any],
    shift: Sequence[Any] = (),
    subgroups: Sequence[Subgroup] = (),
    repairs: Sequence[Repaired] = (),
    privacy: Spending | None = None,
    subgroups_absent: Mapping[str, str] | None = None,
    subgroups_left_out: Mapping[str, Mapping[str, str]] | None = None,
) -> Path:
    """Write RUN/results.json, atomically. `shift` (the cards of centers), `repairs` (without labels, beside the
    rows), `privacy` (what it cost), `subgroups_absent` (by site that told none: why), `subgroups_left_out` (by
    site, and covariate that has none there: why), `provenance.artificial_sites` and `.models` stand in it only where
    there are such.
    """
    path = run / "results.json"
    document = {
        "config": config,
        "budget": budget,
        "provenance": {key: value for key, value in asdict(provenance).items() if key not in _WHERE_ANY or value},
        "rows": [asdict(row) for row in rows],
        "contrasts": [asdict(contrast) for contrast in contrasts],
        "meta": [asdict(entry) for entry in across_centers(rows)],
        "subgroups": [asdict(group) for group in subgroups],
    }
    if subgroups_absent:
        document["subgroups_absent"] = dict(subgroups_absent)
    if subgroups_left_out:
        document["subgroups_left_out"] = {site: dict(whys) for site, whys in subgroups_left_out.items()}
    if shift:
        document["shift"] = [asdict(card) for card in shift]
    if repairs:
        document["repairs"] = [asdict(repair) for repair in repairs]
    if privacy is not None:
        document["privacy"] = asdict(privacy)
    write_json(path, document)
    return path

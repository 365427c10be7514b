"""What a shift did to the model: a center's rows beside those of its centers of reference."""

from __future__ import annotations

__all__ = ["Performance", "listed", "performance_at", "plain", "what_it_did", "which_model"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.results import Row

_LEAVE_ONE_OUT, _IN_FEDERATION = "leave-one-center-out", "in-federation"


@dataclass(frozen=True)
class Performance:
    """What the federated rows of one protocol say of a center, means over seeds; None where a row has no number.

    `auc_reference` is the mean over all centers of reference; None where one of them has no AUC. Under
    leave-one-center-out each center has a model of its own, so the two AUCs are of different models.
    """

    auc: float | None = None
    auc_reference: float | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    protocol: str | None = None


def performance_at(site: str, against: Sequence[str], rows: Sequence[Row]) -> Performance:
    """From the federated rows that held the center out, else from its rows in-federation.

    `against`: the centers that it was compared with, no others.
    """
    for protocol in (_LEAVE_ONE_OUT, _IN_FEDERATION):
        mine = [row for row in rows if (row.arm, row.protocol) == ("federated", protocol)]
        here = [row for row in mine if row.site == site and row.auc is not None]
        if here:
            others = [_mean([row.auc for row in mine if row.site == other]) for other in against]
            return Performance(
                auc=_mean([row.auc for row in here]),
                auc_reference=_mean(others),
                calibration_slope=_mean([row.calibration_slope for row in here]),
                calibration_intercept=_mean([row.calibration_intercept for row in here]),
                protocol=protocol,
            )
    return Performance()


def what_it_did(found: Performance, against: Sequence[str]) -> str:
    """A sentence: AUC here and at the centers of reference, whose models they are, and calibration."""
    if found.auc is None:
        return "What it did to the model is not known: the center has no AUC."
    told = f"AUC is {plain(found.auc)} here{_elsewhere(found, against)}"
    slope, intercept = found.calibration_slope, found.calibration_intercept
    if slope is None or intercept is None:
        return f"{told}; calibration is not known."
    return f"{told}; calibration slope {plain(slope)} (1 is right), intercept {plain(intercept)} (0 is right)."


def _elsewhere(found: Performance, against: Sequence[str]) -> str:
    where = listed(against)
    if found.auc_reference is None:
        return f", at {where} it is not known"
    mean = "" if len(against) == 1 else ", the mean of theirs"
    models = (
        "each center under the model that left it out, so the models differ"
        if found.protocol == _LEAVE_ONE_OUT
        else "one model for all of them"
    )
    return f", {plain(found.auc_reference)} at {where}{mean} ({models}; the difference has no interval)"


def which_model(found: Performance, *, trained: bool) -> str:
    """Whose features were compared, and whether the AUC is of the same model.
    `trained`: with patients of the center.
    """
    if not trained:
        return "The features are those of a model that had no patient of this center."
    features = "The features are those of the in-federation model, which trained on other patients of this center"
    if found.protocol == _LEAVE_ONE_OUT:
        return f"{features}: AUC and calibration are of another one, that left this center out."
    return f"{features}."


def plain(value: float, *, places: int = 2) -> str:
    """Two decimals or `places`: `.71`, `1.20`, `−.40`."""
    text = f"{abs(value):.{places}f}"
    return ("−" if value < 0 and float(text) else "") + text.removeprefix("0")


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None

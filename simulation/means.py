"""The row `all` of leave-one-center-out: the mean over centers,
since scores of different models are never put together.
"""

from __future__ import annotations

__all__ = ["mean_row"]

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from common.auc import ClusteredAuc
from server.results import Row
from server.statistics import mean_over_centers

_AVERAGED = (
    "auc_patient",
    "sensitivity",
    "specificity",
    "calibration_slope",
    "calibration_intercept",
    "brier",
    "ece",
)


def mean_row(members: Sequence[Row]) -> Row:
    """The mean of one arm's rows over held-out centers; a number that one center lacks is None."""
    areas = [
        ClusteredAuc(r.auc, r.auc_variance, r.auc_low, r.auc_high, r.why if r.auc_low is None else None)
        for r in members
    ]
    mean = mean_over_centers(areas)
    first = members[0]
    averaged: dict[str, Any] = {name: _mean([getattr(row, name) for row in members]) for name in _AVERAGED}
    return replace(
        first,
        site="all",
        trained_on=first.trained_on
        if first.arm == "local"
        else tuple(sorted({s for r in members for s in r.trained_on})),
        predictions=None,
        n_images=sum(row.n_images or 0 for row in members),
        n_patients=sum(row.n_patients or 0 for row in members),
        auc=mean.auc,
        auc_low=mean.low,
        auc_high=mean.high,
        auc_variance=mean.variance,
        threshold=None,
        observed=None,
        expected=None,
        log_oe_variance=None,
        calibration_slope_low=None,
        calibration_slope_high=None,
        calibration_intercept_low=None,
        calibration_intercept_high=None,
        why=mean.why or next((row.why for row in members if row.why), None),
        auc_by_class=_by_class(members),
        **averaged,
    )


def _by_class(members: Sequence[Row]) -> dict[str, ClusteredAuc] | None:
    told = [row.auc_by_class for row in members if row.auc_by_class is not None]
    if not told or len(told) < len(members):
        return None
    return {name: mean_over_centers([areas[name] for areas in told]) for name in told[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None

"""Across centers: what leave-one-center-out says about a center that nobody has seen,
from the rows of `results.json`.
"""

from __future__ import annotations

__all__ = ["INFORMATIVE", "PUBLISHED_SPREAD", "CenterValue", "Measured", "Meta", "Sensitivity", "across_centers"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from scipy.special import expit, logit, ndtri

from server.meta_analysis import KnownSpread, RandomEffects, random_effects, with_known_spread

PUBLISHED_SPREAD = 0.055
"""Standard deviation of AUC between centers; used below ten centers, where the data say little about τ.

The mean over 469 clinical prediction models with 1,603 external validations, with standard deviation .015 between
models (van Leeuwen, Steyerberg, van Klaveren, Wessler, Kent & van Zwet, Stat Med 2025; 44: e70011). Those are prognoses
in cardiovascular disease, not images: hence a sensitivity row, and not the estimate.
"""
INFORMATIVE, _WELL_KNOWN = 5, 10

_LEAVE_ONE_OUT = "leave-one-center-out"
_TOO_FEW = "too few centers to be informative"
_ARMS = ("federated", "pooled", "ensemble", "local")
_Pair = tuple[float, float]


class Measured(Protocol):
    """What is read of a row."""

    @property
    def arm(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def trained_on(self) -> tuple[str, ...]: ...
    @property
    def auc(self) -> float | None: ...
    @property
    def auc_low(self) -> float | None: ...
    @property
    def auc_high(self) -> float | None: ...
    @property
    def auc_variance(self) -> float | None: ...
    @property
    def observed(self) -> int | None: ...
    @property
    def expected(self) -> float | None: ...
    @property
    def log_oe_variance(self) -> float | None: ...
    @property
    def why(self) -> str | None: ...


@dataclass(frozen=True)
class CenterValue:
    """A center as the analysis takes it: the mean over `models` (seeds; for local other centers' models too).

    `value` and `variance` are on the analysis' scale, logit or log. `seed_variance` is the part of `variance` that
    comes from training again.
    """

    site: str
    models: int
    value: float
    variance: float
    seed_variance: float


@dataclass(frozen=True)
class Sensitivity:
    """The same centers under an assumed spread: `tau_auc` on the AUC scale, `tau` carried to the logit."""

    tau_auc: float
    tau: float
    estimate: float
    low: float
    high: float
    prediction_low: float
    prediction_high: float


@dataclass(frozen=True)
class Meta:
    """One arm and measure over k centers. Estimate and intervals are an AUC or an O/E; `tau` is on `scale`.

    `left_out` names centers without the number, and why. What does not exist is None and `why` says why: `one-center`
    (nothing can be said) or `two-centers` (no prediction interval). `hksj_factor` is the square of the interval's error
    over the plain one: far below 1 the centers agree better than their own errors allow, and the interval is too
    narrow. `note` warns below five centers.
    """

    arm: str
    protocol: str
    measure: Literal["auc", "oe"]
    scale: Literal["logit", "log"]
    k: int
    centers: tuple[CenterValue, ...]
    left_out: dict[str, str]
    estimate: float | None
    low: float | None
    high: float | None
    prediction_low: float | None
    prediction_high: float | None
    tau: float | None
    i2: float | None
    q: float | None
    hksj_factor: float | None
    sensitivity: Sensitivity | None
    note: str | None
    why: str | None


def across_centers(rows: Iterable[Measured]) -> list[Meta]:
    """One entry for each arm and measure of the leave-one-center-out rows that know a variance.

    A center's value is the mean over its models of logit AUC, or of log O/E. Its variance is the mean over models of
    the sampling variance (the models meet the same patients, so averaging them saves nothing) plus the models' variance
    divided by their number. The delta method carries an AUC's variance to the logit. The centers' models share training
    patients; that dependence is not modelled.
    """
    mine = [row for row in rows if row.protocol == _LEAVE_ONE_OUT and row.site != "all" and not _at_home(row)]
    made = []
    for arm in sorted({row.arm for row in mine}, key=lambda arm: (_ARMS.index(arm) if arm in _ARMS else 9, arm)):
        there = [row for row in mine if row.arm == arm]
        if any(row.auc_variance is not None for row in there):
            made.append(_meta(arm, "auc", there, _logit_auc))
        if any(row.expected is not None for row in there):
            made.append(_meta(arm, "oe", there, _log_oe))
    return made


def _at_home(row: Measured) -> bool:
    return row.arm == "local" and row.site in row.trained_on


def _meta(
    arm: str, measure: Literal["auc", "oe"], rows: Sequence[Measured], number: Callable[[Measured], _Pair | None]
) -> Meta:
    centers, left_out = [], {}
    for site in sorted({row.site for row in rows}):
        here = [row for row in rows if row.site == site]
        pairs = [pair for row in here if (pair := number(row)) is not None]
        if pairs:
            centers.append(_center(site, pairs))
        else:
            left_out[site] = next((row.why for row in here if row.why), "too-few")
    y, v = [c.value for c in centers], [c.variance for c in centers]
    found = random_effects(y, v) if len(centers) > 1 else None
    back = _expit if measure == "auc" else _exp
    known = _sensitivity(y, v, found) if found and measure == "auc" and len(centers) < _WELL_KNOWN else None
    return Meta(
        arm=arm,
        protocol=_LEAVE_ONE_OUT,
        measure=measure,
        scale="logit" if measure == "auc" else "log",
        k=len(centers),
        centers=tuple(centers),
        left_out=left_out,
        estimate=back(found.estimate) if found else None,
        low=back(found.low) if found else None,
        high=back(found.high) if found else None,
        prediction_low=back(found.prediction_low) if found else None,
        prediction_high=back(found.prediction_high) if found else None,
        tau=found.tau if found else None,
        i2=found.i2 if found else None,
        q=found.q if found else None,
        hksj_factor=(found.standard_error / found.wald_error) ** 2 if found else None,
        sensitivity=known,
        note=_TOO_FEW if found and len(centers) < INFORMATIVE else None,
        why="one-center" if not found else "two-centers" if len(centers) == 2 else None,
    )


def _sensitivity(values: Sequence[float], variances: Sequence[float], found: RandomEffects) -> Sensitivity:
    """τ on the logit is τ / (AUC (1 − AUC)) at the centers' own mean."""
    area = float(expit(found.estimate))
    known: KnownSpread = with_known_spread(values, variances, tau=PUBLISHED_SPREAD / (area * (1 - area)))
    ends = (known.estimate, known.low, known.high, known.prediction_low, known.prediction_high)
    return Sensitivity(PUBLISHED_SPREAD, known.tau, *(float(expit(end)) for end in ends))


def _center(site: str, pairs: Sequence[_Pair]) -> CenterValue:
    values, variances = np.array(pairs, dtype=np.float64).T
    seeds = float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
    return CenterValue(site, len(values), float(values.mean()), float(variances.mean()) + seeds, seeds)


def _logit_auc(row: Measured) -> _Pair | None:
    """(logit AUC, variance); where the variance vanishes, at AUC 0 or 1 say, the row's own interval takes over."""
    if row.auc is None or row.auc_variance is None:
        return None
    if 0 < row.auc < 1 and row.auc_variance > 0:
        return float(logit(row.auc)), row.auc_variance / (row.auc * (1 - row.auc)) ** 2
    if row.auc_low is None or row.auc_high is None or not row.auc_low < row.auc_high:
        return None
    middle = row.auc if 0 < row.auc < 1 else (row.auc_low + row.auc_high) / 2
    reach = max(abs(logit(middle) - logit(end)) for end in (row.auc_low, row.auc_high) if 0 < end < 1)
    return float(logit(middle)), float(reach / ndtri(0.975)) ** 2


def _log_oe(row: Measured) -> _Pair | None:
    if not row.observed or not row.expected or not row.log_oe_variance:
        return None
    return float(np.log(row.observed / row.expected)), row.log_oe_variance


def _expit(value: float | None) -> float | None:
    return None if value is None else float(expit(value))


def _exp(value: float | None) -> float | None:
    """Capped at e^700: with one degree of freedom a bound can be beyond every number."""
    return None if value is None else float(np.exp(min(value, 700.0)))

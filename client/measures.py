"""One model on some cases: every number that a row of results holds, exact, and which of them may leave."""

from __future__ import annotations

__all__ = ["Measures", "log_loss", "measure_cases", "permitted"]

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.auc import ClusteredAuc, clustered_auc, patient_auc
from common.calibration import brier, calibration_intercept, calibration_slope, ece
from common.groups import large_enough, sides_large_enough
from common.macro import clustered_macro_auc
from common.metrics import Confusion

_OF_BOTH = (
    *("auc", "auc_low", "auc_high", "auc_variance", "auc_patient"),
    *("calibration_slope", "calibration_intercept", "ece"),
    *("calibration_slope_low", "calibration_slope_high", "calibration_intercept_low", "calibration_intercept_high"),
)
"""The numbers that say something of each class."""


@dataclass(frozen=True)
class Measures:
    """The numbers of a row; None where one does not exist, and `why` says why the first of them does not.

    With more than two classes `auc` and `auc_patient` are macro one-against-rest, `by_class` has each class against the
    rest, and the numbers that need a threshold are those of the positive class against the rest.
    """

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
    why: str | None
    by_class: tuple[ClusteredAuc, ...] = ()
    calibration_slope_low: float | None = None
    calibration_slope_high: float | None = None
    calibration_intercept_low: float | None = None
    calibration_intercept_high: float | None = None


def measure_cases(
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    patients: NDArray[np.int64],
    *,
    positive_index: int,
    threshold: float | None,
) -> Measures:
    """Measure cases: labels (N,), scores (N, K) probabilities, patients (N,); positive is `score >= threshold`."""
    positive, p = labels == positive_index, scores[:, positive_index]
    multi = scores.shape[1] > 2
    area = clustered_macro_auc(labels, scores, patients) if multi else clustered_auc(positive, p, patients)
    slope, intercept = calibration_slope(positive, p, patients), calibration_intercept(positive, p, patients)
    counts = Confusion.of(positive, p, threshold=threshold) if threshold is not None else None
    reasons = (
        area.why,
        slope.why,
        intercept.why,
        "no-threshold" if threshold is None else None,
    )
    return Measures(
        n_images=len(labels),
        n_patients=len(np.unique(patients)),
        auc=area.auc,
        auc_low=area.low,
        auc_high=area.high,
        auc_patient=_macro_patient_auc(labels, scores, patients) if multi else patient_auc(positive, p, patients),
        auc_variance=area.variance,
        sensitivity=counts.sensitivity if counts else None,
        specificity=counts.specificity if counts else None,
        calibration_slope=slope.value,
        calibration_intercept=intercept.value,
        brier=brier(positive, p),
        ece=ece(positive, p),
        why=next((reason for reason in reasons if reason), None),
        by_class=_by_class(labels, scores, patients) if multi else (),
        calibration_slope_low=slope.low,
        calibration_slope_high=slope.high,
        calibration_intercept_low=intercept.low,
        calibration_intercept_high=intercept.high,
    )


def permitted(
    found: Measures,
    labels: NDArray[np.int64],
    patients: NDArray[np.int64],
    *,
    positive_index: int,
    smallest: int,
    called: NDArray[np.bool_] | None = None,
) -> Measures:
    """What of the numbers may leave: nothing about fewer than `smallest` patients, nothing about a class that has
    fewer, nor sensitivity or specificity where fewer patients were `called` positive (N,), or were not.

    A class without patients hides nobody. What is kept back is None and `why` is `suppressed`, or `small-cell` where it
    is sensitivity or specificity alone.
    """
    if not large_enough(patients, smallest):
        nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(found))
        return replace(found, **(nothing | {"why": "suppressed", "by_class": ()}))
    positive = labels == positive_index
    told = {flag: large_enough(patients[positive == flag], smallest) for flag in (True, False)}
    classes = all(large_enough(patients[labels == k], smallest) for k in np.unique(labels))
    hidden = [] if all(told.values()) and classes else list(_OF_BOTH)
    shares = ((True, "sensitivity"), (False, "specificity"))
    hidden += [name for flag, name in shares if not told[flag]]
    why = "suppressed" if hidden else found.why
    for flag, name in shares:
        cells = () if called is None else [patients[(positive == flag) & (called == way)] for way in (True, False)]
        if not all(large_enough(cell, smallest) for cell in cells):
            hidden, why = [*hidden, name], why or "small-cell"
    kept_back: dict[str, Any] = dict.fromkeys(hidden)
    areas = tuple(
        one
        if sides_large_enough(labels == k, patients, smallest)
        else ClusteredAuc(None, None, None, None, "suppressed")
        for k, one in enumerate(found.by_class)
    )
    return replace(found, why=why, by_class=areas, **kept_back)


def _by_class(
    labels: NDArray[np.int64], scores: NDArray[np.float64], patients: NDArray[np.int64]
) -> tuple[ClusteredAuc, ...]:
    return tuple(clustered_auc(labels == k, scores[:, k], patients) for k in range(scores.shape[1]))


def log_loss(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float | None:
    """Mean −log probability of the true class, in nats; None without cases. Probabilities below 1e-12 count as that."""
    if not len(labels):
        return None
    return float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-12)).mean())


def _macro_patient_auc(
    labels: NDArray[np.int64], scores: NDArray[np.float64], patients: NDArray[np.int64]
) -> float | None:
    """Mean over classes of `patient_auc`: in each, a patient with any image of the class is of it."""
    areas = [patient_auc(labels == k, scores[:, k], patients) for k in range(scores.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None

"""A center's cases after each repair without labels, beside what they are without one.

Pictures are carried to the looks of the training sites, batch statistics become the center's own, answers are
recalibrated for the prevalence that they imply. Labels only judge what came out. Shapes: N cases, S pixels a side, K
classes.
"""

from __future__ import annotations

__all__ = ["CenterCases", "Score", "repairs_of"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.looks import lesion_margin
from client.measures import Measures, measure_cases, permitted
from client.repair import (
    Crops,
    adapt_batch_statistics,
    amplitude_sums,
    gray_counts,
    harmonise_amplitude,
    harmonise_intensity,
    recalibrate_prior,
)
from common.config import Crop
from common.harmonisation import Floats
from common.influence import Difference, InfluenceSums, place
from common.macro import macro_difference, macro_placed, summed
from common.repair_orders import KINDS, Kind, LooksSums, Repair, RepairOrder

if TYPE_CHECKING:
    from common.model import AttentionNet

Score = Callable[["AttentionNet", Crops], Floats]


@dataclass(frozen=True, eq=False)
class CenterCases:
    """Crops (N, S, S), the model's `scores` (N, K) of them, labels and patients (N,), the index of the positive class.

    `smallest`: numbers about fewer patients are None.
    """

    crops: Crops
    scores: Floats
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    positive: int
    smallest: int = 1


def repairs_of(
    cases: CenterCases, model: AttentionNet, order: RepairOrder, *, crop: Crop, score: Score
) -> tuple[Repair, ...]:
    """One entry for each of `KINDS`; a repair that cannot be had is named with its reason.

    `score` is how cases are scored.
    """
    found = []
    for kind in KINDS:
        mended = _mended(kind, cases, model, order, margin=lesion_margin(crop), score=score)
        found.append(Repair(kind, why=mended) if isinstance(mended, str) else _judged(kind, cases, mended))
    return tuple(found)


def _mended(
    kind: Kind, cases: CenterCases, model: AttentionNet, order: RepairOrder, *, margin: float, score: Score
) -> Floats | str:
    """The cases' scores (N, K) after the repair, or why there is none. No label is read."""
    match kind:
        case "none":
            return cases.scores
        case "intensity" | "amplitude":
            looks = order.looks
            if looks is None:
                return order.looks_why or "no-reference"
            if looks.size != cases.crops.shape[-1]:
                return "other-crops"
            return score(model, _harmonised(kind == "intensity", cases.crops, looks, margin=margin))
        case "batch-statistics":
            adapted = adapt_batch_statistics(model, cases.crops)
            return "no-batch-norm" if adapted is None else score(adapted, cases.crops)
        case "prior":
            if len(order.shares) != cases.scores.shape[1]:
                return order.shares_why or "unknown-shares"
            return recalibrate_prior(cases.scores, np.array(order.shares)).probabilities


def _harmonised(intensity: bool, crops: Crops, looks: LooksSums, *, margin: float) -> Crops:
    if intensity:
        return harmonise_intensity(crops, gray_counts(crops, margin=margin), looks.gray_counts)
    return harmonise_amplitude(crops, amplitude_sums(crops), looks.amplitude_sums)


def _judged(kind: Kind, cases: CenterCases, scores: Floats) -> Repair:
    before, after = (_measured(cases, these) for these in (cases.scores, scores))
    moved = Difference(None, None, None, None, None) if kind == "none" else _moved(cases, scores, before, after)
    implied = scores.mean(axis=0) if kind == "prior" and after.n_images is not None else None
    return Repair(
        kind,
        auc=after.auc,
        auc_low=after.auc_low,
        auc_high=after.auc_high,
        delta_auc=moved.delta,
        delta_low=moved.low,
        delta_high=moved.high,
        p=moved.p,
        brier=after.brier,
        calibration_slope=after.calibration_slope,
        calibration_intercept=after.calibration_intercept,
        prior=None if implied is None else tuple(implied.tolist()),
        why=moved.why if after.why in (None, "no-threshold") else after.why,
    )


def _measured(cases: CenterCases, scores: Floats) -> Measures:
    about = (cases.labels, scores, cases.patients)
    found = measure_cases(*about, positive_index=cases.positive, threshold=None)
    return permitted(found, cases.labels, cases.patients, positive_index=cases.positive, smallest=cases.smallest)


def _moved(cases: CenterCases, scores: Floats, before: Measures, after: Measures) -> Difference:
    """AUC after − before; the clustered test of both on the same patients."""
    if before.auc is None or after.auc is None:
        return Difference(None, None, None, None, None, after.why)
    if scores.shape[1] > 2:
        both = (macro_placed(cases.labels, these) for these in (scores, cases.scores))
        moved = [new - old if new and old else None for new, old in zip(*both, strict=True)]
        return macro_difference(*summed(moved, cases.labels, cases.patients))
    positive = cases.labels == cases.positive
    new, old = (place(positive, these[:, cases.positive]) for these in (scores, cases.scores))
    return InfluenceSums.of(new - old, cases.patients, center=0.0).difference()

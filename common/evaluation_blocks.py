"""An evaluation's sums as blocks of numbers, so that they can be added under masks, and back.

Real sums about cases travel in steps of 2^−32 (2.3e-10); up to 2 × 10⁹ / sites of each fits, which is more images than
that. Sums of products and powers are of any size: their whole part travels as a count, the rest in steps of 2^−48. What
histograms count travels two to a word, positives and negatives, so that an evaluation stays small.
"""

from __future__ import annotations

__all__ = ["evaluation_directory", "evaluation_numbers", "evaluation_sums"]

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.blocks import Block
from common.calibration import CalibrationBins
from common.histogram import Cells, ScoreHistogram
from common.influence import InfluenceSums
from common.logistic import LogisticSums
from common.macro import MacroSums
from common.metrics import BrierSum, Confusion, EvaluationSums
from common.orders import EvaluateOrder
from common.stage_sums import StageSums, no_case

Numbers = dict[str, NDArray[np.int64] | NDArray[np.float64]]

_BITS = 32
_PART_BITS = 48


def evaluation_directory(order: EvaluateOrder) -> tuple[Block, ...]:
    """What is summed for every part of an order, which must be of a stage that sums something."""
    nothing = no_case(order)
    return tuple(
        _block(name, values) for name, values in evaluation_numbers(dict.fromkeys(order.parts, nothing)).items()
    )


def evaluation_numbers(sums: Mapping[str, StageSums]) -> Numbers:
    """A site's numbers by block, from its sums by part."""
    return {f"{part}.{name}": values for part, told in sums.items() for name, values in _flat(told).items()}


def evaluation_sums(
    numbers: Mapping[str, ArrayLike], part: str, order: EvaluateOrder, *, sites: Sequence[str]
) -> StageSums:
    """The inverse, for the total over `sites` of one part: counts exact, real sums to sites × 1.2e-10 or better."""
    found = {
        name.partition(".")[2]: np.asarray(v).tolist() for name, v in numbers.items() if name.startswith(f"{part}.")
    }
    shape = no_case(order)
    return StageSums(
        sums=None if shape.sums is None else _evaluation(found, sites=sites, threshold=order.threshold),
        histograms=tuple(_histogram(found, q) for q in range(len(shape.histograms))),
        influence=tuple(one and _influence(found, q, one) for q, one in enumerate(shape.influence)),
        logistic=shape.logistic and _logistic(found, shape.logistic),
        macro=shape.macro and _macro(found, shape.macro),
    )


def _block(name: str, values: NDArray[np.int64] | NDArray[np.float64]) -> Block:
    if name.split(".")[1] == "histogram":
        return Block(name, len(values) // 2, paired=True)
    bits = 0 if values.dtype.kind == "i" else _PART_BITS if name.endswith(".part") else _BITS
    return Block(name, len(values), bits)


def _flat(told: StageSums) -> Numbers:
    flat: Numbers = {} if told.sums is None else _of_evaluation(told.sums)
    for q, histogram in enumerate(told.histograms):
        flat |= _of_histogram(f"histogram.{q}", histogram)
    for q, one in enumerate(told.influence):
        if one is not None:
            flat[f"influence.{q}.counts"] = np.array([*one.images, *one.patients], dtype=np.int64)
            flat |= _any_size(f"influence.{q}", (*one.totals, *one.least, *one.most, *one.products, *one.fourth))
    if told.logistic is not None:
        flat["logistic.counts"] = np.array([told.logistic.cases, told.logistic.positives], dtype=np.int64)
        flat |= _any_size("logistic", (*told.logistic.slope, *told.logistic.intercept))
    if told.macro is not None:
        flat["macro.counts"] = np.array([*told.macro.patients, told.macro.everybody], dtype=np.int64)
        flat |= _any_size("macro", (*told.macro.products, *told.macro.fourth))
    return flat


def _of_evaluation(sums: EvaluationSums) -> Numbers:
    decided = sums.confusion
    counts: dict[str, Sequence[int]] = {
        "cases": (sums.n_images, sums.n_patients),
        **({} if decided is None else {"confusion": _decided(decided)}),
        "calibration.counts": sums.calibration.counts,
        "calibration.positives": sums.calibration.positives,
    }
    real: dict[str, Sequence[float]] = {
        "loss": (sums.loss_sum or 0.0,),
        "brier": (sums.brier.squares,),
        "calibration.scores": sums.calibration.score_sums,
    }
    return {
        **{name: np.asarray(values, dtype=np.int64) for name, values in counts.items()},
        **{name: np.asarray(values, dtype=np.float64) for name, values in real.items()},
        **_any_size("by-patient", sums.by_patient),
    }


def _decided(told: Confusion) -> Sequence[int]:
    cells = [cell for cell in (told.tp, told.fp, told.tn, told.fn) if cell is not None]
    if len(cells) < 4:
        raise ValueError("a suppressed class cannot be masked; count it with the smallest group of 1")
    return cells


def _of_histogram(name: str, histogram: ScoreHistogram) -> Numbers:
    """Positives, then negatives, bin by bin: cases, and their places where these were asked for."""
    classes = [cells for cells in (histogram.positives, histogram.negatives) if cells is not None]
    if len(classes) < 2:
        raise ValueError("a suppressed class cannot be masked; count it with the smallest group of 1")
    flat: Numbers = {f"{name}.cases": np.array([cells.counts for cells in classes], dtype=np.int64).ravel()}
    for what in ("places", "squares"):
        told = [getattr(cells, what) for cells in classes]
        if None not in told:
            flat[f"{name}.{what}"] = np.array(told, dtype=np.int64).ravel()
    return flat


def _any_size(name: str, values: Sequence[float]) -> Numbers:
    """Real numbers as whole parts and what is left of them, in [0, 1)."""
    real = np.asarray(values, dtype=np.float64)
    below = np.floor(real)
    with np.errstate(invalid="ignore"):  # what is not finite has no part left, which the encoding refuses
        return {f"{name}.whole": below.astype(np.int64), f"{name}.part": real - below}


def _whole(found: Mapping[str, list[Any]], name: str) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(found[f"{name}.whole"], found[f"{name}.part"], strict=True))


def _evaluation(found: Mapping[str, list[Any]], *, sites: Sequence[str], threshold: float | None) -> EvaluationSums:
    images, patients = found["cases"]
    oo, oe, ee = _whole(found, "by-patient")
    return EvaluationSums(
        sites=tuple(sorted(sites)),
        n_images=images,
        n_patients=patients,
        loss_sum=found["loss"][0] if images else None,
        threshold=threshold,
        confusion=None if threshold is None else Confusion(*found["confusion"]),
        brier=BrierSum(found["brier"][0], images),
        calibration=CalibrationBins(
            tuple(found["calibration.counts"]),
            tuple(found["calibration.scores"]),
            tuple(found["calibration.positives"]),
        ),
        by_patient=(oo, oe, ee),
    )


def _histogram(found: Mapping[str, list[Any]], question: int) -> ScoreHistogram:
    name = f"histogram.{question}"
    bins = len(found[f"{name}.cases"]) // 2
    classes = []
    for half in (slice(bins), slice(bins, None)):
        counts, places, squares = (
            tuple(found[f"{name}.{what}"][half]) if f"{name}.{what}" in found else None
            for what in ("cases", "places", "squares")
        )
        classes.append(Cells(tuple(range(bins)), counts or (), places, squares))
    return ScoreHistogram(bins, *classes)


def _influence(found: Mapping[str, list[Any]], question: int, shape: InfluenceSums) -> InfluenceSums:
    first, second, *patients = found[f"influence.{question}.counts"]
    values = _whole(found, f"influence.{question}")
    ends = np.cumsum([len(v) for v in (shape.totals, shape.least, shape.most, shape.products)])
    totals, least, most, products, fourth = (tuple(map(float, part)) for part in np.split(values, ends))
    return replace(
        shape,
        images=(first, second),
        patients=tuple(patients),
        totals=totals,
        least=least,
        most=most,
        products=products,
        fourth=fourth,
    )


def _logistic(found: Mapping[str, list[Any]], shape: LogisticSums) -> LogisticSums:
    cases, positives = found["logistic.counts"]
    values = _whole(found, "logistic")
    return replace(
        shape,
        cases=cases,
        positives=positives,
        slope=values[: len(shape.slope)],
        intercept=values[len(shape.slope) :],
    )


def _macro(found: Mapping[str, list[Any]], shape: MacroSums) -> MacroSums:
    *patients, everybody = found["macro.counts"]
    values, cut = tuple(map(float, _whole(found, "macro"))), len(shape.products)
    return MacroSums(tuple(patients), everybody, values[:cut], values[cut:])

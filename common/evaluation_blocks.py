"""Evaluation sums as blocks of numbers, so that they can be added under masks, and back.

Real sums travel in steps of 2^−32 (2.3e-10); up to 2 × 10⁹ / sites of each fits, which is more images than that.
"""

from __future__ import annotations

__all__ = ["evaluation_directory", "evaluation_numbers", "evaluation_sums"]

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.blocks import Block
from common.calibration import CalibrationBins
from common.metrics import BrierSum, Confusion, EvaluationSums, ScoreHistogram

_BITS = 32


def evaluation_directory(parts: Sequence[str], *, with_threshold: bool) -> tuple[Block, ...]:
    """What is summed for the named parts of an evaluation; decisions only where a threshold is locked."""
    numbers = {part: _flat(_nothing(with_threshold=with_threshold)) for part in parts}
    return tuple(
        Block(f"{part}.{name}", len(values), 0 if values.dtype.kind == "i" else _BITS)
        for part, blocks in numbers.items()
        for name, values in blocks.items()
    )


def evaluation_numbers(
    sums: Mapping[str, EvaluationSums], parts: Sequence[str], *, with_threshold: bool
) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """A site's numbers by block; a part in which it has no case counts as zeros."""
    nothing = _nothing(with_threshold=with_threshold)
    return {f"{part}.{name}": values for part in parts for name, values in _flat(sums.get(part, nothing)).items()}


def evaluation_sums(
    numbers: Mapping[str, ArrayLike], part: str, *, sites: Sequence[str], threshold: float | None
) -> EvaluationSums:
    """The inverse, for the total over `sites` of one part: counts exact, real sums to sites × 1.2e-10."""
    found = {
        name.partition(".")[2]: np.asarray(v).tolist() for name, v in numbers.items() if name.startswith(f"{part}.")
    }
    images, patients = found["cases"]
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
        histogram=ScoreHistogram(tuple(found["histogram.positives"]), tuple(found["histogram.negatives"])),
    )


def _nothing(*, with_threshold: bool) -> EvaluationSums:
    return EvaluationSums.of([], [], [], site="", threshold=0.5 if with_threshold else None, loss_sum=0.0)


def _flat(sums: EvaluationSums) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    decided = sums.confusion
    counts: dict[str, Sequence[int]] = {
        "cases": (sums.n_images, sums.n_patients),
        **({} if decided is None else {"confusion": (decided.tp, decided.fp, decided.tn, decided.fn)}),
        "calibration.counts": sums.calibration.counts,
        "calibration.positives": sums.calibration.positives,
        "histogram.positives": sums.histogram.positives,
        "histogram.negatives": sums.histogram.negatives,
    }
    real: dict[str, Sequence[float]] = {
        "loss": (sums.loss_sum or 0.0,),
        "brier": (sums.brier.squares,),
        "calibration.scores": sums.calibration.score_sums,
    }
    return {
        **{name: np.asarray(values, dtype=np.int64) for name, values in counts.items()},
        **{name: np.asarray(values, dtype=np.float64) for name, values in real.items()},
    }

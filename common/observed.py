"""Observed over expected cases (O/E): are probabilities right on average? 1 is right, above 1 they are too low."""

from __future__ import annotations

__all__ = ["ObservedExpected"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from common.metrics import EvaluationSums


@dataclass(frozen=True)
class ObservedExpected:
    """O, the positive images, E, the sum of their probabilities, and the variance of log(O/E);
    None where O or E is 0.
    """

    observed: int
    expected: float
    log_variance: float | None

    @classmethod
    def of(cls, labels: ArrayLike, p: ArrayLike, patients: ArrayLike) -> ObservedExpected:
        """From cases: labels (N,) 0/1, p (N,) in [0, 1], `patients` (N,) names; images of one patient count as one
        draw.

        A ratio's variance by linearisation (Cochran 1977): P/(P − 1) Σ (o_i/O − e_i/E)² over the P patients' sums.
        """
        label, score = np.asarray(labels).astype(np.float64), np.asarray(p, dtype=np.float64)
        code = np.unique(np.asarray(patients), return_inverse=True)[1]
        observed, expected = float(label.sum()), float(score.sum())
        number = int(code.max()) + 1 if len(code) else 0
        if observed <= 0 or expected <= 0 or number < 2:
            return cls(round(observed), expected, None)
        pull = np.bincount(code, weights=label) / observed - np.bincount(code, weights=score) / expected
        return cls(round(observed), expected, number / (number - 1) * float(pull @ pull))

    @classmethod
    def of_sums(cls, sums: EvaluationSums) -> ObservedExpected:
        """The same from sums, of one site or of many whose patients differ."""
        bins, number = sums.calibration, sums.n_patients
        observed, expected = sum(bins.positives), float(sum(bins.score_sums))
        if observed <= 0 or expected <= 0 or number < 2:
            return cls(observed, expected, None)
        oo, oe, ee = sums.by_patient
        pulls = oo / observed**2 - 2 * oe / (observed * expected) + ee / expected**2
        return cls(observed, expected, number / (number - 1) * max(0.0, pulls))

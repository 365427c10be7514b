"""Observed over expected cases (O/E): are probabilities right on average? 1 is right, above 1 they are too low."""

from __future__ import annotations

__all__ = ["ObservedExpected"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from common.calibration import CalibrationBins


@dataclass(frozen=True)
class ObservedExpected:
    """O, the positive images, E, the sum of their probabilities, and the variance of log(O/E); None where O or E is 0."""

    observed: int
    expected: float
    log_variance: float | None

    @classmethod
    def of(cls, labels: ArrayLike, p: ArrayLike, patients: ArrayLike) -> ObservedExpected:
        """From cases: labels (N,) 0/1, p (N,) in [0, 1], `patients` (N,) names; images of one patient count as one draw.

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
    def of_sums(cls, bins: CalibrationBins, *, n_patients: int) -> ObservedExpected:
        """From a site's sums. Without sums by patient the variance is that of Debray et al. 2017, (1 − O/N)/O, times
        images per patient: as if a patient's images all said the same. Where patients have unequal numbers of images it is
        too small by some tenths, which the sums cannot tell.
        """
        observed, expected, images = sum(bins.positives), float(sum(bins.score_sums)), sum(bins.counts)
        if not observed or expected <= 0 or observed == images or not n_patients:
            return cls(observed, expected, None)
        return cls(observed, expected, (1 - observed / images) / observed * images / n_patients)

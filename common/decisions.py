"""Decision curves from cases: net benefit by threshold probability, with an interval by patient."""

from __future__ import annotations

__all__ = ["DECISIONS", "benefit_reach", "net_benefit"]

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

DECISIONS = np.arange(1, 20) / 20
"""Threshold probabilities of a decision curve that is told over messages."""


def net_benefit(truth: NDArray[np.bool_], scores: Floats, thresholds: Floats) -> Floats:
    """Net benefit (T,) at each threshold probability t, ascending: TP/N − FP/N · t/(1 − t). Vickers & Elkin 2006."""
    hits = len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
    true = truth.sum() - np.searchsorted(np.sort(scores[truth]), thresholds, side="left")
    benefit: Floats = (true - (hits - true) * thresholds / (1 - thresholds)) / len(scores)
    return benefit


def benefit_reach(truth: NDArray[np.bool_], scores: Floats, patients: NDArray[np.int64], thresholds: Floats) -> Floats:
    """Half-width (T,) of the 95 % interval of `net_benefit`, patients (codes from 0) drawn with all their cases.

    Net benefit is a mean over cases, a patient's sums over its number of cases: the variance of a ratio from clusters
    (Cochran 1977, equation 9.10), t with one degree of freedom less than patients. Infinite with a single patient.
    """
    count, passed = int(patients.max()) + 1, np.searchsorted(thresholds, scores, side="right")
    width = len(thresholds) + 1
    places = patients * width + passed
    true, false = (np.bincount(places[which], minlength=count * width).reshape(count, -1) for which in (truth, ~truth))
    odds = thresholds / (1 - thresholds)
    gain = (true[:, ::-1].cumsum(axis=1)[:, -2::-1] - false[:, ::-1].cumsum(axis=1)[:, -2::-1] * odds).astype(
        np.float64
    )
    cases = np.bincount(patients, minlength=count).astype(np.float64)
    if count < 2:
        return np.full(len(thresholds), np.inf)
    left = gain - cases[:, None] * (gain.sum(axis=0) / cases.sum())
    error = np.sqrt(count / (count - 1) * np.square(left).sum(axis=0)) / cases.sum()
    reach: Floats = float(stdtrit(count - 1, 0.975)) * error
    return reach

"""A lower bound on ε from one run in which many canaries were in or out by a coin (Mahloujifar, Melis, Chaudhuri 2024).

The claim that a mechanism is Gaussian-private with parameter μ (its tests are no better than telling N(0, 1) from N(μ,
1); Dong, Roth, Su 2022) bounds how often an attacker guesses the coins right. What is guessed better refutes the claim.
"""

from __future__ import annotations

__all__ = ["epsilon_of_mu", "lower_bound", "refuted"]

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri

CONFIDENCE = 0.95


def refuted(mu: float, *, correct: int, guesses: int, canaries: int, confidence: float = CONFIDENCE) -> bool:
    """Whether `correct` of `guesses` about `canaries` coins are too many for a mechanism of parameter `mu`.

    Let p_i be the probability of i right guesses, r and h the sums from i on of p_i · i / m and p_i · (c' − i) / m. A
    right guess about one coin, seen from the other side of the coin, is a wrong one; so r at i + 1 bounds h at i from
    below. Starting from a tail of 1 − `confidence` at `correct`, the claim is refuted where all p together exceed 1.
    """
    tail = 1 - confidence
    right, wrong = tail * correct / canaries, tail * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        least = max(wrong, float(ndtr(ndtri(min(right, 1.0)) - mu)))
        right += i / (guesses - i) * (least - wrong)
        wrong = least
        if right + wrong > guesses / canaries:
            return True
    return False


def lower_bound(
    scores: NDArray[np.float64], present: NDArray[np.bool_], *, delta: float, confidence: float = CONFIDENCE
) -> float:
    """ε at `delta` that the mechanism exceeds, with this confidence; scores (m,) are higher for canaries held to be
    present.

    Every coin is guessed: the upper half of the scores as present, the lower as absent.
    """
    m = len(scores)
    guessed = np.zeros(m, dtype=bool)
    guessed[np.argsort(scores, kind="stable")[m - m // 2 :]] = True
    correct = int((guessed == present).sum())
    low, high = 0.0, 20.0
    if not refuted(1e-6, correct=correct, guesses=m, canaries=m, confidence=confidence):
        return 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if refuted(middle, correct=correct, guesses=m, canaries=m, confidence=confidence):
            low = middle
        else:
            high = middle
    return epsilon_of_mu(low, delta=delta)


def epsilon_of_mu(mu: float, *, delta: float) -> float:
    """ε at `delta` of a Gaussian-private mechanism (Balle and Wang 2018, theorem 8)."""
    if mu <= 0:
        return 0.0

    def excess(eps: float) -> float:
        lost = math.exp(eps + float(log_ndtr(-eps / mu - mu / 2)))
        return float(ndtr(mu / 2 - eps / mu)) - lost - delta

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, mu * mu / 2 + 10 * mu + 1))

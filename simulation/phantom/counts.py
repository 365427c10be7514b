"""Whole numbers that keep a published total: so many images of so many patients, at full size or in proportion."""

from __future__ import annotations

__all__ = ["apportioned", "dealt"]

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def apportioned(total: int, weights: Sequence[float], *, least: int = 0) -> list[int]:
    """`total` in parts in proportion to `weights`, each part at least `least`: the method of largest remainders.

    Weights that add up to `total` and are whole numbers, none below `least`, come back as they are.
    """
    share = np.asarray(weights, dtype=float) / sum(weights) * total
    part = np.maximum(np.floor(share + 1e-9), least)
    while part.sum() != total:
        step = 1 if part.sum() < total else -1
        able = np.where(part + step >= least, step * (share - part), -np.inf)
        part[int(np.argmax(able))] += step
    return [int(value) for value in part]


def dealt(
    rng: np.random.Generator, total: int, hands: int, *, least: int = 1, spread: float = 0.5
) -> NDArray[np.int64]:
    """(hands,) `total` things dealt at random, at least `least` to each; `spread`: of the logarithm of the odds."""
    odds = np.exp(rng.normal(0, spread, hands))
    return np.asarray(least + rng.multinomial(total - least * hands, odds / odds.sum()))

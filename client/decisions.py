"""A site's own decision curve: exact net benefit at the thresholds where it is about enough patients."""

from __future__ import annotations

__all__ = ["decision_curve"]

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.decisions import DECISIONS, benefit_reach, net_benefit
from common.groups import large_enough
from common.pooled import NetBenefit


def decision_curve(
    positive: NDArray[np.bool_],
    p: NDArray[np.float64],
    patients: NDArray[np.int64],
    *,
    smallest: int,
    told: Sequence[float | None] = (None, None),
) -> tuple[NetBenefit, ...]:
    """Net benefit at `DECISIONS`, of cases (N,); `model` is None and `why` `small-cell` where it stays here.

    Between neighbouring thresholds that are told lie `smallest` patients of a class or more, or none: two points tell
    how many of each class lie between them. `told`: the locked threshold where the site's sensitivity is told, and
    where its specificity is; they cut too.
    """
    kept = _tellable(positive, p, patients, smallest=smallest, told=told)
    code = np.unique(patients, return_inverse=True)[1].astype(np.int64)
    model, reach = net_benefit(positive, p, DECISIONS), benefit_reach(positive, p, code, DECISIONS)
    share = float(positive.mean())
    found = []
    for t, value, width in zip(DECISIONS.tolist(), model.tolist(), reach.tolist(), strict=True):
        everybody = share - (1 - share) * t / (1 - t)
        if t not in kept:
            found.append(NetBenefit(t, None, everybody, why="small-cell"))
            continue
        low, high = (value - width, value + width) if np.isfinite(width) else (None, None)
        found.append(NetBenefit(t, value, everybody, low, high))
    return tuple(found)


def _tellable(
    positive: NDArray[np.bool_],
    p: NDArray[np.float64],
    patients: NDArray[np.int64],
    *,
    smallest: int,
    told: Sequence[float | None],
) -> list[float]:
    """The thresholds that may be told: while a cell between them holds a few patients of a class, it joins the next."""
    kept: list[float] = DECISIONS.tolist()
    sides = [(p[which], patients[which], fixed) for which, fixed in zip((positive, ~positive), told, strict=True)]
    while kept:
        ends = next((cut for side in sides if (cut := _first_cut(*side, kept, smallest=smallest))), None)
        if ends is None:
            break
        end = next((end for end in ends if end in kept), None)
        if end is None:
            return []
        kept.remove(end)
    return kept


def _first_cut(
    p: NDArray[np.float64], patients: NDArray[np.int64], fixed: float | None, kept: Sequence[float], *, smallest: int
) -> tuple[float, float] | None:
    """The two ends of the lowest cell of a class with some patients, but too few; None where there is none. The upper
    end comes first unless nobody lies above it: joined upwards the cell would then stay as small.
    """
    edges = sorted({*kept, *([] if fixed is None else [fixed])})
    cell = np.searchsorted(edges, p, side="right")
    ends = [-np.inf, *edges, np.inf]
    for number in np.unique(cell).tolist():
        if not large_enough(patients[cell == number], smallest):
            low, high = ends[number], ends[number + 1]
            return (high, low) if cell.max() > number else (low, high)
    return None

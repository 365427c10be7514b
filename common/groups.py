"""Groups of patients that are large enough for a number about them to leave a site, and how small ones are merged."""

from __future__ import annotations

__all__ = ["large_enough", "runs_of"]

import numpy as np
from numpy.typing import ArrayLike, NDArray

Whole = NDArray[np.int64]


def large_enough(patients: ArrayLike, smallest: int) -> bool:
    """Whether a number about these patients, (n,) by image, may leave: none at all, or `smallest` of them or more."""
    count = len(np.unique(np.asarray(patients)))
    return count == 0 or count >= smallest


def runs_of(bins: Whole, patients: Whole, *, total: int, smallest: int) -> Whole:
    """First bins of runs that hold at least `smallest` patients each, from the lowest bin up; the rest joins the last
    run.

    A boundary lies halfway between the images on its two sides, so that it tells the bin of neither. With `smallest` 1
    every bin is a run of its own, empty ones too: a count of zero is then no secret.
    """
    if smallest <= 1:
        return np.arange(total)
    order = np.argsort(bins, kind="stable")
    starts, inside, last = [0], set[int](), 0
    for place, whose in zip(bins[order].tolist(), patients[order].tolist(), strict=True):
        if place != last and len(inside) >= smallest:
            starts.append((last + 1 + place + 1) // 2)
            inside = set()
        inside.add(whose)
        last = place
    if len(inside) < smallest and len(starts) > 1:
        starts.pop()
    return np.array(starts, dtype=np.int64)

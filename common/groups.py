"""Groups of patients that are large enough for a number about them to leave a site, and how small ones are merged."""

from __future__ import annotations

__all__ = ["large_enough", "runs_of", "sides_large_enough"]

import numpy as np
from numpy.typing import ArrayLike, NDArray

Whole = NDArray[np.int64]


def large_enough(patients: ArrayLike, smallest: int) -> bool:
    """Whether a number about these patients, (n,) by image, may leave: none at all, or `smallest` of them or more."""
    count = len(np.unique(np.asarray(patients)))
    return count == 0 or count >= smallest


def sides_large_enough(which: NDArray[np.bool_], patients: NDArray[np.int64], smallest: int) -> bool:
    """Whether numbers about the patients of these images (n,), and about those of the others, may leave."""
    return all(large_enough(patients[side], smallest) for side in (which, ~which))


def runs_of(bins: Whole, patients: Whole, *, total: int, smallest: int, classes: ArrayLike | None = None) -> Whole:
    """First bins of runs that hold at least `smallest` patients each, from the lowest bin up; the rest joins the last
    runs, until these hold enough.

    With `classes` (n,) by image, each class in a run has `smallest` patients or none. A boundary lies halfway between
    the images on its two sides, so that it tells the bin of neither. With `smallest` 1 every bin is a run of its own,
    empty ones too: a count of zero is then no secret.
    """
    if smallest <= 1:
        return np.arange(total)
    order = np.argsort(bins, kind="stable")
    kinds = np.zeros(len(bins), dtype=np.int64) if classes is None else np.asarray(classes)
    starts, runs, last = [0], [dict[int, set[int]]()], 0
    cases = (x[order].tolist() for x in (bins, patients, kinds))
    for place, whose, kind in zip(*cases, strict=True):
        if place != last and _enough(runs[-1], smallest):
            starts.append((last + 1 + place + 1) // 2)
            runs.append({})
        runs[-1].setdefault(kind, set()).add(whose)
        last = place
    while len(runs) > 1 and not _enough(runs[-1], smallest):
        starts.pop()
        for kind, inside in runs.pop().items():
            runs[-1].setdefault(kind, set()).update(inside)
    return np.array(starts, dtype=np.int64)


def _enough(run: dict[int, set[int]], smallest: int) -> bool:
    """Whether the patients of a run, by class, are `smallest` or more in every class that is there."""
    return bool(run) and all(len(inside) >= smallest for inside in run.values())

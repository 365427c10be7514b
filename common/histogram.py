"""Score histograms by class, as one site sends them: no cell is about fewer patients than the site's policy allows.

A site counts its images in bins that all sites share and merges neighbouring bins into cells until each cell holds
enough patients. A class with some patients but too few of them is suppressed as a whole, which is told apart from a
class without cases (a count of zero) and from a site that sent nothing (absent).
"""

from __future__ import annotations

__all__ = ["Cells", "ScoreHistogram"]

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.bins import bin_of, place_in_bin
from common.groups import large_enough, runs_of, sides_large_enough

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Images of one class: `counts[i]` lie in the bins from `starts[i]` to before `starts[i + 1]`; the first is 0.

    `places` and `squares`: the sum of the images' places in their bins (`common.bins.place_in_bin`), and of these
    squared. They are told of unmerged bins alone, and only in totals over sites: never as JSON.
    """

    starts: tuple[int, ...]
    counts: tuple[int, ...]
    places: tuple[int, ...] | None = None
    squares: tuple[int, ...] | None = None

    @classmethod
    def of(cls, bins: Whole, patients: Whole, *, total: int, smallest: int, cut: int | None = None) -> Cells | None:
        """Count images by bin (n,), of patients (n,), out of `total` bins; None where the class is suppressed.

        A cell ends before the bin `cut` where both sides of it have patients enough, or none.
        """
        if not large_enough(patients, smallest):
            return None
        low = bins < (cut or 0)
        if cut and len(bins) and sides_large_enough(low, patients, smallest):
            below = runs_of(bins[low], patients[low], total=cut, smallest=smallest)
            above = runs_of(bins[~low] - cut, patients[~low], total=total - cut, smallest=smallest)
            starts = np.concatenate([below, cut + above])
        else:
            starts = runs_of(bins, patients, total=total, smallest=smallest)
        run = np.searchsorted(starts, bins, side="right") - 1
        return cls(tuple(starts.tolist()), tuple(np.bincount(run, minlength=len(starts)).tolist()))

    @classmethod
    def placed(cls, bins: Whole, places: Whole, *, total: int) -> Cells:
        """Count images by bin (n,), every bin a cell, with their places (n,)."""
        by_bin = (np.bincount(bins, weights=w, minlength=total) for w in (np.ones(len(bins)), places, places**2))
        counts, first, second = (tuple(sums.astype(np.int64).tolist()) for sums in by_bin)
        return cls(tuple(range(total)), counts, first, second)

    @property
    def images(self) -> int:
        """All images of the class."""
        return sum(self.counts)

    def spans(self, total: int) -> tuple[Whole, Whole, Whole]:
        """First bin, bin after the last, and images of every cell."""
        starts = np.array(self.starts, dtype=np.int64)
        return starts, np.append(starts[1:], total), np.array(self.counts, dtype=np.int64)

    def to_json(self, total: int) -> dict[str, Any]:
        """Plain data; `starts` is None where every bin is a cell of its own."""
        return {"starts": None if len(self.starts) == total else list(self.starts), "counts": list(self.counts)}

    @classmethod
    def from_json(cls, data: dict[str, Any], total: int) -> Cells:
        """The inverse of `to_json`. Raises ValueError where starts do not rise from 0 or counts do not fit them."""
        counts = tuple(map(int, data["counts"]))
        starts = tuple(range(total)) if data["starts"] is None else tuple(map(int, data["starts"]))
        rises = all(a < b for a, b in zip(starts, (*starts[1:], total), strict=True))
        if len(starts) != len(counts) or not starts or starts[0] or not rises or min(counts) < 0:
            raise ValueError("cells of a histogram do not fit its bins")
        return cls(starts, counts)


@dataclass(frozen=True)
class ScoreHistogram:
    """A site's images by class over `bins` shared bins; None where a class is suppressed."""

    bins: int
    positives: Cells | None
    negatives: Cells | None

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        p: ArrayLike,
        patients: ArrayLike,
        *,
        edges: ArrayLike,
        smallest: int = 1,
        placed: bool = False,
        threshold: float | None = None,
    ) -> ScoreHistogram:
        """Count cases: labels (N,) 0/1, `p` (N,) in [0, 1], `patients` (N,) whose; `smallest` patients make a cell.

        Cells end at `threshold`, which must be an edge, so that decisions at it tell nothing more (`Cells.of`).

        `placed`: with their places in their bins, for a total over sites; every bin is then a cell, whatever
        `smallest`.
        """
        positive, score, whose = np.asarray(labels).astype(np.bool_), np.asarray(p), np.asarray(patients)
        if not np.isfinite(score).all():
            raise ValueError("a probability is not a finite number; did training diverge?")
        index, total = bin_of(score, edges), len(np.asarray(edges)) + 1
        if placed:
            parts = place_in_bin(score, edges)
            return cls(total, *(Cells.placed(index[w], parts[w], total=total) for w in (positive, ~positive)))
        cut = None if threshold is None else int(bin_of(threshold, edges))
        classes = (Cells.of(index[w], whose[w], total=total, smallest=smallest, cut=cut) for w in (positive, ~positive))
        return cls(total, *classes)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the wire."""
        return {
            "bins": self.bins,
            "positives": self.positives and self.positives.to_json(self.bins),
            "negatives": self.negatives and self.negatives.to_json(self.bins),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ScoreHistogram:
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError where it is not what `to_json` writes."""
        bins = int(data["bins"])
        cells = (None if data[k] is None else Cells.from_json(data[k], bins) for k in ("positives", "negatives"))
        return cls(bins, *cells)

"""The sites' score histograms put together: the AUC of all cases with a bound on its error, a threshold, net benefit.

Shapes: S sites, B bins. Sites may have merged their bins into different cells. What is certain follows from the cells
alone: a positive's cell that begins where a negative's ends, or later, wins the pair. For the rest each cell's images
are shared out over its bins in proportion to where the other sites' images of the class lie.
"""

from __future__ import annotations

__all__ = ["NetBenefit", "Pool", "share_out"]

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from common.bins import logit_edges
from common.histogram import Cells, ScoreHistogram
from common.influence import OtherCases, Others

_LEAST = 1e-9
"""No bin is taken for impossible."""

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_SHARINGS = 20
"""Rounds of sharing out; more would follow the noise of single cells."""


@dataclass(frozen=True)
class NetBenefit:
    """Net benefit per case of treating at `threshold`: by the model, or everybody. Vickers & Elkin 2006.

    `low`, `high`: the model's 95 % interval by patient, where a center told it by itself. `model` is None where a
    decision there would be about too few patients for the center's policy; `why` is then `small-cell`.
    """

    threshold: float
    model: float | None
    everybody: float
    low: float | None = None
    high: float | None = None
    why: str | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """Histograms of several sites over the bins between `edges`; a site with a suppressed class must not be in it."""

    histograms: tuple[ScoreHistogram, ...]
    edges: Floats

    @cached_property
    def positives(self) -> Floats:
        """Images by site and bin, (S, B)."""
        return share_out([_there(h.positives) for h in self.histograms], self.edges)

    @cached_property
    def negatives(self) -> Floats:
        """Images by site and bin, (S, B)."""
        return share_out([_there(h.negatives) for h in self.histograms], self.edges)

    @property
    def pairs(self) -> int:
        """Pairs of a positive and a negative image."""
        return sum(_there(h.positives).images for h in self.histograms) * sum(
            _there(h.negatives).images for h in self.histograms
        )

    @property
    def auc(self) -> float | None:
        """AUC of all cases, ties in a bin counted half, in [0, 1]; None if a class is absent."""
        if not self.pairs:
            return None
        positive, negative = self.positives.sum(axis=0), self.negatives.sum(axis=0)
        return float(positive @ (np.cumsum(negative) - negative / 2) / self.pairs)

    @property
    def auc_error_bound(self) -> float | None:
        """Half the share of pairs that fall into one bin, or into cells that overlap;
        unmerged, the error of `auc` at most.
        """
        if not self.pairs:
            return None
        below, upto = self._certain("negatives")
        starts = np.zeros((2, len(self.edges) + 1))
        for histogram in self.histograms:
            start, end, count = _there(histogram.positives).spans(len(self.edges) + 1)
            np.add.at(starts[0], start, count)
            np.add.at(starts[1], end - 1, count)
        surely, perhaps = starts[0] @ below.sum(axis=0), starts[1] @ upto.sum(axis=0)
        return float((perhaps - surely) / 2 / self.pairs)

    def others(self, site: int) -> Others:
        """What the site of this number in `histograms` needs for its placements: the sum of the other sites."""
        classes = []
        for name, counts in (("positives", self.positives), ("negatives", self.negatives)):
            below, upto = self._certain(name)
            told = [tuple(np.round(x.sum(axis=0) - x[site], 6).tolist()) for x in (counts, below, upto)]
            certain = OtherCases(told[0], **self.places(name, without=site))
            classes.append(certain if self._unmerged else OtherCases(told[0], told[1], told[2]))
        return Others(tuple(self.edges.tolist()), *classes)

    def places(self, name: str, *, without: int | None = None) -> dict[str, tuple[int, ...]]:
        """Sums of places and squares by bin of a class, of all sites or of all but one;
        empty where a site told none.
        """
        cells = [_there(getattr(h, name)) for h in self.histograms]
        if not cells or any(cell.places is None or cell.squares is None for cell in cells):
            return {}
        left = [cell for number, cell in enumerate(cells) if number != without]
        empty = np.zeros(len(self.edges) + 1, dtype=np.int64)
        sums = {"places": [c.places for c in left], "squares": [c.squares for c in left]}
        return {key: tuple(sum(map(np.asarray, told), empty).tolist()) for key, told in sums.items()}

    @property
    def _unmerged(self) -> bool:
        return all(len(_there(c).starts) == h.bins for h in self.histograms for c in (h.positives, h.negatives))

    def _certain(self, name: str) -> tuple[Whole, Whole]:
        """Images of a class by site that surely lie below each bin, and that may lie in it or below, (S, B) each."""
        bins = len(self.edges) + 1
        below, upto = np.zeros((2, len(self.histograms), bins + 1), dtype=np.int64)
        for row, histogram in enumerate(self.histograms):
            start, end, count = _there(getattr(histogram, name)).spans(bins)
            np.add.at(below[row], end, count)
            np.add.at(upto[row], start, count)
        return np.cumsum(below, axis=1)[:, :-1], np.cumsum(upto, axis=1)[:, :-1]

    def threshold_at(self, sensitivity: float = 0.90) -> float | None:
        """The largest edge t at which `p >= t` surely finds `sensitivity` of the positives; None without positives.

        Unmerged, at most one bin below the exact threshold; 0 where only every case is enough.
        """
        cells = [_there(h.positives) for h in self.histograms]
        total = sum(cell.images for cell in cells)
        if not total:
            return None
        surely = np.zeros(len(self.edges) + 2)
        for cell in cells:
            start, _, count = cell.spans(len(self.edges) + 1)
            np.add.at(surely, start, count)
        found = np.cumsum(surely[::-1])[::-1][:-1] / total
        return float(np.append(0.0, self.edges)[np.flatnonzero(found >= sensitivity)[-1]])

    def net_benefit(self, thresholds: ArrayLike) -> tuple[NetBenefit, ...]:
        """Decision curve: (true positives − false positives · t / (1 − t)) / cases at each t in (0, 1); empty without
        cases.

        Cases within a bin are taken as evenly spread in logit.
        """
        classes = self.positives.sum(axis=0), self.negatives.sum(axis=0)
        total = float(sum(c.sum() for c in classes))
        wanted = np.asarray(thresholds, dtype=np.float64)
        if not total:
            return ()
        above = [c.sum() - _reached(c, self.edges, wanted) for c in classes]
        odds = wanted / (1 - wanted)
        model = (above[0] - above[1] * odds) / total
        everybody = (classes[0].sum() - classes[1].sum() * odds) / total
        points = zip(wanted.tolist(), model.tolist(), everybody.tolist(), strict=True)
        return tuple(NetBenefit(t, benefit, all_called) for t, benefit, all_called in points)


def share_out(cells: Sequence[Cells], edges: Floats) -> Floats:
    """Every site's cells as images by bin, (S, B): a site's row adds up to its cells.

    One class's density over bins, at first a normal one in logit, is fitted to the cells of all sites
    (self-consistency, Turnbull 1976, stopped early) and tells how each cell's images lie within it. Unmerged cells are
    returned as they are.
    """
    bins = len(edges) + 1
    spans = [cell.spans(bins) for cell in cells]
    if all(len(cell.starts) == bins for cell in cells):
        return np.array([count for _, _, count in spans], dtype=np.float64).reshape(len(cells), bins)
    density = _normal(spans, edges)
    rows = np.zeros((len(cells), bins))
    for _ in range(_SHARINGS):
        reached = np.concatenate([[0.0], np.cumsum(density)])
        for row, (start, end, count) in zip(rows, spans, strict=True):
            mass = reached[end] - reached[start]
            rate = np.divide(count, mass, out=np.zeros(len(count)), where=mass > 0)
            row[:] = np.repeat(rate, end - start) * density
        total = rows.sum()
        if not total:
            break
        density = rows.sum(axis=0) / total
    return rows


def _normal(spans: Sequence[tuple[Whole, Whole, Whole]], edges: Floats) -> Floats:
    """The share of each bin, (B,), under a normal law in logit through the boundaries of all sites' cells."""
    whole = logit_edges(edges)
    places, quantiles = [], []
    for start, _, count in spans:
        if count.sum():
            places.append(whole[start[1:]])
            quantiles.append(ndtri(np.cumsum(count)[:-1] / count.sum()))
    x, z = np.concatenate([*places, []]), np.concatenate([*quantiles, []])
    x, z = x[np.isfinite(z)], z[np.isfinite(z)]
    spread = float(np.polyfit(z, x, 1)[0]) if len(np.unique(z)) > 1 else 0.0
    if spread <= 0:
        return np.full(len(whole) - 1, 1 / (len(whole) - 1))
    reached = ndtr((whole - (x.mean() - spread * z.mean())) / spread)
    share: Floats = np.maximum(np.diff(reached), _LEAST)
    share /= share.sum()
    return share


def _reached(counts: Floats, edges: Floats, p: Floats) -> Floats:
    """Cases below each p, straight lines in logit between the edges."""
    with np.errstate(divide="ignore"):
        wanted = np.log(p / (1 - p))
    reached: Floats = np.interp(wanted, logit_edges(edges), np.concatenate([[0.0], np.cumsum(counts)]))
    return reached


def _there(cells: Cells | None) -> Cells:
    if cells is None:
        raise ValueError("a site with a suppressed class cannot be pooled; leave it out and say so")
    return cells

"""Simulated federations of scored cases, and their evaluation from sums, for tests and proofs of the evidence."""

from __future__ import annotations

__all__ = [
    "KINDS",
    "Cases",
    "Federation",
    "from_sums",
    "laid_together",
    "paired",
    "pooled_bins",
    "scored",
    "with_truth",
]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from common.bins import FIXED, bin_of, quantile_edges
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums, place
from common.pooled import Pool

Cases = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]
"""Labels (N,), probabilities (N,) and patients (N,) of one site."""

KINDS = {"plain": 1.0, "confident": 3.0, "saturated": 12.0, "saturated float32": 12.0, "narrow": 0.05}
"""Factors of the logits; in single precision a saturated score is often exactly 1."""


@dataclass(frozen=True)
class Federation:
    """The test cases of every site, and the val cases that the first pass sees."""

    test: list[Cases]
    val: list[Cases]


def scored(rng: np.random.Generator, kind: str, *, sites: int = 5, patients: int = 659) -> Federation:
    """Sites of unequal size and prevalence, 1 to 6 images a patient, 3 on average,
    one label in twenty unlike its patient's.
    """
    share = rng.dirichlet(np.full(sites, 6.0))
    separation, prevalence = rng.uniform(0.8, 3.0), rng.uniform(0.25, 0.6)
    test, val = [], []
    for part in share:
        shift, positives = rng.normal(0, 0.4), float(np.clip(rng.normal(prevalence, 0.08), 0.1, 0.8))
        for kept, all_patients, least in ((test, patients, 20), (val, patients // 3, 12)):
            count = max(least, round(part * all_patients))
            images = np.minimum(rng.integers(1, 7, count), rng.integers(2, 8, count))
            whose = np.repeat(np.arange(count), images)
            labels = rng.permutation(count)[whose] < max(6, positives * count)
            labels ^= rng.random(len(labels)) < 0.05
            x = rng.standard_normal(count)[whose] + rng.standard_normal(len(whose))
            p = expit(KINDS[kind] * (x + shift + separation * (labels - 0.5)))
            kept.append((labels, p.astype(np.float32).astype(np.float64) if "float32" in kind else p, whose))
    return Federation(test, val)


def with_truth(
    rng: np.random.Generator, *, models: int = 1, sites: int = 5, patients: tuple[int, int] = (30, 90)
) -> tuple[list[list[Cases]], float]:
    """By model the sites' cases, and the AUC that every model has in truth.

    Binormal; patients share half of an image's variance, models half of a patient's; labels are the patient's.
    """
    separation, shifts = rng.uniform(0.8, 2.5), rng.normal(0, 0.2, sites)
    of_model: list[list[Cases]] = [[] for _ in range(models)]
    weights = np.empty((2, sites))
    for s, shift in enumerate(shifts):
        counts = rng.integers(*patients, endpoint=True), rng.integers(*patients, endpoint=True)
        weights[:, s] = counts
        whose = np.repeat(np.arange(sum(counts)), rng.integers(1, 7, sum(counts)))
        labels = whose < counts[0]
        shared = rng.standard_normal(sum(counts)), rng.standard_normal(len(whose))
        for cases in of_model:
            mine = (rng.standard_normal(len(part)) for part in shared)
            of_patient, of_image = ((a + b) / np.sqrt(2) for a, b in zip(shared, mine, strict=True))
            x = of_patient[whose] + of_image + shift + separation * labels
            cases.append((labels, expit(x), whose))
    wins = ndtr((separation + shifts[:, None] - shifts[None, :]) / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return of_model, float(weights[0] @ wins @ weights[1])


def laid_together(sites: Sequence[Cases]) -> Cases:
    """All sites' cases as one site would have them."""
    before = np.cumsum([0, *(whose.max() + 1 for _, _, whose in sites)])
    labels, p, whose = zip(*sites, strict=True)
    return (
        np.concatenate(labels),
        np.concatenate(p),
        np.concatenate([w + b for w, b in zip(whose, before, strict=False)]),
    )


def pooled_bins(
    sites: Sequence[Cases], *, first: Sequence[Cases], bins: int, smallest: int, placed: bool = False
) -> Pool:
    """The sites' histograms, between quantiles of the cases `first`; `placed` as under masks."""
    seen = [ScoreHistogram.of(*c, edges=FIXED, smallest=smallest) for c in first]
    grid = Pool(tuple(h for h in seen if h.positives is not None and h.negatives is not None), FIXED)
    inner = quantile_edges((grid.positives + grid.negatives).sum(axis=0), bins)
    assert bin_of(1.0, inner) < bins
    return Pool(tuple(ScoreHistogram.of(*c, edges=inner, smallest=smallest, placed=placed) for c in sites), inner)


def from_sums(
    sites: Sequence[Cases],
    *,
    bins: int,
    smallest: int = 1,
    first: Sequence[Cases] | None = None,
    placed: bool = False,
) -> tuple[InfluenceSums, Pool]:
    """Both rounds of an evaluation; the first pass sees the cases `first`, or the same; `placed` as under masks."""
    pool = pooled_bins(sites, first=first or sites, bins=bins, smallest=smallest, placed=placed)
    center = pool.auc
    assert center is not None
    total = InfluenceSums.zero(center)
    for number, (labels, p, whose) in enumerate(sites):
        placed = place(labels, p, pool.others(number))
        total = total + InfluenceSums.of(placed, whose, center=center, smallest=smallest)
    return total, pool


def paired(models: Sequence[Sequence[Cases]], *, bins: int, smallest: int = 1) -> InfluenceSums:
    """Sums of the difference of two models' placements on the same cases."""
    pools = [pooled_bins(sites, first=sites, bins=bins, smallest=smallest) for sites in models]
    areas = [pool.auc for pool in pools]
    assert areas[0] is not None
    assert areas[1] is not None
    center = areas[0] - areas[1]
    total = InfluenceSums.zero(center)
    for number, (one, two) in enumerate(zip(*models, strict=True)):
        first, second = (place(c[0], c[1], pool.others(number)) for c, pool in zip((one, two), pools, strict=True))
        total = total + InfluenceSums.of(first - second, one[2], center=center, smallest=smallest)
    return total

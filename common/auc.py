"""The area under the ROC curve: exact, by patient, over classes, with an interval that respects patients.

Shapes: N images, P patients (clusters), K classes. Labels are 0/1 or Boolean, 1 the positive class; scores are float64
and may be on any monotone scale. Scores that are not finite raise ValueError. Everything costs O(N log N).
"""

from __future__ import annotations

__all__ = [
    "ClusteredAuc",
    "Roc",
    "Spread",
    "auc",
    "clustered_auc",
    "macro_auc",
    "midranks",
    "patient_auc",
    "roc",
    "score_interval",
]

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri, stdtrit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_CANCELLED = 1e-9
"""A variance below this share of its two class terms is rounding, not spread."""


@dataclass(frozen=True)
class ClusteredAuc:
    """An AUC in [0, 1] with variance and interval; what does not exist is None and `why` says why.

    `why` is `one-class` (no AUC) or `too-few` (an AUC, but fewer than two patients in a class: no variance, no
    interval).
    """

    auc: float | None
    variance: float | None
    low: float | None
    high: float | None
    why: str | None = None


@dataclass(frozen=True)
class Spread:
    """What the variance of an AUC, or of a difference of two, rests on.

    For each class of images: the number of patients that have it, Σd² and Σd⁴ of these patients' influences d (the sum
    of what a patient's images of the class add to the AUC's error; for a binary AUC, of placement − AUC divided by the
    class's images); `patients` of any class; `product` Σ dd' over pairs of classes. A binary AUC has two classes, a
    macro AUC as many as the task (`common.macro`).
    """

    classes: tuple[tuple[int, float, float], ...]
    patients: int
    product: float

    @classmethod
    def of(cls, positive_P: Floats, negative_P: Floats, *, positives: int, negatives: int) -> Spread:
        """From every patient's influences, (P,), 0 where a patient lacks the class; and the patients that have it."""
        both = tuple(
            (count, float(d @ d), float((d * d) @ (d * d)))
            for d, count in ((positive_P, positives), (negative_P, negatives))
        )
        return cls(both, len(positive_P), float(positive_P @ negative_P))

    @property
    def terms(self) -> tuple[float, ...] | None:
        """Obuchowski's S10 / M, S01 / N and 2 S11 / (M N): each class's, and the last what pairs of classes share.

        None where a class has fewer than two patients.
        """
        if min(patients for patients, _, _ in self.classes) < 2:
            return None
        alone = [patients / (patients - 1) * squares for patients, squares, _ in self.classes]
        return *alone, 2 * self.patients / (self.patients - 1) * self.product

    @property
    def variance(self) -> float | None:
        """Obuchowski 1997, equations 3 to 6; None where a class has fewer than two patients."""
        return None if self.terms is None else max(0.0, sum(self.terms))

    @cached_property
    def vanishes(self) -> bool:
        """Whether what is left of the variance is rounding."""
        return self.terms is None or sum(self.terms) <= _CANCELLED * sum(self.terms[:-1])

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of the sum of the classes' variances, at least 1.

        A high AUC rests on the few patients that are ranked wrong, so a class counts 3 (Σd²)² / Σd⁴ patients, which is
        their number for normal deviations, at most the number.
        """
        if self.terms is None:
            return 1.0
        weight = 0.0
        for (patients, squares, fourth), variance in zip(self.classes, self.terms, strict=False):
            if variance > 0 and fourth > 0:
                effective = min(float(patients), 3 * squares**2 / fourth)
                weight += variance**2 / (effective - 1)
        return max(1.0, sum(self.terms[:-1]) ** 2 / weight) if weight else 1.0

    def around(self, area: float, *, confidence: float = 0.95) -> ClusteredAuc:
        """The AUC `area` with this variance and the interval that `clustered_auc` describes."""
        if self.variance is None:
            return ClusteredAuc(area, None, None, None, "too-few")
        if self.vanishes or not 0 < area < 1:
            fewest, *others = sorted(patients for patients, _, _ in self.classes)
            low, high = score_interval(area, fewest, sum(others), confidence=confidence)
            return ClusteredAuc(area, self.variance, low, high)
        quantile = float(stdtrit(self.degrees, (1 + confidence) / 2))
        reach = quantile * np.sqrt(self.variance) / (area * (1 - area))
        return ClusteredAuc(area, self.variance, float(expit(logit(area) - reach)), float(expit(logit(area) + reach)))


@dataclass(frozen=True)
class Roc:
    """A ROC curve from (0, 0) to (1, 1): `score >= thresholds[i]` gives the point (`fpr[i]`, `tpr[i]`)."""

    fpr: Floats
    tpr: Floats
    thresholds: Floats


def auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """The chance that a positive image scores above a negative one, ties half, in [0, 1]; None if a class is absent.

    Mann–Whitney by midranks. Hanley & McNeil 1982.
    """
    positive, values = _cases(labels, scores)
    m = int(positive.sum())
    n = len(positive) - m
    if not m or not n:
        return None
    return float((midranks(values)[positive].sum() - m * (m + 1) / 2) / (m * n))


def patient_auc(labels: ArrayLike, scores: ArrayLike, patients: ArrayLike) -> float | None:
    """AUC of the mean score per patient; a patient with any positive image is positive. None if a class is absent."""
    positive, values = _cases(labels, scores)
    code_N = np.unique(np.asarray(patients), return_inverse=True)[1]
    count_P = np.bincount(code_N)
    return auc(np.bincount(code_N, weights=positive) > 0, np.bincount(code_N, weights=values) / count_P)


def macro_auc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Mean over classes of the one-against-rest AUC; `labels` (N,) in 0..K-1, `scores` (N, K).

    A class that is absent, or is the only one, has no AUC and does not count; None if no class has one. Hand & Till
    2001.
    """
    label_N, score_NK = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    areas = [auc(label_N == k, score_NK[:, k]) for k in range(score_NK.shape[1])]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def roc(labels: ArrayLike, scores: ArrayLike) -> Roc | None:
    """The ROC curve's corners, the first at an infinite threshold; None if a class is absent."""
    positive, values = _cases(labels, scores)
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-values, kind="stable")
    falling, hit = values[order], positive[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    tp = np.append(0, np.cumsum(hit)[last])
    fp = np.append(0, np.cumsum(~hit)[last])
    corner = np.ones(len(tp), dtype=np.bool_)
    corner[1:-1] = np.diff(tp)[:-1] * np.diff(fp)[1:] != np.diff(tp)[1:] * np.diff(fp)[:-1]
    thresholds = np.append(np.inf, falling[last])
    return Roc(fp[corner] / fp[-1], tp[corner] / tp[-1], thresholds[corner])


def clustered_auc(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, *, confidence: float = 0.95
) -> ClusteredAuc:
    """AUC over images with Obuchowski's variance, which lets images of one patient depend on each other.

    `patients` (N,) names the cluster of each image; two centers' patients must have different names. Variance:
    structural components summed by patient (Obuchowski 1997, equations 3 to 6; DeLong et al. 1988 if every patient has
    one image).

    The interval is symmetric on the logit scale, with a t quantile whose degrees of freedom count the patients that
    carry the variance (`Spread.degrees`). Over simulated designs of 15 to 600 patients and true AUCs of .70 to .99 it
    covers 94 to 97 % (98 to 99 % where one sample in four has AUC 1); the normal quantile covers 88 to 96 %. Where the
    variance vanishes (AUC 0 or 1, or every score the same) `score_interval` on numbers of patients takes over, so that
    15 patients with AUC 1 do not look certain.
    """
    positive, values = _cases(labels, scores)
    if positive.all() or not positive.any():
        return ClusteredAuc(None, None, None, None, "one-class")
    code_N = np.unique(np.asarray(patients), return_inverse=True)[1]
    total = int(code_N.max()) + 1
    with_positive = len(np.unique(code_N[positive]))
    with_negative = len(np.unique(code_N[~positive]))
    area, v10, v01 = _placements(positive, values)
    pull_P = np.bincount(code_N[positive], weights=v10 - area, minlength=total) / len(v10)
    push_P = np.bincount(code_N[~positive], weights=v01 - area, minlength=total) / len(v01)
    spread = Spread.of(pull_P, push_P, positives=with_positive, negatives=with_negative)
    return spread.around(area, confidence=confidence)


def score_interval(area: float, positives: int, negatives: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """An interval for an AUC that needs no estimated variance and has width at 0 and 1.

    `positives` and `negatives` count independent units (patients). θ is kept if |area − θ| ≤ z √V(θ), V after Hanley
    and McNeil with both class sizes replaced by their mean in the shape terms: Newcombe 2006, part 2, method 5.
    """
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    shape = (positives + negatives) / 2 - 1

    def refuted(theta: float, point: float) -> bool:
        spread = 1 + shape * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (point - theta) ** 2 > z2 * theta * (1 - theta) * spread / (positives * negatives)

    def lower(point: float) -> float:
        low, high = 0.0, point
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if refuted(middle, point) else (low, middle)
        return low

    return lower(area), 1 - lower(1 - area)


def midranks(values: Floats) -> Floats:
    """Ranks from 1, the mean rank where values tie; exact in float64."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


def _placements(positive: Flags, values: Floats) -> tuple[float, Floats, Floats]:
    """AUC, each positive's share of negatives below it (M,), each negative's share of positives above it (N,)."""
    rank = midranks(values)
    m, n = int(positive.sum()), int((~positive).sum())
    v10 = (rank[positive] - midranks(values[positive])) / n
    v01 = 1 - (rank[~positive] - midranks(values[~positive])) / m
    return float((rank[positive].sum() - m * (m + 1) / 2) / (m * n)), v10, v01


def _cases(labels: ArrayLike, scores: ArrayLike) -> tuple[Flags, Floats]:
    """Labels as flags, scores as float64, of one length and finite."""
    positive, values = np.asarray(labels).astype(np.bool_), np.asarray(scores, dtype=np.float64)
    if positive.shape != values.shape or values.ndim != 1:
        raise ValueError(f"labels {positive.shape} and scores {values.shape} must be two vectors of one length")
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise ValueError(f"{wrong} of {len(values)} scores are not finite; did training diverge?")
    return positive, values

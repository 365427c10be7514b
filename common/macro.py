"""The macro AUC's patient-clustered variance and paired test, from sums over patients that add across sites.

A macro AUC is the mean over classes of one-against-rest AUCs, which share their images: an image of class j is a
positive in question j and a negative in every other. So a patient's influence is the mean over questions of its
influences, and it is kept by the class of the images that it comes from. With two classes, whose questions mirror each
other, the variance is Obuchowski's (1997, equations 3 to 6) of the one AUC; a class's images are there by chance, as
patients are.

Shapes: N images, P patients, K classes.
"""

from __future__ import annotations

__all__ = ["MacroSums", "clustered_macro_auc", "macro_difference", "macro_of", "macro_placed", "summed"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.auc import ClusteredAuc, Spread
from common.errors import RunFailed
from common.influence import Difference, InfluenceSums, Placements, place

Floats = NDArray[np.float64]

_Totals = tuple[float, float]


@dataclass(frozen=True)
class MacroSums:
    """Sums over a site's patients. They add across sites that used the same centers and totals, and disjoint patients.

    Per patient and class j: c, the sum over its images of class j and over questions of placement − center, divided by
    that question's share of positives or negatives and by the number of questions; m, the number of these images.
    `patients` have each class, (K,), and `everybody` any; `products` are Σ over patients of every two of (c, m), the
    upper triangle of (2K, 2K) by rows; `fourth` Σc⁴, (K,), which alone are not moved to the AUC later.
    """

    patients: tuple[int, ...]
    everybody: int
    products: tuple[float, ...]
    fourth: tuple[float, ...]

    @classmethod
    def zero(cls, classes: int) -> MacroSums:
        """No patient."""
        return cls((0,) * classes, 0, (0.0,) * (classes * (2 * classes + 1)), (0.0,) * classes)

    @classmethod
    def of(
        cls,
        placed: Sequence[Placements | None],
        labels: ArrayLike,
        patients: ArrayLike,
        *,
        centers: Sequence[float],
        totals: Sequence[_Totals],
        smallest: int = 1,
    ) -> MacroSums:
        """A site's sums. `placed` has every question's placements of the same images (None: the question is not asked,
        since its class is nowhere), `centers` theirs, `totals` all sites' positives and negatives in it; `labels` (N,)
        in 0..K−1.

        Where patients with images of two classes are there, but fewer than `smallest`, what these two have in common
        stays at the site.
        """
        label, code = np.asarray(labels, dtype=np.int64), np.unique(np.asarray(patients), return_inverse=True)[1]
        count, classes = int(code.max(initial=-1)) + 1, len(placed)
        pull = np.zeros(len(label))
        asked = [k for k, one in enumerate(placed) if one is not None]
        for k in asked:
            own, rest = totals[k]
            one = placed[k]
            assert one is not None
            weight = (own + rest) / len(asked) / np.where(one.positive, max(own, 1), max(rest, 1))
            pull += weight * (one.share[0] - centers[k])
        c, m = np.zeros((2, classes, count))
        for j in range(classes):
            which = label == j
            c[j] = np.bincount(code[which], weights=pull[which], minlength=count)
            m[j] = np.bincount(code[which], minlength=count)
        has = (m > 0).astype(np.int64)
        shared = has @ has.T
        told = np.tile((shared >= smallest) | np.eye(classes, dtype=np.bool_), (2, 2))
        every = np.where(told, np.concatenate([c, m]) @ np.concatenate([c, m]).T, 0.0)
        upper = every[np.triu_indices(2 * classes)]
        return cls(tuple(has.sum(axis=1).tolist()), count, tuple(upper.tolist()), tuple((c**4).sum(axis=1).tolist()))

    def __add__(self, other: MacroSums) -> MacroSums:
        return MacroSums(
            tuple(a + b for a, b in zip(self.patients, other.patients, strict=True)),
            self.everybody + other.everybody,
            tuple(a + b for a, b in zip(self.products, other.products, strict=True)),
            tuple(a + b for a, b in zip(self.fourth, other.fourth, strict=True)),
        )

    def spread(self, questions: Sequence[InfluenceSums | None]) -> Spread:
        """What the variance rests on, with the totals of all questions (None where not asked), which say where each
        class's influences have their means.
        """
        there = [(k, one) for k, one in enumerate(questions) if one is not None and all(one.images)]
        every = sum(there[0][1].images)
        classes = len(questions)
        shift = np.zeros(classes)
        for k, one in there:
            (m, n), (a, b) = one.images, one.totals
            weight = every / len(there)
            own = np.arange(classes) == k
            shift += np.where(own, weight * a / m / m, weight * b / n / n)
        full = np.zeros((2 * classes, 2 * classes))
        full[np.triu_indices(2 * classes)] = self.products
        full = full + np.triu(full, 1).T
        move = np.concatenate([np.eye(classes), -np.diag(shift)], axis=1)
        moved = move @ full @ move.T / every**2
        return Spread(
            classes=tuple(
                (patients, max(0.0, float(moved[j, j])), self.fourth[j] / every**4)
                for j, patients in enumerate(self.patients)
                if patients
            ),
            patients=self.everybody,
            product=float(np.triu(moved, 1).sum()),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], *, classes: int) -> MacroSums:
        """The inverse of `to_json`. Raises RunFailed where it is not what `to_json` writes of so many classes."""
        try:
            found = cls(
                tuple(map(int, data["patients"])),
                int(data["everybody"]),
                tuple(map(float, data["products"])),
                tuple(map(float, data["fourth"])),
            )
            shape = cls.zero(classes)
            for name in ("patients", "products", "fourth"):
                values = getattr(found, name)
                if len(values) != len(getattr(shape, name)) or not np.isfinite(values).all():
                    raise ValueError(name)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunFailed(f"macro sums cannot be read ({error}); do all sites run the same release?") from error
        return found


def macro_of(
    questions: Sequence[InfluenceSums | None], sums: MacroSums | None, *, confidence: float = 0.95
) -> ClusteredAuc:
    """The mean over questions of their AUCs, with variance and interval;
    without `sums` the mean alone (`suppressed`).
    """
    area = _mean(questions)
    if area is None:
        return ClusteredAuc(None, None, None, None, "one-class")
    if sums is None:
        return ClusteredAuc(area, None, None, None, "suppressed")
    return sums.spread(questions).around(min(1.0, max(0.0, area)), confidence=confidence)


def macro_difference(
    questions: Sequence[InfluenceSums | None], sums: MacroSums | None, *, confidence: float = 0.95
) -> Difference:
    """The same for sums of differences of placements: Δ with its t interval and test."""
    delta = _mean(questions)
    if delta is None:
        return Difference(None, None, None, None, None, "one-class")
    if sums is None:
        return Difference(delta, None, None, None, None, "suppressed")
    spread = sums.spread(questions)
    if spread.variance is None:
        return Difference(delta, None, None, None, None, "too-few")
    error = 0.0 if spread.vanishes else float(np.sqrt(spread.variance))
    return Difference.of(delta, error, spread.degrees, confidence=confidence)


def macro_placed(labels: ArrayLike, scores: ArrayLike) -> tuple[Placements | None, ...]:
    """Every class's placements of a single site's images against its rest, exact; None where there is no rest, or no
    image of the class. `labels` (N,) in 0..K−1, `scores` (N, K).
    """
    label_N, score_NK = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    return tuple(
        place(label_N == k, score_NK[:, k]) if 0 < (label_N == k).sum() < len(label_N) else None
        for k in range(score_NK.shape[1])
    )


def summed(
    placed: Sequence[Placements | None], labels: ArrayLike, patients: ArrayLike
) -> tuple[tuple[InfluenceSums | None, ...], MacroSums]:
    """A single site's sums of its placements, or of their differences, each around its own mean."""
    centers = [0.0 if one is None else float(one.share[0, one.positive].mean()) for one in placed]
    questions = tuple(
        None if one is None else InfluenceSums.of(one, patients, center=center)
        for one, center in zip(placed, centers, strict=True)
    )
    totals = [(0.0, 0.0) if one is None else (float(one.images[0]), float(one.images[1])) for one in questions]
    return questions, MacroSums.of(placed, labels, patients, centers=centers, totals=totals)


def clustered_macro_auc(labels: ArrayLike, scores: ArrayLike, patients: ArrayLike) -> ClusteredAuc:
    """The macro AUC of a single site's images with variance and interval,
    as `common.auc.clustered_auc` for two classes.

    `labels` (N,) in 0..K−1, `scores` (N, K), `patients` (N,). A class that is absent does not count.
    """
    return macro_of(*summed(macro_placed(labels, scores), labels, patients))


def _mean(questions: Sequence[InfluenceSums | None]) -> float | None:
    known = [one.estimate for one in questions if one is not None and one.estimate is not None]
    return float(np.mean(known)) if known else None

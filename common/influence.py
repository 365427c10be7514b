"""The pooled AUC, its patient-clustered variance and the paired test of two models, from sums over patients that add.

In the second round a site places each of its images among the images of the other class: exactly among its own, by the
other sites' histogram among theirs. A positive's placement is the share of negatives below it, a negative's the share
of positives above it, ties half. Deviations from a common center, summed by patient, are a patient's influence; only
their sums and products over patients leave the site. They give Obuchowski's variance (1997, equations 3 to 6), and,
from the difference of two models' placements, the clustered paired test (DeLong et al. 1988 with one image a patient).

Shapes: N images, M of them positive, P patients, B bins.
"""

from __future__ import annotations

__all__ = ["Difference", "mean_difference", "InfluenceSums", "OtherCases", "Others", "Placements", "place"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtr, stdtrit

from common.auc import ClusteredAuc, Spread, midranks
from common.bins import bin_of, place_in_bin, share_of_bin
from common.errors import RunFailed

Floats = NDArray[np.float64]

_PART = 1 / np.sqrt(12)
"""Standard deviation of a case within its part of a bin, in parts."""


@dataclass(frozen=True)
class OtherCases:
    """The other sites' images of one class over shared bins, each (B,), as one site needs them.

    `counts`: images by bin, shared out where cells were merged; `below`: images that surely lie in lower bins; `upto`:
    images that may lie in this bin or a lower one. Without `below` and `upto` the counts are certain. `places` and
    `squares` are those of `common.histogram.Cells`; without them images lie evenly in their bin.
    """

    counts: tuple[float, ...] = (0.0,)
    below: tuple[int, ...] | None = None
    upto: tuple[int, ...] | None = None
    places: tuple[int, ...] | None = None
    squares: tuple[int, ...] | None = None

    @property
    def total(self) -> float:
        """All images of the class at the other sites."""
        return float(self.upto[-1] if self.upto else sum(self.counts))

    def beneath(self, bin_n: NDArray[np.int64], share_n: Floats, place_n: NDArray[np.int64]) -> Floats:
        """Images below each of some places: as estimated, at least, at most, (3, n)."""
        there = np.asarray(self.counts)
        reached = np.cumsum(there)
        below = reached - there if self.below is None else np.asarray(self.below)
        upto = reached if self.upto is None else np.asarray(self.upto)
        known = self.places is not None and self.squares is not None
        within = self._placed(bin_n, place_n) if known else share_n * there[bin_n]
        return np.stack([(reached - there)[bin_n] + within, below[bin_n], upto[bin_n]])

    def _placed(self, bin_n: NDArray[np.int64], place_n: NDArray[np.int64]) -> Floats:
        """Images of its bin below each place, (n,), where the sums of places are known; half of those in the same part.

        Sum and sum of squares give one or two images away to their parts; more are taken as normal.
        """
        count, first, second = (
            np.asarray(x, dtype=np.float64)[bin_n] for x in (self.counts, self.places, self.squares)
        )
        there = np.maximum(count, 1)
        middle = first / there
        spread = np.sqrt(np.maximum(second / there - middle**2, 0))
        two = (ndtr((place_n - middle - spread) / _PART) + ndtr((place_n - middle + spread) / _PART)) / 2
        many = ndtr((place_n - middle) / np.hypot(spread, _PART))
        return np.asarray(count * np.where(count <= 2, two, many), dtype=np.float64)


@dataclass(frozen=True)
class Others:
    """The other sites' images between `edges`; as it stands, there is no other site."""

    edges: tuple[float, ...] = ()
    positives: OtherCases = OtherCases()
    negatives: OtherCases = OtherCases()


@dataclass(frozen=True, eq=False)
class Placements:
    """One model's placements at a site: of the images flagged `positive` (N,) and of the rest.

    `share` (3, N): as estimated, at least, at most. Placements of two models on the same images subtract.
    """

    positive: NDArray[np.bool_]
    share: Floats

    def __sub__(self, other: Placements) -> Placements:
        return Placements(self.positive, self.share - other.share[[0, 2, 1]])


def place(labels: ArrayLike, p: ArrayLike, others: Others | None = None) -> Placements:
    """Place a site's images: labels (N,) 0/1, scores (N,). Where the other class is absent everywhere it is nan."""
    others = others or Others()
    positive, score = np.asarray(labels).astype(np.bool_), np.asarray(p, dtype=np.float64)
    rank = midranks(score)
    index, within = bin_of(score, others.edges), share_of_bin(score, others.edges)
    within[_tied(score)] = 0.5
    part = place_in_bin(score, others.edges)
    share = np.full((3, len(score)), np.nan)
    for which, theirs in ((positive, others.negatives), (~positive, others.positives)):
        mine, total = rank[which] - midranks(score[which]), int((~which).sum()) + theirs.total
        if total:
            share[:, which] = (mine + theirs.beneath(index[which], within[which], part[which])) / total
    share[:, ~positive] = 1 - share[:, ~positive][[0, 2, 1]]
    return Placements(positive, share)


def _tied(score: Floats) -> NDArray[np.bool_]:
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    return np.asarray(count[inverse] > 1)


@dataclass(frozen=True)
class Difference:
    """Δ = AUC of the first model − AUC of the second, in [-1, 1], its standard error, 95 % interval and two-sided p.

    What does not exist is None and `why` says why, as in `ClusteredAuc`. Two models that rank alike have p = 1; where Δ
    is the same of every patient, and not 0, nothing says how sure it is, and `why` is `too-few`.
    `degrees` are those of the t law behind interval and p.
    """

    delta: float | None
    error: float | None
    low: float | None
    high: float | None
    p: float | None
    why: str | None = None
    degrees: float = np.inf

    @classmethod
    def of(cls, delta: float, error: float, degrees: float, *, confidence: float = 0.95) -> Difference:
        """By a t law; without any error the two rank alike, or the patients are too few to tell."""
        if not error:
            alike = abs(delta) < 1e-12
            return cls(delta, 0.0, delta, delta, 1.0, None, degrees) if alike else cls(delta, *(None,) * 4, "too-few")
        reach = float(stdtrit(degrees, (1 + confidence) / 2)) * error
        return cls(
            delta, error, delta - reach, delta + reach, 2 * float(stdtr(degrees, -abs(delta) / error)), None, degrees
        )


@dataclass(frozen=True)
class InfluenceSums:
    """Sums over a site's patients. They add across sites that used one `center` and disjoint patients.

    Per patient: u and v, the sums of placement − `center` over positive and over negative images, and m and n, the
    numbers of these images. `totals` are Σu, Σv, `least` and `most` the same where every doubt is decided against and
    for; `products` Σ of uu, vv, uv, um, vn, un, vm, mm, nn, mn; `fourth` Σu⁴, Σv⁴, which alone are not moved to the AUC
    later: the center must be near it.
    """

    center: float
    images: tuple[int, int]
    patients: tuple[int, int, int]
    totals: tuple[float, ...]
    least: tuple[float, ...]
    most: tuple[float, ...]
    products: tuple[float, ...]
    fourth: tuple[float, ...]

    @classmethod
    def zero(cls, center: float) -> InfluenceSums:
        """No patient."""
        return cls(center, (0, 0), (0, 0, 0), *((0.0,) * 2,) * 3, (0.0,) * 10, (0.0,) * 2)

    @classmethod
    def of(cls, placed: Placements, patients: ArrayLike, *, center: float, smallest: int = 1) -> InfluenceSums:
        """A site's sums; `patients` (N,) says whose each image is.

        Where patients with both kinds of images are there, but fewer than `smallest`, each counts as two patients: what
        their two kinds have in common then stays at the site.
        """
        code = np.unique(np.asarray(patients), return_inverse=True)[1]
        total = int(code.max(initial=-1)) + 1
        flags = (placed.positive, ~placed.positive)
        m, n = (np.bincount(code[w], minlength=total).astype(np.float64) for w in flags)
        u, v = (np.bincount(code[w], weights=placed.share[0, w] - center, minlength=total) for w in flags)
        totals, least, most = (tuple(float((row[w] - center).sum()) for w in flags) for row in placed.share)
        both = (m > 0) & (n > 0)
        common = (both if both.sum() >= smallest else np.zeros(total, dtype=np.bool_)).astype(np.float64)
        pairs = (
            (u, u),
            (v, v),
            (u, v * common),
            (u, m),
            (v, n),
            (u, n * common),
            (v, m * common),
            (m, m),
            (n, n),
            (m, n * common),
        )
        return cls(
            center,
            (int(m.sum()), int(n.sum())),
            (int((m > 0).sum()), int((n > 0).sum()), total + int(both.sum() - common.sum())),
            totals,
            least,
            most,
            tuple(float(a @ b) for a, b in pairs),
            (float((u**4).sum()), float((v**4).sum())),
        )

    def __add__(self, other: InfluenceSums) -> InfluenceSums:
        if self.center != other.center:
            raise RunFailed("influence sums around two centers do not add; ask all sites again with one")
        return InfluenceSums(
            self.center,
            (self.images[0] + other.images[0], self.images[1] + other.images[1]),
            tuple(a + b for a, b in zip(self.patients, other.patients, strict=True)),  # type: ignore[arg-type]
            _added(self.totals, other.totals),
            _added(self.least, other.least),
            _added(self.most, other.most),
            _added(self.products, other.products),
            _added(self.fourth, other.fourth),
        )

    @property
    def estimate(self) -> float | None:
        """The AUC, or Δ: both means, that over the class whose counterpart is larger weighing more; within `limits`."""
        if self.means is None or self.limits is None:
            return None
        m, n = self.images
        return min(max((n * self.means[0] + m * self.means[1]) / (m + n), self.limits[0]), self.limits[1])

    @property
    def limits(self) -> tuple[float, float] | None:
        """Between which two values the exact AUC, or Δ, must lie; None if a class is absent."""
        if not all(self.images):
            return None
        least, most = ([t / k for t, k in zip(x, self.images, strict=True)] for x in (self.least, self.most))
        return self.center + max(least), max(self.center + min(most), self.center + max(least))

    @property
    def bound(self) -> float | None:
        """The exact AUC, or Δ, is within this of `estimate`:
        unmerged, half the share of pairs of two sites in one bin.
        """
        if self.estimate is None or self.limits is None:
            return None
        return max(self.estimate - self.limits[0], self.limits[1] - self.estimate)

    @property
    def means(self) -> tuple[float, float] | None:
        """Mean placement of positives and of negatives: each is the AUC; they differ where sites merged their cells."""
        if not all(self.images):
            return None
        first, second = (total / images for total, images in zip(self.totals, self.images, strict=True))
        return self.center + first, self.center + second

    def spread(self) -> Spread:
        """What the variance of the AUC rests on; each class's influences are centered on their own mean."""
        uu, vv, uv, um, vn, un, vm, mm, nn, mn = self.products
        (m, n), (first, second, total) = self.images, self.patients
        a, b = self.totals[0] / m, self.totals[1] / n
        return Spread(
            classes=(
                (first, (uu - 2 * a * um + a * a * mm) / m**2, self.fourth[0] / m**4),
                (second, (vv - 2 * b * vn + b * b * nn) / n**2, self.fourth[1] / n**4),
            ),
            patients=total,
            product=(uv - b * un - a * vm + a * b * mn) / (m * n),
        )

    def auc(self, *, confidence: float = 0.95) -> ClusteredAuc:
        """The AUC with Obuchowski's variance and the interval of `common.auc.clustered_auc`."""
        if self.estimate is None:
            return ClusteredAuc(None, None, None, None, "one-class")
        return self.spread().around(min(1.0, max(0.0, self.estimate)), confidence=confidence)

    def difference(self, *, confidence: float = 0.95) -> Difference:
        """For sums of a difference of placements: Δ with its t interval and test."""
        if self.estimate is None:
            return Difference(None, None, None, None, None, "one-class")
        delta, spread = self.estimate, self.spread()
        if spread.variance is None:
            return Difference(delta, None, None, None, None, "too-few")
        error = 0.0 if spread.vanishes else float(np.sqrt(spread.variance))
        return Difference.of(delta, error, spread.degrees, confidence=confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain data for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> InfluenceSums:
        """The inverse of `to_json`. Raises RunFailed where it is not what `to_json` writes."""
        try:
            zero = cls.zero(float(data["center"]))
            sums = {k: tuple(map(float, data[k])) for k in ("totals", "least", "most", "products", "fourth")}
            counts = {k: tuple(map(int, data[k])) for k in ("images", "patients")}
            for name, values in (sums | counts).items():
                if len(values) != len(getattr(zero, name)) or not np.isfinite(values).all():
                    raise ValueError(name)
            return cls(center=zero.center, **counts, **sums)  # type: ignore[arg-type]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunFailed(f"influence sums cannot be read ({error}); do all sites run the same release?") from error


def mean_difference(sites: Sequence[Difference]) -> Difference:
    """The mean of independent sites' differences, such as of a federated model from each site's own; None with a reason
    where a site has none. Degrees of freedom after Satterthwaite.
    """
    lacking = next((one for one in sites if one.delta is None or one.error is None), None)
    if lacking is not None or not sites:
        return Difference(None, None, None, None, None, (lacking and lacking.why) or "too-few")
    delta = float(np.mean([one.delta for one in sites]))
    squares = np.square([one.error or 0.0 for one in sites])
    weight = float(sum(s**2 / one.degrees for s, one in zip(squares, sites, strict=True)))
    degrees = float(squares.sum()) ** 2 / weight if weight else np.inf
    return Difference.of(delta, float(np.sqrt(squares.sum())) / len(sites), degrees)


def _added(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))

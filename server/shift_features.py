"""How far a center's features lie from the others': a classifier that tells them apart, and the Fréchet distance.

Both come from the sums of `ShiftSums`, in the axes that acquisition does not explain, standardised to one share of
classes. Shapes: Q axes, T draws.
"""

from __future__ import annotations

__all__ = ["Classifier", "Frechet", "classify", "frechet_distance"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from common.shift import Floats, ShiftReference, ShiftSums


@dataclass(frozen=True)
class Classifier:
    """A linear classifier between a center's patients and the others': its AUC on patients it did not see, and p."""

    auc: float
    p: float


@dataclass(frozen=True)
class Frechet:
    """The distance, its 95th percentile without shift, and p. The distance alone says nothing: it is never 0."""

    distance: float
    usual: float
    p: float


def classify(site: ShiftSums, others: Sequence[ShiftSums], reference: ShiftReference) -> Classifier:
    """Classifier two-sample test (Lopez-Paz and Oquab 2017), with Fisher's discriminant so that sums suffice.

    The direction comes from one half of every site's patients and is tested on the other half, both ways; normal scores
    are assumed for the AUC, not for p (patients' mean scores, one-sided).
    """
    total = sum(other.patients for other in others)
    shares = [other.patients / total for other in others]
    size = site.patients + total
    gaps = site.halves_mean - sum(a * other.halves_mean for a, other in zip(shares, others, strict=True))
    scatter = (
        site.halves_scatter * site.patients + sum(other.halves_scatter * other.patients for other in others)
    ) / size  # fmt: skip
    unit = _unit(site, reference) + sum(a**2 * _unit(o, reference) for a, o in zip(shares, others, strict=True))
    areas, scores = [], []
    for learned, tested in ((0, 1), (1, 0)):
        ridge = 1e-3 * np.eye(len(gaps[learned]))
        direction = np.linalg.solve(scatter[learned] + ridge, gaps[learned])
        apart, spread = float(direction @ gaps[tested]), float(direction @ scatter[tested] @ direction)
        areas.append(stats.norm.cdf(apart / np.sqrt(2 * spread + 1e-300)))
        scores.append(apart / np.sqrt(spread * unit + 1e-300))
    return Classifier(float(np.mean(areas)), float(stats.norm.sf(sum(scores) / np.sqrt(2))))


def _unit(site: ShiftSums, reference: ShiftReference) -> float:
    """The variance of a standardised mean over half the patients, for scores of variance 1 within class."""
    which = reference.weights > 0
    return float((reference.weights[which] ** 2 / (site.counts[which] / 2)).sum())


def frechet_distance(
    site: ShiftSums,
    others: Mapping[str, ShiftSums],
    reference: ShiftReference,
    *,
    rng: np.random.Generator,
    draws: int = 199,
) -> Frechet:
    """Fréchet distance of normal distributions (Dowson and Landau 1982), against draws without shift."""
    where = reference.coordinates
    used = slice(where.axes.start, where.products.stop)
    total = sum(other.patients for other in others.values())
    rest = sum(other.patients / total * other.mean for other in others.values())
    q = where.axes.stop - where.axes.start
    keep = np.r_[where.axes, where.products] - used.start

    def noise(sums: ShiftSums) -> Floats:
        own = sums.draws.astype(np.float64)
        scale = np.sqrt(sums.variance / np.maximum((own**2).mean(axis=0), 1e-300))
        weights = rng.standard_normal((draws, len(own))) / np.sqrt(len(own))
        return np.asarray((weights @ (own * scale))[:, used][:, keep])

    here, there = site.mean[used][keep], np.asarray(rest)[used][keep]
    distance = float(_distance(here[None], there[None], q)[0])
    around = there + sum(other.patients / total * noise(other) for other in others.values())
    null = _distance(there + noise(site), around, q)
    p = float((1 + (null >= distance).sum()) / (draws + 1))
    return Frechet(distance, float(np.quantile(null, 0.95)), p)


def _distance(a: Floats, b: Floats, q: int) -> Floats:
    """Squared distances of rows of means and second moments, (T, Q + Q (Q + 1) / 2) each, to (T,)."""
    (mean_a, cov_a), (mean_b, cov_b) = _parts(a, q), _parts(b, q)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))[:, None]) @ vectors.transpose(0, 2, 1)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum(axis=1)
    traces = np.trace(cov_a, axis1=1, axis2=2) + np.trace(cov_b, axis1=1, axis2=2)
    return np.asarray(((mean_a - mean_b) ** 2).sum(axis=1) + traces - 2 * cross, dtype=np.float64)


def _parts(rows: Floats, q: int) -> tuple[Floats, Floats]:
    mean, products = rows[:, :q], rows[:, q:]
    first, second = np.triu_indices(q)
    moment = np.empty((len(rows), q, q))
    moment[:, first, second] = products
    moment[:, second, first] = products
    return mean, moment - mean[:, :, None] * mean[:, None, :]

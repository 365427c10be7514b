"""Do centers differ, and along what: tests from the sites' sums, with one error rate for the whole panel.

Three axes for each center against the centers of reference (itself left out):
- acquisition: descriptors of tissue beside the lesion, standardised to the same share of classes: the largest |z|;
- prevalence: the shares of classes: the largest |z|;
- case mix: the model's features, standardised likewise, less what acquisition explains: squared maximum mean
  discrepancy by random Fourier features (Gretton et al. 2012; Rahimi and Recht 2007).

Null distributions come from a multiplier bootstrap over patients (van der Vaart and Wellner 1996, 2.9). A site sends
few draws; the server weighs them with standard normals as often as it likes, which gives draws of the same conditional
covariance, and scales each coordinate to its exact variance, which the site also sends. For the discrepancy the second
moment of the null is made unbiased (few draws overstate it). The p of all centers and axes are adjusted together by the
smallest p (Westfall and Young 1993), so a panel without shift names a cause in 5 % of cases. The center that differs
most is then taken out of the reference, and the others are compared anew: a center does not differ because another
does.

Shapes: K centers, B draws of a site, T draws of the server, U coordinates, Q axes.
"""

from __future__ import annotations

__all__ = ["ALPHA", "AXES", "Cause", "Comparison", "compare_centers", "make_reference"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from common.randomness import derive
from common.shift import DESCRIPTORS, Coordinates, Floats, ShiftMoments, ShiftReference, ShiftSums

Axis = Literal["acquisition", "prevalence", "case mix"]
Cause = Literal["acquisition", "prevalence", "case mix", "none"]
AXES: tuple[Axis, ...] = ("acquisition", "prevalence", "case mix")
ALPHA = 0.05
_FREQUENCIES, _MOST_AXES = 64, 8


@dataclass(frozen=True, eq=False)
class Comparison:
    """One center against its reference.

    By axis: `statistic`, its `p` alone and `adjusted` for all centers and axes. `difference` (U,) of standardised means
    and `z` (U,), each over its own standard error. `against`: the centers of reference. 95 % of draws
    of the discrepancy without shift stay below `usual_discrepancy`.
    """

    site: str
    against: tuple[str, ...]
    statistic: dict[Axis, float]
    strength: dict[Axis, float]
    p: dict[Axis, float]
    adjusted: dict[Axis, float]
    difference: Floats
    z: Floats
    usual_discrepancy: float

    @property
    def causes(self) -> tuple[Axis, ...]:
        """What differs at 5 %. Case mix is not judged where acquisition differs: it moves the features too."""
        found = tuple(axis for axis in AXES if self.adjusted[axis] <= ALPHA)
        return tuple(axis for axis in found if axis != "case mix") if "acquisition" in found else found

    @property
    def verdict(self) -> Cause:
        """The first cause, or none."""
        return self.causes[0] if self.causes else "none"


def make_reference(moments: Sequence[ShiftMoments], *, seed: int, smallest: int = 2) -> ShiftReference:
    """The federation's coordinates, from the moments of the sites that are compared.

    A class counts where every site has `smallest` patients of it. Raises ValueError where there is none.
    """
    total = moments[0]
    for other in moments[1:]:
        total = total + other
    counts = np.stack([m.counts for m in moments])
    shared = (counts >= max(smallest, 2)).all(axis=0)
    if not shared.any():
        raise ValueError("no class has enough patients at every center; compare fewer centers")
    weights = np.where(shared, total.counts, 0) / total.counts[shared].sum()
    centre = weights @ (total.totals / np.maximum(total.counts, 1)[:, None])
    freedom = max(int(total.counts.sum()) - int((counts > 0).sum()), 1)
    covariance = total.scatter / freedom
    d = len(DESCRIPTORS)
    spread = np.sqrt(np.maximum(np.diag(covariance)[:d], 1e-12))
    inner = covariance[:d, :d] / np.outer(spread, spread)
    cross = covariance[:d, d:] / spread[:, None]
    slope = np.linalg.solve(inner + 1e-3 * np.eye(d), cross)
    left = covariance[d:, d:] - cross.T @ slope - slope.T @ cross + slope.T @ inner @ slope
    axes = _scaled_axes(left)
    frequencies = derive(seed, "shift", "frequencies").standard_normal((axes.shape[1], _FREQUENCIES))
    return ShiftReference(weights, centre, spread, slope, axes, frequencies / np.sqrt(max(axes.shape[1], 1)))


def _scaled_axes(covariance: Floats) -> Floats:
    """The principal axes with the largest variances, at most 8, each over its standard deviation; signs are fixed."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    order = np.argsort(values)[::-1][:_MOST_AXES]
    kept = order[values[order] > 1e-9 * max(float(values.max(initial=0)), 1e-30)]
    picked = vectors[:, kept]
    signs = np.sign(picked[np.abs(picked).argmax(axis=0), np.arange(picked.shape[1])])
    return np.asarray(picked * signs / np.sqrt(values[kept]), dtype=np.float64)


def compare_centers(
    sites: Mapping[str, ShiftSums],
    reference: ShiftReference,
    *,
    rng: np.random.Generator,
    against: Sequence[str] | None = None,
    draws: int = 1999,
) -> dict[str, Comparison]:
    """Every site against the others of `against` (by default all), adjusted together.

    A site that has no other to be compared with is left out. Raises ValueError where that leaves none.
    """
    pool = [name for name in sorted(sites) if against is None or name in against]
    names = [name for name in sorted(sites) if set(pool) - {name}]
    if not names:
        raise ValueError("a center has no other center to be compared with; give at least two")
    where = reference.coordinates
    shaken = {name: _shaken(sites[name], rng, draws) for name in sorted({*names, *pool})}
    settled: dict[str, Comparison] = {}
    while True:
        left = [name for name in names if name not in settled]
        found = _panel(left, [name for name in pool if name not in settled], sites, shaken, where)
        strongest = max(found.values(), key=_how_strong)
        one_more = len([name for name in pool if name not in settled]) > 2 or strongest.site not in pool
        if strongest.verdict == "none" or not one_more or len(left) == 1:
            return {**settled, **found}
        settled[strongest.site] = strongest


def _how_strong(found: Comparison) -> tuple[float, float]:
    """Smallest p first, then the largest strength."""
    return -min(found.adjusted.values()), max(found.strength.values())


def _shaken(site: ShiftSums, rng: np.random.Generator, draws: int) -> NDArray[np.float32]:
    """Draws of the site's error, (T, U): its own draws weighed by standard normals, at its exact variances."""
    scale = np.sqrt(site.variance / np.maximum((site.draws.astype(np.float64) ** 2).mean(axis=0), 1e-300))
    weights = rng.standard_normal((draws, len(site.draws)), dtype=np.float32) / np.sqrt(np.float32(len(site.draws)))
    shaken: NDArray[np.float32] = weights @ (site.draws * scale.astype(np.float32))
    return shaken


def _panel(
    names: Sequence[str],
    pool: Sequence[str],
    sites: Mapping[str, ShiftSums],
    shaken: Mapping[str, NDArray[np.float32]],
    where: Coordinates,
) -> dict[str, Comparison]:
    """All `names` at once against `pool` without themselves."""
    found: dict[str, Comparison] = {}
    nulls = []
    for name in names:
        shares = _shares([other for other in pool if other != name], sites)
        found[name], null = _one(name, shares, sites, shaken, where)
        nulls.append(null)
    null_TKA = np.stack(nulls, axis=1)
    ranks = stats.rankdata(-null_TKA, axis=0, method="max") / len(null_TKA)
    smallest = np.sort(ranks.min(axis=(1, 2)))
    for name, one in found.items():
        adjusted = {
            axis: float((1 + np.searchsorted(smallest, p, side="right")) / (len(smallest) + 1))
            for axis, p in one.p.items()
        }
        found[name] = replace(one, adjusted=adjusted)
    return found


def _shares(others: Sequence[str], sites: Mapping[str, ShiftSums]) -> dict[str, float]:
    total = sum(sites[other].patients for other in others)
    return {other: sites[other].patients / total for other in others}


def _one(
    name: str,
    shares: Mapping[str, float],
    sites: Mapping[str, ShiftSums],
    shaken: Mapping[str, NDArray[np.float32]],
    where: Coordinates,
) -> tuple[Comparison, Floats]:
    """The comparison of one center, not yet adjusted, and draws of its statistics without shift, (T, 3)."""
    parts = [(sites[name], 1.0), *((sites[other], share) for other, share in shares.items())]
    difference = sites[name].mean - sum(share * sites[other].mean for other, share in shares.items())
    variance = np.asarray(sum(share**2 * site.variance for site, share in parts))
    error = np.maximum(np.sqrt(variance), 1e-12)  # a descriptor may be one number everywhere
    z = _as_normal(difference / error, _freedom(parts, variance))
    drawn = shaken[name] - sum(np.float32(share) * shaken[other] for other, share in shares.items())
    scaled = drawn[:, : where.descriptors.stop] / error[: where.descriptors.stop].astype(np.float32)
    discrepancy = float((difference[where.fourier] ** 2).sum())
    null_mmd = _null_discrepancy(drawn[:, where.fourier], parts, variance[where.fourier], where.fourier)
    null = np.stack(
        [
            np.abs(scaled[:, where.descriptors]).max(axis=1),
            np.abs(scaled[:, where.classes]).max(axis=1),
            null_mmd,
        ],
        axis=1,
    ).astype(np.float64)
    values = (float(np.abs(z[where.descriptors]).max()), float(np.abs(z[where.classes]).max()), discrepancy)
    statistic = dict(zip(AXES, values, strict=True))
    p = {axis: float((1 + (null[:, i] >= statistic[axis]).sum()) / (len(null) + 1)) for i, axis in enumerate(AXES)}
    lifted = (discrepancy - float(null_mmd.mean())) / max(float(null_mmd.std()), 1e-300)
    strength = {**statistic, "case mix": lifted}
    usual = float(np.quantile(null_mmd, 1 - ALPHA))
    return Comparison(name, tuple(shares), statistic, strength, p, dict(p), difference, z, usual), null


def _freedom(parts: Sequence[tuple[ShiftSums, float]], variance: Floats) -> Floats:
    """Degrees of freedom of each difference, (U,): Welch and Satterthwaite."""
    lost = sum(
        (share**2 * site.variance) ** 2 / max(site.patients - int((site.counts > 0).sum()), 1) for site, share in parts
    )
    return np.asarray(np.maximum(variance, 1e-150) ** 2 / np.maximum(lost, 1e-300), dtype=np.float64)


def _as_normal(t: Floats, freedom: Floats) -> Floats:
    """The standard normal value of the same p: t of n degrees of freedom (Wallace 1959, eq. 1)."""
    squeezed = np.sqrt(freedom * np.log1p(t**2 / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return np.asarray(np.sign(t) * squeezed, dtype=np.float64)


def _null_discrepancy(
    drawn: NDArray[np.float32], parts: Sequence[tuple[ShiftSums, float]], variance: Floats, fourier: slice
) -> Floats:
    """Draws of ‖difference‖² without shift, (T,), with the exact mean and an unbiased second moment.

    For a difference of covariance S the statistic has mean tr S and variance 2 tr S². From a site's B draws, tr S_site²
    is estimated by the mean of (g_a · g_b)² over pairs of different draws; the pairs of a draw with itself are what
    overstates it.
    """
    raw = (drawn.astype(np.float64) ** 2).sum(axis=1)
    naive = biased = 0.0
    for site, share in parts:
        own = share**2 * (
            gram := site.draws[:, fourier].astype(np.float64) @ site.draws[:, fourier].T.astype(np.float64)
        )
        b = len(gram)
        squares = own**2
        biased += float(squares.sum()) / b**2
        naive += float(squares.sum() - np.diag(squares).sum()) / (b * (b - 1))
    exact = float(variance.sum())
    spread = 2 * max(float(raw.var()) / 2 - biased + naive, 0.05 * float(raw.var()))
    narrowed = np.sqrt(min(spread / max(float(raw.var()), 1e-300), 1.0))
    return np.asarray(np.maximum(exact + narrowed * (raw - raw.mean()), 0), dtype=np.float64)

"""Panels of simulated centers, and patient permutation on central data as the oracle of their p."""

from __future__ import annotations

__all__ = ["CENTERS", "SHIFTED", "bootstrap_and_permutation", "false_alarms", "planted", "sums_of"]

from collections.abc import Mapping

import numpy as np
from scipy import stats

from client.shift import Patients, shift_moments, shift_sums
from common.shift import ShiftReference, ShiftSums
from server.shift import AXES, Comparison, compare_centers, make_reference
from tests.speckle_world import BASE, GAIN, GAMMA, SPECKLE, Machine, draw_sites, make_bank

CENTERS, SHIFTED = 5, "site-4"
_BRIGHT = 0.3
PLANTED: dict[str, tuple[Machine, float, float, str]] = {
    "gain + 3 dB": (GAIN, 0.50, _BRIGHT, "acquisition"),
    "gamma 1.3": (GAMMA, 0.50, _BRIGHT, "acquisition"),
    "speckle length × 1.5": (SPECKLE, 0.50, _BRIGHT, "acquisition"),
    "prevalence .50 → .65": (BASE, 0.65, _BRIGHT, "prevalence"),
    "other lesions .30 → .80": (BASE, 0.50, 0.80, "case mix"),
}


def sums_of(
    sites: Mapping[str, Patients], rng: np.random.Generator, *, seed: int = 1
) -> tuple[dict[str, ShiftSums], ShiftReference]:
    """Both rounds."""
    reference = make_reference([shift_moments(patients, classes=2) for patients in sites.values()], seed=seed)
    return {name: shift_sums(patients, reference, rng=rng) for name, patients in sites.items()}, reference


def _panel(
    rng: np.random.Generator, machine: Machine, count: int, prevalence: float, bright: float, each: int
) -> dict[str, Comparison]:
    banks = [make_bank(each=each)] * (CENTERS - 1) + [make_bank(machine, each=each)]
    shares, brights = [0.5] * (CENTERS - 1) + [prevalence], [_BRIGHT] * (CENTERS - 1) + [bright]
    sums, reference = sums_of(draw_sites(rng, banks, count, prevalence=shares, bright=brights), rng)
    return compare_centers(sums, reference, rng=rng)


def false_alarms(runs: int, *, patients: int = 100, each: int = 500) -> float:
    """The share of panels of centers alike in which any center's verdict is not none."""
    alarms = 0
    for run in range(runs):
        found = _panel(np.random.default_rng([1, run]), BASE, patients, 0.5, _BRIGHT, each)
        alarms += any(one.verdict != "none" for one in found.values())
    return alarms / runs


def planted(what: str, runs: int, *, patients: int = 300, each: int = 500) -> tuple[float, float, float]:
    """Shares of runs in which the shifted center is found, its cause is named rightly and alone,
    and another is accused.
    """
    machine, prevalence, bright, cause = PLANTED[what]
    found = right = accused = 0
    for run in range(runs):
        panel = _panel(np.random.default_rng([2, run]), machine, patients, prevalence, bright, each)
        found += panel[SHIFTED].verdict != "none"
        right += panel[SHIFTED].causes == (cause,)
        accused += any(one.verdict != "none" for name, one in panel.items() if name != SHIFTED)
    return found / runs, right / runs, accused / runs


def bootstrap_and_permutation(
    run: int, *, patients: int = 100, draws: int = 999, each: int = 500
) -> tuple[np.ndarray, np.ndarray]:
    """p of the three axes of one center of three alike: by the sites' draws, and by permuting patients centrally.

    Case mix and acquisition permute within class; prevalence, whose values are lattice points, has its mid-p. Where the
    panel took a center out of the reference, the permutation has the same two centers that were compared.
    """
    rng = np.random.default_rng([3, run])
    sites = draw_sites(rng, [make_bank(each=each)] * 3, patients, prevalence=[0.5] * 3, bright=[_BRIGHT] * 3)
    sums, reference = sums_of(sites, rng)
    found = compare_centers(sums, reference, rng=rng)["site-0"]
    boot = np.array([found.p[axis] for axis in AXES])
    compared = ("site-0", *found.against)
    values = reference.embed(np.concatenate([sites[name].values for name in compared]))
    classes = np.concatenate([sites[name].classes for name in compared])
    site = np.repeat(np.arange(len(compared)), patients)
    d, where, c = len(reference.spread), reference.coordinates, len(reference.weights)
    fourier = slice(where.fourier.start - c, where.fourier.stop - c)
    mean, variance = np.zeros((draws + 1, values.shape[1])), np.zeros((draws + 1, d))
    for k in (0, 1):
        rows = np.flatnonzero(classes == k)
        orders = np.stack([np.arange(len(rows)), *(rng.permutation(len(rows)) for _ in range(draws))])
        drawn = site[rows][orders]
        for s, share in enumerate((1.0, *(-1 / len(found.against),) * len(found.against))):
            member = (drawn == s).astype(np.float64)
            n = member[0].sum()
            own, weight = member @ values[rows] / n, share * reference.weights[k]
            mean += weight * own
            squares = member @ values[rows, :d] ** 2 - n * own[:, :d] ** 2
            variance += weight**2 * squares / (n * (n - 1))
    z = np.abs(mean[:, :d] / np.sqrt(variance)).max(axis=1)
    apart = (mean[:, fourier] ** 2).sum(axis=1)
    exact = [(1 + (values[1:] >= values[0]).sum()) / (draws + 1) for values in (z, apart)]
    return boot, np.array([exact[0], _mid_p(classes, site), exact[1]])


def _mid_p(classes: np.ndarray, site: np.ndarray) -> float:
    """Two-sided mid-p of the share of positives at site 0, over all ways to place the labels."""
    total, positives, here = len(classes), int(classes.sum()), int((site == 0).sum())
    at = np.arange(max(0, here - (total - positives)), min(here, positives) + 1)
    mass = stats.hypergeom.pmf(at, total, positives, here)
    apart = np.abs(at / here - (positives - at) / (total - here))
    seen = apart[at == classes[site == 0].sum()][0]
    return float(mass[apart > seen + 1e-9].sum() + mass[np.abs(apart - seen) <= 1e-9].sum() / 2)

"""Sums over patients against slow loops over pairs of images, and against the exact numbers of all cases together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from common.auc import clustered_auc
from common.bins import bin_of, place_in_bin
from common.errors import RunFailed
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums, mean_difference, place
from common.pooled import Pool
from tests.common.test_auc import slow_variance
from tests.federations import KINDS, Cases, from_sums, laid_together, paired, scored, with_truth

cases = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 6)), min_size=1, max_size=40)


@settings(deadline=None)
@given(cases)
def test_a_single_site_is_exact(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, patients = (np.array(column) for column in zip(*rows, strict=True))
    exact = clustered_auc(labels, scores, patients)
    for center, names in ((0.6, ("auc", "variance")), (exact.auc or 0.5, ("auc", "variance", "low", "high"))):
        sums = InfluenceSums.of(place(labels, scores), patients, center=center)
        found = sums.auc()
        assert found.why == exact.why
        for name in names:
            expected = getattr(exact, name)
            assert getattr(found, name) == (None if expected is None else pytest.approx(expected, abs=1e-9))
    assert sums.bound is None if exact.auc is None else sums.bound == pytest.approx(0, abs=1e-12)


def slow_placements(sites: list[Cases], edges: tuple[float, ...]) -> tuple[float, float, float]:
    """Least, middle and most AUC over all pairs: own pairs compared, pairs of two sites in one bin in doubt. A loop."""
    wins = np.zeros(3)
    pairs = 0
    for s, (labels, p, _) in enumerate(sites):
        for t, (other_labels, q, _) in enumerate(sites):
            for x in p[labels]:
                for y in q[~other_labels]:
                    pairs += 1
                    same = sum(edge <= x for edge in edges) == sum(edge <= y for edge in edges)
                    if s != t and same:
                        wins += (0, 0.5, 1)
                    else:
                        wins += 1.0 if x > y else 0.5 if x == y else 0.0
    least, middle, most = (wins / pairs).tolist()
    return least, middle, most


def test_limits_are_those_of_a_loop_over_pairs() -> None:
    made = scored(np.random.default_rng(3), "plain", sites=3, patients=60).test
    sums, pool = from_sums(made, bins=8)
    least, middle, most = slow_placements(made, tuple(pool.edges))
    assert sums.limits == pytest.approx((least, most), abs=1e-12)
    assert sums.estimate is not None
    assert sums.bound is not None
    assert abs(sums.estimate - middle) < (most - least) / 4
    assert sums.bound >= (most - least) / 2 - 1e-12


def test_places_decide_what_a_bin_leaves_open() -> None:
    """Another site's two negatives, each known to a part of its bin:
    what lies below is certain, half in the same part.
    """
    edges, rng = (0.2, 0.4, 0.6, 0.8), np.random.default_rng(0)
    own = rng.uniform(0.21, 0.79, 20)
    mine = ScoreHistogram.of(np.ones(20), own, np.arange(20), edges=edges, placed=True)
    for theirs in rng.uniform(0.21, 0.79, (100, 2)):
        told = ScoreHistogram.of([0, 0], theirs, [0, 1], edges=edges, placed=True)
        found = place(np.ones(20), own, Pool((mine, told), np.array(edges)).others(0)).share[0] * 2
        there, here = (16 * bin_of(p, edges) + place_in_bin(p, edges) for p in (theirs, own))
        slow = [sum(0.5 if a == b else float(b < a) for b in there) for a in here]
        np.testing.assert_allclose(found, slow, atol=2e-3)


def test_the_standard_error_from_places_is_the_exact_one() -> None:
    for seed, kind in enumerate(KINDS):
        made = scored(np.random.default_rng(seed), kind).test
        exact = clustered_auc(*laid_together(made))
        found, blind = (from_sums(made, bins=1024, placed=placed)[0].auc() for placed in (True, False))
        assert exact.variance is not None
        assert found.variance is not None
        assert blind.variance is not None
        assert np.sqrt(found.variance) == pytest.approx(np.sqrt(exact.variance), abs=1e-6)
        assert abs(found.variance - blind.variance) > 1e-12


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from(sorted(KINDS)), st.sampled_from([1, 5]), st.sampled_from([4, 64]))
def test_the_exact_auc_is_within_the_limits(seed: int, kind: str, smallest: int, bins: int) -> None:
    made = scored(np.random.default_rng(seed), kind, sites=3, patients=150)
    exact = clustered_auc(*laid_together(made.test)).auc
    sums, _ = from_sums(made.test, bins=bins, smallest=smallest, first=made.val)
    assert exact is not None
    assert sums.limits is not None
    assert sums.limits[0] - 1e-12 <= exact <= sums.limits[1] + 1e-12


def slow_difference(labels: np.ndarray, one: np.ndarray, two: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """Δ and its clustered variance: variances of both less twice Obuchowski's covariance, pair by pair."""
    areas, components = [], []
    x, y = np.flatnonzero(labels), np.flatnonzero(~labels)
    for scores in (one, two):
        psi = [[1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0 for j in y] for i in x]
        areas.append(sum(map(sum, psi)) / (len(x) * len(y)))
        v10 = {i: sum(row) / len(y) for i, row in zip(x, psi, strict=True)}
        components.append(v10 | {j: sum(row[k] for row in psi) / len(x) for k, j in enumerate(y)})
    u, v, clusters = [], [], sorted(set(patients.tolist()))
    for cluster in clusters:
        for kept, group in ((u, x), (v, y)):
            kept.append(
                [sum(c[i] - a for i in group if patients[i] == cluster) for c, a in zip(components, areas, strict=True)]
            )
    i10, i01, i = len(set(patients[x])), len(set(patients[y])), len(clusters)
    m, n = len(x), len(y)
    covariance = 0.0
    for (ua, ub), (va, vb) in zip(u, v, strict=True):
        covariance += i10 / (i10 - 1) * ua * ub / m**2 + i01 / (i01 - 1) * va * vb / n**2
        covariance += i / (i - 1) * (ua * vb + ub * va) / (m * n)
    variances = slow_variance(labels, one, patients) + slow_variance(labels, two, patients)
    return areas[0] - areas[1], variances - 2 * covariance


def test_the_paired_test_is_the_slow_loops() -> None:
    (first, second), _ = with_truth(np.random.default_rng(5), models=2, sites=2, patients=(8, 12))
    sums = paired([first, second], bins=4096)
    found = sums.difference()
    (labels, one, patients), (_, two, _) = laid_together(first), laid_together(second)
    delta, variance = slow_difference(labels, one, two, patients)
    assert found.delta == pytest.approx(delta, abs=2e-4)
    assert found.error == pytest.approx(np.sqrt(variance), abs=2e-4)
    exact = InfluenceSums.of(place(labels, one) - place(labels, two), patients, center=0.0).difference()
    assert exact.delta == pytest.approx(delta, abs=1e-12)
    assert exact.error == pytest.approx(np.sqrt(variance), abs=1e-12)
    degrees = InfluenceSums.of(place(labels, one) - place(labels, two), patients, center=0.0).spread().degrees
    assert exact.p == pytest.approx(2 * student.sf(abs(delta) / np.sqrt(variance), degrees))
    assert sums.limits is not None
    assert sums.limits[0] - 1e-12 <= delta <= sums.limits[1] + 1e-12


def test_two_models_that_rank_alike_do_not_differ() -> None:
    ((labels, p, patients),) = with_truth(np.random.default_rng(1), sites=1)[0][0]
    found = InfluenceSums.of(place(labels, p) - place(labels, p**2), patients, center=0.0).difference()
    assert (found.delta, found.p, found.why) == (0.0, 1.0, None)


def test_what_two_kinds_of_one_patient_have_in_common_stays() -> None:
    labels, scores = np.array([1, 0, 1, 1, 0, 0], dtype=bool), np.array([0.9, 0.8, 0.7, 0.2, 0.3, 0.1])
    mixed = np.array([0, 0, 1, 2, 3, 4])
    apart = np.array([0, 9, 1, 2, 3, 4])
    told = InfluenceSums.of(place(labels, scores), mixed, center=0.5, smallest=2)
    assert told == InfluenceSums.of(place(labels, scores), apart, center=0.5)
    assert told.patients == (3, 3, 6)
    assert InfluenceSums.of(place(labels, scores), mixed, center=0.5).patients == (3, 3, 5)


def test_sums_are_faithful_in_json_and_clash_by_center() -> None:
    (sites,), _ = with_truth(np.random.default_rng(2), sites=2)
    sums, _ = from_sums(sites, bins=64)
    assert InfluenceSums.from_json(json.loads(json.dumps(sums.to_json()))) == sums
    with pytest.raises(RunFailed, match="two centers"):
        sums + InfluenceSums.zero(0.1)
    for broken in ({}, sums.to_json() | {"totals": [1.0]}, sums.to_json() | {"fourth": [1.0, float("nan")]}):
        with pytest.raises(RunFailed, match="same release"):
            InfluenceSums.from_json(broken)


def test_a_site_with_one_class_counts_among_the_others() -> None:
    (sites,), _ = with_truth(np.random.default_rng(4), sites=3)
    labels, p, whose = sites[0]
    sites[0] = (labels[labels], p[labels], whose[labels])
    exact = clustered_auc(*laid_together(sites))
    found = from_sums(sites, bins=4096)[0].auc()
    assert found.auc == pytest.approx(exact.auc, abs=1e-4)
    assert found.variance == pytest.approx(exact.variance, rel=1e-2)


def test_a_difference_that_does_not_vary_has_no_interval() -> None:
    """Two patients of each class, one model right and one wrong about all of them: no variance, and no certainty."""
    labels, patients = np.array([1, 1, 0, 0]), np.arange(4)
    right, wrong = (place(labels, p) for p in (np.array([0.9, 0.8, 0.2, 0.1]), np.array([0.1, 0.2, 0.8, 0.9])))
    found = InfluenceSums.of(right - wrong, patients, center=0.0).difference()
    assert (found.delta, found.error, found.low, found.high, found.p) == (1.0, None, None, None, None)
    assert found.why == "too-few"
    assert mean_difference([found, found]).why == "too-few"

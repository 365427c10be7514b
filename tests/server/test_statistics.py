"""Contrasts against the naive resample-and-recompute loop; the mean over centers against the truth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from common.auc import auc, clustered_auc, macro_auc
from server import statistics
from server.statistics import Contrast, Scored, contrasts, mean_over_centers


def site(rng: np.random.Generator, name: str, patients: int, *, seeds: int = 2, mixed: bool = True) -> Scored:
    """A site with ties, 1 to 4 images a patient, and two vectors for the arm `local`."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    labels = patient % 3 == 0
    if mixed:
        labels = labels ^ (rng.random(len(labels)) < 0.2)
    truth = labels + rng.standard_normal(len(labels))

    def draw() -> NDArray[np.float64]:
        return np.round(truth + rng.standard_normal(len(labels)), 1)

    scores: Mapping[tuple[str, int], Sequence[NDArray[np.float64]]] = {
        (arm, seed): [draw() for _ in range(vectors)]
        for arm, vectors in (("federated", 1), ("pooled", 1), ("local", 2))
        for seed in range(seeds)
    }
    return Scored(site=name, labels=labels, patients=np.array([f"{name}-{p}" for p in patient]), scores=scores)


def naive(sites: Sequence[Scored], a: str, b: str, seed: int, draws: int, together: str) -> dict[str, list[float]]:
    """The same draws, each resampled into a longer data set and scored by scikit-learn: Δ by site, draw 0 the data."""
    rng = np.random.default_rng(seed)
    weights = [statistics._resample(s, rng, draws) for s in sites]
    shares = statistics._resample_seeds(2, rng, draws)

    def areas(group: Sequence[int], arm: str, which: int, draw: int) -> float:
        vectors = []
        for m in range(len(sites[group[0]].scores[arm, which])):
            labels, scores = [], []
            for g in group:
                for patient, times in enumerate(weights[g][:, draw]):
                    for _ in range(times):
                        labels.append(sites[g].labels[sites[g].patient == patient])
                        scores.append(sites[g].scores[arm, which][m][sites[g].patient == patient])
            vectors.append(roc_auc_score(np.concatenate(labels), np.concatenate(scores)))
        return float(np.mean(vectors))

    groups = {s.site: [k] for k, s in enumerate(sites)} | {"all": list(range(len(sites)))}
    found: dict[str, list[float]] = {name: [] for name in groups}
    for draw in range(draws + 1):
        for name, group in groups.items():
            parts = [[k] for k in group] if together == "centers" else [group]
            found[name].append(
                float(
                    np.mean(
                        [
                            sum(shares[draw, s] * (areas(part, a, s, draw) - areas(part, b, s, draw)) for s in range(2))
                            for part in parts
                        ]
                    )
                )
            )
    return found


@pytest.mark.parametrize("together", ["cases", "centers"])
@pytest.mark.parametrize("b", ["pooled", "local"])
def test_contrast_is_the_naive_loops(b: str, together: str) -> None:
    rng = np.random.default_rng(1)
    sites = [site(rng, "x", 14), site(rng, "y", 9)]
    expected = naive(sites, "federated", b, 5, 30, together)
    found = contrasts(
        sites,
        [("federated", b)],
        protocol="in-federation",
        rng=np.random.default_rng(5),
        together=together,  # type: ignore[arg-type]
        draws=30,
    )
    assert [contrast.site for contrast in found] == ["x", "y", "all"]
    for contrast in found:
        delta = np.array(expected[contrast.site])
        low, high = np.quantile(delta[1:], [0.025, 0.975])
        assert (contrast.delta_auc, contrast.low, contrast.high) == pytest.approx((delta[0], low, high), abs=1e-12)
        sides = [(1 + (delta[1:] <= 1e-12).sum()) / 31, (1 + (delta[1:] >= -1e-12).sum()) / 31]
        assert contrast.p == pytest.approx(min(1, 2 * min(sides)))


@pytest.mark.parametrize("together", ["cases", "centers"])
def test_a_contrast_of_several_classes_is_of_macro_aucs(together: str) -> None:
    """Against resampled data sets, each scored by the macro AUC; one site lacks a class."""
    rng, made = np.random.default_rng(2), []
    for name, classes, count in (("x", 3, 40), ("y", 2, 30)):
        patient = np.repeat(np.arange(count), rng.integers(1, 3, count))
        labels = patient % classes
        scores = {
            (arm, 0): [rng.random((len(labels), 3)) + strength * np.eye(3)[labels]]
            for arm, strength in (("federated", 0.4), ("pooled", 0.3))
        }
        made.append(Scored(site=name, labels=labels, patients=patient, scores=scores))
    weights = [statistics._resample(one, drawn, 20) for drawn in [np.random.default_rng(5)] for one in made]

    def area(group: Sequence[int], arm: str, draw: int) -> float:
        some = [np.repeat(np.arange(len(made[g].labels)), weights[g][made[g].patient, draw]) for g in group]
        labels = np.concatenate([np.asarray(made[g].labels)[rows] for g, rows in zip(group, some, strict=True)])
        scores = np.concatenate([made[g].scores[arm, 0][0][rows] for g, rows in zip(group, some, strict=True)])
        return macro_auc(labels, scores) or 0.0

    found = contrasts(
        made,
        [("federated", "pooled")],
        protocol="in-federation",
        rng=np.random.default_rng(5),
        together=together,  # type: ignore[arg-type]
        draws=20,
    )
    whole = [[0, 1]] if together == "cases" else [[0], [1]]
    for contrast, parts in zip(found, ([[0]], [[1]], whole), strict=True):
        delta = [
            np.mean([area(group, "federated", draw) - area(group, "pooled", draw) for group in parts])
            for draw in range(21)
        ]
        low, high = np.quantile(delta[1:], [0.025, 0.975])
        assert (contrast.delta_auc, contrast.low, contrast.high) == pytest.approx((delta[0], low, high), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=25).filter(
        lambda cases: len({label for label, _, _ in cases}) == 2
    ),
    st.integers(0, 99),
)
def test_grouped_ranking_counts_every_pair(cases: list[tuple[bool, int, int]], seed: int) -> None:
    """Against the loop over all pairs, with ties and patients who have both kinds of images."""
    positive, score, patient = (np.array(column) for column in zip(*cases, strict=True))
    times = np.random.default_rng(seed).integers(0, 4, (5, 3)).astype(np.int32)
    expected = np.zeros(3)
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            sign = int(score[i] > score[j]) - int(score[i] < score[j])
            expected += (1 + sign) * times[patient[i]] * times[patient[j]]
    ranking = statistics._Ranking.of(positive, patient, score.astype(float))
    assert ranking.wins(times[: patient.max() + 1]).tolist() == expected.tolist()


def test_pairs_may_differ_in_what_all_is() -> None:
    rng = np.random.default_rng(12)
    sites = [site(rng, "x", 20), site(rng, "y", 15)]
    pairs = [("federated", "pooled"), ("federated", "local")]

    def run(wanted: list[tuple[str, str]], together: Any) -> tuple[Contrast, ...]:
        return contrasts(
            sites, wanted, protocol="p", rng=np.random.default_rng(0), together=together, draws=100
        )  # fmt: skip

    assert run(pairs, ("cases", "centers")) == (*run(pairs[:1], "cases"), *run(pairs[1:], "centers"))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_draws_keep_strata_and_lengths(seed: int) -> None:
    one = site(np.random.default_rng(seed), "x", 25)
    times = statistics._resample(one, np.random.default_rng(seed), 50)
    assert (times[:, 0] == 1).all()
    for group in one.strata:
        assert (times[group].sum(axis=0) == len(group)).all()
    assert sum(map(len, one.strata)) == len(times)


def test_other_pairs_names_and_scales_move_nothing() -> None:
    one = site(np.random.default_rng(3), "x", 20)
    pairs = [("federated", "pooled"), ("federated", "local")]

    def run(scored: Scored, wanted: list[tuple[str, str]]) -> tuple[Contrast, ...]:
        return contrasts([scored], wanted, protocol="p", rng=np.random.default_rng(0), together=None, draws=300)

    both = run(one, pairs)
    assert run(one, pairs[1:]) == both[1:]
    renamed = np.array([str(p)[::-1] for p in one.patients])
    stretched = {key: [np.exp(v) for v in vectors] for key, vectors in one.scores.items()}
    assert run(Scored(site="x", labels=one.labels, patients=renamed, scores=stretched), pairs) == both
    backwards = run(one, [("pooled", "federated")])[0]
    assert both[0].delta_auc is not None
    assert both[0].low is not None
    assert both[0].high is not None
    assert (backwards.delta_auc, backwards.low, backwards.high) == pytest.approx(
        (-both[0].delta_auc, -both[0].high, -both[0].low), abs=1e-15
    )
    assert backwards.p == both[0].p


def test_an_arm_against_itself() -> None:
    one = site(np.random.default_rng(4), "x", 20)
    same = contrasts([one], [("pooled", "pooled")], protocol="p", rng=np.random.default_rng(0), together="cases")
    assert [(c.delta_auc, c.low, c.high, c.p) for c in same] == [(0, 0, 0, 1)] * 2


@pytest.mark.parametrize(
    ("labels", "patients", "delta"), [([1, 1, 1], [0, 1, 2], None), ([1, 0, 0], [0, 1, 2], 0.5), ([], [], None)]
)
def test_too_little_is_none(labels: list[int], patients: list[int], delta: float | None) -> None:
    vectors = {("a", 0): [np.array([0.5, 0.2, 0.1])[: len(labels)]], ("b", 0): [np.zeros(len(labels))]}
    one = Scored(site="x", labels=np.array(labels, dtype=bool), patients=np.array(patients), scores=vectors)
    for found in contrasts(
        [one], [("a", "b")], protocol="p", rng=np.random.default_rng(0), together="centers", draws=20
    ):
        assert found.delta_auc == delta
        assert (found.low, found.high, found.p) == (None, None, None)


def test_unpaired_seeds_are_named() -> None:
    one = Scored(
        site="x",
        labels=np.array([True, False]),
        patients=np.array([0, 1]),
        scores={("a", 0): [np.zeros(2)], ("a", 1): [np.zeros(2)], ("b", 0): [np.zeros(2)]},
    )
    with pytest.raises(ValueError, match="arm b has no scores of seed 1 at site x"):
        contrasts([one], [("a", "b")], protocol="p", rng=np.random.default_rng(0), together=None)


def test_null_contrast_rejects_at_its_level() -> None:
    rng = np.random.default_rng(11)
    rejected = 0
    for _ in range(200):
        one = site(rng, "x", 60, seeds=1)
        found = contrasts([one], [("federated", "pooled")], protocol="p", rng=rng, together=None, draws=200)
        assert found[0].p is not None
        rejected += found[0].p <= 0.05
    assert 0.01 <= rejected / 200 <= 0.11


def test_observed_contrast_is_the_difference_of_aucs() -> None:
    one = site(np.random.default_rng(6), "x", 400, seeds=1)
    found = contrasts([one], [("federated", "pooled")], protocol="p", rng=np.random.default_rng(0), together=None)[0]
    first, second = (auc(one.labels, one.scores[arm, 0][0]) for arm in ("federated", "pooled"))
    assert first is not None
    assert second is not None
    assert found.delta_auc == pytest.approx(first - second, abs=1e-12)


def test_mean_over_centers() -> None:
    rng = np.random.default_rng(8)
    centers = [
        clustered_auc(s.labels, s.scores["pooled", 0][0], s.patients)
        for s in (site(rng, "x", 300), site(rng, "y", 200))
    ]
    mean = mean_over_centers(centers)
    assert mean.auc == pytest.approx(np.mean([c.auc for c in centers]))
    assert mean.variance == pytest.approx(sum(c.variance or 0 for c in centers) / 4)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.variance is not None
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * np.sqrt(mean.variance), rel=0.03)
    one = mean_over_centers(centers[:1])
    assert (one.auc, one.low, one.high) == pytest.approx((centers[0].auc, centers[0].low, centers[0].high))
    perfect = clustered_auc([1, 1, 1, 0, 0], [2, 2, 2, 1, 1], range(5))
    both = mean_over_centers([perfect, perfect])
    assert both.auc == 1
    assert both.high == 1
    assert both.low is not None
    assert 0.5 < both.low < 0.9
    assert mean_over_centers([centers[0], clustered_auc([1], [0.1], [0])]).why == "one-class"
    few = mean_over_centers([centers[0], clustered_auc([1, 0], [0.1, 0.2], [0, 1])])
    assert few.auc is not None
    assert (few.low, few.high, few.why) == (None, None, "too-few")
    empty = clustered_auc([1], [0.1], [0])
    assert mean_over_centers([clustered_auc([1, 0], [0.1, 0.2], [0, 1]), empty]).why == "one-class"
    assert mean_over_centers([]).auc is None


def test_the_size_of_a_real_comparison_takes_seconds() -> None:
    rng = np.random.default_rng(9)
    sites = [site(rng, name, 350, seeds=3, mixed=False) for name in "xyz"]
    start = time.perf_counter()
    contrasts(
        sites, [("federated", "pooled"), ("federated", "local")], protocol="p", rng=rng, together="cases", draws=2000
    )
    assert time.perf_counter() - start < 20

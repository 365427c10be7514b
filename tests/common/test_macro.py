"""The macro AUC's variance against slow loops, a patient bootstrap and the binary one; sums that add;
the paired test.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.auc import clustered_auc, macro_auc
from common.blocks import decode, encode
from common.config import Evaluation, Experiment
from common.errors import RunFailed
from common.evaluation_blocks import evaluation_directory, evaluation_numbers, evaluation_sums
from common.influence import InfluenceSums, OtherCases, Others, Placements, place
from common.macro import MacroSums, clustered_macro_auc, macro_difference, macro_of, macro_placed, summed
from common.orders import Placing
from common.stage_sums import StageSums
from common.tasks import Task
from server.rounds import evaluate_order

Cases = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn(rng: np.random.Generator, patients: int, classes: int, *, mixed: float = 0.2, models: int = 1) -> list[Cases]:
    """Labels (N,), scores (N, K) and patients (N,): 1 to 4 images a patient, alike within it, some of other classes."""
    whose = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    own = np.arange(patients) % classes
    labels = np.where(rng.random(len(whose)) < mixed, rng.integers(0, classes, len(whose)), own[whose])
    shared = rng.normal(size=(patients, classes))
    made = []
    for _ in range(models):
        logits = shared[whose] + 0.7 * rng.normal(size=(len(whose), classes)) + 1.2 * np.eye(classes)[labels]
        odds = np.exp(logits)
        made.append((labels, odds / odds.sum(axis=1, keepdims=True), whose))
    return made


def slow_macro(labels: np.ndarray, scores: np.ndarray, whose: np.ndarray) -> tuple[float, float]:
    """Area and variance by loops over pairs of images: each pair's deviation is shared between its two images."""
    classes = sorted(set(labels.tolist()))
    areas = {}
    pull = {(p, j): 0.0 for p in set(whose.tolist()) for j in classes}
    for k in classes:
        own, rest = np.flatnonzero(labels == k), np.flatnonzero(labels != k)
        wins = {(i, j): float(scores[i, k] > scores[j, k]) + float(scores[i, k] == scores[j, k]) / 2
                for i in own for j in rest}  # fmt: skip
        areas[k] = sum(wins.values()) / len(wins)
        for (i, j), won in wins.items():
            share = (won - areas[k]) / len(wins) / len(classes)
            pull[whose[i], labels[i]] += share
            pull[whose[j], labels[j]] += share
    variance = 0.0
    everybody = len(set(whose.tolist()))
    for j in classes:
        here = len(set(whose[labels == j].tolist()))
        variance += here / (here - 1) * sum(d**2 for (_, c), d in pull.items() if c == j)
        for other in classes:
            if other != j:
                both = sum(pull[p, j] * pull[p, other] for p in set(whose.tolist()))
                variance += everybody / (everybody - 1) * both
    return float(np.mean(list(areas.values()))), variance


@pytest.mark.parametrize("classes", [3, 4])
def test_the_variance_is_that_of_a_loop_over_pairs(classes: int) -> None:
    labels, scores, whose = drawn(np.random.default_rng(classes), 30, classes)[0]
    scores = scores.round(1)
    found, (area, variance) = clustered_macro_auc(labels, scores, whose), slow_macro(labels, scores, whose)
    assert found.auc == pytest.approx(area, abs=1e-12)
    assert found.auc == pytest.approx(macro_auc(labels, scores), abs=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-9)
    assert found.low is not None
    assert found.high is not None
    assert found.low < area < found.high


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 6)), min_size=1, max_size=40))
def test_two_classes_are_the_binary_case(rows: list[tuple[bool, int, int]]) -> None:
    positive, score, whose = (np.array(column) for column in zip(*rows, strict=True))
    p = score / 10
    exact, found = clustered_auc(positive, p, whose), clustered_macro_auc(positive, np.stack([1 - p, p], 1), whose)
    assert found.why == exact.why
    for name in ("auc", "variance", "low", "high"):
        wanted = getattr(exact, name)
        assert getattr(found, name) == (None if wanted is None else pytest.approx(wanted, abs=1e-9))


def test_the_variance_is_that_of_a_patient_bootstrap() -> None:
    """120 patients of three classes, 400 draws: the standard deviation of so many is known to 3.5 %."""
    rng = np.random.default_rng(5)
    labels, scores, whose = drawn(rng, 120, 3)[0]
    found, areas = clustered_macro_auc(labels, scores, whose), []
    rows = [np.flatnonzero(whose == p) for p in range(120)]
    for _ in range(400):
        some = np.concatenate([rows[p] for p in rng.integers(0, 120, 120)])
        areas.append(macro_auc(labels[some], scores[some]))
    assert found.variance is not None
    assert np.sqrt(found.variance) == pytest.approx(np.std(areas), rel=0.1)
    apart = np.mean([clustered_auc(labels == k, scores[:, k], whose).variance for k in range(3)])
    assert np.sqrt(apart / 3) < 0.97 * np.std(areas), "questions taken for independent claim too much"


def shared(sites: list[Cases], classes: int) -> tuple[list[InfluenceSums | None], MacroSums]:
    """Both kinds of sums over sites that know the others' cases by bins of .0005, and centers off by .003."""
    edges = tuple((np.arange(1, 2000) / 2000).tolist())
    labels, scores = (np.concatenate([site[n] for site in sites]) for n in (0, 1))
    centers = [
        (clustered_auc(labels == k, scores[:, k], np.arange(len(labels))).auc or 0) + 0.003 for k in range(classes)
    ]
    totals = [(float((labels == k).sum()), float((labels != k).sum())) for k in range(classes)]
    questions: list[InfluenceSums] = [InfluenceSums.zero(center) for center in centers]
    macro = MacroSums.zero(classes)
    for number, (mine, p, whose) in enumerate(sites):
        others = [site for n, site in enumerate(sites) if n != number]
        there, told = (np.concatenate([site[n] for site in others]) for n in (0, 1))
        placed: list[Placements | None] = []
        for k in range(classes):
            counted = [
                OtherCases(tuple(np.histogram(told[which, k], [0, *edges, 1])[0].tolist()))
                for which in (there == k, there != k)
            ]
            one = place(mine == k, p[:, k], Others(edges, *counted))
            placed.append(one)
            questions[k] = questions[k] + InfluenceSums.of(one, whose, center=centers[k])
        sent = MacroSums.of(placed, mine, whose, centers=centers, totals=totals)
        macro = macro + MacroSums.from_json(json.loads(json.dumps(sent.to_json())), classes=classes)
    return list(questions), macro


def test_sites_sums_are_those_of_all_cases_together() -> None:
    """A site that lacks a class, and centers that are not the AUCs, change nothing."""
    rng = np.random.default_rng(8)
    sites = [drawn(rng, 40, 3)[0] for _ in range(3)]
    kept = sites[2][0] != 2
    sites[2] = (sites[2][0][kept], sites[2][1][kept], sites[2][2][kept])
    found = macro_of(*shared(sites, 3))
    labels, scores = (np.concatenate([site[n] for site in sites]) for n in (0, 1))
    whose = np.concatenate([1000 * n + site[2] for n, site in enumerate(sites)])
    exact = clustered_macro_auc(labels, scores, whose)
    assert found.auc == pytest.approx(exact.auc, abs=2e-4)
    assert found.variance == pytest.approx(exact.variance, rel=2e-3)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-3)


def test_the_paired_test_has_the_error_of_a_bootstrap_and_sees_what_is_shared() -> None:
    rng = np.random.default_rng(9)
    one, two = drawn(rng, 120, 3, models=2)
    labels, _, whose = one
    pairs = zip(macro_placed(*one[:2]), macro_placed(*two[:2]), strict=True)
    found = macro_difference(*summed([a - b if a and b else None for a, b in pairs], labels, whose))
    rows, deltas = [np.flatnonzero(whose == p) for p in range(120)], []
    for _ in range(300):
        some = np.concatenate([rows[p] for p in rng.integers(0, 120, 120)])
        areas = [macro_auc(labels[some], scores[some]) for scores in (one[1], two[1])]
        deltas.append((areas[0] or 0) - (areas[1] or 0))
    assert found.delta == pytest.approx((macro_auc(*one[:2]) or 0) - (macro_auc(*two[:2]) or 0), abs=1e-12)
    assert found.error == pytest.approx(np.std(deltas), rel=0.12)
    alone = clustered_macro_auc(*one).variance
    assert alone is not None
    assert found.error is not None
    assert found.error < 0.9 * np.sqrt(2 * alone)


def test_too_few_and_kept_back_have_an_area_and_no_interval() -> None:
    labels, whose = np.array([0, 0, 1, 1, 2]), np.arange(5)
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    found = clustered_macro_auc(labels, scores, whose)
    assert found.auc == pytest.approx(macro_auc(labels, scores))
    assert (found.low, found.why) == (None, "too-few")
    questions, _ = summed(macro_placed(labels, scores), labels, whose)
    assert macro_of(questions, None).why == "suppressed"
    assert macro_of((None,) * 3, None).why == "one-class"
    with pytest.raises(RunFailed, match="same release"):
        MacroSums.from_json(MacroSums.zero(3).to_json(), classes=4)


def test_what_few_patients_have_in_common_stays() -> None:
    labels, scores, whose = drawn(np.random.default_rng(3), 40, 3, mixed=0.05)[0]
    placed = macro_placed(labels, scores)
    full, kept = (
        MacroSums.of(placed, labels, whose, centers=(0.5,) * 3, totals=((9.0, 9.0),) * 3, smallest=smallest)
        for smallest in (1, 40)
    )
    corner = np.zeros((6, 6))
    corner[np.triu_indices(6)] = kept.products
    assert np.count_nonzero(corner[:3, :3]) == np.count_nonzero(np.diag(corner)[:3])
    assert corner[0, 3] != 0
    assert sum(x != 0 for x in full.products) > sum(x != 0 for x in kept.products)
    assert (kept.patients, kept.fourth) == (full.patients, full.fourth)


def test_macro_sums_travel_under_masks_as_they_are() -> None:
    """Two sites' words added, and read back as the sum of their sums."""
    task = Task("kind", ("none", "cyst", "mass"), "cyst")
    experiment = Experiment(name="sent", task=task, evaluation=Evaluation(secure=True))
    order = evaluate_order(experiment, {"test": ("test",)}, run="r", round_number=1, threshold=0.5)
    order = replace(order, stage="placements", placing=(Placing(0.5, Others(), whole=True),) * 3)
    directory, told, words = evaluation_directory(order), [], np.zeros(0, dtype=np.uint64)
    for seed in (0, 1):
        labels, scores, whose = drawn(np.random.default_rng(seed), 40, 3)[0]
        placed, centers = macro_placed(labels, scores), (0.5,) * 3
        influence = tuple(one and InfluenceSums.of(one, whose, center=0.5) for one in placed)
        told.append(MacroSums.of(placed, labels, whose, centers=centers, totals=((30.0, 60.0),) * 3))
        sums = StageSums(influence=influence, macro=told[-1])
        mine = encode(directory, evaluation_numbers({"test": sums}), sites=2)
        words = mine if seed == 0 else words + mine
    found = evaluation_sums(decode(directory, words), "test", order, sites=("a", "b")).macro
    assert found is not None
    whole = told[0] + told[1]
    assert (found.patients, found.everybody) == (whole.patients, whole.everybody)
    np.testing.assert_allclose((*found.products, *found.fourth), (*whole.products, *whole.fourth), rtol=0, atol=1e-11)

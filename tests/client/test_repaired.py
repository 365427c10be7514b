"""A center's cases after each repair: what the numbers are, against slower ways to the same ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, roc_auc_score

from client.augment import normalise
from client.evaluation import score
from client.looks import looks_of
from client.repaired import CenterCases, repairs_of
from common.config import Crop
from common.repair_orders import KINDS, Repair, RepairOrder
from tests.repair_trials import small_model
from tests.speckle_world import BASE, MARGIN, SIZE, Machine, pictures

CROP = Crop(size=SIZE, margin=MARGIN)
FAR = Machine(gain=9.0)


def drawn(machine: Machine, *, seed: int, images: int = 240) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([21, seed])
    labels = rng.integers(0, 2, images)
    return labels, pictures(rng, labels, (rng.random(images) < 0.3).astype(np.int64), machine)


def scored(model: torch.nn.Module, crops: np.ndarray) -> np.ndarray:
    return score(model, crops, flip=False, precision="float32")  # type: ignore[arg-type]


def center(machine: Machine, *, smallest: int = 1, two_of_a_patient: bool = True) -> CenterCases:
    labels, crops = drawn(machine, seed=1)
    patients = np.arange(len(labels)) // (2 if two_of_a_patient else 1)
    return CenterCases(crops, scored(model(), crops), labels, patients, 1, smallest)


def model() -> torch.nn.Module:
    return small_model(600, 60)


def order() -> RepairOrder:
    _, crops = drawn(BASE, seed=2)
    looks = looks_of(crops, np.arange(len(crops)), margin=MARGIN, smallest=5)
    return RepairOrder(looks=looks, shares=(0.5, 0.5))


def told(cases: CenterCases, asked: RepairOrder | None = None) -> dict[str, Repair]:
    found = repairs_of(cases, model(), asked or order(), crop=CROP, score=scored)  # type: ignore[arg-type]
    assert [one.repair for one in found] == list(KINDS)
    return {one.repair: one for one in found}


def test_a_planted_gain_is_partly_repaired_and_shown_beside_the_unrepaired() -> None:
    cases, right = center(FAR), center(BASE)
    found = told(cases)
    unharmed = roc_auc_score(right.labels, right.scores[:, 1])
    assert found["none"].auc == pytest.approx(roc_auc_score(cases.labels, cases.scores[:, 1]), abs=1e-12)
    assert found["none"].delta_auc is None
    lost = unharmed - (found["none"].auc or 0.0)
    assert lost > 0.05
    gained = found["intensity"].delta_auc
    assert gained is not None
    assert gained > 0.5 * lost
    assert found["intensity"].auc == pytest.approx(found["none"].auc + gained, abs=1e-12)  # type: ignore[operator]
    assert found["intensity"].delta_low is not None
    assert 0 < found["intensity"].delta_low < gained < found["intensity"].delta_high  # type: ignore[operator]
    assert found["intensity"].p is not None
    assert found["intensity"].p < 0.05


def test_where_nothing_is_wrong_little_changes() -> None:
    found = told(center(BASE))
    for kind in ("intensity", "amplitude"):
        assert found[kind].delta_auc == pytest.approx(0.0, abs=0.01)
        assert found[kind].brier == pytest.approx(found["none"].brier, abs=0.01)


def test_a_repaired_auc_is_that_of_the_slow_way() -> None:
    """Gray levels matched value by value, one picture at a time through the model, the AUC by counting pairs."""
    cases, reference = center(FAR), order().looks
    assert reference is not None
    beside = np.ones((SIZE, SIZE), dtype=bool)
    start = int(SIZE * MARGIN / (1 + 2 * MARGIN))
    beside[start:, start : SIZE - start] = False
    mine = np.sort(cases.crops[:, beside].ravel())
    theirs = np.repeat(np.arange(256), reference.gray)
    at = np.linspace(0.005, 0.995, 41)
    known, to = np.quantile(mine, at), np.quantile(theirs, at)
    scores = []
    for crop in cases.crops:
        mended = np.interp(crop, *_rising(known, to)).round().astype(np.uint8)
        with torch.no_grad():
            logits = model()(normalise(torch.from_numpy(mended[None])))
        scores.append(float(logits.softmax(1)[0, 1]))
    pairs = np.subtract.outer(np.array(scores)[cases.labels == 1], np.array(scores)[cases.labels == 0])
    slow = (pairs > 0).mean() + (pairs == 0).mean() / 2
    assert told(cases)["intensity"].auc == pytest.approx(slow, abs=0.02)


def _rising(known: np.ndarray, to: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.unique(known)
    return values, np.array([to[known == value].mean() for value in values])


def test_the_prior_is_the_likeliest_one_and_moves_no_auc() -> None:
    """Expectation maximisation climbs the likelihood of the answers; a search along it must find the same share."""
    cases = center(BASE)
    odds = cases.scores / np.array([0.7, 0.3])
    found = told(cases, RepairOrder(shares=(0.7, 0.3)))
    best = minimize_scalar(
        lambda share: -np.log(odds @ np.array([1 - share, share])).sum(), bounds=(1e-6, 1 - 1e-6), method="bounded"
    ).x
    prior = found["prior"]
    assert prior.prior is not None
    assert prior.prior[1] == pytest.approx(best, abs=1e-3)
    assert sum(prior.prior) == pytest.approx(1)
    answers = odds * np.array([1 - best, best])
    assert prior.brier == pytest.approx(brier_score_loss(cases.labels, answers[:, 1] / answers.sum(axis=1)), abs=1e-3)
    assert (prior.delta_auc, prior.p) == (pytest.approx(0.0, abs=1e-12), 1.0)
    assert (found["intensity"].why, found["intensity"].auc) == ("no-reference", None)


def test_a_repair_that_cannot_be_had_says_why() -> None:
    cases = center(BASE)
    found = told(cases, RepairOrder(looks_why="private-training", shares_why="unknown-shares"))
    assert {kind: one.why for kind, one in found.items() if one.auc is None} == {
        "intensity": "private-training",
        "amplitude": "private-training",
        "prior": "unknown-shares",
    }
    assert found["batch-statistics"].auc is not None
    other = looks_of(np.zeros((9, 16, 16), dtype=np.uint8), np.arange(9), margin=MARGIN, smallest=1)
    assert told(cases, RepairOrder(looks=other))["intensity"].why == "other-crops"


def test_numbers_about_few_patients_stay_at_the_site() -> None:
    few = CenterCases(*(value[:40] for value in _parts(center(BASE))), 1, 19)
    found = told(few)
    assert {one.why for one in found.values()} == {"suppressed"}
    assert all(one.auc is None and one.delta_auc is None and one.p is None for one in found.values())
    fewer = told(CenterCases(*(value[:30] for value in _parts(center(BASE))), 1, 19))
    assert all(one.brier is None and one.prior is None for one in fewer.values())


def _parts(cases: CenterCases) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return cases.crops, cases.scores, cases.labels, cases.patients


def test_several_classes_have_a_difference_with_its_test() -> None:
    cases = center(BASE)
    thirds = np.column_stack([cases.scores / 2, np.full(len(cases.labels), 0.5)])
    several = CenterCases(cases.crops, thirds, np.arange(len(cases.labels)) % 3, cases.patients, 1)
    found = told(several, RepairOrder(shares=(0.2, 0.3, 0.5)))
    prior = found["prior"]
    assert prior.delta_auc is not None
    assert prior.delta_low is not None
    assert prior.delta_high is not None
    assert prior.delta_low <= prior.delta_auc <= prior.delta_high
    assert prior.p is not None
    assert prior.why is None
    assert found["prior"].prior is not None
    assert len(found["prior"].prior) == 3

"""The server's side of privacy: heads that only go forward, hospital-level noise, what the records say was spent."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Experiment, HospitalPrivacy, PatientPrivacy
from common.errors import BadInput, LedgerRefused, RunFailed
from common.orders import SiteCard, TrainReport
from common.parsing import parse
from common.privacy import Plan, epsilon
from common.private_orders import Head, PrivateOrder, PrivateReport
from common.tasks import Task
from common.update import Update
from server.heads import KnownHeads
from server.hospital_noise import hospital_mean, hospital_plan, require_enough
from server.private_rounds import PrivateRun, private_steps_total, require_private
from server.rounds import Roster
from server.spending import spending

TASK = Task("lump", ("benign", "malignant"), "malignant")
ONE, TWO = Head(1, "a" * 64), Head(2, "b" * 64)


def experiment(privacy: dict[str, Any]) -> Experiment:
    table = {
        "name": "x",
        "task": {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"},
        "training": {"rounds": 4, "steps": 12, "class_weights": False},
        "privacy": privacy,
    }
    return parse(Experiment, table, where="test")


def report(head: Head | None) -> TrainReport:
    private = None if head is None else PrivateReport(Plan(1.0, 0.5, 1), 1.0, 8.0, 1e-3, head)
    return TrainReport("ash", 20.0, 10, 1, None, 1.0, None, private)


def test_heads_are_remembered_and_only_go_forward(tmp_path: Path) -> None:
    heads = KnownHeads(tmp_path / "heads.json")
    assert heads.of("ash") is None
    heads.learn("ash", ONE)
    heads.learn("ash", TWO)
    heads.learn("ash", TWO)
    assert KnownHeads(tmp_path / "heads.json").of("ash") == TWO
    for old in (ONE, Head(2, "c" * 64), Head()):
        with pytest.raises(LedgerRefused, match=r"site ash: its ledger has \d lines and had 2; it was rolled back"):
            heads.learn("ash", old)
    assert heads.of("ash") == TWO
    assert heads.of("birch") is None


def test_an_answer_without_privacy_or_from_an_older_ledger_does_not_count() -> None:
    order = PrivateOrder(PatientPrivacy(noise_multiplier=1.0), "x-1", 12, seen=TWO)
    require_private(report(Head(3, "d" * 64)), order)
    require_private(report(None), None)
    with pytest.raises(RunFailed, match="answered without privacy"):
        require_private(report(None), order)
    with pytest.raises(LedgerRefused, match="rolled back"):
        require_private(report(ONE), order)


def test_noise_is_made_for_the_whole_run_from_nominal_numbers(tmp_path: Path) -> None:
    asked = experiment({"kind": "patient", "epsilon": 8.0, "patients_per_step": 8})
    made = PrivateRun.of(asked, {"ash": 40, "birch": 80}, name="x-1", heads=KnownHeads(tmp_path / "heads.json"))
    assert sum(made.steps.values()) == 12
    for site, nominal in (("ash", 40), ("birch", 80)):
        order = made.order(site)
        assert order.privacy.epsilon is None
        sigma = order.privacy.noise_multiplier
        assert sigma is not None
        spent = epsilon([Plan(sigma, 8 / nominal, order.steps)], delta=1 / (10 * nominal))
        assert spent == pytest.approx(8.0, rel=3e-3)
        assert spent <= 8.0
    with pytest.raises(BadInput, match=r"site ash: privacy\.patients_per_step is 8, but the site nominally has 5"):
        PrivateRun.of(asked, {"ash": 5, "birch": 80}, name="x-1", heads=made.heads)


def test_epochs_are_passes_over_nominal_patients() -> None:
    training = parse(Experiment, {**_table(), "training": {"epochs": 3, "class_weights": False}}, where="x").training
    assert private_steps_total(training, PatientPrivacy(epsilon=1, patients_per_step=16), {"a": 40, "b": 60}) == 19


def _table() -> dict[str, Any]:
    return {"name": "x", "task": asdict(TASK)}


def test_hospital_level_noise_is_refused_under_fifty_sites_with_the_reason() -> None:
    privacy = HospitalPrivacy(noise_multiplier=2.15)
    with pytest.raises(BadInput, match=r"needs 50 training sites or more, and here are 5: its noise would be 0\.43 of"):
        require_enough(privacy, sites=5, rounds=10)
    require_enough(privacy, sites=50, rounds=10)
    cards = {f"s{i:02d}": SiteCard(f"s{i:02d}", "train", TASK, {"train": 9}, 10, "0" * 64) for i in range(50)}
    asked = experiment({"kind": "hospital", "noise_multiplier": 2.15})
    assert len(Roster.of(cards, asked).train) == 50
    with pytest.raises(BadInput, match="and here are 49"):
        Roster.of(dict(list(cards.items())[1:]), asked)


def test_hospital_level_noise_has_its_spread_and_no_site_more_than_its_share() -> None:
    privacy = HospitalPrivacy(clip=0.5, noise_multiplier=2.0)
    plan, delta = hospital_plan(privacy, sites=50, rounds=3)
    assert (plan, delta) == (Plan(2.0, 1.0, 3), 1 / 500)
    huge = {f"s{i}": Update.of({"w": np.full(40_000, 1e3)}, weight=7.0) for i in range(50)}
    found = hospital_mean(huge, privacy, plan, sites=50)["w"]
    assert found.mean() == pytest.approx(0.5 / np.sqrt(40_000), abs=5 * 0.02 / 200)
    assert found.std() == pytest.approx(2.0 * 0.5 / 50, rel=0.03)
    alone = hospital_mean({"s0": huge["s0"]}, privacy, plan, sites=50)["w"]
    assert alone.mean() == pytest.approx(0.5 / 50 / np.sqrt(40_000), abs=5 * 0.02 / 200)


def test_spending_is_told_from_the_records() -> None:
    asked = experiment({"kind": "patient", "noise_multiplier": 2.0})
    plan = {"noise_multiplier": 2.0, "sampling_rate": 0.4, "steps": 3, "owned": 1}
    told = {"plan": plan, "delta": 1e-3, "insecure_demo": False}
    events = [
        {"event": "train", "run": "r", "site": s, "round": r, "privacy": told} for r in (1, 2) for s in ("a", "b")
    ]
    found = spending(events, asked)
    assert found is not None
    assert [(cost.site, cost.rounds, cost.steps) for cost in found.sites] == [("a", (1, 2), 6), ("b", (1, 2), 6)]
    assert found.sites[0].epsilon[1] == pytest.approx(epsilon([Plan(2.0, 0.4, 6)], delta=1e-3), abs=1e-4)
    assert found.together == {}
    assert spending(events, experiment({"kind": "none"})) is None

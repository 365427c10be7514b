"""The round loop, against a federation of plain functions: who is asked for what, what is kept, how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Experiment
from common.errors import BadInput, RunFailed
from common.orders import EvaluateOrder, EvaluateReport, PartReport, SiteCard, TrainOrder, TrainReport
from common.parsing import parse
from common.tasks import Task
from common.update import Weights
from common.weights import TailAverage, fingerprint
from server.checkpoints import State, store
from server.records import Records, read_records
from server.rounds import Evaluated, Outcome, Roster, Trained, run_rounds

TASK = Task("lump", ("benign", "malignant"), "malignant")
START: Weights = {"w": np.zeros(3, np.float32)}


def experiment(**changes: Any) -> Experiment:
    table: dict[str, Any] = {
        "name": "x",
        "task": {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"},
        "training": {"rounds": 4, "steps": 12, "batch_size": 2},
    }
    for key, value in changes.items():
        table[key] = {**table[key], **value} if isinstance(table.get(key), dict) else value
    return parse(Experiment, table, where="test")


def card(site: str, role: Any = "train", task: Task = TASK, train: int = 10) -> SiteCard:
    return SiteCard(site, role, task, {"train": train, "val": 4, "test": 6}, 20, "0" * 64)


CARDS = {"ash": card("ash"), "birch": card("birch", train=30), "yew": card("yew", role="held-out")}


@dataclass
class Plain:
    """Every site adds its round's number to the weights; `losses` are the val losses by round."""

    losses: Mapping[int, float] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    die_in: int | None = None
    trained: list[tuple[int, dict[str, TrainOrder]]] = field(default_factory=list)
    evaluated: list[tuple[int, dict[str, EvaluateOrder]]] = field(default_factory=list)

    def train(self, round_number: int, orders: Mapping[str, TrainOrder], weights: Weights) -> Trained:
        if round_number == self.die_in:
            raise KeyboardInterrupt
        self.trained.append((round_number, dict(orders)))
        reports = {
            site: TrainReport(site, 1.0, order.steps * 2, order.steps, 0.5, 1.0, 0.0)
            for site, order in orders.items()
            if site not in self.broken
        }
        change = {"w": np.full(3, round_number, np.float64)} if reports else None
        return Trained(change, reports, {site: "it broke" for site in orders if site in self.broken})

    def evaluate(self, round_number: int, orders: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated:
        self.evaluated.append((round_number, dict(orders)))
        loss = self.losses.get(round_number, 1.0)
        held_out = {site: loss if "val" in order.parts else -1000.0 for site, order in orders.items()}
        return Evaluated({site: self._report(site, orders[site], value) for site, value in held_out.items()}, {})

    def _report(self, site: str, order: EvaluateOrder, loss: float) -> EvaluateReport:
        part = PartReport(4, 4, 0.5, None, None, None, None, loss, None, None, "test")
        return EvaluateReport(site, 0.0, {next(iter(order.parts)): part})


def go(folder: Path, plain: Plain, asked: Experiment, cards: Mapping[str, SiteCard] = CARDS) -> Outcome:
    if not any(folder.glob("checkpoints/*.json")):
        state = State(0, START, TailAverage(asked.training.rounds, asked.training.average))
        store(folder / "checkpoints", state, identity="me")
    return run_rounds(
        plain,
        Roster.of(cards, asked),
        asked,
        run="r",
        folder=folder / "checkpoints",
        identity="me",
        records=Records(folder / "records.jsonl"),
    )


def test_each_round_asks_the_training_sites_for_their_share(tmp_path: Path) -> None:
    plain = Plain()
    outcome = go(tmp_path, plain, experiment())
    assert [number for number, _ in plain.trained] == [1, 2, 3, 4]
    for _, orders in plain.trained:
        assert {site: order.steps for site, order in orders.items()} == {"ash": 1, "birch": 2}
        assert all(order.parts == ("train",) for order in orders.values())
    np.testing.assert_array_equal(outcome.weights["w"], 1 + 2 + 3 + 4)
    samples = [event["samples"] for event in read_records(tmp_path / "records.jsonl") if event["event"] == "train"]
    assert sum(samples) == 12 * 2


def test_leaving_a_center_out_gives_test_patients_to_training(tmp_path: Path) -> None:
    plain = Plain()
    go(tmp_path, plain, experiment(protocol="leave-one-center-out"))
    assert all(order.parts == ("train", "test") for _, orders in plain.trained for order in orders.values())


def test_the_best_round_is_chosen_on_val_of_training_centers_alone(tmp_path: Path) -> None:
    """The held-out center reports a loss of −1000 in every round, and it counts for nothing."""
    plain = Plain(losses={1: 0.9, 2: 0.3, 3: 0.4, 4: 0.3})
    outcome = go(tmp_path, plain, experiment(evaluation={"select": "best"}))
    np.testing.assert_array_equal(outcome.weights["w"], 1 + 2)
    for _, orders in plain.evaluated:
        assert {site: dict(order.parts) for site, order in orders.items()} == {
            "ash": {"val": ("val",)},
            "birch": {"val": ("val",)},
            "yew": {"test": ("train", "val", "test")},
        }


def test_evaluation_every_few_rounds_and_at_the_end(tmp_path: Path) -> None:
    plain = Plain()
    go(tmp_path, plain, experiment(evaluation={"every": 3}))
    assert [number for number, _ in plain.evaluated] == [3, 4]


def test_the_tail_is_averaged(tmp_path: Path) -> None:
    outcome = go(tmp_path, Plain(), experiment(training={"average": 0.5}))
    np.testing.assert_array_equal(outcome.weights["w"], np.mean([1 + 2 + 3, 1 + 2 + 3 + 4]))


@pytest.mark.parametrize("select", ["best", "last"])
@pytest.mark.parametrize("moments", [(1, 1), (1, 3), (2, 4), (4, 4)])
def test_stopped_in_any_round_and_continued_gives_the_same_bits(
    tmp_path: Path, moments: tuple[int, int], select: str
) -> None:
    losses = {1: 0.5, 2: 0.3, 3: 0.4, 4: 0.6}
    asked = experiment(training={"average": 0.5}, evaluation={"select": select})
    expected = go(tmp_path / "whole", Plain(losses), asked)
    for moment in moments:
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path / "torn", Plain(losses, die_in=moment), asked)
    found = go(tmp_path / "torn", Plain(losses), asked)
    assert fingerprint(found.weights) == fingerprint(expected.weights)
    told = [_told(tmp_path / name) for name in ("whole", "torn")]
    assert told[0] == told[1]


def _told(folder: Path) -> list[dict[str, Any]]:
    """What records say apart from times and interruptions."""
    events = [event for event in read_records(folder / "records.jsonl") if event["event"] != "resumed"]
    return [{k: v for k, v in event.items() if k not in ("time", "seconds")} for event in events]


def test_a_run_does_not_go_on_over_changed_data(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Plain(die_in=3), experiment())
    changed = {**CARDS, "birch": replace(CARDS["birch"], data_sha256="1" * 64)}
    with pytest.raises(BadInput, match="site birch: its data changed since round 2"):
        go(tmp_path, Plain(), experiment(), changed)
    held_out = {**CARDS, "yew": replace(CARDS["yew"], data_sha256="1" * 64)}
    assert go(tmp_path, Plain(), experiment(), held_out).steps == 12


def test_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    expected = go(tmp_path, Plain(), experiment())
    plain = Plain()
    assert fingerprint(go(tmp_path, plain, experiment()).weights) == fingerprint(expected.weights)
    assert plain.trained == []


def test_a_site_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    outcome = go(tmp_path, Plain(broken=frozenset({"ash"})), experiment())
    assert outcome.failures == {"ash": "it broke"}
    failures = [event for event in read_records(tmp_path / "records.jsonl") if event["event"] == "failure"]
    assert {(event["site"], event["why"]) for event in failures} == {("ash", "it broke")}
    np.testing.assert_array_equal(outcome.weights["w"], 10)


def test_a_round_in_which_nobody_learned_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="round 1: no site trained: ash: it broke; birch: it broke"):
        go(tmp_path, Plain(broken=frozenset({"ash", "birch"})), experiment())


def test_too_small_a_budget_is_refused_before_anyone_trains(tmp_path: Path) -> None:
    plain = Plain()
    with pytest.raises(BadInput, match="1 steps a round are too few for 2 sites"):
        go(tmp_path, plain, experiment(training={"steps": 6}))  # rounds of 2, 2, 1 and 1 steps
    assert plain.trained == []


@pytest.mark.parametrize(
    ("cards", "changes", "expected"),
    [
        ({"yew": CARDS["yew"]}, {}, "every site is held out"),
        (CARDS, {"held_out": ["ash", "birch"]}, "every site is held out"),
        (CARDS, {"held_out": ["oak"]}, "no site is called oak; known are ash, birch, yew"),
        ({"ash": CARDS["ash"]}, {"protocol": "leave-one-center-out"}, "needs a site that is held out"),
        ({"ash": card("ash", task=replace(TASK, positive="benign"))}, {}, "site ash: its task is lump"),
        ({"ash": card("ash", task=replace(TASK, classes=("malignant", "benign")))}, {}, "site ash: its task is lump"),
    ],
)
def test_a_roster_that_cannot_run(cards: Mapping[str, SiteCard], changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        Roster.of(cards, experiment(**changes))

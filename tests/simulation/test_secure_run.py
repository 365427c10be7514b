"""Secure sums through Flower's apps: the same results as in the clear, no sums on the wire, and a site that drops out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from common.config import Experiment, parse
from common.errors import BadInput, RunFailed
from common.files import read_json
from common.metrics import EvaluationSums
from common.weights import fingerprint, load
from server.records import read_records
from server.rounds import evaluate_order
from server.run import coordinate, initial_weights, prepare_run, resolved
from server.strategy import FlowerFederation
from simulation.grid import LocalGrid
from tests.experiments import experiment_table, write_uneven_sites

SIZES = {"ash": 32, "birch": 48, "cedar": 32, "elm": 32}
EXACT = ("n_images", "n_patients", "auc", "sensitivity", "specificity", "threshold")
CLOSE = ("brier", "ece")


class WatchedGrid(LocalGrid):
    """Hands every message and reply to `seen`; the node that `lose` names by type and place loses its answer, once."""

    def __init__(self, app: Any, sites: list[Path], *, lose: dict[str, int] | None = None) -> None:
        self.seen: list[Message] = []
        super().__init__(app, sites, on_message=self.seen.append)
        self.lose = dict(lose or {})

    def _deliver(self, message: Message) -> str:
        name = super()._deliver(message)
        kind = message.metadata.message_type
        if self.lose.get(kind) == message.metadata.dst_node_id - 101:
            del self.lose[kind]
            self._replies[name] = Message(Error(5, "lost"), reply_to=message)
        return name


def go(
    folder: Path, sites: list[Path], *, held: str = "elm", lose: dict[str, int] | None = None, **changes: Any
) -> WatchedGrid:
    from client.app import app

    about = parse(Experiment, experiment_table(sites, **changes), where="test")
    about = resolved(about, {site: "held-out" if site == held else "train" for site in SIZES})
    prepare_run(folder, about, initial_weights(about), resume=folder.exists())
    grid = WatchedGrid(app, sites, lose=lose)
    coordinate(FlowerFederation(grid, about), folder)
    return grid


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["site"]: row for row in read_json(folder / "results.json")["rows"]}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_uneven_sites(tmp_path_factory.mktemp("sites"), SIZES)


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory, sites: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("clear") / "run"
    go(folder, sites)
    return folder


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory, sites: list[Path]) -> tuple[Path, WatchedGrid]:
    folder = tmp_path_factory.mktemp("hidden") / "run"
    return folder, go(folder, sites, evaluation={"secure": True})


def test_a_secure_run_gives_the_results_of_a_clear_one(hidden: tuple[Path, WatchedGrid], clear: Path) -> None:
    folder, grid = hidden
    assert fingerprint(load(folder / "model.safetensors")) == fingerprint(load(clear / "model.safetensors"))
    secure, plain = rows(folder), rows(clear)
    assert {name: secure["all"][name] for name in EXACT} == {name: plain["all"][name] for name in EXACT}
    for name in CLOSE:
        assert secure["all"][name] == pytest.approx(plain["all"][name], abs=1e-9)
    for site in SIZES:
        assert secure[site]["auc"] == plain[site]["auc"]
        assert (secure[site]["brier"], secure[site]["why"]) == (None, plain[site]["why"] or "secure")
    told = [
        str(m.content.config_records["order"]["json"])
        for m in grid.seen
        if m.has_content() and m.content.config_records
    ]
    assert sum("histogram" in text and '"sums":{' in text for text in told) == 0
    assert sum('"sums":null' in text for text in told) > 0
    kinds = [m.metadata.message_type for m in grid.seen]
    assert {
        kind: kinds.count(kind) for kind in ("query.sums_key", "evaluate.sums_seal", "query.sums_open")
    } == dict.fromkeys(
        ("query.sums_key", "evaluate.sums_seal", "query.sums_open"), 2 * 2 * 3
    )  # message and reply, val and test, three training sites


def test_what_a_site_sends_is_small(hidden: tuple[Path, WatchedGrid]) -> None:
    _, grid = hidden
    sent = [
        sum(len(array.data) for array in m.content.array_records["arrays"].values())
        for m in grid.seen
        if m.metadata.message_type == "evaluate.sums_seal" and m.metadata.dst_node_id == 1 and m.has_content()
    ]
    assert len(sent) == 6
    assert max(sent) < 20_000


@pytest.mark.parametrize(("kind", "seed"), [("query.sums_key", 1), ("evaluate.sums_seal", 2)])
def test_a_site_that_drops_out_is_named_and_the_others_are_counted(
    tmp_path: Path, sites: list[Path], kind: str, seed: int
) -> None:
    """Val loses birch, test has all four again. The same model with other sites is refused."""
    grid = go(tmp_path / "run", sites, lose={kind: 1}, held="", evaluation={"secure": True}, seed=seed)
    assert grid.lose == {}
    failures = [e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"]
    assert [(e["site"], e["why"]) for e in failures] == [("birch", "the node was lost (error 5)")]
    with pytest.raises(RunFailed, match="was already counted, and now the roster differs by birch"):
        go(tmp_path / "again", sites, held="", evaluation={"secure": True}, seed=seed)


def test_the_total_without_a_site_is_exact(sites: list[Path]) -> None:
    from client.app import app
    from common.evaluation_blocks import evaluation_directory, evaluation_sums
    from common.sums_orders import named_by_model
    from server.secure_sums import secure_totals

    about = parse(Experiment, experiment_table(sites), where="test")
    grid = WatchedGrid(app, sites, lose={"evaluate.sums_seal": 2})
    federation, weights = FlowerFederation(grid, about), initial_weights(about)
    federation.gather(SIZES)
    order = evaluate_order(about, {"test": ("test",)}, run="r", round_number=1, threshold=0.5)
    found = secure_totals(
        federation.exchange(order, weights),
        SIZES,
        evaluation_directory(("test",), with_threshold=True),
        run=named_by_model("r", fingerprint(weights)),
        round_number=1,
        purpose="final test",
    )
    assert dict(found.failures) == {"cedar": "the node was lost (error 5)"}
    total = evaluation_sums(found.numbers, "test", sites=found.sites, threshold=0.5)
    plain = federation.evaluate(1, dict.fromkeys(("ash", "birch", "elm"), order), weights)
    parts = [EvaluationSums.from_json(plain.reports[site].parts["test"].sums or {}) for site in ("ash", "birch", "elm")]
    expected = sum(parts, EvaluationSums.zero())
    assert total.histogram == expected.histogram
    assert total.confusion == expected.confusion
    assert (total.sites, total.n_images, total.n_patients) == (expected.sites, expected.n_images, expected.n_patients)
    assert total.brier.squares == pytest.approx(expected.brier.squares, abs=1e-9)
    assert total.loss_sum == pytest.approx(expected.loss_sum, abs=1e-9)
    assert total.calibration.score_sums == pytest.approx(expected.calibration.score_sums, abs=1e-9)


def test_a_key_for_another_model_seals_nothing(tmp_path: Path) -> None:
    from client.app import app
    from common.evaluation_blocks import evaluation_directory
    from server.secure_sums import DroppedOut, sum_once

    sites = write_uneven_sites(tmp_path, {"ash": 16, "birch": 16, "cedar": 16})
    about = parse(Experiment, experiment_table(sites), where="test")
    federation, weights = FlowerFederation(LocalGrid(app, sites), about), initial_weights(about)
    federation.gather(("ash", "birch", "cedar"))
    exchange = federation.exchange(evaluate_order(about, {"val": ("val",)}, run="r", round_number=1), weights)
    directory = evaluation_directory(("val",), with_threshold=False)
    with pytest.raises(DroppedOut, match="site ash: its key was asked for another model than came"):
        sum_once(exchange, ("ash", "birch", "cedar"), directory, run="r " + "0" * 64, round_number=1, purpose="x")


def test_too_few_sites_are_refused_before_anyone_trains(tmp_path: Path, sites: list[Path]) -> None:
    with pytest.raises(BadInput, match=r"evaluation\.secure: 2 training sites are too few to hide one in a total"):
        go(tmp_path / "run", sites, evaluation={"secure": True}, held_out=["ash"])
    assert not (tmp_path / "run" / "results.json").exists()

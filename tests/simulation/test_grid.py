"""The in-process grid: Flower's apps and messages without Flower's processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from client.app import app as client_app
from common.config import Experiment
from common.errors import BadInput, RunFailed
from common.files import read_json
from common.parsing import parse
from server.app import app as server_app
from server.records import read_records
from server.run import initial_weights, prepare_run, resolved
from server.strategy import FlowerFederation
from simulation.grid import LocalGrid
from simulation.sources import open_sites
from tests.experiments import experiment_table, write_uneven_sites


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    return write_uneven_sites(tmp_path / "private-place", {"ash": 32, "birch": 48})


def asked(sites: list[Path], **changes: Any) -> Experiment:
    return parse(Experiment, experiment_table(sites, **changes), where="test")


def test_messages_tell_of_no_patient_and_no_place(tmp_path: Path, sites: list[Path]) -> None:
    """Every message of a whole run, both ways, as the bytes that would travel: no pseudonym, path or file name."""
    experiment = resolved(asked(sites), {"ash": "train", "birch": "train"})
    prepare_run(tmp_path / "run", experiment, initial_weights(experiment))
    seen: list[bytes] = []
    grid = LocalGrid(client_app, sites, on_message=lambda message: seen.append(on_the_wire(message)))
    server_app(grid, Context(1, 1, {}, RecordDict(), {"run-folder": str(tmp_path / "run")}))
    # roster 2 · 2, training 2 rounds · 2 · 2, evaluation (2 rounds + val + test + placements) · 2 · 2, shift 2 · 2
    assert len(seen) == 4 + 8 + 20 + 4
    secrets = [b"private-place", b"000000", str(tmp_path).encode()]
    for site in sites:
        with (site / "cases.csv").open(encoding="utf-8") as file:
            secrets += [
                row[key].encode() for row in csv.DictReader(file) for key in ("patient", "image", "image_sha256")
            ]
    everything = b"".join(seen)
    assert b"attention" in everything  # the tensors' names are there to be found
    assert [secret for secret in secrets if secret in everything] == []
    assert len(read_json(tmp_path / "run" / "results.json")["rows"]) == 3


def on_the_wire(message: Message) -> bytes:
    told = [json.dumps(dict(record)) for record in message.content.config_records.values()]
    arrays = [array.data for record in message.content.array_records.values() for array in record.values()]
    return b"".join([*(text.encode() for text in told), *arrays])


def test_a_failure_does_not_say_where_the_site_lies(tmp_path: Path, sites: list[Path]) -> None:
    (sites[0] / "site.toml").write_text("id = ", encoding="utf-8")
    grid = LocalGrid(client_app, sites)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 101, "query")])
    assert reply.has_error()
    assert "not valid TOML" in reply.error.reason
    assert "private-place" not in reply.error.reason
    assert str(tmp_path) not in reply.error.reason


def test_a_mistake_inside_is_logged_at_the_site_alone(sites: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("patient p-0000-00000000")

    monkeypatch.setattr("client.app.answer_query", broken)
    (reply,) = LocalGrid(client_app, sites).send_and_receive([Message(RecordDict(), 101, "query")])
    assert reply.error.reason == "ZeroDivisionError at the site; its private/errors.log says more"
    assert "p-0000-00000000" in (sites[0] / "private" / "errors.log").read_text(encoding="utf-8")


def test_a_missing_site_is_named_at_the_deadline(sites: list[Path]) -> None:
    federation = FlowerFederation(LocalGrid(client_app, sites), asked(sites, deadlines={"gather": 1.5}))
    with pytest.raises(RunFailed, match=r"no answer from oak within 1\.5 s .*raise deadlines\.gather"):
        federation.gather({"ash", "oak"})


def test_nobody_at_all_ends_at_the_deadline() -> None:
    federation = FlowerFederation(LocalGrid(client_app, []), asked([Path("x")], deadlines={"gather": 0.5}))
    with pytest.raises(RunFailed, match="no answer from any site"):
        federation.gather()


def test_sites_that_nobody_expects_stay_out(sites: list[Path]) -> None:
    assert set(FlowerFederation(LocalGrid(client_app, sites), asked(sites)).gather({"birch"})) == {"birch"}


def test_two_nodes_cannot_be_one_site(sites: list[Path]) -> None:
    federation = FlowerFederation(LocalGrid(client_app, [sites[0], sites[0]]), asked(sites))
    with pytest.raises(RunFailed, match="two nodes both say that they are site ash"):
        federation.gather()


def test_an_answer_of_another_form_is_no_site(sites: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.app.answer_query", lambda *_: asked(sites))
    federation = FlowerFederation(LocalGrid(client_app, sites), asked(sites, deadlines={"gather": 0.5}))
    with pytest.raises(RunFailed, match=r"no answer from ash within 0\.5 s \(a node answered: message"):
        federation.gather({"ash"})


def test_a_held_out_site_refuses_to_train(sites: list[Path], tmp_path: Path) -> None:
    text = (sites[1] / "site.toml").read_text(encoding="utf-8")
    (sites[1] / "site.toml").write_text(text.replace("[task]", 'role = "held-out"\n[task]'), encoding="utf-8")
    experiment = resolved(asked(sites), {"ash": "train", "birch": "train"})  # what the server wishes
    prepare_run(tmp_path / "run", experiment, initial_weights(experiment))
    server_app(LocalGrid(client_app, sites), Context(1, 1, {}, RecordDict(), {"run-folder": str(tmp_path / "run")}))
    trained = {e["site"] for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "train"}
    assert trained == {"ash"}
    wish = [{"path": str(sites[0])}, {"path": str(sites[1]), "role": "train"}]
    table = experiment_table(sites) | {"sites": wish}
    with pytest.raises(BadInput, match="its folder says held-out"):
        open_sites(parse(Experiment, table, where="test"))

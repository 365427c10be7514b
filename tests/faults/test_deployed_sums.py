"""Secure sums over a real deployment on loopback: four clients that sign their keys and know each other's.

The tests share it and run in their order here: everybody there, one killed between seal and open.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from common.config import Experiment
from common.files import read_json
from server.records import read_records
from server.run import coordinate, initial_weights, prepare_run
from server.strategy import FlowerFederation
from server.submit import submit
from simulation.grid import LocalGrid
from tests.faults.deployed import Deployment, await_true, child_of, deployment_in, run_in_process
from tests.faults.small_sites import experiment, write_sites

NAMES = ("alpha", "beta", "gamma", "delta")
LEFT = NAMES[:3]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    base = tmp_path_factory.mktemp("sums")
    write_sites(base / "sites", NAMES, images=64)
    with deployment_in(base) as made:
        for name in NAMES:
            made.start_client(name, base / "sites" / name)
        for name in NAMES:
            made.await_line(name, "connected\n")
        for name in NAMES:
            peers = base / "sites" / name / "peers"
            peers.mkdir()
            for other in set(NAMES) - {name}:
                (peers / f"{other}.pub").write_bytes((made.state / "sites" / f"{other}.pub").read_bytes())
        yield made


def prepared(*folders: Path, seed: int) -> Experiment:
    about = experiment(NAMES, rounds=1)
    about = replace(about, seed=seed, evaluation=replace(about.evaluation, secure=True))
    for folder in folders:
        prepare_run(folder, about, initial_weights(about))
    return about


def rows(*folders: Path) -> list[Any]:
    return [read_json(folder / "results.json")["rows"] for folder in folders]


def failed(folder: Path) -> list[str]:
    return [event["site"] for event in read_records(folder / "records.jsonl") if event["event"] == "failure"]


def log_of(clients: Deployment, site: str) -> str:
    return (clients.base / "sites" / site / "state" / "flower" / "supernode.log").read_text()


def sent(log: str) -> Counter[str]:
    """How many messages of a secure sum a SuperNode answered, by step, as its log has them."""
    return Counter(
        line.split("sums_")[1].split()[0] for line in log.splitlines() if "Sending: " in line and "sums_" in line
    )


@pytest.mark.prove
def test_signed_keys_give_the_results_of_the_in_process_grid(clients: Deployment, tmp_path: Path) -> None:
    """Each site has the others' public keys, so the server can put none of its own in their place."""
    near, far = tmp_path / "near", tmp_path / "far"
    prepared(near, far, seed=0)
    run_in_process(near, write_sites(tmp_path / "sites", NAMES, images=64))
    assert submit(far, state=clients.state, timeout=400) == 0
    near_rows, far_rows = rows(near, far)
    assert near_rows == far_rows
    assert {row["site"] for row in far_rows} == {*NAMES, "all"}
    assert (failed(near), failed(far)) == ([], [])
    assert sent(log_of(clients, "alpha")) == dict.fromkeys(("key", "seal", "ready", "open"), 4)


class Dying(LocalGrid):
    """The last node is lost for good once it has sealed its first sums."""

    dead = False

    def _deliver(self, message: Message) -> str:
        name = super()._deliver(message)
        if message.metadata.dst_node_id == 100 + len(NAMES):
            if self.dead:
                self._replies[name] = Message(Error(5, "lost"), reply_to=message)
            self.dead |= message.metadata.message_type == "evaluate.sums_seal"
        return name


@pytest.mark.prove
def test_a_site_killed_between_seal_and_open_is_named_and_the_others_are_asked_again(
    clients: Deployment, tmp_path: Path
) -> None:
    """Its sealed sums have arrived at the server. The rows are those of the in-process grid that loses it there."""
    from client.app import app

    near, far = tmp_path / "near", tmp_path / "far"
    about = prepared(near, far, seed=1)
    coordinate(FlowerFederation(Dying(app, write_sites(tmp_path / "sites", NAMES, images=64)), about), near)
    before = {name: log_of(clients, name) for name in NAMES}

    def new(site: str) -> str:
        return log_of(clients, site)[len(before[site]) :]

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(submit, far, state=clients.state, timeout=500)
        await_true(
            lambda: "Sent successfully" in new("delta").partition("Sending: evaluate.sums_seal")[2],
            seconds=200,
            what=lambda: new("delta"),
        )
        kill(clients, "delta")
        assert result.result() == 0

    near_rows, far_rows = rows(near, far)
    assert near_rows == far_rows
    assert {row["site"] for row in far_rows} == {*LEFT, "all"}
    assert (failed(near), failed(far)) == (["delta"], ["delta"])
    # val twice, bins, test and placements; the first val was sealed, and alpha was ready, and it was never opened
    assert sent(new("delta")) == {"key": 1, "seal": 1}
    found = sent(new("alpha"))
    assert {step: found[step] for step in ("seal", "ready", "open")} == {"seal": 5, "ready": 5, "open": 4}


def kill(clients: Deployment, name: str) -> None:
    """The client and its SuperNode, at once and for good."""
    process = clients.processes.pop(name)
    node = child_of(process.pid)
    process.kill()
    os.kill(node, signal.SIGKILL)
    process.wait(timeout=10)

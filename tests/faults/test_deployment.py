"""A real deployment on loopback: one SuperLink and three SuperNodes over TLS with registered keys.

The tests share it and run in their order here: nobody there, everybody there, one killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from common.files import read_json
from common.parsing import to_table
from common.weights import fingerprint, load, save
from server.against import keep_against
from server.records import read_records
from server.run import MODEL, initial_weights, prepare_run, resolved
from server.submit import submit
from tests.faults.deployed import Deployment, await_true, child_of, deployment_in, run_in_process
from tests.faults.small_sites import SERVER, experiment, write_sites

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    base = tmp_path_factory.mktemp("deployment")
    write_sites(base / "sites", NAMES, images=64)
    with deployment_in(base) as made:
        yield made


@pytest.fixture(scope="module")
def clients(deployment: Deployment) -> Deployment:
    for name in NAMES:
        deployment.start_client(name, deployment.base / "sites" / name)
    for name in NAMES:
        deployment.await_line(name, "connected\n")
    return deployment


def test_a_run_that_nobody_joins_fails_within_its_deadline(deployment: Deployment) -> None:
    config, out = deployment.base / "config.toml", deployment.base / "alone"
    config.write_text(tomli_w.dumps(to_table(experiment(NAMES, gather=2))))
    command = [*SERVER, "run", str(config), "--out", str(out), "--state", str(deployment.state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=deployment.base, check=False)
    assert done.returncode == 1, done.stderr
    assert "error: no answer from alpha, beta, gamma within 2 s (no node is connected)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / MODEL).exists()


def test_a_deployment_gives_the_weights_of_the_in_process_grid(clients: Deployment) -> None:
    near, far = clients.base / "near", clients.base / "far"
    about = replace(experiment(NAMES), held_out=("gamma",))
    prepare_run(near, about, initial_weights(about))
    prepare_run(far, about, initial_weights(about))
    run_in_process(near, [clients.base / "sites" / name for name in NAMES])
    assert submit(far, state=clients.state, timeout=400) == 0

    assert fingerprint(load(far / MODEL)) == fingerprint(load(near / MODEL))
    assert fingerprint(load(far / MODEL)) != fingerprint(initial_weights(about))
    told = [read_json(folder / "results.json") for folder in (near, far)]
    assert told[0]["rows"] == told[1]["rows"]
    assert told[0]["repairs"] == told[1]["repairs"]
    assert told[0]["shift"] == told[1]["shift"]
    assert {card["site"]: card["why"] for card in told[1]["shift"]} == dict.fromkeys(NAMES)
    assert {row["site"] for row in told[1]["repairs"]} == {"gamma"}


@pytest.mark.prove
def test_a_private_run_charges_each_hospitals_own_ledger(clients: Deployment) -> None:
    """The ledger lies in the site folder, the server learns ε and the head, and remembers the head over runs."""
    from client.ledger import read_entries
    from client.manifest import load_manifest
    from client.spending import account_of
    from common.config import PatientPrivacy

    about = experiment(NAMES)
    privacy = PatientPrivacy(noise_multiplier=4.0, patients_per_step=4)
    about = replace(about, privacy=privacy, training=replace(about.training, class_weights=False))
    for name in ("private-1", "private-2"):
        prepare_run(clients.base / name, about, initial_weights(about))
        assert submit(clients.base / name, state=clients.state, timeout=400) == 0
    heads = read_json(clients.state / "ledger-heads.json")
    told = read_json(clients.base / "private-2" / "results.json")["privacy"]
    assert [cost["site"] for cost in told["sites"]] == list(NAMES)
    for name in NAMES:
        site = clients.base / "sites" / name
        entries = read_entries(account_of(site, load_manifest(site)))
        assert [entry.request.round for entry in entries] == [1, 2, 1, 2]
        assert heads[name] == {"length": 4, "hash": entries[-1].hash}
    trained = [e for e in read_records(clients.base / "private-2" / "records.jsonl") if e["event"] == "train"]
    assert {event["privacy"]["ledger"] for event in trained} == {3, 4}
    assert not [e for e in read_records(clients.base / "private-2" / "records.jsonl") if e["event"] == "failure"]


@pytest.mark.prove
def test_two_models_are_compared_as_on_the_in_process_grid(clients: Deployment) -> None:
    """By the coordinator's own command; over the grid by the same folder."""
    about = replace(experiment(NAMES), held_out=("gamma",))
    config, files = clients.base / "compared.toml", [clients.base / f"model-{n}.safetensors" for n in (0, 1)]
    config.write_text(tomli_w.dumps(to_table(about)))
    for number, path in enumerate(files):
        save(path, initial_weights(replace(about, seed=number)))
    near, far = clients.base / "near-compared", clients.base / "far-compared"
    prepare_run(near, resolved(about, dict.fromkeys(NAMES, "train")), load(files[0]))
    keep_against(near, *files)
    run_in_process(near, [clients.base / "sites" / name for name in NAMES], train=False)
    command = [*SERVER, "evaluate", str(files[0]), str(config), "--out", str(far), "--against", str(files[1])]
    command += ["--state", str(clients.state)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=Path.cwd(), check=False)
    assert done.returncode == 0, done.stderr
    told = [read_json(folder / "results.json") for folder in (near, far)]
    assert told[0]["contrasts"] == told[1]["contrasts"]
    assert [one["site"] for one in told[1]["contrasts"]] == [*NAMES, "all"]
    assert None not in [one["delta_auc"] for one in told[1]["contrasts"]]
    assert "checkpoint − other, in-federation" in done.stdout


def test_no_path_of_the_server_reaches_a_site(clients: Deployment) -> None:
    folder = str(clients.base)
    with_fab = [path for name in NAMES for path in (clients.base / "sites" / name / "state" / "flower").rglob("*")]
    texts = [path.read_bytes() for path in with_fab if path.is_file() and "apps" in path.parts]
    assert texts
    assert not any(folder.encode() in text for text in texts)


def test_a_killed_site_is_named_and_the_others_go_on(clients: Deployment) -> None:
    out = clients.base / "two-left"
    about = experiment(NAMES, rounds=1, reply=40)
    prepare_run(out, about, initial_weights(about))
    before = clients.said("gamma").count("train message")
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(submit, out, state=clients.state, final=False, timeout=400)
        await_true(
            lambda: clients.said("gamma").count("train message") > before,
            seconds=120,
            what=lambda: clients.said("gamma"),
        )
        os.kill(child_of(clients.processes["gamma"].pid), signal.SIGKILL)
        assert result.result() == 0

    events = read_records(out / "records.jsonl")
    assert [event["site"] for event in events if event["event"] == "failure"] == ["gamma"]
    assert [event["site"] for event in events if event["event"] == "train"] == ["alpha", "beta"]
    assert list(events[-1]["failures"]) == ["gamma"]
    clients.await_line("gamma", "the server still counts the last connection")


@pytest.mark.prove
def test_ray_gives_the_weights_of_the_in_process_grid(tmp_path: Path) -> None:
    from simulation.ray import run_ray

    sites = write_sites(tmp_path / "sites", NAMES)
    about = experiment(NAMES)
    for name in ("near", "ray"):
        prepare_run(tmp_path / name, about, initial_weights(about))
    run_in_process(tmp_path / "near", sites)
    assert run_ray(tmp_path / "ray", sites, threads=1) == 0
    assert fingerprint(load(tmp_path / "ray" / MODEL)) == fingerprint(load(tmp_path / "near" / MODEL))

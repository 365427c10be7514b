"""kill -9 at any moment: nothing is lost but the round in hand, no process stays, and the bytes are the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulation.__main__ import main
from tests.experiments import COMPARISON, write_experiment, write_uneven_sites

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """A command in a process of its own; a shell's background jobs ignore SIGINT, so that is undone here."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "simulation", *map(str, arguments)]
    return subprocess.Popen(
        line,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(*arguments: object) -> None:
    assert main([*map(str, arguments)]) == 0


def descendants(parent: int) -> list[int]:
    """All living processes below `parent`."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def kill_when(process: subprocess.Popen[bytes], run: Path, pattern: str, *, after: float = 0.0) -> list[int]:
    """Kill the process once a file that matches `pattern` is in `run`; the descendants that it had then."""
    deadline = time.monotonic() + 120
    while not any(run.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(after)
    children: list[int] = []
    if process.poll() is None:
        children = descendants(process.pid)
        process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    return children


def assert_gone(children: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [child for child in children if alive(child)] == []


def comparison(tmp_path: Path, *, workers: int) -> Path:
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 48})
    changes = {**COMPARISON["comparison"], "workers": workers}
    training = {"rounds": 3, "steps": 9}
    return write_experiment(tmp_path / "tiny.toml", sites, **COMPARISON | {"comparison": changes, "training": training})


MOMENTS = {
    1: ("models/federated/*/seed-0/checkpoints/round-0001.json", "predictions/**/*.csv"),
    2: ("models/local/ash/seed-0/records.jsonl", "models/federated/*/seed-0/checkpoints/round-0001.safetensors"),
}
"""By number of workers: the files whose appearance is the moment of a kill."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_comparison_killed_again_and_again_gives_the_same_bytes(tmp_path: Path, workers: int) -> None:
    config = comparison(tmp_path, workers=workers)
    finish("compare", config, "--out", tmp_path / "whole")
    torn = tmp_path / "torn"
    parents = 0
    for pattern in MOMENTS[workers]:
        children = kill_when(start("compare", config, "--out", torn), torn, pattern)
        parents += bool(children)
        assert_gone(children)
        assert not (torn / "results.json").exists()
    assert parents > 0 or workers == 1  # with two workers, a kill did meet some
    finish("compare", config, "--out", torn)
    for name in ("results.json", "config.toml"):
        assert (torn / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_killed_and_resumed_gives_the_same_weights(tmp_path: Path) -> None:
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 48})
    training = {"rounds": 6, "steps": 18, "average": 0.5}
    config = write_experiment(tmp_path / "tiny.toml", sites, training=training, evaluation={"select": "best"})
    finish("run", config, "--out", tmp_path / "whole")
    torn = tmp_path / "torn"
    kill_when(start("run", config, "--out", torn), torn, "checkpoints/round-0003.safetensors")
    assert not (torn / "model.safetensors").exists()
    finish("run", config, "--out", torn, "--resume")
    for name in ("model.safetensors", "results.json"):
        assert (torn / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_interrupt_ends_the_workers_too(tmp_path: Path) -> None:
    config = comparison(tmp_path, workers=2)
    process = start("compare", config, "--out", tmp_path / "run")
    deadline = time.monotonic() + 120
    while not any((tmp_path / "run").glob("models/*/*/seed-0/records.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.005)
    children = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.decode().splitlines()[-1] == "stopped; what was finished is kept"
    assert "Traceback" not in error.decode()
    assert_gone(children)


@pytest.mark.prove
def test_kills_at_random_moments(tmp_path: Path) -> None:
    """SONOFED_KILLS times (20 unless told otherwise), after a random time in the life of a small comparison."""
    rng = random.Random(0)
    config = comparison(tmp_path, workers=2)
    began = time.monotonic()
    finish("compare", config, "--out", tmp_path / "whole")
    seconds = time.monotonic() - began
    expected = (tmp_path / "whole" / "results.json").read_bytes()
    left = int(os.environ.get("SONOFED_KILLS", "20"))
    life = 0
    while left > 0:
        life += 1
        torn = tmp_path / f"torn-{life}"
        for _ in range(min(left, 4)):
            left -= 1
            process = start("compare", config, "--out", torn)
            assert_gone(kill_when(process, ROOT, "pyproject.toml", after=rng.uniform(0, seconds)))
        finish("compare", config, "--out", torn)
        assert (torn / "results.json").read_bytes() == expected

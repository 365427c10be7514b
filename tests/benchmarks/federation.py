"""What federation costs beside the steps themselves, and how long the slowest `--help` takes."""

from __future__ import annotations

__all__ = ["help_seconds", "overhead"]

import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from common.config import Crop, Evaluation, Experiment, Model, SiteAt, Training
from server.records import read_records
from simulation.run import run
from simulation.sources import open_sites
from tests.benchmarks.rows import Row
from tests.client.handmade import write_site

SITES, STEPS, BATCH, SIZE, ROUNDS = 4, 20, 32, 224, 10
COMMANDS = {
    "client": ("import", "check", "start"),
    "server": ("start", "register", "run", "evaluate", "report"),
    "simulation": ("phantom", "run", "compare", "pretrain"),
}


def overhead() -> Row:
    """(wall − time inside steps) / time inside steps, of an in-process run: 4 sites, 20 steps of 32 a site and round.

    Start, decoding, messages, aggregation, checkpoints, evaluation and the report all count; importing torch and flwr
    (some 4 s, which pooled training pays as well) does not.
    """
    _import_first()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(SITES):
            write_site(root / f"site-{number}", images=10, seed=number, toml=_toml(number))
        experiment = _experiment(root)
        open_sites(experiment)
        began = time.monotonic()
        run(experiment, root / "run")
        wall = time.monotonic() - began
        events = read_records(root / "run" / "records.jsonl")
        inside = sum(event["seconds"] for event in events if event["event"] == "train")
    what = (
        f"ResNet-18, group norm, {SIZE} px, {ROUNDS} rounds of {SITES} sites × {STEPS} steps of {BATCH}, imports apart"
    )
    return Row("federation-overhead", (wall - inside) / inside, wall, inside, "s", what)


def _import_first() -> None:
    for module in (
        "client.app",
        "client.evaluation",
        "client.training",
        "common.model",
        "server.app",
        "simulation.grid",
    ):
        importlib.import_module(module)


def _toml(number: int) -> str:
    from tests.client.handmade import SITE_TOML

    lines = [f'id = "site-{number}"' if line.startswith("id =") else line for line in SITE_TOML.splitlines()]
    return "\n".join(lines) + "\n"


def _experiment(root: Path) -> Experiment:
    from client.manifest import load_manifest

    task = load_manifest(root / "site-0").task
    steps = SITES * STEPS * ROUNDS
    return Experiment(
        name="overhead",
        task=task,
        sites=tuple(SiteAt(path=str(root / f"site-{number}")) for number in range(SITES)),
        threads=2,
        crop=Crop(size=SIZE),
        model=Model(),
        training=replace(Training(epochs=1), rounds=ROUNDS, epochs=None, steps=steps, batch_size=BATCH),
        evaluation=Evaluation(every=ROUNDS),
    )


def help_seconds() -> Row:
    """The slowest `--help` of all commands, each the median of five runs."""
    slowest, name = 0.0, ""
    for room, commands in COMMANDS.items():
        for command in ("", *commands):
            call = [sys.executable, "-m", room, *filter(None, [command]), "--help"]
            seconds = statistics.median(_seconds(call) for _ in range(5))
            if seconds > slowest:
                slowest, name = seconds, f"{room} {command}".strip()
    return Row("help-seconds", slowest, slowest, 0.5, "s", f"slowest of all --help: {name}, median of 5")


def _seconds(call: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began

"""What tests of every room share: small sites, and one finished comparison that many tests read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from common.files import read_json
from tests.experiments import COMPARISON, write_experiment, write_uneven_sites

settings.register_profile("repeatable", deadline=None, derandomize=True)
"""Seconds say nothing on a machine that others use too; and what fails once shall fail again."""
settings.register_profile("searching", deadline=None)
settings.load_profile(os.environ.get("SONOFED_HYPOTHESIS", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def _no_checkout() -> Iterator[None]:
    """Provenance without a git checkout: a commit made while the tests run must not show in a run's bytes."""
    before = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    yield
    os.environ.pop("GIT_DIR")
    if before is not None:
        os.environ["GIT_DIR"] = before


@pytest.fixture(scope="session", autouse=True)
def _this_checkout() -> Iterator[None]:
    """Processes that tests start elsewhere run this checkout's code, not that of another one installed here."""
    before = os.environ.get("PYTHONPATH")
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *([before] if before else [])])
    yield
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@dataclass(frozen=True)
class Compared:
    """A finished comparison: its configuration file, its sites' folders, its run folder, its results.

    Only to be read.
    """

    config: Path
    sites: list[Path]
    run: Path
    results: dict[str, Any]


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Three training sites of unequal size and a held-out one, two seeds, every arm, both protocols, two workers."""
    from simulation.__main__ import main

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compared"
    names = {"ash": 32, "birch": 48, "cedar": 64, "yew": 32}
    config, run = folder / "tiny.toml", folder / "run"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:  # the processes of `pytest -n` make it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (run / "report.html").exists():
            sites = write_uneven_sites(folder / "sites", names)
            changes = {**COMPARISON, "held_out": ["yew"]}
            changes["comparison"] = {**COMPARISON["comparison"], "seeds": 2, "workers": 2}
            write_experiment(config, sites, **changes)
            assert main(["compare", str(config), "--out", str(run)]) == 0
    return Compared(config, [folder / "sites" / name for name in names], run, read_json(run / "results.json"))

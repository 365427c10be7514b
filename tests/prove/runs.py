"""Whole comparisons: the same bytes twice and after kills, and AUCs that scikit-learn confirms."""

from __future__ import annotations

__all__ = ["auc_recomputed", "kill_and_continue", "same_bytes"]

import csv
import os
import tempfile
from pathlib import Path
from typing import Any

from sklearn.metrics import roc_auc_score

from common.files import read_json, sha256_file
from tests.experiments import COMPARISON, command, write_experiment, write_uneven_sites
from tests.prove.finding import Finding, by_pytest

KILLS = int(os.environ.get("SONOFED_KILLS", "20"))


def same_bytes() -> Finding:
    """Two comparisons with one configuration, each in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        config = _configuration(Path(place))
        sums = [sha256_file(_compared(config, Path(place) / name) / "results.json") for name in ("one", "two")]
    return Finding(len(set(sums)), "1 sha256 of results.json over two runs", len(set(sums)) == 1)


def auc_recomputed() -> Finding:
    """The largest difference between results.json and scikit-learn, over the runs in runs/, or over a small one."""
    root = Path("runs")
    runs = [path.parent for path in sorted(root.glob("*/results.json")) if (path.parent / "predictions").exists()]
    with tempfile.TemporaryDirectory() as place:
        runs = runs or [_compared(_configuration(Path(place)), Path(place) / "run")]
        differences = [difference for run in runs for difference in _differences(run)]
    worst = max(differences)
    want = f"≤ 1e-6 over {len(differences)} predictions files"
    return Finding(worst, want, worst <= 1e-6)


def kill_and_continue() -> Finding:
    """kill -9 at random moments of a small comparison, then the same bytes of results.json."""
    return by_pytest(
        "tests/faults/test_kill.py::test_kills_at_random_moments",
        want=f"after each of {KILLS} kills no process left, and in the end the same bytes of results.json",
        value=KILLS,
        SONOFED_KILLS=str(KILLS),
    )


def _configuration(place: Path) -> Path:
    sites = write_uneven_sites(place / "sites", {"ash": 64, "birch": 96, "cedar": 128, "yew": 64})
    changes: dict[str, Any] = {**COMPARISON, "held_out": ["yew"], "training": {"rounds": 3, "steps": 24}}
    changes["comparison"] = {"seeds": 2, "workers": 2, "pictures": 2}
    return write_experiment(place / "tiny.toml", sites, **changes)


def _compared(config: Path, out: Path) -> Path:
    done = command("simulation", "compare", config, "--out", out, timeout=1800)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return out


def _differences(run: Path) -> list[float]:
    found = []
    for row in read_json(run / "results.json")["rows"]:
        if row["predictions"] is None or row["auc"] is None:
            continue
        with (run / row["predictions"]).open(encoding="utf-8", newline="") as file:
            cases = list(csv.DictReader(file))
        if "score" in cases[0]:
            area = roc_auc_score([int(case["label"]) for case in cases], [float(case["score"]) for case in cases])
            found.append(abs(float(area) - row["auc"]))
    return found

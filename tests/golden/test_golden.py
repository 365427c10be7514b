"""A golden trajectory: three rounds on synthetic images. A change that should change nothing proves it here.

Numbers are compared to 1e-5, since another processor rounds otherwise. `python -m tests.golden.test_golden` writes the
file anew; say in the commit why the numbers moved.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import Experiment
from common.parsing import parse
from common.weights import fingerprint, load
from server.records import read_records
from server.run import initial_weights
from simulation.__main__ import main
from tests.experiments import experiment_table, write_experiment, write_uneven_sites

GOLDEN = Path(__file__).with_name("trajectory.json")
SETTINGS: dict[str, dict[str, Any]] = {
    "fedavg-adamw": {},
    "fedprox-sgd-batch-norm": {
        "model": {"norm": "batch"},
        "strategy": {"kind": "fedprox", "mu": 0.1},
        "training": {"optimizer": {"kind": "sgd", "learning_rate": 0.05}, "head_rate": 2.0, "label_smoothing": 0.1},
    },
}


def trajectory(folder: Path, name: str) -> tuple[dict[str, Any], str]:
    """Losses and norms of three rounds, sums over each tensor of the final model;
    and the final weights' fingerprint.
    """
    sites = write_uneven_sites(folder / "sites", {"ash": 32, "birch": 48, "yew": 32})
    changes = {"held_out": ["yew"], "training": {"rounds": 3, "steps": 12, "average": 0.0}, "model": {"dropout": 0.1}}
    settings = {key: {**changes.get(key, {}), **value} for key, value in SETTINGS[name].items()}
    config = write_experiment(folder / "golden.toml", sites, **{**changes, **settings})
    assert main(["run", str(config), "--out", str(folder / "run")]) == 0
    weights = load(folder / "run" / "model.safetensors")
    events = read_records(folder / "run" / "records.jsonl")
    start = initial_weights(parse_experiment(sites, {**changes, **settings}))
    told = {
        "train": [[e["site"], e["loss"], e["norm"]] for e in events if e["event"] == "train"],
        "evaluation": [[e["site"], e["loss"], e["auc"]] for e in events if e["event"] == "evaluation"],
        "norms": {key: float(np.linalg.norm(value.astype(np.float64))) for key, value in sorted(weights.items())},
        "start": {key: float(np.linalg.norm(value.astype(np.float64))) for key, value in sorted(start.items())},
    }
    return told, fingerprint(weights)


def parse_experiment(sites: list[Path], changes: dict[str, Any]) -> Experiment:
    return parse(Experiment, experiment_table(sites, **changes), where="golden")


def assert_near(found: Any, expected: Any) -> None:
    """Equal in shape and words, numbers to 1e-5."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_near(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("name", list(SETTINGS))
def test_three_rounds_give_the_stored_numbers_and_twice_the_same_bits(tmp_path: Path, name: str) -> None:
    found, bits = trajectory(tmp_path / "one", name)
    again, same_bits = trajectory(tmp_path / "two", name)
    assert same_bits == bits
    assert again["evaluation"] == found["evaluation"]  # norms go through BLAS, whose last bit may differ
    assert_near(found, json.loads(GOLDEN.read_text(encoding="utf-8"))[name])


if __name__ == "__main__":
    stored = {}
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as place:
            stored[setting], _ = trajectory(Path(place), setting)
    GOLDEN.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")

"""The last evaluation from sums alone agrees with the exact numbers over all cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client.evaluation import score
from client.service import site_crops
from common.config import load_experiment
from common.files import read_json
from common.metrics import threshold_at_sensitivity
from common.model import build_model
from common.weights import load, set_weights
from simulation.__main__ import main
from simulation.sources import open_sites
from tests.experiments import write_experiment, write_uneven_sites


def test_rows_from_sums_are_those_of_the_cases(tmp_path: Path) -> None:
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 64, "birch": 96, "yew": 32})
    training = {"rounds": 1, "steps": 6, "augmentation": "none", "optimizer": {"kind": "adamw", "learning_rate": 1e-4}}
    config = write_experiment(tmp_path / "tiny.toml", sites, held_out=["yew"], training=training)
    assert main(["run", str(config), "--out", str(tmp_path / "run")]) == 0
    rows = {row["site"]: row for row in read_json(tmp_path / "run" / "results.json")["rows"]}

    experiment = load_experiment(config)
    model = build_model(experiment.model, task="lump", classes=2, seed=0)
    set_weights(model, load(tmp_path / "run" / "model.safetensors"))
    opened = open_sites(experiment)
    scores = {
        name: score(model, site_crops(site, experiment.crop)[site.rows()], precision="float32")[:, 1]
        for name, site in opened.items()
    }

    def cases(part: str, *names: str) -> tuple[np.ndarray, np.ndarray]:
        rows_of = {name: opened[name].rows(part) for name in names}
        labels = np.concatenate([opened[name].positive[rows] for name, rows in rows_of.items()])
        return labels, np.concatenate([scores[name][rows] for name, rows in rows_of.items()])

    locked = threshold_at_sensitivity(*cases("val", "ash", "birch"), 0.9)
    assert locked is not None
    for name, row in rows.items():
        labels, found = cases("test", "ash", "birch") if name == "all" else cases("test", name)
        assert row["n_images"] == len(labels)
        exact = name != "all"
        assert row["auc"] == pytest.approx(roc_auc_score(labels, found), abs=1e-6 if exact else 2e-2)
        assert row["brier"] == pytest.approx(np.mean((found - labels) ** 2), abs=1e-9)
        assert row["sensitivity"] == pytest.approx((found[labels] >= row["threshold"]).mean())
        assert row["specificity"] == pytest.approx((found[~labels] < row["threshold"]).mean())
        assert row["threshold"] == pytest.approx(locked, abs=2e-2)
        assert row["held_out"] == (name == "yew")

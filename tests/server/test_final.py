"""The last evaluation from sums alone agrees with the exact numbers over all cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client.evaluation import score
from client.repair import gray_counts, harmonise_intensity, recalibrate_prior
from client.service import site_crops
from common.config import Experiment, PatientPrivacy, load_experiment
from common.files import read_json
from common.metrics import threshold_at_sensitivity
from common.model import build_model
from common.parsing import parse
from common.weights import load, set_weights
from server.looks import ask_looks
from server.rounds import Evaluated, evaluate_order
from simulation.__main__ import main
from simulation.sources import open_sites
from tests.experiments import experiment_table, write_experiment, write_uneven_sites


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


def test_a_held_out_center_mends_towards_what_the_training_sites_tell(tmp_path: Path) -> None:
    """Over the messages of a run, against the same functions on the site folders themselves."""
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 64, "birch": 96, "yew": 32})
    training = {"rounds": 1, "steps": 6, "class_weights": False}
    config = write_experiment(tmp_path / "tiny.toml", sites, held_out=["yew"], training=training)
    assert main(["run", str(config), "--out", str(tmp_path / "run")]) == 0
    results = read_json(tmp_path / "run" / "results.json")
    (yew,) = (row for row in results["rows"] if row["site"] == "yew")
    found = {row["repair"]: row for row in results["repairs"]}
    assert {row["site"] for row in found.values()} == {"yew"}
    assert [found["none"][name] for name in ("auc", "brier")] == pytest.approx([yew["auc"], yew["brier"]], rel=1e-12)
    assert found["intensity"]["reference"] == ["ash", "birch"]

    experiment = load_experiment(config)
    model = build_model(experiment.model, task="lump", classes=2, seed=0)
    set_weights(model, load(tmp_path / "run" / "model.safetensors"))
    opened = open_sites(experiment)
    known = np.concatenate([site_crops(opened[s], experiment.crop)[opened[s].rows("train")] for s in ("ash", "birch")])
    crops = site_crops(opened["yew"], experiment.crop)[:]
    mended = harmonise_intensity(crops, gray_counts(crops, margin=0.25), gray_counts(known, margin=0.25))
    areas = [roc_auc_score(opened["yew"].positive, score(model, these)[:, 1]) for these in (crops, mended)]
    assert found["intensity"]["auc"] == pytest.approx(areas[1], abs=1e-9)
    assert found["intensity"]["delta_auc"] == pytest.approx(areas[1] - areas[0], abs=1e-9)
    val = np.concatenate([opened[s].positive[opened[s].rows("val")] for s in ("ash", "birch")]).mean()
    prior = recalibrate_prior(score(model, crops), np.array([1 - val, val])).prior
    assert found["prior"]["prior"] == pytest.approx(prior.tolist(), abs=1e-6)
    logged = [json.loads(line) for line in (sites[0] / "private" / "sent.jsonl").read_text().splitlines()]
    assert [line["parts"].keys() for line in logged if line["stage"] == "looks"] == [{"train"}]


def test_nobody_is_asked_for_looks_where_sums_stay_hidden(tmp_path: Path) -> None:
    experiment = parse(Experiment, experiment_table([tmp_path / "ash"]), where="test")
    order = evaluate_order(experiment, {"val": ("val",)}, run="r", round_number=1)
    secure = replace(experiment, evaluation=replace(experiment.evaluation, secure=True))
    privacy = PatientPrivacy(noise_multiplier=1.0)
    private = replace(experiment, privacy=privacy, training=replace(experiment.training, class_weights=False))
    for hidden, why, shares in ((secure, "masked-only", (0.5, 0.5)), (private, "private-training", (0.25, 0.75))):
        mending = ask_looks(_Nobody(), hidden, order, ["ash"], val=(0.25, 0.75))
        assert (mending.order.looks, mending.order.looks_why, mending.reference) == (None, why, ())
        assert mending.order.shares == shares
    lost = ask_looks(_Lost(), experiment, order, ["ash"], val=())
    assert (lost.order.looks, lost.order.looks_why, lost.failures) == (None, None, {"ash": "gone"})


class _Nobody:
    def evaluate(self, *_: object) -> Evaluated:
        raise AssertionError("a site was asked")

    train = exchange = evaluate


class _Lost(_Nobody):
    def evaluate(self, *_: object) -> Evaluated:
        return Evaluated({}, {"ash": "gone"})

"""The comparison: exact AUCs, equal budgets, held-out centers that nothing of the fold has seen."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from common.files import read_json, sha256_bytes
from common.weights import fingerprint, load
from server.records import read_records
from simulation.__main__ import main
from tests.conftest import Compared
from tests.experiments import COMPARISON, command, write_experiment

TRAINERS = ("ash", "birch", "cedar")
ARMS = ("federated", "pooled", "local", "ensemble")


def predictions(run: Path, row: dict[str, Any]) -> list[dict[str, str]]:
    with (run / row["predictions"]).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_auc_is_that_of_its_predictions_file(compared: Compared) -> None:
    checked = 0
    for row in compared.results["rows"]:
        if row["predictions"] is None:
            continue
        cases = predictions(compared.run, row)
        labels, scores = [int(case["label"]) for case in cases], [float(case["score"]) for case in cases]
        assert len(cases) == row["n_images"]
        assert row["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert row["brier"] == pytest.approx(np.mean((np.array(labels) - scores) ** 2), abs=1e-9)
        called = np.array(scores) >= row["threshold"]
        assert row["sensitivity"] == pytest.approx(called[np.array(labels) == 1].mean())
        assert row["specificity"] == pytest.approx(1 - called[np.array(labels) == 0].mean())
        checked += 1
    # per seed: in-federation 3 arms + 3 locals, at 4 sites and all; leave-one-out 3 arms × 3 centers + 3 locals × 2
    assert checked == 2 * (6 * 5 + 9 + 6)


def test_rows_are_those_of_the_contract(compared: Compared) -> None:
    for row in compared.results["rows"]:
        assert row["arm"] in ARMS
        if row["protocol"] == "leave-one-center-out":
            assert row["site"] in (*TRAINERS, "all")
            assert row["held_out"]
        if row["site"] in TRAINERS and row["held_out"]:
            assert row["site"] not in row["trained_on"]
        assert "yew" not in row["trained_on"]
        if row["site"] != "all":
            assert row["held_out"] == (row["site"] not in row["trained_on"])
        assert (row["auc"] is None) <= bool(row["why"])


def test_the_mean_over_centers_is_the_mean_of_their_aucs(compared: Compared) -> None:
    rows = [row for row in compared.results["rows"] if row["protocol"] == "leave-one-center-out"]
    for arm in ("federated", "pooled", "ensemble"):
        for seed in (0, 1):
            mine = [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]
            (whole,) = [row for row in mine if row["site"] == "all"]
            assert whole["auc"] == pytest.approx(np.mean([row["auc"] for row in mine if row["site"] != "all"]))
            assert whole["predictions"] is None


def test_the_federated_numbers_stand_beside_the_exact_ones(compared: Compared) -> None:
    """Of every arm in-federation, over all sites: from the same messages as in a deployment."""
    rows = compared.results["rows"]
    found = [row for row in rows if (row["site"], row["protocol"]) == ("all", "in-federation")]
    assert {row["arm"] for row in found} == set(ARMS)
    for row in found:
        assert row["auc_federated"] is not None
        assert abs(row["auc_federated"] - row["auc"]) <= row["auc_federated_bound"] + 1e-12
        assert row["auc_federated_low"] <= row["auc_federated"] <= row["auc_federated_high"]
        same = {"arm": row["arm"], "seed": row["seed"], "trained_on": row["trained_on"], "protocol": "in-federation"}
        own = [one["auc"] for one in rows if same.items() <= one.items() and one["site"] in TRAINERS]
        assert row["auc_mean_of_sites"] == pytest.approx(np.mean(own))
        assert row["suppressed"] == []
    assert all(row["auc_federated"] is None for row in rows if row not in found)


def test_a_contrast_of_coarse_sums_claims_no_interval() -> None:
    from server.statistics import Contrast
    from simulation.evidence import _without_coarse

    numbers = {"delta_federated": 0.02, "low_federated": -0.01, "high_federated": 0.05, "p_federated": 0.2}
    one = Contrast("federated", "pooled", "in-federation", "all", 0.02, -0.01, 0.05, 0.2, **numbers)
    assert _without_coarse(one, {"local"}) == one
    bare = _without_coarse(one, {"pooled"})
    assert (bare.delta_federated, bare.low_federated, bare.high_federated, bare.p_federated) == (0.02, None, None, None)
    assert (bare.low, bare.p) == (-0.01, 0.2)
    local = replace(one, b="local")
    assert _without_coarse(local, {"federated"}) == local, "against local every site's test is exact"


def test_the_paired_test_from_sums_stands_beside_the_bootstrap(compared: Compared) -> None:
    for contrast in compared.results["contrasts"]:
        told = (contrast["site"], contrast["protocol"]) == ("all", "in-federation")
        assert (contrast["delta_federated"] is not None) == told
        if told:
            tolerance = 1e-9 if contrast["b"] == "local" else 0.1
            assert contrast["delta_federated"] == pytest.approx(contrast["delta_auc"], abs=tolerance)
            assert contrast["low_federated"] <= contrast["delta_federated"] <= contrast["high_federated"]
            assert 0 <= contrast["p_federated"] <= 1


def test_every_final_model_costs_the_same_sample_gradients(compared: Compared) -> None:
    events = read_records(compared.run / "records.jsonl")
    spent: dict[str, int] = {}
    for event in events:
        if "samples" in event:
            spent[event["run"]] = spent.get(event["run"], 0) + event["samples"]
    assert len(spent) == 2 * (3 + 4 + 4)
    assert set(spent.values()) == {compared.results["budget"]["sample_gradients"]} == {8 * 4}


def test_contrasts_name_both_arms_and_every_center(compared: Compared) -> None:
    found = {(c["a"], c["b"], c["protocol"], c["site"]) for c in compared.results["contrasts"]}
    for protocol in ("in-federation", "leave-one-center-out"):
        for arm in ("pooled", "local", "ensemble"):
            assert {site for a, b, p, site in found if (a, b, p) == ("federated", arm, protocol)} == {*TRAINERS, "all"}


def test_a_contrast_is_the_mean_over_seeds_of_the_difference(compared: Compared) -> None:
    rows = compared.results["rows"]

    def area(arm: str, site: str, seed: int) -> float:
        keys = {"arm": arm, "protocol": "leave-one-center-out", "site": site, "seed": seed}
        return float(np.mean([row["auc"] for row in rows if keys.items() <= row.items()]))

    for contrast in compared.results["contrasts"]:
        if contrast["protocol"] == "leave-one-center-out":
            a, b, site = contrast["a"], contrast["b"], contrast["site"]
            expected = np.mean([area(a, site, seed) - area(b, site, seed) for seed in (0, 1)])
            assert contrast["delta_auc"] == pytest.approx(expected, abs=1e-9)


def test_nothing_that_leaves_tells_of_a_patient_or_a_place(compared: Compared) -> None:
    secrets = [str(site.parent) for site in compared.sites] + ["images/0000"]
    for site in compared.sites:
        with (site / "cases.csv").open(encoding="utf-8") as file:
            secrets += [row["patient"] for row in csv.DictReader(file)]
    told = [compared.run / name for name in ("records.jsonl", "config.toml", "report.html", "results.json")]
    told += [compared.run / "model_card.md", *compared.run.glob("models/**/records.jsonl")]
    told += [*compared.run.glob("models/**/config.toml"), *compared.run.glob("pictures/**/*.json")]
    for path in told:
        text = path.read_text(encoding="utf-8")
        assert [secret for secret in secrets if secret in text] == [], path.name


def test_going_on_with_a_finished_comparison_trains_nothing_and_gives_the_same_bytes(
    compared: Compared, tmp_path: Path
) -> None:
    run = shutil.copytree(compared.run, tmp_path / "run")
    (run / "results.json").unlink()
    models = {path: path.stat().st_mtime_ns for path in run.glob("models/**/model.safetensors")}
    assert main(["compare", str(compared.config), "--out", str(run)]) == 0
    assert (run / "results.json").read_bytes() == (compared.run / "results.json").read_bytes()
    assert models == {path: path.stat().st_mtime_ns for path in models}


def test_one_worker_gives_the_rows_of_two(compared: Compared, tmp_path: Path) -> None:
    text = compared.config.read_text(encoding="utf-8").replace("workers = 2", "workers = 1")
    text = text.replace("seeds = 2", "seeds = 1")
    config = tmp_path / "one.toml"
    config.write_text(text, encoding="utf-8")
    done = command(
        "simulation", "compare", config, "--out", tmp_path / "run"
    )  # a process of its own: a fair comparison
    assert done.returncode == 0, done.stderr
    rows = read_json(tmp_path / "run" / "results.json")["rows"]
    assert rows == [row for row in compared.results["rows"] if row["seed"] == 0]


def test_another_configuration_leaves_the_folder_alone(compared: Compared, tmp_path: Path) -> None:
    before = _bytes(compared.run)
    changed = tmp_path / "changed.toml"
    changed.write_text(compared.config.read_text(encoding="utf-8").replace("average = 0.5", "average = 0.0"))
    assert main(["compare", str(changed), "--out", str(compared.run)]) == 2
    assert _bytes(compared.run) == before


def test_a_foreign_folder_is_left_alone(compared: Compared, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["compare", str(compared.config), "--out", str(tmp_path)]) == 2
    assert "not empty, and no comparison" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_held_out_center_cannot_change_its_folds_models(tmp_path: Path, compared: Compared) -> None:
    """Poison the labels and the pictures of one center: what was trained without it stays the same, bit for bit."""
    sites = [Path(shutil.copytree(site, tmp_path / "sites" / site.name)) for site in compared.sites]
    _poison(sites[1])
    changes = {"arms": ["federated", "pooled"], "protocols": ["leave-one-center-out"], "pictures": 0}
    config = write_experiment(
        tmp_path / "poisoned.toml",
        sites,
        **COMPARISON | {"held_out": ["yew"], "comparison": changes, "evaluation": {"draws": 50, "select": "best"}},
    )
    clean = write_experiment(
        tmp_path / "clean.toml",
        compared.sites,
        **COMPARISON | {"held_out": ["yew"], "comparison": changes, "evaluation": {"draws": 50, "select": "best"}},
    )
    assert main(["compare", str(config), "--out", str(tmp_path / "poisoned")]) == 0
    assert main(["compare", str(clean), "--out", str(tmp_path / "clean")]) == 0
    for arm in ("federated", "pooled"):
        mine, others = (
            {center: _weights(tmp_path / run, arm, center) for center in TRAINERS} for run in ("clean", "poisoned")
        )
        assert mine["birch"] == others["birch"]
        assert mine["ash"] != others["ash"]  # birch trains there: the poison does act
        assert mine["cedar"] != others["cedar"]


def _weights(run: Path, arm: str, center: str) -> str:
    return fingerprint(load(run / "models" / arm / f"without-{center}" / "seed-0" / "model.safetensors"))


def _poison(site: Path) -> None:
    """Every picture becomes its negative and every label the other one; sizes, patients and splits stay."""
    with (site / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path = site / row["image"]
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        row["image_sha256"] = sha256_bytes(path.read_bytes())
        row["label"] = {"benign": "malignant", "malignant": "benign"}[row["label"]]
    with (site / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _bytes(folder: Path) -> dict[str, str]:
    return {str(path): sha256_bytes(path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_results_are_strict_json(compared: Compared) -> None:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    json.loads((compared.run / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    for line in (compared.run / "records.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=refuse)

"""Repair without labels in a comparison: beside the main rows, at centers that the model never saw,
and in the report.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from client.evaluation import score
from client.repair import amplitude_sums, gray_counts, harmonise_amplitude, harmonise_intensity
from client.service import site_crops
from client.site import load_site
from common.config import load_experiment
from common.model import build_model
from common.repair_orders import KINDS
from common.weights import load, set_weights
from simulation.plan import plan_models
from simulation.repairs import repairs
from tests.conftest import Compared

CENTERS = [("leave-one-center-out", "ash"), ("leave-one-center-out", "birch"), ("leave-one-center-out", "cedar")]
SAME = ("auc", "auc_low", "auc_high", "brier", "calibration_slope", "calibration_intercept")


def rows(compared: Compared, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in compared.results["repairs"] if wanted.items() <= row.items()]


def test_every_unseen_center_has_every_repair_of_the_first_seed(compared: Compared) -> None:
    found = [(row["protocol"], row["site"], row["repair"]) for row in compared.results["repairs"]]
    assert found == [(*center, kind) for center in [*CENTERS, ("in-federation", "yew")] for kind in KINDS]
    assert {(row["arm"], row["seed"]) for row in compared.results["repairs"]} == {("federated", 0)}
    assert not any(row["site"] in row["trained_on"] for row in compared.results["repairs"])
    for row in rows(compared, repair="intensity"):
        assert row["reference"] == row["trained_on"]


def test_the_unrepaired_row_is_the_main_row(compared: Compared) -> None:
    for row in rows(compared, repair="none"):
        keys = {key: row[key] for key in ("arm", "protocol", "seed", "site", "trained_on")}
        (main,) = (one for one in compared.results["rows"] if keys.items() <= one.items())
        assert {name: row[name] for name in SAME} == {name: main[name] for name in SAME}
    assert {one["why"] for one in rows(compared, repair="batch-statistics")} == {"no-batch-norm"}


@pytest.mark.parametrize("kind", ["intensity", "amplitude"])
def test_a_repaired_auc_is_that_of_pictures_mended_by_hand(compared: Compared, kind: str) -> None:
    """From the site folders and the stored model alone: sums over all training pictures at once, no wire between."""
    experiment = load_experiment(compared.config)
    sites = {path.name: load_site(path) for path in compared.sites}
    known = np.concatenate(
        [site_crops(sites[name], experiment.crop)[sites[name].rows("train", "test")] for name in ("ash", "birch")]
    )
    model = build_model(experiment.model, task="lump", classes=2, seed=0)
    set_weights(model, load(compared.run / "models/federated/without-cedar/seed-0/model.safetensors"))
    crops = site_crops(sites["cedar"], experiment.crop)[:]
    if kind == "intensity":
        mended = harmonise_intensity(crops, gray_counts(crops, margin=0.25), gray_counts(known, margin=0.25))
    else:
        mended = harmonise_amplitude(crops, amplitude_sums(crops), amplitude_sums(known))
    found = score(model, mended, precision="float32")[:, 1]
    (row,) = rows(compared, repair=kind, site="cedar")
    assert row["auc"] == pytest.approx(roc_auc_score(sites["cedar"].positive, found), abs=1e-9)


def test_secure_and_private_experiments_have_no_reference_and_say_so(compared: Compared) -> None:
    experiment = load_experiment(compared.config)
    plans = [p for p in plan_models(experiment, ["ash", "birch", "cedar"]) if p.held_out == "ash"]
    sites = {path.name: load_site(path) for path in compared.sites}
    secure = replace(experiment, evaluation=replace(experiment.evaluation, secure=True))
    found = {row.repair: row for row in repairs(compared.run, plans, secure, sites)}
    assert {found[kind].why for kind in ("intensity", "amplitude")} == {"masked-only"}
    assert found["prior"].auc == found["none"].auc
    off = replace(experiment, evaluation=replace(experiment.evaluation, repair=False))
    assert repairs(compared.run, plans, off, sites) == ()


def test_the_report_shows_them_beside_the_unrepaired(compared: Compared) -> None:
    html = (compared.run / "report.html").read_text(encoding="utf-8")
    section = html.split('<section id="repairs">')[1].split("</section>")[0]
    assert "the unrepaired row is the result" in section
    assert section.count("Unrepaired") == len(CENTERS) + 1
    assert section.count("the model has no batch normalisation") == len(CENTERS) + 1
    assert "Repair without labels was not measured" not in html

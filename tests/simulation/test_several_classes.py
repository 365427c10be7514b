"""A comparison of a task with three classes: macro contrasts and columns from sums, against all cases laid together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.site import Site, load_site
from common.auc import macro_auc
from common.config import Experiment
from common.macro import clustered_macro_auc, macro_difference, macro_placed, summed
from common.parsing import parse
from common.tasks import Task
from server.centers import across_centers
from simulation.contrasts import contrast_all
from simulation.evidence import Cases, Judge, _row
from simulation.federated import federated_columns
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site

CLASSES = ("none", "cyst", "mass")
SIZES = {"ash": 192, "birch": 256, "cedar": 224}
_STRENGTH = {"federated": 1.6, "pooled": 1.3, "local": 0.6, "ensemble": 1.0}


class Drawn(Cases):
    """Sites whose models' scores are drawn: stronger for some arms, and alike for one case."""

    def scores(self, judge: Judge, site: str) -> NDArray[np.float64]:
        here = self.sites[site]
        seeds = [[len(site), judge.seed], [len(site), judge.seed, len(judge.arm), len(str(judge.trained_on))]]
        shared, own = (np.random.default_rng(seed).normal(size=(len(here), 3)) for seed in seeds)
        odds = np.exp(shared + 0.5 * own + _STRENGTH[judge.arm] * np.eye(3)[here.labels])
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def three_classes(parent: Path) -> dict[str, Site]:
    sites = {}
    for seed, (name, images) in enumerate(SIZES.items()):
        site = load_site(write_site(parent / name, name, seed=seed, images=images, per_patient=2))
        labels = site.labels * (1 + site.patients // 2 % 3 % 2)
        sites[name] = replace(site, task=Task("kind", CLASSES, "cyst"), labels=labels, positive=labels == 1)
    return sites


@pytest.fixture(scope="module", params=[False, True], ids=["in clear", "under masks"])
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("several")
    sites = three_classes(folder)
    table = experiment_table([folder / name for name in sites])
    table["task"] = {"name": "kind", "classes": list(CLASSES), "positive": "cyst"}
    experiment = parse(Experiment, table, where="test")
    evaluation = replace(experiment.evaluation, secure=request.param, draws=200)
    return Drawn(folder / "run", replace(experiment, evaluation=evaluation), sites)


def judge(arm: str, seed: int, trained_on: tuple[str, ...] = tuple(SIZES), held_out: str | None = None) -> Judge:
    protocol = "leave-one-center-out" if held_out else "in-federation"
    return Judge(arm, protocol, seed, trained_on, held_out, ())


def laid(cases: Drawn, one: Judge) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    rows = {name: cases.tested(one, name) for name in SIZES}
    labels = np.concatenate([cases.sites[name].labels[some] for name, some in rows.items()])
    scores = np.concatenate([cases.scores(one, name)[some] for name, some in rows.items()])
    whose = np.concatenate([1000 * n + cases.sites[name].patients[some] for n, (name, some) in enumerate(rows.items())])
    return labels, scores, whose


def test_contrasts_of_macro_aucs_have_intervals_and_the_paired_test_from_sums(cases: Drawn) -> None:
    everyone = [judge(arm, seed) for arm in ("federated", "pooled") for seed in (0, 1)]
    everyone += [judge("local", seed, (site,)) for site in SIZES for seed in (0, 1)]
    found = {(c.b, c.site): c for c in contrast_all(cases, everyone)}
    assert set(found) == {(b, site) for b in ("pooled", "local") for site in (*SIZES, "all")}
    assert all(c.low is not None and c.high is not None and c.low <= c.high for c in found.values())
    whole = found["pooled", "all"]
    moved, placed = [], []
    for seed in (0, 1):
        (labels, one, whose), (_, two, _) = (laid(cases, judge(arm, seed)) for arm in ("federated", "pooled"))
        pairs = zip(macro_placed(labels, one), macro_placed(labels, two), strict=True)
        placed.append([a - b for a, b in pairs if a and b])
        moved.append((macro_auc(labels, one) or 0) - (macro_auc(labels, two) or 0))
    means = [replace(a, share=(a.share + b.share) / 2) for a, b in zip(*placed, strict=True)]
    exact = macro_difference(*summed(means, labels, whose))
    assert exact.delta == pytest.approx(np.mean(moved))
    assert whole.delta_auc == pytest.approx(exact.delta, abs=1e-9)
    close = 5e-4 if cases.experiment.evaluation.secure else 5e-3
    assert whole.delta_federated == pytest.approx(exact.delta, abs=close)
    assert (whole.low_federated, whole.high_federated) == pytest.approx((exact.low, exact.high), abs=2 * close)
    local = found["local", "all"]
    assert local.delta_federated == pytest.approx(local.delta_auc, abs=1e-9)
    assert local.p_federated is not None
    assert local.p_federated < 0.05


def test_columns_from_sums_are_those_of_all_cases(cases: Drawn) -> None:
    one = judge("federated", 0)
    told, exact = federated_columns(cases, one), clustered_macro_auc(*laid(cases, one))
    close = 5e-4 if cases.experiment.evaluation.secure else 8e-3
    assert abs(told["auc_federated"] - exact.auc) <= told["auc_federated_bound"]
    for end in ("low", "high"):
        assert told[f"auc_federated_{end}"] == pytest.approx(getattr(exact, end), abs=close)
        assert told[f"auc_mean_of_sites_{end}"] is not None
    assert told["auc_federated_why"] is None


def test_left_out_centers_have_a_meta_analysis_of_macro_aucs(cases: Drawn) -> None:
    rows = [
        _row(cases, judge("federated", 0, tuple(s for s in SIZES if s != site), site), (site,), site, 0.5)
        for site in SIZES
    ]
    assert [list(row.auc_by_class or ()) for row in rows] == [list(CLASSES)] * 3
    (area,) = (entry for entry in across_centers(rows) if entry.measure == "auc")
    assert area.k == 3
    assert area.prediction_low is not None
    assert area.low is not None
    assert area.high is not None
    assert area.low < np.mean([row.auc for row in rows if row.auc is not None]) < area.high

"""The three messages of a last evaluation, against exact numbers; who is left out, and who is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter
from sklearn.metrics import roc_auc_score

from client.evidence import report_part
from client.site import Site, load_site
from common.auc import clustered_auc, macro_auc
from common.calibration import calibration_intercept, calibration_slope, ece
from common.config import Experiment
from common.files import read_json
from common.macro import clustered_macro_auc
from common.orders import EvaluateOrder, EvaluateReport, SiteCard, TrainOrder
from common.parsing import parse
from common.tasks import Task
from common.update import Weights
from server.evidence import FirstPass
from server.final import _row_without_cases, evaluate_finally
from server.pooled_in_clear import InClear
from server.records import Records, read_records
from server.report import write_report
from server.report.reading import Row as ReadRow
from server.rounds import Evaluated, Outcome, Roster, Trained, evaluate_order
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site

SIZES = {"ash": 96, "birch": 160, "cedar": 128}


@dataclass
class Scoring:
    """Sites whose model is a table of scores; `lost` sites answer nothing from that stage on."""

    sites: Mapping[str, Site]
    scores: Mapping[str, NDArray[np.float64]]
    lost: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def train(self, round_number: int, orders: Mapping[str, TrainOrder], weights: Weights) -> Trained:
        raise AssertionError("nobody trains here")

    def evaluate(self, round_number: int, orders: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated:
        stages = {order.stage for order in orders.values()}
        if stages & {"shift-moments", "shift-sums"}:  # a table of scores has no pictures to tell of
            return Evaluated({}, {})
        self.asked.append((stages.pop() if stages else "", tuple(sorted(orders))))
        reports, failures = {}, {}
        for name, order in orders.items():
            if self.lost.get(name) == order.stage:
                failures[name] = "it broke"
                continue
            site = self.sites[name]
            parts = {}
            for part, sides in order.parts.items():
                rows = site.rows(*sides)
                if len(rows):
                    parts[part] = report_part(site, rows, self.scores[name][rows], order)
            reports[name] = EvaluateReport(name, 0.0, parts)
        return Evaluated(reports, failures)


def three_sites(parent: Path, smallest: Mapping[str, int], classes: tuple[str, ...] = ()) -> dict[str, Site]:
    sites = {}
    for seed, (name, images) in enumerate(SIZES.items()):
        folder = write_site(parent / name, name, seed=seed, images=images, per_patient=2)
        toml = folder / "site.toml"
        toml.write_text(toml.read_text().replace("smallest_group = 1", f"smallest_group = {smallest.get(name, 1)}"))
        site = load_site(folder)
        if classes:
            labels = site.labels * (1 + site.patients // 2 % 3 % 2)
            site = replace(site, task=Task("kind", classes, classes[1]), labels=labels, positive=labels == 1)
        sites[name] = site
    return sites


def drawn(sites: Mapping[str, Site]) -> dict[str, NDArray[np.float64]]:
    scores = {}
    for seed, (name, site) in enumerate(sites.items()):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(len(site), len(site.task.classes)))
        logits[np.arange(len(site)), site.labels] += 1.0
        odds = np.exp(1.5 * logits)
        scores[name] = odds / odds.sum(axis=1, keepdims=True)
    return scores


def evaluated(
    folder: Path, sites: Mapping[str, Site], **options: Any
) -> tuple[dict[str, Any], Scoring, dict[str, Any]]:
    """results.json's rows by site, the federation that answered, and the events."""
    task = next(iter(sites.values())).task
    table = experiment_table([Path(name) for name in sites])
    table["task"] = {"name": task.name, "classes": list(task.classes), "positive": task.positive}
    experiment = parse(Experiment, table, where="test")
    federation = Scoring(sites, options.pop("scores", None) or drawn(sites), **options)
    cards = {name: SiteCard(name, "train", task, {"train": 8, "val": 4, "test": 4}, 20, "0" * 64) for name in sites}
    folder.mkdir()
    (folder / "config.toml").write_text("")
    outcome = Outcome({}, 8, {})
    records = Records(folder / "records.jsonl")
    evaluate_finally(
        federation, Roster.of(cards, experiment), experiment, outcome, run="r", folder=folder, records=records
    )
    rows = {row["site"]: row for row in read_json(folder / "results.json")["rows"]}
    events = {e["site"]: e["why"] for e in read_records(folder / "records.jsonl") if e["event"] == "failure"}
    return rows, federation, events


def together(federation: Scoring, names: tuple[str, ...]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rows = {name: federation.sites[name].rows("test") for name in names}
    labels = np.concatenate([federation.sites[name].labels[r] for name, r in rows.items()])
    scores = np.concatenate([federation.scores[name][r] for name, r in rows.items()])
    whose = np.concatenate([1000 * n + federation.sites[name].patients[r] for n, (name, r) in enumerate(rows.items())])
    return labels, scores, whose


def test_all_cases_from_sums_alone(tmp_path: Path) -> None:
    rows, federation, _ = evaluated(tmp_path / "run", three_sites(tmp_path, {}))
    labels, scores, whose = together(federation, tuple(SIZES))
    p, exact, row = scores[:, 1], clustered_auc(labels, scores[:, 1], whose), rows["all"]
    assert exact.auc is not None
    assert row["auc"] == row["auc_federated"]
    assert abs(row["auc"] - exact.auc) <= row["auc_federated_bound"] <= 0.02
    assert row["auc"] == pytest.approx(exact.auc, abs=3e-3)
    assert (row["auc_federated_low"], row["auc_federated_high"]) == pytest.approx((exact.low, exact.high), abs=5e-3)
    assert row["calibration_slope"] == pytest.approx(calibration_slope(labels, p).value, abs=1e-3)
    assert row["calibration_intercept"] == pytest.approx(calibration_intercept(labels, p).value, abs=1e-3)
    assert row["ece"] == pytest.approx(ece(labels, p), abs=1e-9)
    assert row["sensitivity"] == pytest.approx((p[labels == 1] >= row["threshold"]).mean())
    areas = [rows[name]["auc"] for name in SIZES]
    for name in SIZES:
        own = together(federation, (name,))
        assert rows[name]["auc"] == pytest.approx(roc_auc_score(own[0], own[1][:, 1]), abs=1e-12)
        assert rows[name]["auc_federated"] is None
    assert row["auc_mean_of_sites"] == pytest.approx(np.mean(areas))
    assert row["auc_mean_of_sites"] != pytest.approx(row["auc"], abs=1e-4)
    assert [point["threshold"] for point in row["net_benefit"]] == pytest.approx(np.arange(1, 20) / 20)
    half = row["net_benefit"][9]
    assert half["model"] == pytest.approx(
        ((p >= 0.5) & (labels == 1)).mean() - ((p >= 0.5) & (labels == 0)).mean(), abs=0.02
    )
    assert row["suppressed"] == []
    assert [stage for stage, _ in federation.asked] == ["first-pass", "counts", "placements"]


def test_an_interval_that_would_claim_too_much_is_left_out(tmp_path: Path) -> None:
    """Cells of six patients at sites of a dozen: the AUC may err by more than half of its interval,
    and results say so.
    """
    rows, _, _ = evaluated(tmp_path / "run", three_sites(tmp_path, dict.fromkeys(SIZES, 6)))
    row = rows["all"]
    assert (row["auc_low"], row["auc_high"], row["why"]) == (None, None, "coarse")
    assert (row["auc_federated_low"], row["auc_federated_high"], row["auc_federated_why"]) == (None, None, "coarse")
    half = 1.96 * float(np.sqrt(row["auc_variance"]))
    assert row["auc_federated_bound"] > 0.8 * half
    assert row["auc"] is not None
    report = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "cells too coarse for an interval" in report
    fine, _, _ = evaluated(tmp_path / "fine", three_sites(tmp_path / "again", {}))
    assert (fine["all"]["auc_federated_why"], fine["all"]["auc_low"] is None) == (None, False)


def test_a_single_center_has_its_exact_ece_and_all_together_one_of_coarser_bins(tmp_path: Path) -> None:
    rows, federation, _ = evaluated(tmp_path / "run", three_sites(tmp_path, dict.fromkeys(SIZES, 5)))
    for name in SIZES:
        labels, scores, _ = together(federation, (name,))
        assert rows[name]["ece"] == pytest.approx(ece(labels, scores[:, 1]), abs=1e-12)
    labels, scores, _ = together(federation, tuple(SIZES))
    assert rows["all"]["ece"] < ece(labels, scores[:, 1]) - 1e-6


def test_a_site_without_a_case_can_be_read_back() -> None:
    experiment = parse(Experiment, experiment_table([Path("ash")]), where="test")
    row = asdict(_row_without_cases("ash", experiment, ("birch",), True, 0.5))
    found = TypeAdapter(ReadRow).validate_python(row)
    assert (found.n_images, found.auc, found.why, found.suppressed) == (0, None, "too-few", ())


def test_a_site_whose_policy_keeps_it_out_is_named(tmp_path: Path) -> None:
    rows, federation, _ = evaluated(tmp_path / "run", three_sites(tmp_path, {"ash": 7, "cedar": 100}))
    assert (rows["ash"]["auc"], rows["ash"]["why"], rows["ash"]["n_patients"]) == (None, "suppressed", 12)
    assert (rows["cedar"]["n_images"], rows["cedar"]["why"]) == (None, "suppressed")
    assert rows["all"]["suppressed"] == ["ash", "cedar"]
    assert federation.asked[-1] == ("placements", ("birch",))
    labels, scores, _ = together(federation, ("birch",))
    assert rows["all"]["auc"] == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-9)
    assert rows["all"]["auc_mean_of_sites"] is None


def test_a_site_lost_before_its_placements_is_left_out_and_the_others_are_asked_again(tmp_path: Path) -> None:
    rows, federation, failures = evaluated(tmp_path / "run", three_sites(tmp_path, {}), lost={"birch": "placements"})
    assert failures == {"birch": "it broke"}
    assert federation.asked[2:] == [("placements", tuple(SIZES)), ("placements", ("ash", "cedar"))]
    labels, scores, whose = together(federation, ("ash", "cedar"))
    exact = clustered_auc(labels, scores[:, 1], whose)
    assert rows["all"]["n_images"] == len(labels)
    assert exact.auc is not None
    assert abs(rows["all"]["auc"] - exact.auc) <= rows["all"]["auc_federated_bound"]
    assert rows["birch"]["auc"] is not None


def test_several_classes_are_each_asked_against_the_rest(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {}, classes=("none", "cyst", "mass"))
    rows, federation, _ = evaluated(tmp_path / "run", sites)
    labels, scores, whose = together(federation, tuple(SIZES))
    row = rows["all"]
    for k, name in enumerate(("none", "cyst", "mass")):
        exact, found = clustered_auc(labels == k, scores[:, k], whose), row["auc_federated_by_class"][name]
        assert exact.auc is not None
        assert abs(found["auc"] - exact.auc) <= found["bound"]
        assert (found["low"], found["high"]) == pytest.approx((exact.low, exact.high), abs=1e-2)
    assert abs(row["auc"] - (macro_auc(labels, scores) or 0)) <= row["auc_federated_bound"]
    exact = clustered_macro_auc(labels, scores, whose)
    assert (row["auc_low"], row["auc_high"]) == pytest.approx((exact.low, exact.high), abs=5e-3)
    assert row["auc_variance"] == pytest.approx(exact.variance, rel=0.03)
    assert (row["why"], row["auc_federated_why"]) == ("from-sums", None)
    for name in SIZES:
        labels_, scores_, whose_ = together(federation, (name,))
        own = clustered_macro_auc(labels_, scores_, whose_)
        assert (rows[name]["auc"], rows[name]["auc_low"]) == pytest.approx((own.auc, own.low))
        mass = clustered_auc(labels_ == 2, scores_[:, 2], whose_)
        assert rows[name]["auc_by_class"]["mass"] == asdict(mass)
    assert row["calibration_slope"] == pytest.approx(calibration_slope(labels == 1, scores[:, 1]).value, abs=1e-3)


def test_the_report_shows_each_class_with_its_interval(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {}, classes=("none", "cyst", "mass"))
    rows, _, _ = evaluated(tmp_path / "run", sites)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    table = page.partition('data-table="classes"')[2].partition("</table>")[0]
    assert table.count("<tr") == 1 + len(SIZES) + 1
    for name, row in rows.items():
        line = next(part for part in table.split("<tr") if (name if name != "all" else "All cases") in part)
        for area in (row, *row["auc_by_class"].values()):
            low, high = (area.get(f"auc_{end}", area.get(end)) for end in ("low", "high"))
            assert f"{area['auc']:.2f}".lstrip("0") in line
            assert f"{low:.2f}–{high:.2f}".replace("0.", ".") in line


def test_a_site_that_keeps_one_class_back_leaves_a_macro_auc_without_an_interval(tmp_path: Path) -> None:
    """It is in some questions and not in others, so its patients' sums over all of them would not be
    those asked for.
    """
    rows, federation, _ = evaluated(
        tmp_path / "run", three_sites(tmp_path, {"ash": 6}, classes=("none", "cyst", "mass"))
    )
    few = [
        len(np.unique(whose[labels == k])) for labels, _, whose in [together(federation, ("ash",))] for k in range(3)
    ]
    assert min(few) < 6 <= max(few)
    row = rows["all"]
    assert row["auc"] is not None
    assert (row["auc_low"], row["auc_federated_why"], row["suppressed"]) == (None, "suppressed", ["ash"])
    told = [area["auc"] for area in rows["ash"]["auc_by_class"].values()]
    assert None in told


def test_nobody_with_positives_is_no_number_and_a_reason(tmp_path: Path) -> None:
    sites = {
        name: replace(site, labels=np.zeros_like(site.labels), positive=np.zeros_like(site.positive))
        for name, site in three_sites(tmp_path, {}).items()
    }
    rows, _, _ = evaluated(tmp_path / "run", sites)
    assert (rows["all"]["auc"], rows["all"]["why"], rows["all"]["threshold"]) == (None, "one-class", None)
    assert rows["all"]["specificity"] is None


def test_cells_can_end_at_the_locked_threshold() -> None:
    """Else decisions at it would cut a merged cell in two, one of them of a few patients."""
    experiment = parse(Experiment, experiment_table([Path("ash")]), where="test")
    order = evaluate_order(experiment, {"test": ("test",)}, run="r", round_number=1)
    clear = InClear(Scoring({}, {}), experiment, {})
    counting = clear.counting(order, FirstPass(0.37, ((0.2, 0.5),)))
    assert counting.edges == ((0.2, 0.37, 0.5),)
    for threshold in (0.5, 0.0, None):
        assert clear.counting(order, FirstPass(threshold, ((0.2, 0.5),))).edges == ((0.2, 0.5),)

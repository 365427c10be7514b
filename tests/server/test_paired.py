"""Two models compared from what sites tell: against the slow loop over all cases, suppression, lost sites, classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.evidence import report_part
from client.paired import report_paired
from client.site import Site
from common.config import Experiment
from common.files import read_json
from common.influence import InfluenceSums, place
from common.macro import macro_difference, macro_placed, summed
from common.orders import EvaluateOrder, EvaluateReport, PartReport, SiteCard
from common.paired import apart
from common.parsing import parse
from common.update import Weights
from server.final import evaluate_finally
from server.paired import Against
from server.records import Records, read_records
from server.report import write_report
from server.rounds import Evaluated, Outcome, Roster
from server.table import summary
from tests.common.test_influence import slow_difference
from tests.experiments import experiment_table
from tests.server.test_together import SIZES, Scoring, drawn, three_sites

Table = Mapping[str, NDArray[np.float64]]


def named(number: float) -> Weights:
    """Weights that stand for one of the tables of scores."""
    return {"model": np.array([number])}


@dataclass
class TwoModels(Scoring):
    """Sites whose two models are tables of scores."""

    second: Table = field(default_factory=dict)

    def evaluate(self, round_number: int, orders: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated:
        stages = {order.stage for order in orders.values()}
        if stages != {"paired"}:
            tables = (self.scores, self.second)
            one = tables[int(weights["model"][0])]
            lost = self.lost if one is self.scores else {s: why.removeprefix("second ") for s, why in self.lost.items()}
            return Scoring(self.sites, one, lost, self.asked).evaluate(round_number, orders, weights)
        assert [int(each["model"][0]) for each in apart(weights)] == [0, 1]
        self.asked.append(("paired", tuple(sorted(orders))))
        there = {name: order for name, order in orders.items() if self.lost.get(name) != "paired"}
        failures = {name: "it broke" for name in orders if name not in there}
        return Evaluated({name: EvaluateReport(name, 0.0, self._told(name, o)) for name, o in there.items()}, failures)

    def _told(self, name: str, order: EvaluateOrder) -> dict[str, PartReport]:
        found = {}
        for part, sides in order.parts.items():
            rows = self.sites[name].rows(*sides)
            if len(rows):
                both = (self.scores[name][rows], self.second[name][rows])
                found[part] = report_paired(self.sites[name], rows, both, order)
        return found


def compare(folder: Path, federation: TwoModels, table: Mapping[str, Any], *, models: Mapping[str, str]) -> None:
    """Evaluate the federation's two models into a new `folder`, as the experiment of this `table` says."""
    experiment, sites = parse(Experiment, table, where="test"), federation.sites
    task = next(iter(sites.values())).task
    cards = {name: SiteCard(name, "train", task, {"train": 8, "val": 4, "test": 4}, 20, "0" * 64) for name in sites}
    folder.mkdir()
    (folder / "config.toml").write_text("")
    evaluate_finally(
        federation,
        Roster.of(cards, experiment),
        experiment,
        Outcome(named(0), 8, {}),
        run="r",
        folder=folder,
        records=Records(folder / "records.jsonl"),
        against=Against(named(1), models),
    )


def compared(
    folder: Path, sites: Mapping[str, Site], *, first: Table, second: Table, held: tuple[str, ...] = (), **options: Any
) -> tuple[dict[str, dict[str, Any]], TwoModels]:
    """The contrasts by site, and the federation that answered."""
    task = next(iter(sites.values())).task
    changes = {"protocol": options.pop("protocol", "in-federation"), "held_out": list(held)}
    changes["evaluation"] = {"repair": False}
    table = experiment_table([Path(name) for name in sites], **changes)
    table["task"] = {"name": task.name, "classes": list(task.classes), "positive": task.positive}
    federation = TwoModels(sites, first, second=second, **options)
    compare(folder, federation, table, models={"checkpoint": "a" * 64, "other": "b" * 64})
    return {one["site"]: one for one in read_json(folder / "results.json")["contrasts"]}, federation


def other(sites: Mapping[str, Site]) -> dict[str, NDArray[np.float64]]:
    """A second model that is related to the first."""
    made = {}
    for name, p in drawn(sites).items():
        mixed = p * np.random.default_rng(len(name)).uniform(0.3, 1, p.shape)
        made[name] = mixed / mixed.sum(axis=1, keepdims=True)
    return made


def laid(sites: Mapping[str, Site], tables: tuple[Table, ...], names: tuple[str, ...], part: str = "test") -> Any:
    """Labels, each table's scores, and patients of some sites' cases."""
    rows = {name: sites[name].rows(*((part,) if part else ())) for name in names}
    labels = np.concatenate([sites[name].labels[r] for name, r in rows.items()])
    scores = [np.concatenate([table[name][r] for name, r in rows.items()]) for table in tables]
    whose = np.concatenate([1000 * n + sites[name].patients[r] for n, (name, r) in enumerate(rows.items())])
    return labels, *scores, whose


def test_a_site_tells_the_exact_difference_and_all_together_one_within_its_bound(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {})
    tables = (drawn(sites), other(sites))
    found, federation = compared(tmp_path / "run", sites, first=tables[0], second=tables[1])
    assert list(found) == [*SIZES, "all"]
    for name in SIZES:
        labels, one, two, whose = laid(sites, tables, (name,))
        delta, variance = slow_difference(labels == 1, one[:, 1], two[:, 1], whose)
        exact = InfluenceSums.of(place(labels, one[:, 1]) - place(labels, two[:, 1]), whose, center=0.0).difference()
        assert found[name]["delta_auc"] == pytest.approx(delta, abs=1e-9)
        assert exact.error == pytest.approx(np.sqrt(variance), abs=1e-9)
        assert [found[name][key] for key in ("low", "high", "p")] == pytest.approx(
            [max(-1, exact.low or 0), min(1, exact.high or 0), exact.p], abs=1e-9
        )
        assert (found[name]["a"], found[name]["b"], found[name]["delta_federated"]) == ("checkpoint", "other", None)
    labels, one, two, whose = laid(sites, tables, tuple(SIZES))
    delta, variance = slow_difference(labels == 1, one[:, 1], two[:, 1], whose)
    row = found["all"]
    assert 0 < abs(row["delta_auc"] - delta) <= row["bound_federated"] <= 0.02
    assert row["delta_auc"] == pytest.approx(delta, abs=2e-3)
    assert row["delta_federated"] == row["delta_auc"]
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["delta_auc"], abs=1e-12)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(1.99 * np.sqrt(variance), rel=0.05)
    stages = ["first-pass", "counts", "placements", "first-pass", "counts", "paired"]
    assert [stage for stage, _ in federation.asked] == stages
    results = read_json(tmp_path / "run" / "results.json")
    assert results["provenance"]["models"] == {"checkpoint": "a" * 64, "other": "b" * 64}


def test_two_models_that_are_the_same_do_not_differ(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {"birch": 5})
    found, _ = compared(tmp_path / "run", sites, first=drawn(sites), second=drawn(sites))
    for name in (*SIZES, "all"):
        assert [found[name][key] for key in ("delta_auc", "low", "high", "p", "why")] == [0.0, 0.0, 0.0, 1.0, None]


def test_a_class_of_too_few_patients_is_told_by_no_number(tmp_path: Path) -> None:
    """Ash has twelve test patients, six of each class; the others are still put together."""
    sites = three_sites(tmp_path, {"ash": 7})
    tables = (drawn(sites), other(sites))
    found, _ = compared(tmp_path / "run", sites, first=tables[0], second=tables[1])
    assert [found["ash"][key] for key in ("delta_auc", "low", "p", "why")] == [None, None, None, "suppressed"]
    labels, one, two, whose = laid(sites, tables, ("birch", "cedar"))
    delta, _ = slow_difference(labels == 1, one[:, 1], two[:, 1], whose)
    assert abs(found["all"]["delta_auc"] - delta) <= found["all"]["bound_federated"]
    coarse, _ = compared(
        tmp_path / "coarse", three_sites(tmp_path / "c", dict.fromkeys(SIZES, 6)), first=tables[0], second=tables[1]
    )
    row = coarse["all"]
    assert (row["low"], row["p"], row["low_federated"], row["why"]) == (None, None, None, "coarse")
    assert row["delta_auc"] is not None
    nobody, _ = compared(
        tmp_path / "none", three_sites(tmp_path / "n", dict.fromkeys(SIZES, 99)), first=tables[0], second=tables[1]
    )
    assert {one["why"] for one in nobody.values()} == {"suppressed"}
    assert {one["delta_auc"] for one in nobody.values()} == {None}


@pytest.mark.parametrize("stage", ["paired", "placements", "second first-pass", "second counts"])
def test_a_site_that_is_lost_is_named_and_the_others_are_put_together(tmp_path: Path, stage: str) -> None:
    sites = three_sites(tmp_path, {})
    tables = (drawn(sites), other(sites))
    found, _ = compared(tmp_path / "run", sites, first=tables[0], second=tables[1], lost={"birch": stage})
    assert (found["birch"]["why"] == "no-answer") == (stage == "paired"), "its own difference needs no histogram"
    assert (found["birch"]["delta_auc"] is None) == (stage == "paired")
    labels, one, two, whose = laid(sites, tables, ("ash", "cedar") if "first" not in stage else tuple(SIZES))
    delta, _ = slow_difference(labels == 1, one[:, 1], two[:, 1], whose)
    assert abs(found["all"]["delta_auc"] - delta) <= found["all"]["bound_federated"] < 0.02
    events = read_records(tmp_path / "run" / "records.jsonl")
    assert {e["site"]: e["why"] for e in events if e["event"] == "failure"} == {"birch": "it broke"}


def test_held_out_centers_tell_their_own_and_left_out_ones_their_mean(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {})
    tables = (drawn(sites), other(sites))
    found, federation = compared(
        tmp_path / "run",
        sites,
        first=tables[0],
        second=tables[1],
        held=("ash", "birch"),
        protocol="leave-one-center-out",
    )
    assert list(found) == ["ash", "birch", "all"]
    deltas, variances = [], []
    for name in ("ash", "birch"):
        labels, one, two, whose = laid(sites, tables, (name,), part="")
        delta, variance = slow_difference(labels == 1, one[:, 1], two[:, 1], whose)
        assert found[name]["delta_auc"] == pytest.approx(delta, abs=1e-9)
        deltas.append(delta)
        variances.append(variance)
    assert found["all"]["delta_auc"] == pytest.approx(np.mean(deltas), abs=1e-9)
    half = (found["all"]["high"] - found["all"]["low"]) / 2
    assert half == pytest.approx(1.98 * np.sqrt(sum(variances)) / 2, rel=0.02)
    assert federation.asked[-1] == ("paired", ("ash", "birch"))
    assert federation.asked[0] == ("first-pass", ("cedar",))
    assert len([stage for stage, _ in federation.asked if stage == "first-pass"]) == 1, "one model's histograms suffice"


def test_several_classes_have_macro_differences(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {}, classes=("none", "cyst", "mass"))
    tables = (drawn(sites), other(sites))
    found, _ = compared(tmp_path / "run", sites, first=tables[0], second=tables[1])
    for names in ((name,) for name in (*SIZES, "all")):
        labels, one, two, whose = laid(sites, tables, tuple(SIZES) if names == ("all",) else names)
        both = zip(macro_placed(labels, one), macro_placed(labels, two), strict=True)
        exact = macro_difference(*summed([a - b if a and b else None for a, b in both], labels, whose))
        row = found[names[0]]
        assert exact.delta is not None
        if names == ("all",):
            assert abs(row["delta_auc"] - exact.delta) <= row["bound_federated"]
            assert [row["low"], row["high"]] == pytest.approx([exact.low, exact.high], abs=3e-3)
        else:
            told = [row[key] for key in ("delta_auc", "low", "high", "p")]
            assert told == pytest.approx([exact.delta, exact.low, exact.high, exact.p], abs=1e-9)


def test_the_report_has_the_paired_table_and_says_where_it_would_stand(tmp_path: Path) -> None:
    sites = three_sites(tmp_path, {"ash": 7})
    tables = (drawn(sites), other(sites))
    found, _ = compared(tmp_path / "run", sites, first=tables[0], second=tables[1])
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    table = page.partition('data-table="contrasts"')[2].partition("</table>")[0]
    assert "Checkpoint minus" in table
    assert table.count("<tr") == 1 + len(found)
    assert "suppressed: fewer patients" in table
    assert "Differences between two models" in page
    assert "model other, SHA-256" in page
    text, _ = summary(tmp_path / "run")
    assert f"checkpoint − other, in-federation: {found['all']['delta_auc']:+.3f}" in text
    assert "checkpoint − other, ash: – (suppressed)" in text
    results = read_json(tmp_path / "run" / "results.json")
    assert "no paired table" not in page
    alone = tmp_path / "alone"
    alone.mkdir()
    from common.files import write_json

    write_json(alone / "results.json", results | {"contrasts": []})
    assert "server evaluate with --against compares two models" in write_report(alone).read_text(encoding="utf-8")


def test_a_site_tells_what_its_policy_lets_out(tmp_path: Path) -> None:
    """Own numbers, sums, both or none; the second model's counts are histograms alone."""
    site = three_sites(tmp_path, {})["ash"]
    tables = drawn({"ash": site})["ash"], other({"ash": site})["ash"]
    rows = site.rows("test")
    federation = TwoModels({"ash": site}, {}, second={})
    orders: list[EvaluateOrder] = []

    class Keeps(TwoModels):
        def evaluate(self, round_number: int, asked: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated:
            orders.extend(asked.values())
            return super().evaluate(round_number, asked, weights)

    assert federation.asked == []
    sites = three_sites(tmp_path / "again", {})
    world = Keeps(sites, drawn(sites), second=other(sites))
    compare(tmp_path / "run", world, experiment_table([Path(name) for name in sites]), models={})
    paired = next(order for order in orders if order.stage == "paired")
    second = next(order for order in orders if order.compared == "second" and order.stage == "counts")
    for sends in (("numbers", "sums"), ("numbers",), ("sums",), ("masked-sums",)):
        limited = replace(site, policy=replace(site.policy, evaluation_sends=sends))
        told = report_paired(limited, rows, (tables[0][rows], tables[1][rows]), paired)
        assert told.difference is not None
        assert (told.difference.delta is not None) == ("numbers" in sends)
        assert told.difference.why == (None if "numbers" in sends else "policy")
        assert [one is not None for one in told.influence] == ["sums" in sends]
        assert (told.n_images, told.auc, told.sums, told.histograms) == (None, None, None, ())
    counts = report_part(site, rows, tables[1][rows], second)
    assert (counts.n_images, counts.auc, counts.loss, counts.sums) == (None, None, None, None)
    assert len(counts.histograms) == 1
    masked = replace(paired, evaluation=replace(paired.evaluation, secure=True))
    assert report_paired(site, rows, (tables[0][rows], tables[1][rows]), masked).influence == (None,)

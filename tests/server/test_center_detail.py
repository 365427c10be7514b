"""What centers tell of themselves at the end of a run over messages: in results.json, and on the page."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from client.site import Site
from client.subgroups import Cases, tell
from common.calibration import calibration_intercept, calibration_slope
from common.config import Experiment
from common.detail_orders import Detail, Group
from common.files import read_json
from common.orders import SiteCard
from common.parsing import parse
from common.pooled import NetBenefit
from server.details import covariates_left_out
from server.final import evaluate_finally
from server.records import Records
from server.report import write_report
from server.report.center_decision import center_decision
from server.report.reading import Row, Run
from server.report.subgroups import subgroups_untold
from server.rounds import Outcome, Roster
from tests.experiments import experiment_table
from tests.server.test_together import SIZES, Scoring, drawn, three_sites

SHY = {"evaluation_sends": ("numbers", "sums")}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Site], Scoring]:
    """Ash and birch train, birch without groups; nobody has seen cedar. Half of the patients have a left node."""
    parent = tmp_path_factory.mktemp("detail")
    sites = {name: with_sides(site) for name, site in three_sites(parent, dict.fromkeys(SIZES, 3)).items()}
    sites["birch"] = replace(sites["birch"], policy=replace(sites["birch"].policy, **SHY))
    sites["cedar"] = replace(sites["cedar"], role="held-out")
    experiment = parse(Experiment, experiment_table([Path(name) for name in sites]), where="test")
    roles = {name: site.role for name, site in sites.items()}
    cards = {n: SiteCard(n, roles[n], s.task, {"test": 4}, 20, "0" * 64) for n, s in sites.items()}
    federation, run = Scoring(sites, drawn(sites)), parent / "run"
    run.mkdir()
    (run / "config.toml").write_text("")
    roster, records = Roster.of(cards, experiment), Records(run / "records.jsonl")
    evaluate_finally(federation, roster, experiment, Outcome({}, 8, {}), run="r", folder=run, records=records)
    return run, sites, federation


def with_sides(site: Site) -> Site:
    values = tuple("left" if patient % 4 < 2 else "right" for patient in site.patients.tolist())
    return replace(site, covariates={"side": values}, kinds={"side": "category"}, levels={"side": ("left", "right")})


def rows(run: Path) -> dict[str, Any]:
    return {row["site"]: row for row in read_json(run / "results.json")["rows"]}


def test_groups_of_results_are_those_of_the_sites_cases(told: tuple[Path, Mapping[str, Site], Scoring]) -> None:
    run, sites, federation = told
    results, threshold = read_json(run / "results.json"), rows(run)["cedar"]["threshold"]
    site = sites["cedar"]
    cases = Cases(site, site.rows(), federation.scores["cedar"], threshold)
    found = [group for group in results["subgroups"] if group["site"] == "cedar"]
    assert [group["level"] for group in found] == ["left", "right"]
    for group, own in zip(found, tell(cases).groups, strict=True):
        assert {name: group[name] for name in vars(own)} == vars(own)
        assert (group["arm"], group["protocol"], group["auc"] is None) == ("federated", "in-federation", False)
    assert results["subgroups_absent"] == {"birch": "policy"}


def test_an_unseen_centers_curve_and_every_centers_calibration_are_its_own(
    told: tuple[Path, Mapping[str, Site], Scoring],
) -> None:
    run, sites, federation = told
    for name, site in sites.items():
        row, mine = rows(run)[name], site.rows("test")
        labels, p, whose = site.positive[mine], federation.scores[name][mine, 1], site.patients[mine]
        for measure, exact in (("slope", calibration_slope), ("intercept", calibration_intercept)):
            own = exact(labels, p, whose)
            keys = (f"calibration_{measure}{end}" for end in ("", "_low", "_high"))
            assert [row[key] for key in keys] == pytest.approx([own.value, own.low, own.high])
        points = [point for point in row["net_benefit"] if point["model"] is not None]
        assert (len(points) > 3, row["net_benefit_why"]) == ((True, None) if name == "cedar" else (False, "in-total"))
        for point in points:
            t = point["threshold"]
            gain = ((p >= t) & labels).mean() - ((p >= t) & ~labels).mean() * t / (1 - t)
            assert point["model"] == pytest.approx(gain)
            assert point["low"] < point["model"] < point["high"] or np.isclose(point["low"], point["high"])


def test_a_curve_without_a_point_is_a_reason() -> None:
    kept = tuple(NetBenefit(t, None, 0.4, why="small-cell") for t in (0.1, 0.2))
    row = Row("federated", "in-federation", 0, "ash", net_benefit=kept)
    picture, note = center_decision("ash", {"federated": [row]})
    assert (picture, note) == (None, "too few patients lie between any two thresholds for the center’s policy")
    told = replace(row, net_benefit=(*kept, NetBenefit(0.35, 0.12, 0.3, 0.02, 0.22)))
    picture, note = center_decision("ash", {"federated": [told]})
    assert ".12 (.02 to .22) at .35" in str(picture)
    assert note.startswith("2 of 3 thresholds stay at the center")


def test_the_page_draws_what_was_told_and_says_what_was_not(told: tuple[Path, Mapping[str, Site], Scoring]) -> None:
    page = write_report(told[0]).read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))
    assert "cedar, federated: ." in text, "a figure's words name the center"
    assert "Net benefit at cedar" in page
    assert "Net benefit at ash" not in page
    assert "No decision curve of ash, birch: told as part of the total over all centers alone." in text
    assert "No groups of birch: the center's policy does not let it out." in text
    assert "One model was evaluated, so there is no paired table" in text
    table = page.partition('data-table="calibration"')[2].partition("</table>")[0]
    row = rows(told[0])["cedar"]
    assert f"{row['calibration_slope_low']:.2f} to {row['calibration_slope_high']:.2f}".replace("-", "−") in re.sub(
        r"(?<!\d)\.", "0.", table
    )
    assert page.partition('data-table="subgroups"')[2].count("<td>left") == 2


def test_the_page_says_which_covariate_was_left_out_and_why() -> None:
    by_site = {"ash": {"machine": "overlap", "vendor": "overlap", "side": "too-many"}, "birch": {"machine": "overlap"}}
    run = SimpleNamespace(subgroups_absent={"cedar": "not-declared"}, subgroups_left_out=by_site)
    said = {sites: why for why, sites in subgroups_untold(cast(Run, run))}
    assert said.keys() == {"cedar", "ash by machine and vendor, birch by machine", "ash by side"}
    assert "nobody at the center has said" in said["cedar"]
    assert "groups of another covariate" in said["ash by machine and vendor, birch by machine"]


def test_left_out_covariates_are_those_of_sites_that_told_groups() -> None:
    parts = {name: SimpleNamespace(detail=detail) for name, detail in _DETAILS.items()}
    assert covariates_left_out(cast(Any, parts)) == {"ash": {"vendor": "overlap"}}


_DETAILS = {
    "ash": Detail(groups=(Group("side", "left", 9, 9, *(None,) * 6),), left_out={"vendor": "overlap"}),
    "birch": Detail(groups_why="no-groups", left_out={"vendor": "no-groups"}),
    "cedar": None,
}

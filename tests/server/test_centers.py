"""From rows to entries across centers: by hand, at the edges, and as the report shows them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from common.files import read_json
from common.metrics import EvaluationSums
from common.observed import ObservedExpected
from common.provenance import provenance
from server.centers import Meta, across_centers
from server.meta_analysis import random_effects, with_known_spread
from server.report import write_report
from server.results import Row, write_results
from tests.conftest import Compared
from tests.server.report_folder import Folder
from tests.server.test_report import read

_EMPTY = (None,) * 7


def row(arm: str, site: str, auc: float, seed: int = 0, variance: float = 0.001, trained_on: str = "x") -> Row:
    reach = 1.96 * np.sqrt(variance)
    bounds = (auc - reach, min(1.0, auc + reach), variance)
    made = Row(
        arm, "leave-one-center-out", seed, site, True, (trained_on,), None, 90, 60, auc, *bounds, *_EMPTY, None, None
    )
    return replace(made, observed=30, expected=24.0, log_oe_variance=0.02)


def only(rows: list[Row], arm: str = "federated", measure: str = "auc") -> Meta:
    return next(entry for entry in across_centers(rows) if (entry.arm, entry.measure) == (arm, measure))


def test_a_center_is_the_mean_of_its_seeds_and_carries_their_spread() -> None:
    areas = {"ash": (0.80, 0.84), "birch": (0.90, 0.88), "cedar": (0.70, 0.75)}
    found = only([row("federated", site, a, seed=s) for site, pair in areas.items() for s, a in enumerate(pair)])
    y, v = [], []
    for pair in areas.values():
        logits = [np.log(a / (1 - a)) for a in pair]
        sampling = [0.001 / (a * (1 - a)) ** 2 for a in pair]
        y.append(sum(logits) / 2)
        v.append(sum(sampling) / 2 + (logits[0] - logits[1]) ** 2 / 2 / 2)
    assert [c.value for c in found.centers] == pytest.approx(y)
    assert [c.variance for c in found.centers] == pytest.approx(v)
    assert [c.models for c in found.centers] == [2, 2, 2]
    direct = random_effects(y, v)
    assert found.estimate == pytest.approx(expit(direct.estimate))
    assert direct.prediction_low is not None
    assert found.prediction_low == pytest.approx(expit(direct.prediction_low))
    assert (found.k, found.note, found.why) == (3, "too few centers to be informative", None)
    assert found.sensitivity is not None
    area = expit(direct.estimate)
    known = with_known_spread(y, v, tau=0.055 / (area * (1 - area)))
    assert found.sensitivity.prediction_high == pytest.approx(expit(known.prediction_high))


def test_what_few_and_many_centers_allow() -> None:
    def of(k: int) -> Meta:
        return only([row("federated", f"site-{i}", 0.7 + 0.02 * i) for i in range(k)])

    assert (of(1).estimate, of(1).why, of(1).sensitivity) == (None, "one-center", None)
    two = of(2)
    assert two.estimate is not None
    assert (two.prediction_low, two.prediction_high, two.why) == (None, None, "two-centers")
    assert of(4).note == "too few centers to be informative"
    assert of(5).note is None
    assert of(9).sensitivity is not None
    assert of(10).sensitivity is None


def test_models_at_home_rows_of_all_and_other_protocols_do_not_count() -> None:
    rows = [row("local", site, 0.8, trained_on=origin) for site in "abc" for origin in "abc"]
    rows += [row("local", "all", 0.2), replace(row("local", "a", 0.1), protocol="in-federation")]
    found = only(rows, "local")
    assert [(c.site, c.models) for c in found.centers] == [("a", 2), ("b", 2), ("c", 2)]
    assert found.estimate == pytest.approx(0.8)


def test_a_perfect_center_stays_in_and_one_without_a_number_is_named() -> None:
    rows = [row("federated", "a", 0.8), row("federated", "b", 0.85), row("federated", "c", 0.9)]
    perfect = replace(row("federated", "d", 1.0), auc_low=0.84, auc_high=1.0, auc_variance=0.0)
    gone = replace(row("federated", "e", 0.5), auc=None, auc_variance=None, why="one-class")
    found = only([*rows, perfect, gone])
    middle = found.centers[3]
    assert middle.value == pytest.approx(logit(0.92))
    assert np.sqrt(middle.variance) * 1.959964 == pytest.approx(logit(0.92) - logit(0.84))
    assert (found.k, found.left_out) == (4, {"e": "one-class"})


def test_observed_over_expected() -> None:
    rows = [row("federated", site, 0.8) for site in "abc"]
    found = only(rows, measure="oe")
    assert found.estimate == pytest.approx(30 / 24)
    assert (found.scale, found.sensitivity) == ("log", None)
    without = [replace(r, observed=None, expected=None) for r in rows]
    assert [entry.measure for entry in across_centers(without)] == ["auc"]


def test_variance_of_observed_over_expected_is_that_of_redrawn_patients() -> None:
    """300 patients of one to five images who differ: against 4,000 bootstrap draws of patients."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(300), rng.integers(1, 6, 300))
    p = expit(rng.normal(-0.5, 1, 300))[patients]
    labels = (rng.random(300) < expit(logit(p[np.unique(patients, return_index=True)[1]]) + 0.3))[patients]
    found = ObservedExpected.of(labels, p, patients)
    o, e = np.bincount(patients, weights=labels), np.bincount(patients, weights=p)
    drawn = rng.integers(0, 300, (4000, 300))
    slow = np.log(o[drawn].sum(axis=1) / e[drawn].sum(axis=1)).var()
    assert (found.observed, found.expected) == (int(labels.sum()), pytest.approx(p.sum()))
    assert found.log_variance == pytest.approx(slow, rel=0.08)
    here = patients < 120
    parts = [
        EvaluationSums.of(labels[w], p[w], patients[w], site=site) for site, w in (("ash", here), ("birch", ~here))
    ]
    sums = ObservedExpected.of_sums(parts[0] + parts[1])
    assert (sums.observed, sums.expected) == (found.observed, pytest.approx(found.expected))
    assert sums.log_variance == pytest.approx(found.log_variance, rel=1e-9)


def test_no_case_of_a_class_has_no_ratio() -> None:
    assert ObservedExpected.of([0, 0], [0.2, 0.3], [1, 2]).log_variance is None
    assert ObservedExpected.of_sums(EvaluationSums.zero()).log_variance is None


def test_results_hold_the_entries_and_a_comparison_has_them(tmp_path: Path, compared: Compared) -> None:
    rows = [row("federated", site, 0.8) for site in "abc"]
    path = write_results(
        tmp_path, config={}, budget={}, provenance=provenance(threads=1, data={}), rows=rows, contrasts=[]
    )
    assert [(m["arm"], m["measure"]) for m in read_json(path)["meta"]] == [("federated", "auc"), ("federated", "oe")]
    made = compared.results["meta"]
    assert {(m["arm"], m["measure"]) for m in made} >= {("federated", "auc"), ("federated", "oe")}
    assert all(m["k"] + len(m["left_out"]) == 3 for m in made)


def folder(root: Path, sites: tuple[str, ...], *, variance: float = 0.001) -> Folder:
    made = Folder(root, sites=sites, seeds=1, cases=60).comparison(("federated",))
    for entry in made.rows:
        entry |= {"auc_variance": variance, "observed": 24, "expected": 20.0, "log_oe_variance": 0.03}
    return made


def test_the_report_shows_the_mean_and_a_new_center(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", ("a", "b", "c", "d", "e")).write()
    _, page = read(run)
    found = across_centers_of(run)
    auc, assumed, ratio = page.tables[("across", "leave-one-center-out")][1:]
    assert auc[0].strip() == "AUC"
    assert auc[3].split()[0] == f"{found.estimate:.2f}".removeprefix("0")
    bounds = [f"{end:.2f}".removeprefix("0") for end in (found.prediction_low, found.prediction_high)]
    assert auc[4].strip() == "–".join(bounds)
    assert auc[7].strip() == ""
    assert "assumed" in assumed[0]
    assert ratio[0].strip() == "O/E"
    assert ratio[3].split()[0] == "1.20"
    words = " ".join(" ".join(page.words).split())
    assert f"95 % prediction interval of the AUC at a new center: {'–'.join(bounds)} (5 centers)." in words


def across_centers_of(run: Path) -> Meta:
    from server.report.reading import read_run

    found = read_run(run).across("federated", "auc")
    assert found is not None
    return found


def test_two_centers_get_a_dash_and_why(tmp_path: Path) -> None:
    _, page = read(folder(tmp_path / "run", ("a", "b")).write())
    line = page.tables[("across", "leave-one-center-out")][1]
    assert line[4].split()[0] == "–"
    assert "two centers: no degree of freedom is left to predict a third" in line[4]
    assert "no 95 % prediction interval (two centers" in " ".join(page.words)


def test_entries_of_the_file_go_before_those_of_the_rows(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", ("a", "b", "c")).write()
    first = write_report(run).read_bytes()
    document = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(document | {"meta": []}))
    assert b'data-table="across"' in first
    assert b'data-table="across"' not in write_report(run).read_bytes()


def test_the_checklist_leaves_to_the_authors_what_only_they_know(tmp_path: Path) -> None:
    _, page = read(folder(tmp_path / "run", ("a", "b", "c")).write())
    table = {line[0]: line[2] for line in page.tables[("tripod", "")][1:]}
    assert len(table) == 52
    for item in ("17", "18a", "18b", "14", "25", "6b"):
        assert table[item] == "the authors must state"
    assert "positive: malignant" in table["8a"]
    assert "24 positive" in table["21"]

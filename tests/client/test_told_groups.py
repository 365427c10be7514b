"""What a site tells of groups of its patients: right numbers, none about a few patients, and none that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score

from client.evidence import report_part
from client.importers.case import Case
from client.level_names import declarable
from client.service import answer_evaluate
from client.site import Site, load_site
from client.subgroups import Cases, covariates_of, groups, measure_groups, tell
from common.detail_orders import Group
from tests.client.test_sent import asked, log_of, opened
from tests.client.test_what_leaves import order
from tests.faults.small_sites import write_site

Levels = Sequence[str | None]


def told_groups(cases: Cases) -> tuple[Group, ...]:
    return tell(cases).groups


def scored(
    labels: Sequence[int], p: Sequence[float], patients: Sequence[int], smallest: int, **columns: Levels
) -> Cases:
    """Cases of a site with these categories, all of whose names may leave; the locked threshold is .5."""
    site = SimpleNamespace(
        labels=np.array(labels),
        patients=np.array(patients),
        policy=SimpleNamespace(smallest_group=smallest),
        task=SimpleNamespace(positive_index=1, classes=("benign", "malignant")),
        devices=(None,) * len(labels),
        covariates=columns,
        kinds=dict.fromkeys(columns, "category"),
        levels={name: sorted({v for v in values if v}) for name, values in columns.items()},
    )
    scores = np.stack([1 - np.array(p), np.array(p)], axis=1)
    return Cases(cast(Site, site), np.arange(len(labels)), scores, 0.5)


def many(seed: int = 0, images: int = 900) -> Cases:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, images)
    p = np.clip(0.5 + 0.15 * (labels - 0.5) + 0.2 * rng.normal(size=images), 0, 1)
    device = rng.choice(["Aplio 300", "LOGIQ 5", "LOGIQ 7"], images, p=[0.6, 0.3, 0.1])
    return scored(labels, p, rng.integers(0, 700, images), 5, machine=tuple(device))


def test_a_groups_numbers_are_scikit_learns_and_the_simulations() -> None:
    cases = many()
    found = {group.level: group for group in told_groups(cases)}
    assert found.keys() == {"Aplio 300", "LOGIQ 5", "LOGIQ 7"}
    machine = np.array(cases.site.covariates["machine"])
    for level, group in found.items():
        here = machine == level
        labels, p = cases.site.labels[here], cases.scores[here, 1]
        assert (group.n_images, group.n_positive) == (here.sum(), labels.sum())
        assert group.n_patients == len(set(cases.site.patients[here].tolist()))
        assert group.auc == pytest.approx(roc_auc_score(labels, p), abs=1e-12)
        assert group.sensitivity == pytest.approx(recall_score(labels, p >= 0.5))
        assert group.specificity == pytest.approx(recall_score(1 - labels, p < 0.5))
    here = covariates_of(cases.site)["machine"]
    assert list(found.values()) == measure_groups(cases, "machine", groups(cases.site, cases.rows, here))


def cells(cases: Cases, covariate: str, level: str) -> dict[str, set[int]]:
    """The patients of a group by what is counted of their images."""
    rows = groups(cases.site, cases.rows, cases.site.covariates[covariate])[level]
    positive, called = cases.site.labels[rows] == 1, cases.scores[rows, 1] >= 0.5
    which = {"+": positive, "-": ~positive, "tp": positive & called, "fn": positive & ~called}
    which |= {"fp": ~positive & called, "tn": ~positive & ~called}
    return {name: set(cases.site.patients[rows[flags]].tolist()) for name, flags in which.items()}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.floats(0, 1), st.integers(0, 60), st.sampled_from("aaabbcd")),
        min_size=10,
        max_size=90,
    ),
    st.integers(1, 8),
)
def test_what_a_covariate_keeps_back_does_not_follow_from_the_rest(
    images: list[tuple[int, float, int, str]], smallest: int
) -> None:
    """All groups together are the whole, which is told: so what is hidden must together be about enough patients."""
    labels, p, patients, levels = (list(column) for column in zip(*images, strict=True))
    cases = scored(labels, p, patients, smallest, kind=levels)
    told, least = told_groups(cases), max(smallest, 5)
    for name, counted in (("n_positive", "+ -"), ("sensitivity", "tp fn"), ("specificity", "fp tn")):
        about = [g for g in told if any(cells(cases, "kind", g.level)[cell] for cell in counted.split())]
        hidden = [g for g in about if getattr(g, name) is None]
        for cell in counted.split():
            for group in about:
                if group not in hidden:
                    assert len(cells(cases, "kind", group.level)[cell]) not in range(1, least)
            left = set().union(*(cells(cases, "kind", group.level)[cell] for group in hidden))
            whole = len(hidden) == len(about)  # then the site's own number is kept back where this one is
            assert whole or len(left) not in range(1, least)
    for group in told:
        if group.n_positive is None:
            assert (group.auc, group.sensitivity, group.specificity) == (None, None, None)
            assert group.why in ("few-of-a-class", "complement")


def test_one_hidden_group_hides_the_next_smallest_too() -> None:
    """Three malignant patients of `b` would be those of all less those of `a` and `c`."""
    labels = [*[1, 0] * 30, *[1] * 3, *[0] * 17, *[1, 0] * 15]
    levels = ["a"] * 60 + ["b"] * 20 + ["c"] * 30
    p = np.random.default_rng(0).random(110)
    found = {group.level: group for group in told_groups(scored(labels, p.tolist(), range(110), 5, kind=levels))}
    assert {level: group.why for level, group in found.items()} == {"a": None, "b": "few-of-a-class", "c": "complement"}
    assert (found["c"].n_positive, found["c"].auc, found["c"].n_patients) == (None, None, 30)
    assert found["a"].n_positive == 30


def test_a_few_missed_patients_hide_a_sensitivity_and_the_next() -> None:
    p = [0.9 if n % 2 else 0.1 for n in range(40)] + [0.9] * 40
    labels = [1] * 20 + [0] * 20 + [1] * 20 + [0] * 20
    p[40], p[41] = 0.1, 0.2  # two malignant patients of `b` are missed; ten of `a`
    levels = ["a"] * 40 + ["b"] * 40
    found = {group.level: group for group in told_groups(scored(labels, p, range(80), 5, kind=levels))}
    assert (found["b"].sensitivity, found["b"].why) == (None, "small-cell")
    assert (found["a"].sensitivity, found["a"].why) == (None, "complement")
    assert (found["a"].specificity, found["b"].specificity) == (0.5, 0.0)
    assert found["b"].auc is not None


def test_a_covariate_that_differs_from_another_by_a_few_patients_is_not_told() -> None:
    labels, p = [0, 1] * 30, np.random.default_rng(1).random(60).tolist()
    side = ["left"] * 30 + ["right"] * 30
    nearly = ["left"] * 28 + ["right"] * 32
    found = told_groups(scored(labels, p, range(60), 5, kind=side, less=nearly))
    assert {group.covariate for group in found} == {"kind"}
    apart = told_groups(scored(labels, p, range(60), 5, kind=side, less=["left"] * 20 + ["right"] * 40))
    assert {group.covariate for group in apart} == {"kind", "less"}


def test_names_that_nobody_declared_do_not_leave() -> None:
    cases = many()
    site = replace_site(cases.site, levels={"machine": ("Aplio 300",)})
    assert {group.level for group in told_groups(replace(cases, site=site))} == {"Aplio 300", "other"}
    assert told_groups(replace(cases, site=replace_site(cases.site, levels={}))) == ()
    assert told_groups(replace(cases, site=replace_site(cases.site, kinds={}))) == ()
    odd = replace_site(cases.site, kinds={"machine": "yes-no"})
    assert told_groups(replace(cases, site=odd)) == ()


def replace_site(site: Site, **changes: Any) -> Site:
    return cast(Site, SimpleNamespace(**{**vars(site), **changes}))


def test_an_import_proposes_plain_names_that_several_patients_share() -> None:
    patients = [f"p{n}" for n in range(60)]
    kinds = ["plain"] * 20 + ["two, of 12-5 MHz"] * 10 + ["12.03.1961"] * 10 + ["scans/7"] * 10 + ["000123456"] * 6
    columns = {"kind": [*kinds, *["rare"] * 4], "free": patients, "whose": ["one"] * 60}
    assert declarable(columns, patients) == {"kind": ("plain", "two, of 12-5 MHz"), "whose": ("one",)}
    assert declarable({"whose": ["one"] * 60}, ["the same"] * 60) == {}
    assert Case.__dataclass_fields__.keys() >= {"device", "covariates"}


def sides(site: Site) -> Site:
    """The site with a column of sides, half of the patients each."""
    values = tuple("left" if patient % 4 < 2 else "right" for patient in site.patients.tolist())
    return replace(site, covariates={"side": values}, kinds={"side": "category"}, levels={"side": ("left", "right")})


def test_groups_leave_with_counts_where_the_policy_says_so(tmp_path: Path) -> None:
    site = sides(opened(tmp_path / "ash"))
    p = np.random.default_rng(0).random(len(site))
    scores = np.stack([1 - p, p], axis=1)

    def told(here: Site, stage: str = "counts", **changes: Any) -> Any:
        detail = report_part(here, here.rows(), scores, order(stage, edges=((0.25, 0.5, 0.75),), **changes)).detail
        return detail and ([group.level for group in detail.groups], detail.groups_why)

    assert told(site) == (["left", "right"], None)
    for changes in ({"evaluation_sends": ("numbers", "sums")}, {"privacy_required": True}):
        assert told(replace(site, policy=replace(site.policy, **changes))) == ([], "policy")
    assert told(replace(site, policy=replace(site.policy, evaluation_sends=("subgroups", "sums")))) is None
    assert told(replace(site, policy=replace(site.policy, smallest_group=100))) is None
    assert told(replace(site, covariates={}))[1] == "no-groups"
    assert report_part(site, site.rows(), scores, order("first-pass")).detail is None
    secure = replace(order("progress").evaluation, secure=True)
    assert told(site, "progress", evaluation=secure) is None, "a training site is in a total, and in nothing else"
    assert told(site, "progress", evaluation=secure, apart=True) == (["left", "right"], None)


def test_a_server_talks_no_training_site_out_of_its_masks(tmp_path: Path) -> None:
    site = sides(opened(tmp_path / "ash"))
    masked = replace(site, policy=replace(site.policy, evaluation_sends=("numbers", "masked-sums", "subgroups")))
    p = np.random.default_rng(0).random(len(site))
    secure = replace(order("counts").evaluation, secure=True)
    asked = order("counts", edges=((0.25, 0.5, 0.75),), evaluation=secure, apart=True, threshold=0.5)
    for role, told in (("train", False), ("held-out", True)):
        report = report_part(replace(masked, role=role), site.rows(), np.stack([1 - p, p], axis=1), asked)
        assert (report.sensitivity is not None, report.detail is not None) == (told, told)
        assert report.auc is not None


def test_a_held_out_site_sends_no_histogram_whatever_the_order_calls_it(tmp_path: Path) -> None:
    site = replace(opened(tmp_path / "ash"), role="held-out")
    p = np.random.default_rng(0).random(len(site))
    report = report_part(site, site.rows(), np.stack([1 - p, p], axis=1), order("counts", edges=((0.25, 0.5, 0.75),)))
    assert (report.histograms, report.sums) == ((), None)


def test_groups_tell_no_decision_that_the_site_keeps_back(tmp_path: Path) -> None:
    write_site(tmp_path / "ash", "ash", seed=0, images=160)
    site = sides(load_site(tmp_path / "ash"))
    site = replace(site, policy=replace(site.policy, smallest_group=5))
    p = np.random.default_rng(0).random(len(site))
    scores = np.stack([1 - p, p], axis=1)
    for threshold, told in ((0.5, True), (0.6, False)):
        asked = order("counts", edges=((0.25, 0.5, 0.75),), threshold=threshold)
        report = report_part(site, site.rows(), scores, asked)
        assert (report.sensitivity is not None) == told
        assert report.detail is not None
        assert any(group.sensitivity is not None for group in report.detail.groups) == told


def test_a_site_in_no_total_sends_no_sums_but_its_own_curve(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    p = np.random.default_rng(0).random(len(site))
    scores = np.stack([1 - p, p], axis=1)
    edges = {"edges": ((0.25, 0.5, 0.75),)}
    within, apart = (report_part(site, site.rows(), scores, order("counts", apart=a, **edges)) for a in (False, True))
    assert (apart.sums, apart.histograms, within.histograms == ()) == (None, (), False)
    assert within.detail is not None
    assert (within.detail.decisions, within.detail.decisions_why) == ((), "in-total")
    assert apart.detail is not None
    assert len(apart.detail.decisions) == 19
    wary = replace(site, policy=replace(site.policy, smallest_group=9))
    few = report_part(wary, wary.rows(), scores, order("counts", apart=True, **edges)).detail
    assert few is not None
    assert (few.decisions, few.decisions_why) == ((), "suppressed")


def test_groups_and_curve_stand_in_the_sites_log(tmp_path: Path) -> None:
    site = sides(opened(tmp_path / "ash"))
    message, weights = asked("counts", edges=((0.25, 0.5, 0.75),), apart=True, parts={"test": ("train", "val", "test")})
    told = answer_evaluate(site, message, weights).parts["test"].detail
    (line,) = log_of(site)
    assert told is not None
    logged = line["parts"]["test"]["numbers"]["detail"]
    assert [Group(**group) for group in logged["groups"]] == list(told.groups)
    assert [group.level for group in told.groups] == ["left", "right"]
    assert [point["model"] for point in logged["decisions"]] == [point.model for point in told.decisions]

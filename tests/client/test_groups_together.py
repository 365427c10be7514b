"""Groups of several covariates: attacked by adding and subtracting what was told, and kept small."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from client.__main__ import _line
from client.importers.case import ImportSummary
from client.level_names import declarable, may_be_named
from client.manifest import Manifest, load_manifest, manifest_text
from client.subgroups import Cases, groups, tell
from common.detail_orders import Detail, Group
from common.tasks import Task
from tests.client.test_told_groups import replace_site, scored

Flags = NDArray[np.bool_]


def derived(rows: list[Flags], counted: Flags) -> Iterator[Flags]:
    """Every set of the counted images that the told rows give by adding and subtracting each once at most."""
    kept = np.array([row[counted] for row in rows], dtype=np.int64)
    signs = np.array(list(itertools.product((-1, 0, 1), repeat=len(kept))))
    made = np.unique(signs @ np.unique(kept, axis=1), axis=0)
    _, place = np.unique(kept, axis=1, return_inverse=True)
    for one in made[((made == 0) | (made == 1)).all(axis=1)]:
        found = np.zeros(len(counted), dtype=np.bool_)
        found[counted] = one[place.reshape(-1)].astype(np.bool_)
        yield found


def attacked(cases: Cases) -> tuple[int, int]:
    """(sets that follow about too few patients, covariates told), over numbers of every kind."""
    told, few, site = tell(cases).groups, 0, cases.site
    positive, called = site.labels == 1, cases.scores[:, 1] >= 0.5
    everybody = np.ones(len(site.labels), dtype=np.bool_)
    kinds = [
        ("n_images", site.policy.smallest_group, everybody, [everybody]),
        ("n_positive", cases.least, everybody, [positive, ~positive]),
        ("sensitivity", cases.least, positive, [positive & called, positive & ~called]),
        ("specificity", cases.least, ~positive, [~positive & called, ~positive & ~called]),
    ]
    for name, least, counted, sides in kinds:
        rows = [members(cases, group) for group in told if getattr(group, name) is not None]
        if not rows:
            continue
        for found in derived([everybody, *rows], counted):
            few += any(len(set(site.patients[found & side].tolist())) in range(1, least) for side in sides)
    return few, len({group.covariate for group in told})


def members(cases: Cases, group: Group) -> Flags:
    flags = np.zeros(len(cases.site.labels), dtype=np.bool_)
    flags[groups(cases.site, cases.rows, cases.site.covariates[group.covariate])[group.level]] = True
    return flags


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(60, 240), st.sampled_from([1, 3, 5, 8]), st.integers(0, 3))
def test_no_sum_or_difference_of_told_groups_is_about_a_few_patients(
    seed: int, images: int, smallest: int, moved: int
) -> None:
    """Covariates that cross, coincide, nest, or differ by a few images; patients with one image or two."""
    rng = np.random.default_rng(seed)
    one = rng.choice(list("abc"), images, p=rng.dirichlet((4, 4, 2)))
    two = np.where(np.isin(one, ["a", "b"][: rng.integers(1, 3)]), "left", "right")
    three = rng.choice(["yes", "no"], images)
    for column in (two, three):
        column[rng.choice(images, moved)] = column[0]
    labels = (rng.random(images) < rng.choice([0.2, 0.5])).astype(int)
    p = np.clip(0.5 + 0.3 * (labels - 0.5) + 0.3 * rng.normal(size=images), 0, 1)
    patients = rng.integers(0, images, images) if rng.random() < 0.5 else np.arange(images)
    columns = {"one": one.tolist(), "two": two.tolist(), "three": three.tolist()}
    cases = scored(labels.tolist(), p.tolist(), patients.tolist(), smallest, **columns)
    assert attacked(cases)[0] == 0


def test_what_is_told_beside_each_other_is_not_little() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    columns = {name: rng.choice(["x", "y"], 600).tolist() for name in ("one", "two", "three")}
    cases = scored(labels.tolist(), rng.random(600).tolist(), range(600), 5, **columns)
    assert attacked(cases) == (0, 3)
    assert all(group.sensitivity is not None for group in tell(cases).groups)


def test_a_relabelled_group_does_not_tell_what_was_kept_back() -> None:
    """`left` is b, which is kept back with a: a's two malignant patients would be all less b and c."""
    counts = {"a": (2, 20), "b": (10, 20), "c": (30, 40)}
    machine = [level for level, (pos, neg) in counts.items() for _ in range(pos + neg)]
    labels = [k for pos, neg in counts.values() for k in [1] * pos + [0] * neg]
    side = ["left" if level == "b" else "right" for level in machine]
    p = np.random.default_rng(1).uniform(0.2, 0.8, len(labels)).tolist()
    told = tell(scored(labels, p, range(len(labels)), 5, machine=machine, side=side))
    assert [(g.level, g.n_positive) for g in told.groups] == [("a", None), ("b", None), ("c", 30)]
    assert told.left_out == {"side": "overlap"}
    alike = tell(scored(labels, p, range(len(labels)), 5, machine=machine, again=[f"{m}{m}" for m in machine]))
    assert [g.n_positive for g in alike.groups] == [None, None, 30] * 2


def test_a_union_of_groups_less_others_is_not_told() -> None:
    """GE less L5 and L7 are two patients, with their labels and decisions."""
    rng, sizes = np.random.default_rng(1), {("GE", "L5"): 40, ("GE", "L7"): 40, ("Toshiba", "Aplio"): 38}
    pairs = [pair for pair, size in {**sizes, ("GE", "Aplio"): 2}.items() for _ in range(size)]
    labels = rng.integers(0, 2, len(pairs)).tolist()
    vendor, machine = (list(column) for column in zip(*pairs, strict=True))
    told = tell(scored(labels, rng.random(120).tolist(), range(120), 5, machine=machine, vendor=vendor))
    assert {group.covariate for group in told.groups} == {"machine"}
    assert told.left_out == {"vendor": "overlap"}


def test_three_covariates_of_which_each_two_are_enough() -> None:
    """The third tells whether the first two are equal, but for two patients."""
    cells = [(one, two) for one in "xy" for two in "xy" for _ in range(40)]
    third = ["x" if one == two else "y" for one, two in cells]
    third[:2] = ["y", "y"]
    one, two = ([cell[n] for cell in cells] for n in (0, 1))
    labels, p = [0, 1] * 80, np.random.default_rng(1).random(160).tolist()
    for columns in ({"one": one, "two": two}, {"one": one, "third": third}, {"two": two, "third": third}):
        assert tell(scored(labels, p, range(160), 5, **columns)).left_out == {}
    assert tell(scored(labels, p, range(160), 5, one=one, two=two, third=third)).left_out == {"third": "overlap"}


def test_decisions_alone_are_kept_back_where_only_they_are_about_a_few() -> None:
    one, two = ["x"] * 40 + ["y"] * 40, (["x"] * 20 + ["y"] * 20) * 2
    labels, p = [0, 1] * 40, [0.1, 0.9] * 40
    for n in (1, 3, 21, 23, 25, 41, 43, 45, 61, 63):
        p[n] = 0.2  # missed: 5 in every group of a covariate, and 2 or 3 in every cell of both
    told = tell(scored(labels, p, range(80), 5, one=one, two=two))
    assert [group.sensitivity for group in told.groups] == [0.75, 0.75, None, None]
    assert {group.why for group in told.groups[2:]} == {"overlap"}
    assert all(group.auc is not None and group.specificity == 1 for group in told.groups)


def test_the_sites_order_of_covariates_decides() -> None:
    cases = scored([0, 1] * 30, [0.2, 0.8] * 30, range(60), 5, b=["x", "x", "y"] * 20, a=(["x"] * 32 + ["y"] * 28))
    nearly = ["x"] * 30 + ["y"] * 30
    site = replace_site(cases.site, covariates={**cases.site.covariates, "near": nearly})
    for first, second in (("a", "near"), ("near", "a")):
        kinds, levels = dict.fromkeys((first, second), "category"), dict.fromkeys((first, second), ("x", "y"))
        told = tell(replace(cases, site=replace_site(site, kinds=kinds, levels=levels)))
        assert ({group.covariate for group in told.groups}, told.left_out) == ({first}, {second: "overlap"})


def test_a_name_that_is_too_long_costs_its_covariate_alone() -> None:
    halves = {"c" * 65: ["x", "y"] * 30, "side": (["left"] * 2 + ["right"] * 2) * 15}
    told = tell(scored([0, 1] * 30, [0.2, 0.8] * 30, range(60), 5, **halves))
    assert {group.covariate for group in told.groups} == {"side"}
    assert told.left_out == {"c" * 63 + "…": "too-long"}
    Detail(groups=told.groups, left_out=dict(told.left_out))


def test_what_is_told_of_groups_takes_at_most_16_kib() -> None:
    """Many covariates that all make the same groups, with the longest names of letters of four bytes."""
    letters = [chr(0x1D400 + n) for n in range(8)]
    columns = {f"{n:02d}" + "\U0001d7d8" * 62: [letters[k % 8] * 64 for k in range(160)] for n in range(30)}
    p, labels = np.random.default_rng(0).random(160).tolist(), [0] * 80 + [1] * 80
    told = tell(scored(labels, p, range(160), 5, **columns))
    size = len(TypeAdapter(Detail).dump_json(Detail(told.groups, left_out=dict(told.left_out))))
    assert 12_000 < size < 16 * 1024
    assert {len([g for g in told.groups if g.covariate == name]) for name in columns} == {0, 8}
    assert set(told.left_out.values()) == {"too-many"}


@pytest.mark.parametrize(
    "name",
    ["LOGIQ SN 48213", "Dr. Anna Meyer", "prof meyer", "04 Jan 2023", "MRN 12345", "Jan23", "ID 7", "id_7", "SN12",
     "04 01 23", "S/N 7", "HDI 5000", "Mrs Meyer", "3 März"],
)  # fmt: skip
def test_an_import_proposes_no_date_title_or_number(name: str) -> None:
    assert declarable({"device": [name] * 6}, list("abcdef")) == {}


@pytest.mark.parametrize(
    "name", ["LOGIQ 5", "Aplio 300", "Esaote MyLab 70", "Marburg", "solid", "Central", "BI-RADS 4"]
)
def test_an_import_proposes_the_names_of_machines_and_findings(name: str) -> None:
    assert declarable({"device": [name] * 6}, list("abcdef")) == {"device": (name,)}


def test_a_number_that_may_be_a_year_or_a_date_makes_bands() -> None:
    told = {text for text in ("3", "12.5", "-4", "205", "1957", "20230104", "0104", "1e9", "1_23", "12.05", "inf")
            if may_be_named(text, kind="number", declared=())}  # fmt: skip
    assert told == {"3", "12.5", "-4", "205"}
    cases = scored([0, 1] * 30, [0.2, 0.8] * 30, range(60), 5, age=["24.75", "24.75", "61.25"] * 20)
    site = replace_site(cases.site, kinds={"age": "number"}, levels={})
    assert {group.level for group in tell(replace(cases, site=site)).groups} == {"up to 25", "above 25"}


def test_a_site_folder_without_a_table_of_levels_tells_no_group(tmp_path: Path) -> None:
    cases = scored([0, 1] * 30, [0.2, 0.8] * 30, range(60), 5, side=(["yes"] * 2 + ["no"] * 2) * 15)
    for levels, why in ((None, "not-declared"), ({}, None)):
        site = replace_site(cases.site, kinds={"side": "yes-no"}, levels=levels)
        told = tell(replace(cases, site=site))
        assert (len(told.groups), told.why) == (0 if why else 2, why)
    manifest = Manifest("ash", Task("kind", ("a", "b"), "b"), 10)
    for levels in (None, {}, {"side": ("left",)}):
        (tmp_path / "site.toml").write_text(manifest_text(replace(manifest, levels=levels)), encoding="utf-8")
        assert load_manifest(tmp_path).levels == levels


def test_an_import_prints_the_names_that_may_leave() -> None:
    summary = ImportSummary("ash", Path("sites/ash"), 9, 9, {}, {}, {}, 0, levels={"device": ("Aplio", "Anna Meyer")})
    assert "may leave the site" in _line(summary)
    assert _line(summary).splitlines()[-1] == "    device: Aplio, Anna Meyer"
    assert "may leave" not in _line(replace(summary, levels={}))

"""Groups of patients: no group under the policy's size, none that follows by subtraction,
numbers as counted by hand.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client.site import Site
from client.subgroups import OTHER, UNKNOWN, groups
from server.results import Subgroup
from simulation.evidence import Cases, Judge
from simulation.subgroups import subgroup_rows
from tests.conftest import Compared


def site(patients: list[int], smallest: int = 5) -> Site:
    policy = SimpleNamespace(smallest_group=smallest)
    return cast(Site, SimpleNamespace(patients=np.array(patients), policy=policy))


def sizes(here: Site, values: list[str | None]) -> dict[str, int]:
    found = groups(here, np.arange(len(values)), values)
    return {level: len(set(here.patients[rows].tolist())) for level, rows in found.items()}


def test_small_levels_are_joined_with_the_next_smallest() -> None:
    values: list[str | None] = ["a"] * 20 + ["b"] * 8 + ["c"] * 2
    assert sizes(site(list(range(30))), values) == {"a": 20, OTHER: 10}
    assert sizes(site(list(range(30)), smallest=2), values) == {"a": 20, "b": 8, "c": 2}


def test_images_of_one_patient_do_not_make_a_group() -> None:
    values: list[str | None] = ["a"] * 10 + ["b"] * 10
    assert sizes(site([*range(10), *([10] * 10)]), values) == {}


def test_numbers_are_cut_at_the_median_and_the_unknown_is_a_group() -> None:
    values: list[str | None] = [str(20 + i) for i in range(21)] + [None] * 6
    assert sizes(site(list(range(27))), values) == {"above 30": 10, UNKNOWN: 6, "up to 30": 11}


def test_many_words_or_one_make_no_groups() -> None:
    assert sizes(site(list(range(30))), [f"free text {i}" for i in range(30)]) == {}
    assert sizes(site(list(range(30))), ["same"] * 30) == {}
    assert sizes(site(list(range(30))), [None] * 30) == {}


@example([("a", 0), ("a", 1), ("b", 0), ("c", 0)], 2)  # one patient in two levels is one
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*"abcdef", None]), st.integers(0, 25)), max_size=60), st.integers(1, 9))
def test_no_group_is_smaller_than_the_policy_allows(cases: list[tuple[str | None, int]], smallest: int) -> None:
    here, values = site([patient for _, patient in cases], smallest), [value for value, _ in cases]
    found = groups(here, np.arange(len(values)), values)
    assert all(len(set(here.patients[rows].tolist())) >= smallest for rows in found.values())
    together = sorted(row for rows in found.values() for row in rows.tolist())
    assert together in ([], list(range(len(values))))


def measured(labels: list[int], levels: list[str], patients: list[int], *, smallest: int = 5) -> dict[str, Subgroup]:
    """The groups of a center with one covariate, its scores drawn from a named seed."""
    positive = np.random.default_rng(3).random(len(labels))
    here = SimpleNamespace(
        patients=np.array(patients),
        labels=np.array(labels),
        policy=SimpleNamespace(smallest_group=smallest),
        covariates={"birads": levels},
        kinds={},
        devices=[None] * len(labels),
        task=SimpleNamespace(positive_index=1),
    )
    cases = SimpleNamespace(
        sites={"a": here},
        tested=lambda *_: np.arange(len(labels)),
        scores=lambda *_: np.stack([1 - positive, positive], axis=1),
        experiment=SimpleNamespace(task=SimpleNamespace(positive_index=1)),
    )
    judge = SimpleNamespace(arm="federated", protocol="leave-one-center-out", seed=0)
    return {group.level: group for group in subgroup_rows(cast(Cases, cases), cast(Judge, judge), "a", 0.5)}


def test_a_number_needs_five_patients_of_the_class_it_is_about() -> None:
    """Four patients with six positive images of forty are no AUC, and their number is not told."""
    labels = [1] * 6 + [0] * 34 + [1] * 20 + [0] * 20
    levels, patients = ["3"] * 40 + ["4"] * 40, [1, 1, 2, 2, 3, 4, *range(5, 79)]
    for smallest in (1, 5):
        found = measured(labels, levels, patients, smallest=smallest)
        few, enough = found["3"], found["4"]
        assert (few.auc, few.auc_low, few.sensitivity, few.n_positive) == (None, None, None, None)
        assert few.why == "few-of-a-class"
        assert few.specificity is not None
        assert enough.auc is not None
        assert enough.n_positive == 20
    assert measured(labels, levels, patients, smallest=21)["4"].auc is None


def test_a_group_of_one_class_says_so() -> None:
    found = measured([0] * 10 + [0, 1] * 10, ["2"] * 10 + ["4"] * 20, list(range(30)))
    assert (found["2"].why, found["2"].n_positive) == ("one-class", 0)


def test_groups_that_share_patients_say_so() -> None:
    """Every patient with a left and a right picture is in both groups."""
    both = measured([0, 1] * 20, ["left", "right"] * 20, [i // 2 for i in range(40)])
    assert [group.shares_patients for group in both.values()] == [True, True]
    apart = measured([0, 1] * 20, ["left"] * 20 + ["right"] * 20, list(range(40)))
    assert [group.shares_patients for group in apart.values()] == [False, False]


def test_a_comparisons_groups_add_up_to_its_rows(compared: Compared) -> None:
    rows: list[dict[str, Any]] = compared.results["rows"]
    grouped: dict[tuple[str, str, int, str], int] = {}
    for group in compared.results["subgroups"]:
        assert group["arm"] == "federated"
        key = (group["protocol"], group["site"], group["seed"], group["covariate"])
        grouped[key] = grouped.get(key, 0) + group["n_images"]
    for (protocol, name, seed, _), images in grouped.items():
        whole = next(
            r for r in rows
            if (r["arm"], r["protocol"], r["site"], r["seed"]) == ("federated", protocol, name, seed)
        )  # fmt: skip
        assert images == whole["n_images"]

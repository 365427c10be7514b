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
from simulation.subgroups import OTHER, UNKNOWN, groups
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

"""The split: shares, what it depends on, and what it must not."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.importers.archive import Archive, Member
from client.importers.case import Case, Collection
from client.importers.splits import draw_sides, sides_of
from common.errors import BadInput
from common.tasks import Task

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
strata = st.lists(st.integers(0, 3), min_size=1, max_size=120)


@settings(max_examples=200, deadline=None)
@given(labels=strata, seed=st.integers(0, 5))
def test_every_class_and_the_whole_get_their_shares(labels: list[int], seed: int) -> None:
    sides = draw_sides({f"p{n}": label for n, label in enumerate(labels)}, seed=seed, site="a")
    assert list(sides) == [f"p{n}" for n in range(len(labels))]
    for label in set(labels):
        own = [side for side, other in zip(sides.values(), labels, strict=True) if other == label]
        assert all(abs(own.count(side) - share * len(own)) < 1 for side, share in SHARES.items())
    if len(set(labels)) <= 2:
        assert all(abs(list(sides.values()).count(side) - s * len(labels)) <= 1 for side, s in SHARES.items())


@given(labels=strata, seed=st.integers(0, 5))
def test_names_move_nobody_and_seed_and_site_do_not_share_a_draw(labels: list[int], seed: int) -> None:
    def draw(prefix: str) -> list[str]:
        return list(draw_sides({f"{prefix}{n}": label for n, label in enumerate(labels)}, seed=seed, site="a").values())

    assert draw("a") == draw("zz")


def test_seeds_and_sites_differ() -> None:
    labels = {str(n): n % 2 for n in range(60)}
    draws = {tuple(draw_sides(labels, seed=seed, site=site).values()) for seed in (0, 1) for site in ("a", "b")}
    assert len(draws) == 4


def collection(*cases: tuple[str, str, str | None]) -> Collection:
    archive = Archive("archive", (PurePosixPath("x"),), lambda _: b"")
    member = Member(archive, 1, PurePosixPath("x"))
    made = tuple(
        Case(member, None, patient, label, f"table row {row}", split=split)
        for row, (patient, label, split) in enumerate(cases, start=2)
    )
    return Collection("a", Task("t", ("benign", "malignant"), "malignant"), "x", made, {})


def test_an_official_split_is_kept() -> None:
    cases = collection(("p", "benign", "test"), ("q", "benign", "train"), ("p", "malignant", "test"))
    assert sides_of(cases, split_seed=0) == {"p": "test", "q": "train"}


def test_a_patient_on_two_sides_is_an_error() -> None:
    cases = collection(("p", "benign", "test"), ("q", "benign", "train"), ("p", "benign", "train"))
    with pytest.raises(BadInput, match=r"table row 4: a patient on two sides .*here, test at table row 2") as caught:
        sides_of(cases, split_seed=0)
    assert "'p'" not in str(caught.value)


def test_half_an_official_split_is_an_error() -> None:
    with pytest.raises(BadInput, match="table row 3: no official split, which other images have"):
        sides_of(collection(("p", "benign", "test"), ("q", "benign", None)), split_seed=0)

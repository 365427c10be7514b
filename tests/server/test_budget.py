"""Budgets: whole numbers that sum exactly."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Training
from common.errors import BadInput
from server.budget import apportion, check_budget, round_budgets, sample_gradients, total_steps

counts = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 5000), min_size=1, max_size=12)


@given(counts, st.integers(0, 500))
def test_a_rounds_steps_are_divided_exactly_and_in_proportion(images: dict[str, int], spare: int) -> None:
    steps = len(images) + spare
    shares = apportion(steps, images)
    assert sum(shares.values()) == steps
    assert shares.keys() == images.keys()
    assert min(shares.values()) >= 1
    total = sum(images.values())
    for site, share in shares.items():
        assert abs(share - 1 - spare * images[site] / total) < 1 + 1e-9
    for one, other in itertools.pairwise(sorted(images, key=lambda site: images[site])):
        assert shares[one] <= shares[other] + (images[one] == images[other])


@given(counts)
def test_shares_do_not_depend_on_the_order_of_sites(images: dict[str, int]) -> None:
    backwards = dict(reversed(images.items()))
    assert apportion(len(images) + 7, images) == apportion(len(images) + 7, backwards)


def test_too_few_steps_for_the_sites() -> None:
    with pytest.raises(BadInput, match="2 steps a round are too few for 3 sites"):
        apportion(2, {"a": 1, "b": 1, "c": 1})


@given(st.integers(1, 80), st.integers(0, 400))
def test_rounds_cover_the_budget_without_a_gap(rounds: int, spare: int) -> None:
    budgets = round_budgets(rounds, rounds + spare)
    assert [budget.number for budget in budgets] == list(range(1, rounds + 1))
    assert sum(budget.steps for budget in budgets) == rounds + spare
    assert max(budget.steps for budget in budgets) - min(budget.steps for budget in budgets) <= 1
    assert budgets[0].progress[0] == 0
    assert budgets[-1].progress[1] == 1
    for one, other in itertools.pairwise(budgets):
        assert one.progress[1] == other.progress[0]
        assert one.steps >= other.steps


def test_more_rounds_than_steps() -> None:
    with pytest.raises(BadInput, match="3 steps cannot be divided over 4 rounds"):
        round_budgets(4, 3)


@pytest.mark.parametrize(
    ("training", "images", "expected"),
    [
        (Training(steps=7), 100, 7),
        (Training(epochs=2, batch_size=32), 100, 7),  # 200 / 32 = 6.25
        (Training(epochs=0.001, batch_size=32), 100, 1),
        (Training(full_batch=True, rounds=9, steps=3), 100, 9),
    ],
)
def test_total_steps(training: Training, images: int, expected: int) -> None:
    assert total_steps(training, images=images) == expected


def test_sample_gradients() -> None:
    assert sample_gradients(Training(steps=7, batch_size=32), images=100, steps=7) == 224
    assert sample_gradients(Training(full_batch=True, rounds=9), images=100, steps=9) == 900


def test_a_budget_that_a_later_round_cannot_hold_is_refused_at_once() -> None:
    training = Training(rounds=3, steps=8)  # 3, 3, 2
    check_budget(training, images={"a": 5, "b": 5}, steps=8)
    with pytest.raises(BadInput, match="2 steps a round are too few for 3 sites"):
        check_budget(training, images={"a": 5, "b": 5, "c": 5}, steps=8)
    with pytest.raises(BadInput, match="site b: no image to train on"):
        check_budget(training, images={"a": 5, "b": 0}, steps=8)

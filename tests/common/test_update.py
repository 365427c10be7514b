"""The algebra of updates: they add in any order, and divide once."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import RunFailed
from common.update import Update, Weights, apply_change, check_finite, difference, fingerprint, norm

SHAPES = {"trunk.weight": (3, 2), "trunk.bias": (3,), "scale": ()}
numbers = st.floats(-1e3, 1e3, width=32)
weights = st.fixed_dictionaries(
    {name: hnp.arrays(np.float32, shape, elements=numbers) for name, shape in SHAPES.items()}
)
updates = st.builds(lambda delta, weight: Update.of(delta, weight=weight), weights, st.floats(0.5, 500))


def assert_close(a: Update, b: Update) -> None:
    assert a.weight == pytest.approx(b.weight, rel=1e-12)
    one, other = a.mean(), b.mean()
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-6)


@given(updates, updates, updates)
def test_updates_add_in_any_order_and_grouping(a: Update, b: Update, c: Update) -> None:
    assert_close((a + b) + c, a + (b + c))
    assert_close(a + b, b + a)


@given(updates)
def test_zero_is_neutral(a: Update) -> None:
    assert_close(a + Update.zero(), a)
    assert_close(Update.zero() + a, a)


@given(weights, st.lists(st.floats(0.5, 500), min_size=1, max_size=6))
def test_the_mean_of_equal_changes_is_that_change(delta: Weights, counts: list[float]) -> None:
    mean = sum((Update.of(delta, weight=count) for count in counts), Update.zero()).mean()
    for name in delta:
        np.testing.assert_allclose(mean[name], delta[name], rtol=1e-9, atol=1e-9)


@given(st.lists(st.tuples(weights, st.floats(0.5, 500)), min_size=1, max_size=5))
def test_the_mean_is_the_weighted_mean(parts: list[tuple[Weights, float]]) -> None:
    mean = functools.reduce(Update.__add__, (Update.of(delta, weight=w) for delta, w in parts)).mean()
    for name in SHAPES:
        stack = np.stack([delta[name].astype(np.float64) for delta, _ in parts])
        expected = np.average(stack, axis=0, weights=[w for _, w in parts])
        np.testing.assert_allclose(mean[name], expected, rtol=1e-9, atol=1e-6)


def test_a_clash_of_names_or_shapes_is_named() -> None:
    one = Update.of({"a": np.ones(2)}, weight=1)
    with pytest.raises(RunFailed, match=r"b first"):
        one + Update.of({"a": np.ones(2), "b": np.ones(1)}, weight=1)
    with pytest.raises(RunFailed, match="shape of a"):
        one + Update.of({"a": np.ones(1)}, weight=1)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_an_update_of_no_images_is_refused(weight: float) -> None:
    with pytest.raises(RunFailed, match="cannot count"):
        Update.of({"a": np.ones(2)}, weight=weight)


def test_no_update_has_no_mean() -> None:
    with pytest.raises(RunFailed, match="no site sent an update"):
        Update.zero().mean()


@given(weights, weights)
def test_a_change_applied_gives_what_it_was_taken_from(before: Weights, after: Weights) -> None:
    exact = {name: array.astype(np.float64) for name, array in before.items()}
    change = difference({name: array.astype(np.float64) for name, array in after.items()}, exact)
    for name, array in apply_change(before, change).items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, after[name], rtol=1e-6, atol=1e-6)


@given(weights)
def test_norm_is_that_of_the_flat_vector(change: Weights) -> None:
    flat = np.concatenate([array.ravel().astype(np.float64) for array in change.values()])
    assert norm(change) == pytest.approx(float(np.linalg.norm(flat)), rel=1e-12)


@pytest.mark.parametrize("sites", [1, 2, 5])
def test_the_mean_has_the_bits_of_whole_arrays_one_after_the_other(sites: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that do not divide the tensors, single numbers, nothing at all; what was sent stays as it was."""
    monkeypatch.setattr("common.update._BLOCK", 64)
    rng = np.random.default_rng(sites)
    shapes = {"filter": (5, 13, 3, 3), "row": (9,), "scalar": (), "none": (0, 4), "block": (64,)}
    sent = [{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(sites)]
    for delta in sent:
        delta["filter"] = np.asfortranarray(delta["filter"])
    before = [fingerprint(delta) for delta in sent]
    weights = [float(weight) for weight in rng.uniform(0.1, 90, sites)]
    mean = sum((Update.of(delta, weight=w) for delta, w in zip(sent, weights, strict=True)), Update.zero()).mean()
    for name in shapes:
        total = sent[0][name].astype(np.float64) * weights[0]
        for delta, weight in zip(sent[1:], weights[1:], strict=True):
            total = total + delta[name].astype(np.float64) * weight
        assert np.array_equal(mean[name], total / sum(weights, 0.0))
    assert [fingerprint(delta) for delta in sent] == before


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_is_not_finite_is_named_and_what_is_merely_huge_is_not(kind: type[np.floating]) -> None:
    huge = {"small": np.ones(3, kind), "huge": np.full((40, 50), np.finfo(kind).max, kind), "none": np.empty(0, kind)}
    check_finite(huge)
    for value in (np.nan, np.inf, -np.inf):
        for place in (0, 1999):
            spoiled = huge["huge"].copy()
            spoiled.flat[place] = value
            with pytest.raises(RunFailed, match=r"not finite \(huge\)"):
                check_finite(huge | {"huge": spoiled})


@pytest.mark.parametrize("spend", [False, True])
def test_a_difference_takes_the_memory_of_what_came_after_where_that_is_asked_alone(spend: bool) -> None:
    after, before = {"a": np.arange(3.0), "b": np.array(2.0)}, {"a": np.ones(3), "b": np.array(0.5)}
    change = difference(after, before, spend=spend)
    assert (change["a"] is after["a"]) == spend
    assert [change["a"].tolist(), float(change["b"])] == [[-1.0, 0.0, 1.0], 1.5]
    assert after["a"].tolist() == ([-1.0, 0.0, 1.0] if spend else [0.0, 1.0, 2.0])
    assert before["a"].tolist() == [1.0, 1.0, 1.0]

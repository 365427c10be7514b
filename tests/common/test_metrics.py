"""What sites send adds to what one site with all cases would have sent."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RunFailed
from common.metrics import BrierSum, Confusion, EvaluationSums, threshold_at_sensitivity

Rows = list[tuple[bool, float]]
rows = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=50)


def _sums(cases: Rows, site: str, **options: float) -> EvaluationSums:
    labels, p = zip(*cases, strict=True)
    patients = [f"{site}-{i}" for i in range(len(cases))]
    return EvaluationSums.of(labels, p, patients, site=site, **options)  # type: ignore[arg-type]


@given(rows, rows)
def test_adding_is_concatenating(first: Rows, second: Rows) -> None:
    total = sum(
        (_sums(x, s, threshold=0.5, loss_sum=1.5) for x, s in ((first, "a"), (second, "b"))), EvaluationSums.zero()
    )
    whole = _sums(first + second, "all", threshold=0.5, loss_sum=3.0)
    assert total.sites == ("a", "b")
    assert (total.n_images, total.n_patients, total.loss) == (whole.n_images, whole.n_patients, whole.loss)
    assert total.confusion == whole.confusion
    assert total.brier.value == pytest.approx(whole.brier.value)
    assert total.calibration.ece == pytest.approx(whole.calibration.ece)


@given(rows)
def test_json_is_faithful(cases: Rows) -> None:
    sums = _sums(cases, "a", threshold=0.3)
    assert EvaluationSums.from_json(json.loads(json.dumps(sums.to_json()))) == sums


@given(rows, st.sampled_from([0.5, 0.9, 1.0]))
def test_thresholds_reach_the_sensitivity(cases: Rows, wanted: float) -> None:
    labels, p = map(np.array, zip(*cases, strict=True))
    exact = threshold_at_sensitivity(labels, p, wanted)
    if not labels.any():
        assert exact is None
        return
    assert exact is not None
    assert (p[labels] >= exact).mean() >= wanted
    above = p[labels & (p > exact)]
    assert len(above) / labels.sum() < wanted, "a larger threshold would do"


def test_threshold_keeps_ten_of_ten_tenths() -> None:
    scores = np.arange(70) / 100
    assert threshold_at_sensitivity(np.ones(70), scores, 0.90) == scores[7]


@given(rows, st.floats(0, 1))
def test_confusion_is_the_slow_count(cases: Rows, threshold: float) -> None:
    labels, p = zip(*cases, strict=True)
    found = Confusion.of(labels, p, threshold=threshold)
    pairs = [(label, q >= threshold) for label, q in cases]
    assert [found.tp, found.fp, found.tn, found.fn] == [
        pairs.count(x) for x in ((True, True), (False, True), (False, False), (True, False))
    ]
    assert found.sensitivity == (found.tp / sum(labels) if any(labels) else None)
    assert (found.specificity is None) == all(labels)
    assert found + Confusion.zero() == found


def test_nothing_is_none() -> None:
    nothing = EvaluationSums.zero()
    assert nothing.loss is None
    assert nothing.brier.value is None
    assert Confusion.zero().sensitivity is None
    assert BrierSum.zero().value is None
    assert nothing.calibration.ece is None


def test_loss_unmeasured_anywhere_is_none() -> None:
    cases = [(True, 0.5)]
    assert (_sums(cases, "a", loss_sum=2.0) + _sums(cases, "b")).loss is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"site": "a"}, "site a is in both"),
        ({"site": "b", "threshold": 0.4}, "thresholds 0.5 and 0.4"),
    ],
)
def test_clashes_raise(other: dict[str, float], message: str) -> None:
    first = EvaluationSums.of([1], [0.2], ["p"], site="a", threshold=0.5)
    with pytest.raises(RunFailed, match=message):
        first + EvaluationSums.of([1], [0.2], ["q"], **other)  # type: ignore[arg-type]


def test_a_class_of_too_few_patients_is_named_and_not_counted() -> None:
    labels, p, patients = [1, 1, 0, 0, 0, 0, 0], [0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.6], list("aabcdef")
    small = EvaluationSums.of(labels, p, patients, site="ash", threshold=0.5, smallest=5)
    assert (small.confusion, small.calibration.ece, small.suppressed) == (None, None, ("ash",))
    assert (small.n_images, small.n_patients, small.brier.count) == (7, 6, 7)
    whole = EvaluationSums.of(labels, p, patients, site="birch", threshold=0.5, smallest=1)
    assert whole.suppressed == ()
    total = small + whole
    assert (total.confusion, total.calibration, total.suppressed) == (whole.confusion, whole.calibration, ("ash",))
    none = EvaluationSums.of([0] * 5, p[:5], list("abcde"), site="cedar", threshold=0.5, smallest=5)
    assert none.suppressed == (), "a class without cases hides nobody"
    assert none.confusion == Confusion(0, None, None, 0), "two of five were called positive"


def test_strange_sums_are_refused() -> None:
    data = EvaluationSums.of([1], [0.2], ["p"], site="a").to_json()
    for broken in ({}, data | {"extra": 1}, data | {"brier": {"squares": 1}}, data | {"calibration": None}):
        with pytest.raises(RunFailed, match="same release"):
            EvaluationSums.from_json(broken)

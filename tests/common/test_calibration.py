"""Calibration against statsmodels and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint

from common.calibration import (
    CalibrationBins,
    brier,
    calibration_intercept,
    calibration_slope,
    ece,
    reliability,
    wilson,
)

rows = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.2, 3), st.floats(-2, 2))
def test_slope_and_intercept_are_statsmodels(seed: int, slope: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=300)
    labels = rng.random(300) < expit(shift + slope * x)
    p = expit(x)
    logistic = sm.GLM(labels, sm.add_constant(logit(p)), family=sm.families.Binomial()).fit(tol=1e-13)
    offset = sm.GLM(labels, np.ones(300), family=sm.families.Binomial(), offset=logit(p)).fit(tol=1e-13)
    assert calibration_slope(labels, p).value == pytest.approx(logistic.params[1], abs=1e-6)
    assert calibration_intercept(labels, p).value == pytest.approx(offset.params[0], abs=1e-6)


@given(rows)
def test_every_input_has_a_finite_answer_or_a_reason(cases: list[tuple[bool, float]]) -> None:
    labels, p = (np.array(column) for column in zip(*cases, strict=True))
    for estimate in (calibration_slope(labels, p), calibration_intercept(labels, p)):
        assert (estimate.value is None) != (estimate.why is None)
        assert estimate.value is None or np.isfinite(estimate.value)


@pytest.mark.parametrize(
    ("labels", "p", "why"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "separated"),
        ([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9], "separated"),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], "separated"),
        ([1, 1], [0.1, 0.2], "one-class"),
        ([0, 1], [0.3, 0.3], "constant"),
    ],
)
def test_why_there_is_no_slope(labels: list[int], p: list[float], why: str) -> None:
    assert (calibration_slope(labels, p).value, calibration_slope(labels, p).why) == (None, why)


def test_intercept_needs_no_overlap_and_survives_saturation() -> None:
    assert calibration_intercept([0, 1], [0.3, 0.3]).value == pytest.approx(-logit(0.3))
    # Two cases, both sure and one wrong: a mean of logits clipped to 12 and -12 that must find one positive.
    assert calibration_intercept([1, 0], [0.0, 1.0]).value == pytest.approx(0, abs=1e-9)
    value = calibration_intercept([1, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]).value
    assert value == pytest.approx(12 + logit(0.25), abs=1e-9)


@given(rows)
def test_ece_and_brier_are_the_slow_loops(cases: list[tuple[bool, float]]) -> None:
    expected = 0.0
    for k in range(15):
        inside = [(label, p) for label, p in cases if min(int(p * 15), 14) == k]
        if inside:
            gap = np.mean([p for _, p in inside]) - np.mean([label for label, _ in inside])
            expected += abs(gap) * len(inside) / len(cases)
    labels, p = zip(*cases, strict=True)
    assert ece(labels, p) == pytest.approx(expected, abs=1e-12)
    assert brier(labels, p) == pytest.approx(np.mean([(q - label) ** 2 for label, q in cases]), abs=1e-12)


@given(rows, rows)
def test_bins_add(first: list[tuple[bool, float]], second: list[tuple[bool, float]]) -> None:
    total = CalibrationBins.of(*zip(*first, strict=True)) + CalibrationBins.of(*zip(*second, strict=True))
    whole = CalibrationBins.of(*zip(*first, *second, strict=True))
    assert (total.counts, total.positives) == (whole.counts, whole.positives)
    assert total.score_sums == pytest.approx(whole.score_sums)
    assert total + CalibrationBins.zero() == total


def test_reliability() -> None:
    points = reliability([0, 1, 1], [0.05, 0.91, 1.0], bins=10)
    assert len(points) == 10
    assert points[5].count == 0
    assert points[5].mean is None
    assert points[5].observed_high is None
    assert (points[9].count, points[9].observed, points[9].mean) == (2, 1.0, pytest.approx(0.955))


@given(st.integers(1, 300), st.data())
def test_wilson_is_statsmodels(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    assert wilson(hits, trials) == pytest.approx(proportion_confint(hits, trials, method="wilson"), abs=1e-9)


def test_nothing_is_none() -> None:
    assert brier([], []) is None
    assert ece([], []) is None
    with pytest.raises(ValueError, match="outside"):
        brier([0], [1.5])

"""A site's own decision curve: exact where it is told, and told where it is about enough patients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from client.decisions import decision_curve
from common.decisions import DECISIONS

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn(seed: int, patients: int = 80) -> Drawn:
    rng = np.random.default_rng(seed)
    whose = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    positive = (rng.random(patients) < 0.4)[whose]
    p = rng.beta(2, 2, len(whose)) * 0.7 + 0.3 * positive * rng.random(len(whose))
    return positive, np.round(p, 2), whose


def test_a_curve_is_counted_case_by_case_and_its_interval_patient_by_patient() -> None:
    positive, p, whose = drawn(1)
    for point in decision_curve(positive, p, whose, smallest=1):
        odds = point.threshold / (1 - point.threshold)
        gain = [
            float(y) - (1 - y) * odds if score >= point.threshold else 0.0 for y, score in zip(positive, p, strict=True)
        ]
        cases = len(gain)
        assert point.model == pytest.approx(sum(gain) / cases)
        assert point.everybody == pytest.approx(positive.mean() - (~positive).mean() * odds)
        left = [
            sum(g for g, who in zip(gain, whose, strict=True) if who == one) - (whose == one).sum() * sum(gain) / cases
            for one in range(80)
        ]
        reach = student(79).ppf(0.975) * np.sqrt(80 / 79 * np.square(left).sum()) / cases
        assert (point.low, point.high) == pytest.approx((point.model - reach, point.model + reach))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 90), st.integers(1, 8), st.sampled_from([None, 0.31, 0.5, 0.77]))
def test_no_two_points_tell_of_few_patients(seed: int, patients: int, smallest: int, locked: float | None) -> None:
    """What somebody reckons who takes neighbouring points, and decisions at the locked threshold, from each other."""
    positive, p, whose = drawn(seed, patients)
    told = []
    for flag in (True, False):  # as the site tells sensitivity and specificity: where both sides are enough
        sides = [whose[(positive == flag) & ((p >= (locked or 2)) == way)] for way in (True, False)]
        told.append(locked if all(len(set(s)) == 0 or len(set(s)) >= smallest for s in map(list, sides)) else None)
    curve = decision_curve(positive, p, whose, smallest=smallest, told=told)
    kept = [point.threshold for point in curve if point.model is not None]
    if smallest == 1:
        assert kept == pytest.approx(DECISIONS.tolist())
    for flag, fixed in zip((True, False), told, strict=True):
        edges = [-1.0, *sorted({*kept, *([] if fixed is None else [fixed])}), 2.0] if kept else []
        for low, high in itertools.pairwise(edges):
            between = set(whose[(positive == flag) & (p >= low) & (p < high)].tolist())
            assert len(between) == 0 or len(between) >= smallest or len(edges) == 2


def test_what_is_kept_back_is_neither_zero_nor_absent() -> None:
    positive, p, whose = drawn(2, 24)
    curve = decision_curve(positive, p, whose, smallest=5)
    assert [point.threshold for point in curve] == pytest.approx(DECISIONS.tolist())
    kept = [point for point in curve if point.model is None]
    assert 0 < len(kept) < 19
    assert {(point.why, point.low, point.high) for point in kept} == {("small-cell", None, None)}
    assert {point.why for point in curve if point.model is not None} == {None}

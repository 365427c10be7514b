"""Calibration from sums against statsmodels on all cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from common.bins import PLAIN_BINS, SECURE_BINS
from common.errors import RunFailed
from common.logistic import LogisticSums, Start, start_from
from tests.federations import Cases, laid_together, pooled_bins, scored

TOLERANCE = {1: 2e-6, 5: 2e-2}
"""By the smallest group: relative to the slope, absolute for the intercept."""


def summed(sites: list[Cases], *, first: list[Cases], bins: int, smallest: int) -> LogisticSums:
    pool = pooled_bins(sites, first=first, bins=bins, smallest=smallest)
    start = start_from(pool.positives.sum(axis=0), pool.negatives.sum(axis=0), pool.edges)
    told = [LogisticSums.of(labels, p, start=start) for labels, p, _ in sites]
    return sum(told[1:], told[0])


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.sampled_from(["plain", "confident", "narrow"]), st.sampled_from([1, 5]))
def test_slope_and_intercept_are_statsmodels(seed: int, kind: str, smallest: int) -> None:
    made = scored(np.random.default_rng(seed), kind)
    found = summed(made.test, first=made.val, bins=SECURE_BINS if smallest == 1 else PLAIN_BINS, smallest=smallest)
    labels, p, _ = laid_together(made.test)
    x = np.clip(logit(p), -12, 12)
    slope = sm.GLM(labels, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-13).params[1]
    alone = sm.GLM(labels, np.ones(len(x)), family=sm.families.Binomial(), offset=x).fit(tol=1e-13).params[0]
    assert found.calibration_slope.value == pytest.approx(slope, rel=TOLERANCE[smallest])
    assert found.calibration_intercept.value == pytest.approx(alone, abs=TOLERANCE[smallest])


def test_why_there_is_no_slope() -> None:
    labels, p = np.array([False] * 5 + [True] * 5), np.linspace(0.05, 0.95, 10)
    apart: list[Cases] = [(labels, p, np.arange(10))]
    assert summed(apart, first=apart, bins=8, smallest=1).calibration_slope.why == "separated"
    one: list[Cases] = [(np.ones(10, dtype=bool), p, np.arange(10))]
    told = summed(one, first=one, bins=8, smallest=1)
    assert (told.calibration_slope.why, told.calibration_intercept.why) == ("one-class", "one-class")


def test_sums_are_faithful_in_json_and_clash_by_start() -> None:
    sums = LogisticSums.of([0, 1, 1], [0.2, 0.4, 0.9], start=Start(0.1, 0.9, 0.2))
    assert LogisticSums.from_json(json.loads(json.dumps(sums.to_json()))) == sums
    with pytest.raises(RunFailed, match="two starts"):
        sums + LogisticSums.of([0, 1], [0.2, 0.4], start=Start(0.0, 1.0, 0.0))
    for broken in ({}, sums.to_json() | {"slope": [1.0]}, sums.to_json() | {"start": None}):
        with pytest.raises(RunFailed, match="same release"):
            LogisticSums.from_json(broken)

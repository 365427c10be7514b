"""Random effects against a published example, statsmodels, a slow grid, simulation, and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from server.meta_analysis import random_effects, reml, restricted_likelihood, with_known_spread

# Thirteen trials of BCG vaccine (Colditz et al. 1994): tuberculosis and no tuberculosis, vaccinated and not.
BCG = np.array([
    [4, 119, 11, 128], [6, 300, 29, 274], [3, 228, 11, 209], [62, 13536, 248, 12619], [33, 5036, 47, 5761],
    [180, 1361, 372, 1079], [8, 2537, 10, 619], [505, 87886, 499, 87892], [29, 7470, 45, 7232], [17, 1699, 65, 1600],
    [186, 50448, 141, 27197], [5, 2493, 3, 2338], [27, 16886, 29, 17825],
])  # fmt: skip


def bcg() -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the risk ratios and their variances."""
    a, b, c, d = BCG.T.astype(float)
    return np.log(a / (a + b)) - np.log(c / (c + d)), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_the_published_analysis_of_the_vaccine_trials() -> None:
    """Figures of the R package metafor's documentation for these trials, method REML."""
    found = random_effects(*bcg())
    assert found.k == 13
    assert found.tau**2 == pytest.approx(0.3132, abs=5e-5)
    assert found.tau == pytest.approx(0.5597, abs=5e-5)
    assert found.i2 == pytest.approx(0.9222, abs=5e-5)
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert found.estimate == pytest.approx(-0.7145, abs=5e-5)
    assert found.wald_error == pytest.approx(0.1798, abs=5e-5)
    # The documentation's prediction interval is the normal one: z, and the Wald error.
    wide = 1.959964 * np.hypot(found.tau, found.wald_error)
    assert (found.estimate - wide, found.estimate + wide) == pytest.approx((-1.8667, 0.4376), abs=5e-5)
    ours = stats.t.ppf(0.975, 11) * np.hypot(found.tau, found.standard_error)
    assert (found.prediction_low, found.prediction_high) == pytest.approx(
        (found.estimate - ours, found.estimate + ours)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.floats(0, 2), st.integers(0, 10_000))
def test_interval_and_q_are_those_of_statsmodels_at_its_own_spread(k: int, tau: float, seed: int) -> None:
    """statsmodels has no REML: its Paule-Mandel τ² put into our formulas must give its interval, and its Q is ours."""
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.02, 0.5, k)
    y = rng.normal(0.5, np.sqrt(v + tau**2))
    theirs = combine_effects(y, v, method_re="iterated", use_t=True)
    assert random_effects(y, v).q == pytest.approx(theirs.q)
    assert with_known_spread(y, v, tau=float(np.sqrt(theirs.tau2))).estimate == pytest.approx(theirs.mean_effect_re)
    w = 1 / (v + theirs.tau2)
    hksj = np.sqrt(w @ (y - theirs.mean_effect_re) ** 2 / ((k - 1) * w.sum()))
    assert theirs.sd_eff_w_re_hksj == pytest.approx(hksj)


def test_interval_is_that_of_statsmodels_where_there_is_no_spread() -> None:
    v = np.array([0.1, 0.2, 0.15, 0.3])
    y = np.array([0.50, 0.62, 0.41, 0.55])
    found = random_effects(y, v)
    assert found.tau == 0
    frame = combine_effects(y, v, method_re="iterated", use_t=True).summary_frame().loc["fixed effect wls"]
    assert (found.estimate, found.standard_error) == pytest.approx((frame["eff"], frame["sd_eff"]))
    assert (found.low, found.high) == pytest.approx((frame["ci_low"], frame["ci_upp"]))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.floats(0, 2), st.integers(0, 10_000))
def test_reml_is_the_top_of_a_slow_grid(k: int, tau: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.005, 0.5, k)
    y = rng.normal(0.5, np.sqrt(v + tau**2))
    grid = np.concatenate([[0], np.geomspace(1e-6, 40, 500)])
    # Twice the log-likelihood as the profile of a weighted regression: another way to write it, one matrix a point.
    slow = []
    for t in grid:
        v_inverse, ones = np.diag(1 / (v + t)), np.ones((k, 1))
        information = ones.T @ v_inverse @ ones
        p = v_inverse - v_inverse @ ones @ np.linalg.inv(information) @ ones.T @ v_inverse
        slow.append(-0.5 * (np.log(v + t).sum() + np.linalg.slogdet(information)[1] + y @ p @ y))
    best = grid[int(np.argmax(slow))]
    found = reml(y, v)
    assert restricted_likelihood(y, v, tau2=[found])[0] >= max(slow) - 1e-9
    assert found == pytest.approx(best, rel=0.04, abs=2e-6)


def test_equal_variances_have_a_closed_form() -> None:
    y = np.array([0.1, 0.7, 1.9, 1.2])
    assert reml(y, np.full(4, 0.05)) == pytest.approx(y.var(ddof=1) - 0.05)
    found = random_effects(y, np.full(4, 0.05))
    low, high = stats.t.interval(0.95, 3, loc=y.mean(), scale=stats.sem(y))
    assert (found.low, found.high) == pytest.approx((low, high))


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 10), st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 9))
def test_shift_scale_and_order_do_what_they_must(k: int, seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.05, 0.5, k)
    y = rng.normal(0, 1, k)
    here, there = random_effects(y, v), random_effects(scale * (y + shift)[::-1], (scale**2 * v)[::-1])
    assert there.estimate == pytest.approx(scale * (here.estimate + shift), rel=1e-6, abs=1e-6)
    assert there.tau == pytest.approx(scale * here.tau, rel=1e-6, abs=1e-6)
    assert there.i2 == pytest.approx(here.i2, abs=1e-6)
    assert there.high - there.low == pytest.approx(scale * (here.high - here.low), rel=1e-6)


def test_a_new_center_has_no_interval_below_three() -> None:
    two = random_effects([0.1, 0.9], [0.1, 0.1])
    assert two.prediction_low is None
    assert two.prediction_high is None
    assert random_effects([0.1, 0.9, 0.4], [0.1, 0.1, 0.1]).prediction_low is not None


@pytest.mark.parametrize(("values", "variances"), [([0.1], [0.1]), ([0.1, 0.2], [0.1, 0.0]), ([0.1, np.inf], [1, 1])])
def test_what_cannot_be_analysed_is_refused(values: list[float], variances: list[float]) -> None:
    with pytest.raises(ValueError):
        random_effects(values, variances)


def test_intervals_cover_what_they_say() -> None:
    """Six centers, τ three times their errors: the mean in 95 %, a new center in 95 %."""
    rng = np.random.default_rng(5)
    inside = ahead = 0
    for _ in range(1000):
        v = rng.uniform(0.03, 0.06, 6)
        found = random_effects(rng.normal(1.0, np.sqrt(v + 0.36)), v)
        inside += found.low <= 1.0 <= found.high
        assert found.prediction_low is not None
        assert found.prediction_high is not None
        ahead += found.prediction_low <= rng.normal(1.0, 0.6) <= found.prediction_high
    assert 930 <= inside <= 970
    assert 930 <= ahead <= 975

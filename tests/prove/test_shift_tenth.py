"""A tenth of the proofs of the shift panel and of repair, on the proofs' own data."""

from __future__ import annotations

import numpy as np
import pytest

from tests.prove.shift import CENTERS_ALIKE, CENTERS_SHIFTED, DATA_SETS, NULL_RUNS, RUNS
from tests.repair_trials import cost_without_shift, recovered
from tests.shift_trials import PLANTED, bootstrap_and_permutation, false_alarms, planted


def test_a_tenth_of_the_panels_without_shift_name_a_cause_as_rarely_as_they_say() -> None:
    """100 of 1,000: at a rate of 5 %, 12 or more have a probability of .004, none at all .006."""
    assert 0 < false_alarms(NULL_RUNS // 10) < 0.12


@pytest.mark.parametrize("what", PLANTED)
def test_a_tenth_of_the_shifted_panels_are_found_and_the_cause_named(what: str) -> None:
    """20 of 200: at the .90 that the proof asks for, 15 or fewer have a probability of .04, 14 or fewer of .01."""
    found, right, _ = planted(what, RUNS // 10)
    assert found >= 0.75
    assert right >= 0.75


def test_over_a_tenth_of_the_data_sets_a_p_is_that_of_a_permutation_of_patients() -> None:
    """20 of 200: the mean over axes and data sets of |p − p|."""
    pairs = [bootstrap_and_permutation(run) for run in range(DATA_SETS // 10)]
    assert np.mean([np.abs(boot - exact) for boot, exact in pairs]) <= 0.02


@pytest.mark.parametrize("what", ["gain + 9 dB", "gamma 2.0"])
def test_at_a_tenth_of_the_shifted_centers_intensity_repair_recovers_half_of_the_loss(what: str) -> None:
    """2 of 20."""
    lost, share = recovered(what, CENTERS_SHIFTED // 10)
    assert lost > 0.01
    assert share >= 0.5


def test_at_a_tenth_of_the_centers_alike_intensity_repair_costs_little() -> None:
    """10 of 100: in the mean, and at the worst of them."""
    cost = cost_without_shift(CENTERS_ALIKE // 10)
    assert cost.mean() <= 0.005
    assert cost.max() <= 0.015

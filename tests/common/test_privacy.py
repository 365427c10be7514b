"""ε and σ against Opacus's PRV accountant, against closed forms, and that the quick bound is one."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Experiment, ImagePrivacy, PatientPrivacy, Privacy
from common.errors import BadInput
from common.parsing import parse
from common.privacy import Plan, calibrate, delta_of, epsilon, epsilon_rdp, mechanism_of
from simulation.__main__ import main
from simulation.forecast import PARAMETERS, forecast

PLAN = Plan(1.3, 0.2, 90)


def prv(plans: list[Plan], delta: float, *, error: float) -> float:
    """Opacus's account of the same: an upper bound, at most `error` above."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(plan.noise_multiplier, plan.sampling_rate, plan.steps) for plan in plans]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta, eps_error=error, delta_error=delta / 1000))


def draw_plans(seed: int) -> tuple[list[Plan], float]:
    """One to three kinds of rounds as hospitals would run them, and δ by the rule."""
    rng = np.random.default_rng(seed)
    plans = [
        Plan(
            float(np.exp(rng.uniform(np.log(0.8), np.log(6)))), float(rng.uniform(0.01, 0.5)), int(rng.integers(5, 200))
        )
        for _ in range(rng.integers(1, 4))
    ]
    return plans, delta_of(int(rng.integers(50, 3000)))


@pytest.mark.parametrize("seed", range(4))
def test_epsilon_is_that_of_opacus_prv(seed: int) -> None:
    plans, delta = draw_plans(seed)
    found = epsilon(plans, delta=delta)
    assert found == pytest.approx(prv(plans, delta, error=0.003 * found), rel=0.01)


def gaussian_delta(sigma: float, eps: float) -> float:
    """δ of the Gaussian mechanism of sensitivity 1 (Balle and Wang 2018, theorem 8)."""
    from scipy.stats import norm

    return float(norm.cdf(0.5 / sigma - eps * sigma) - math.exp(eps) * norm.cdf(-0.5 / sigma - eps * sigma))


@pytest.mark.parametrize(("sigma", "steps"), [(2.0, 1), (10.0, 25), (4.0, 100)])
def test_without_sampling_it_is_the_gaussian_mechanism(sigma: float, steps: int) -> None:
    found = epsilon([Plan(sigma, 1.0, steps)], delta=1e-4)
    assert gaussian_delta(sigma / math.sqrt(steps), found) == pytest.approx(1e-4, rel=0.02)
    assert gaussian_delta(sigma / math.sqrt(steps), found) <= 1e-4


@settings(max_examples=25, deadline=None)
@given(st.floats(0.7, 10), st.floats(0.01, 1), st.integers(1, 300), st.sampled_from([1e-3, 1e-5]))
def test_the_quick_bound_is_never_below_and_more_costs_more(
    sigma: float, rate: float, steps: int, delta: float
) -> None:
    plan = Plan(sigma, rate, steps)
    spent = epsilon([plan], delta=delta)
    assert 0 <= spent <= epsilon_rdp([plan], delta=delta)
    assert spent <= epsilon([replace(plan, steps=steps + 10)], delta=delta) * 1.001
    assert spent >= epsilon([replace(plan, noise_multiplier=sigma * 1.5)], delta=delta) * 0.999


def test_rounds_add_in_any_order_and_division() -> None:
    other = Plan(3.0, 0.1, 40)
    whole = epsilon([PLAN, other], delta=1e-4)
    parts = [replace(PLAN, steps=30), other, replace(PLAN, steps=60)]
    assert epsilon(parts, delta=1e-4) == whole == epsilon(parts[::-1], delta=1e-4)
    assert whole > epsilon([PLAN], delta=1e-4)
    assert epsilon([], delta=1e-4) == epsilon_rdp([], delta=1e-4) == 0


@pytest.mark.parametrize("target", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.356, 120), (0.02, 940), (1.0, 40)])
def test_calibrated_noise_reaches_the_target_and_hardly_more(target: float, rate: float, steps: int) -> None:
    sigma = calibrate(target, delta=1e-4, sampling_rate=rate, steps=steps)
    assert 0.997 * target <= epsilon([Plan(sigma, rate, steps)], delta=1e-4) <= target


def test_noise_that_nobody_can_add_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot be reached"):
        calibrate(1e-7, delta=1e-4, sampling_rate=0.5, steps=10_000)


def test_a_patient_of_several_images_pays_for_all_of_them() -> None:
    """With k images for sure in every step it is the Gaussian mechanism of sensitivity k; in between, it is between."""
    for owned in (2, 3):
        always = epsilon([Plan(8.0, 1.0, 10, owned)], delta=1e-4)
        assert always == pytest.approx(epsilon([Plan(8.0 / owned, 1.0, 10)], delta=1e-4), rel=5e-3)
        sampled = epsilon([Plan(1.2, 0.2, 60, owned)], delta=1e-4)
        one, all_or_none = (epsilon([Plan(1.2 / size, 0.2, 60)], delta=1e-4) for size in (1, owned))
        assert one * 1.5 < sampled < all_or_none


def test_epsilon_8_by_image_is_about_50_for_a_patient_of_4() -> None:
    delta, rate, steps = 1 / 3000, 0.2, 94
    sigma = calibrate(8, delta=delta, sampling_rate=rate, steps=steps)
    assert 40 < epsilon([Plan(sigma, rate, steps, 4)], delta=delta) < 60


def test_the_mechanism_follows_from_the_nominal_number() -> None:
    made = mechanism_of(PatientPrivacy(epsilon=8, patients_per_step=64), nominal_patients=180, steps=120)
    assert (made.sampling_rate, made.divisor) == (64 / 180, 64.0)
    assert epsilon([made.plan(120)], delta=delta_of(180)) == pytest.approx(8, rel=2e-3)
    images = mechanism_of(ImagePrivacy(noise_multiplier=1, images_per_patient=4), nominal_patients=180, steps=1)
    assert (images.sampling_rate, images.plan(3)) == (48 / 720, Plan(1.0, 48 / 720, 3, 4))
    with pytest.raises(BadInput, match="patients_per_step is 16, but the site nominally has 9 patients"):
        mechanism_of(PatientPrivacy(epsilon=8), nominal_patients=9, steps=10)


def test_privacy_in_a_configuration() -> None:
    assert parse(Privacy, {"kind": "none"}, where="x").kind == "none"  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="say how much noise: either noise_multiplier or epsilon"):
        parse(Privacy, {"kind": "patient"}, where="x")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="say how much noise"):
        parse(Privacy, {"kind": "patient", "epsilon": 8, "noise_multiplier": 1}, where="x")  # type: ignore[arg-type]
    assert not hasattr(Experiment, "insecure_demo")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "--patients", "180", "--rounds", "40", "--epsilon", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    plan = Plan(told["noise_multiplier"], told["sampling_rate"], 40 * told["steps_per_round"])
    assert 7.97 <= epsilon([plan], delta=told["delta"]) <= 8
    assert told["delta"] == 1 / 1800
    assert told["by_round"] == sorted(told["by_round"])
    assert main(["privacy", "--patients", "30", "--rounds", "20", "--epsilon", "1"]) == 0
    text = capsys.readouterr().out
    assert "not feasible with this few patients" in text
    assert main(["privacy", "--patients", "0", "--rounds", "20", "--epsilon", "1"]) == 2
    assert capsys.readouterr().err == "error: --patients must be positive; it is 0\n"


def test_more_patients_expect_more() -> None:
    noise = [forecast(patients=n, rounds=10, epsilon=3).expected[0].noise for n in (20, 150, 1000)]
    assert noise == sorted(noise, reverse=True)


def test_the_numbers_of_parameters_are_the_models() -> None:
    from client.private_training import training_only
    from common.config import Model
    from common.model import build_model

    model = build_model(Model(), task="node", classes=2, seed=0)
    for trains, count in PARAMETERS.items():
        with training_only(model, trains):
            assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count

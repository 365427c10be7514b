"""What a private run would cost and give, from public numbers alone, before any site is asked.

Whether a model can learn is judged by one ratio, a rule of thumb: the norm of the noise in the mean gradient of the
whole run, σ √d / (B √T), over what T clipped gradients of norm 1 could at best add up to. d parameters, B patients a
step, T steps.
"""

from __future__ import annotations

__all__ = ["PARAMETERS", "Expected", "Forecast", "as_text", "forecast"]

import math
from dataclasses import dataclass

from common.errors import BadInput
from common.privacy import Plan, calibrate, delta_of
from common.privacy import epsilon as epsilon_of

PARAMETERS = {"head": 1_026, "last-stage": 8_496_005, "all": 11_272_517}
"""Trained parameters of the default model (ResNet-18 with group norm, full attention, two classes)."""
_EASY, _HARD = 1.0, 5.0


@dataclass(frozen=True)
class Expected:
    """What to expect where `trains` says which parameters train; `noise` is the ratio that the module explains."""

    trains: str
    parameters: int
    noise: float
    verdict: str


@dataclass(frozen=True)
class Forecast:
    """A plan of equal rounds at one site; `by_round` is ε after each."""

    patients: int
    rounds: int
    epsilon: float
    delta: float
    patients_per_step: int
    steps_per_round: int
    sampling_rate: float
    noise_multiplier: float
    by_round: tuple[float, ...]
    expected: tuple[Expected, ...]


def forecast(
    *,
    patients: int,
    rounds: int,
    epsilon: float,
    patients_per_step: int = 64,
    steps_per_round: int | None = None,
    delta: float | None = None,
) -> Forecast:
    """The noise that a patient-level ε over `rounds` asks for at a site of nominally `patients`, and what to expect.

    Without `steps_per_round` a round is one pass over the patients. BadInput where a number makes no plan.
    """
    _check(patients=patients, rounds=rounds, epsilon=epsilon, patients_per_step=patients_per_step)
    if delta is not None and not 0 < delta < 1:
        raise BadInput("--delta must lie between 0 and 1; leave it out for the rule")
    per_step = min(patients_per_step, patients)
    steps = steps_per_round or math.ceil(patients / per_step)
    rate, delta = per_step / patients, delta or delta_of(patients)
    sigma = calibrate(epsilon, delta=delta, sampling_rate=rate, steps=rounds * steps)
    by_round = tuple(epsilon_of([Plan(sigma, rate, steps * (r + 1))], delta=delta) for r in range(rounds))
    expected = tuple(
        _expected(trains, parameters, noise=sigma * math.sqrt(parameters / (rounds * steps)) / per_step)
        for trains, parameters in PARAMETERS.items()
    )
    return Forecast(patients, rounds, epsilon, delta, per_step, steps, rate, sigma, by_round, expected)


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise BadInput(f"--{name.replace('_', '-')} must be positive; it is {value}")


def _expected(trains: str, parameters: int, *, noise: float) -> Expected:
    if noise <= _EASY:
        verdict = "feasible"
    elif noise <= _HARD:
        verdict = "costly: expect a clear loss of accuracy"
    else:
        verdict = "not feasible with this few patients"
    return Expected(trains, parameters, noise, verdict)


def as_text(found: Forecast) -> str:
    """The forecast for a person."""
    steps = found.rounds * found.steps_per_round
    return "\n".join(
        [
            f"patient-level ε = {found.epsilon:g} at δ = {found.delta:.2g}, over {found.rounds} rounds, at a site of "
            f"nominally {found.patients} patients",
            f"each of {steps} steps ({found.steps_per_round} a round) takes every patient with probability "
            f"{found.sampling_rate:.3f}, some {found.patients_per_step} of them",
            f"noise multiplier σ = {found.noise_multiplier:g}: on each coordinate of a step's mean gradient "
            f"{found.noise_multiplier / found.patients_per_step:.3g} of the clipping norm",
            "ε by round: " + ", ".join(f"{r}: {found.by_round[r - 1]:.2f}" for r in _shown(found.rounds)),
            "",
            f"{'trains':12} {'parameters':>10} {'noise':>8}  what to expect (a rule of thumb; try it on phantoms)",
            *(f"{e.trains:12} {e.parameters:10,} {e.noise:8.2f}  {e.verdict}" for e in found.expected),
            "",
            "noise: that of the whole run's mean gradient over the largest signal that clipped gradients can give",
        ]
    )


def _shown(rounds: int) -> list[int]:
    return sorted({max(1, round(rounds * share)) for share in (0, 0.1, 0.25, 0.5, 0.75, 1)})

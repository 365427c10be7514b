"""What privacy costs: ε of a plan, σ for an ε, and what a plan lets one expect. Every number in here is public.

The unit is the patient, neighbours differ by one patient, and each step samples by independent coins (Poisson). ε is
read off privacy loss distributions (Koskela 2020; Doroshenko 2022) or, quicker and larger, off Rényi divergences
(Mironov 2019). Both are upper bounds for the Gaussian mechanism on real numbers; floats are not real numbers, and
`client/private_gradients.py` says what is done about that.
"""

from __future__ import annotations

__all__ = ["Mechanism", "Plan", "calibrate", "delta_of", "epsilon", "epsilon_rdp", "mechanism_of"]

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from common.config import ImagePrivacy, PatientPrivacy
from common.errors import BadInput

SMALLEST_NOISE, LARGEST_NOISE = 0.2, 1e4
"""Noise multipliers between which `calibrate` looks: less protects nobody, more drowns everything."""
_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512)
_HOPELESS = 1000.0
_GRID = 4000
"""Steps of the loss grid in one ε: at this fineness ε is some .01 % too large, never too small."""


@dataclass(frozen=True)
class Plan:
    """`steps` noisy sums: each unit is in a sum with probability `sampling_rate`, clipped to 1, noise N(0, σ²) added.

    `owned` is how many units one patient may own: 1 where the unit is the patient, more where it is the image.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    owned: int = 1

    def __post_init__(self) -> None:
        """ValueError where the numbers describe no such sums: a plan must never cost less than nothing."""
        if not (0 < self.noise_multiplier < math.inf and 0 < self.sampling_rate <= 1):
            raise ValueError("a plan's noise_multiplier must be above 0 and finite, its sampling_rate in (0, 1]")
        if self.steps < 1 or self.owned < 1:
            raise ValueError("a plan's steps and owned must be 1 or more")


@dataclass(frozen=True)
class Mechanism:
    """Every constant of one site's private training; none of them follows from the patients who are there.

    `clip` bounds each unit's gradient in the Euclidean norm; noise has the standard deviation `noise_multiplier ·
    clip`; the noisy sum is divided by `divisor`, the expected number of units in a step.
    """

    unit: Literal["patient", "image"]
    clip: float
    noise_multiplier: float
    sampling_rate: float
    divisor: float
    images_per_patient: int
    trains: Literal["all", "last-stage", "head"]

    def plan(self, steps: int) -> Plan:
        """What `steps` steps cost a patient."""
        owned = self.images_per_patient if self.unit == "image" else 1
        return Plan(self.noise_multiplier, self.sampling_rate, steps, owned)


def delta_of(nominal_patients: int) -> float:
    """δ by rule: 1 / (10 · nominal patients).

    Where ε fails, it does so for a tenth of a patient in expectation, at most.
    """
    return 1 / (10 * nominal_patients)


def mechanism_of(privacy: PatientPrivacy | ImagePrivacy, *, nominal_patients: int, steps: int) -> Mechanism:
    """The mechanism of a site with `nominal_patients`, for `steps` steps over the whole run.

    Where `privacy.epsilon` is given, σ is what the whole run needs for it: of a patient or, by image, of an image.
    BadInput where a step would ask for more units than the site nominally has.
    """
    images = privacy.images_per_patient
    match privacy:
        case PatientPrivacy():
            per_step, units, unit = privacy.patients_per_step, nominal_patients, "patient"
        case ImagePrivacy():
            per_step, units, unit = privacy.images_per_step, nominal_patients * images, "image"
    if per_step > units:
        raise BadInput(f"privacy.{unit}s_per_step is {per_step}, but the site nominally has {units} {unit}s; lower it")
    rate = per_step / units
    sigma = privacy.noise_multiplier
    if sigma is None:
        assert privacy.epsilon is not None
        delta = privacy.delta or delta_of(nominal_patients)
        sigma = calibrate(privacy.epsilon, delta=delta, sampling_rate=rate, steps=steps)
    return Mechanism(
        unit="image" if isinstance(privacy, ImagePrivacy) else "patient",
        clip=privacy.clip,
        noise_multiplier=sigma,
        sampling_rate=rate,
        divisor=float(per_step),
        images_per_patient=images,
        trains=privacy.trains,
    )


def epsilon(plans: Iterable[Plan], *, delta: float) -> float:
    """A patient's ε at `delta` after all `plans`, by privacy loss distributions (by Rényi divergence where less)."""
    merged = _merged(plans)
    return _epsilon(merged, delta) if merged else 0.0


def epsilon_rdp(plans: Iterable[Plan], *, delta: float) -> float:
    """A patient's ε at `delta` after all `plans`, by Rényi divergence: some tenths larger than `epsilon`, and at once.

    Infinite where a patient owns several units, which this account does not know.
    """
    merged = _merged(plans)
    if not merged:
        return 0.0
    if any(plan.owned > 1 for plan in merged):
        return math.inf
    from dp_accounting.rdp.rdp_privacy_accountant import compute_epsilon

    total = sum(plan.steps * _rdp_of_a_step(plan.noise_multiplier, plan.sampling_rate) for plan in merged)
    return float(compute_epsilon(_ORDERS, total, delta)[0])


def calibrate(target: float, *, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier, to four digits, with which `steps` steps cost a unit at most ε = `target`.

    BadInput where even the largest noise costs more.
    """
    from scipy.optimize import brentq

    def too_much(log_sigma: float, rdp: bool = False) -> float:
        plan = Plan(math.exp(log_sigma), sampling_rate, steps)
        spent = epsilon_rdp([plan], delta=delta) if rdp else epsilon([plan], delta=delta)
        return math.log(max(spent, 1e-12) / target)

    low, high = math.log(SMALLEST_NOISE), math.log(LARGEST_NOISE)
    if too_much(high, rdp=True) > 0:
        raise BadInput(f"ε = {target:g} cannot be reached in {steps} steps; make fewer steps or allow a larger ε")
    if too_much(low) <= 0:
        return SMALLEST_NOISE
    if too_much(low, rdp=True) > 0:
        high = brentq(too_much, low, high, args=(True,), xtol=1e-2) + 1e-2
    near = high
    while near > low and too_much(near) <= 0:
        high, near = near, max(low, near - 0.12)
    found = _four_digits_up(math.exp(brentq(too_much, near, high, xtol=2e-5)))
    while epsilon([Plan(found, sampling_rate, steps)], delta=delta) > target:
        found = _four_digits_up(found * (1 + 1e-6))
    return found


def _four_digits_up(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return round(math.ceil(value / unit) * unit, 8)


def _merged(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """The same in fewer plans, in a fixed order: steps of one kind add."""
    steps: dict[tuple[float, float, int], int] = {}
    for plan in plans:
        kind = (plan.noise_multiplier, plan.sampling_rate, plan.owned)
        steps[kind] = steps.get(kind, 0) + plan.steps
    return tuple(Plan(s, q, n, owned) for (s, q, owned), n in sorted(steps.items()) if n)


@lru_cache(maxsize=256)
def _epsilon(plans: tuple[Plan, ...], delta: float) -> float:
    rough = epsilon_rdp(plans, delta=delta)
    if _HOPELESS < rough < math.inf:
        return rough
    grid = min(max(rough / _GRID, 1e-5), 5e-3 if rough < math.inf else 2e-2)
    total = _composed(plans, grid)
    return min(float(total.get_epsilon_for_delta(delta)), rough)


def _composed(plans: Sequence[Plan], grid: float) -> Any:
    parts = [_loss_of_a_step(p.noise_multiplier, p.sampling_rate, p.owned, grid).self_compose(p.steps) for p in plans]
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return total


@lru_cache(maxsize=64)
def _loss_of_a_step(sigma: float, rate: float, owned: int, grid: float) -> Any:
    """One step's privacy loss distribution; with several units a patient's share of a step is binomial."""
    from dp_accounting.pld import privacy_loss_distribution as losses

    if owned == 1:
        return losses.from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=grid)
    chances = {k: math.comb(owned, k) * rate**k * (1 - rate) ** (owned - k) for k in range(owned + 1)}
    likely = {k: chance for k, chance in chances.items() if chance > 0}
    return losses.from_mixture_gaussian_mechanism(
        sigma, sensitivities=list(likely), sampling_probs=list(likely.values()), value_discretization_interval=grid
    )


@lru_cache(maxsize=1024)
def _rdp_of_a_step(sigma: float, rate: float) -> Any:
    """Rényi divergences of one step at `_ORDERS`; whole orders only, which need no series."""
    import dp_accounting
    import numpy as np
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(list(_ORDERS))
    accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(sigma)))
    return np.asarray(accountant._rdp)

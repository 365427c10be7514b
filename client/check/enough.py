"""Whether a site has patients enough for the privacy that its policy asks, from noise that was computed beforehand.

The rule is rough and errs on the careful side. `Accountant` is its seam: anything that gives the noise multiplier for a
number of patients and an ε can stand in its place.
"""

from __future__ import annotations

__all__ = ["Accountant", "check_enough", "tabled_noise"]

from collections.abc import Callable

from client.check.finding import Finding
from client.check.table import Cases

Accountant = Callable[[int, float], float | None]
"""(train patients, ε for a patient) → noise multiplier σ, or None where the privacy cannot be had."""

_PATIENTS_A_STEP, _PASSES = 64, 20
_EPSILONS = (1.0, 3.0, 8.0)
_TABLE = (
    (150, (8.0, 3.3, 1.6)),
    (300, (6.1, 2.5, 1.3)),
    (1000, (3.7, 1.6, 0.91)),
    (3000, (2.6, 1.2, 0.74)),
)
"""σ that gives ε = 1, 3, 8 for a patient, 64 patients a step, 20 passes, Poisson sampling;
computed with dp-accounting.
"""

_TOO_MUCH = 2.0
"""σ above which a step's noise outweighs the largest share of two patients; own rule of thumb, no theorem."""


def tabled_noise(patients: int, epsilon: float) -> float | None:
    """σ of the next smaller site and the next smaller ε in the table, so never too low; None below both.

    σ is in units of the most that one patient may add to a step's sum.
    """
    sizes = [row for size, row in _TABLE if size <= patients]
    columns = [place for place, tabled in enumerate(_EPSILONS) if tabled <= epsilon]
    return sizes[-1][columns[-1]] if sizes and columns else None


def check_enough(cases: Cases, *, accountant: Accountant = tabled_noise) -> list[Finding]:
    """The privacy at this size in a sentence, and how the nominal number stands to the real one."""
    return [*_nominal(cases), *_noise(cases, accountant)]


def _nominal(cases: Cases) -> list[Finding]:
    nominal, real = cases.manifest.nominal_patients, len(cases.patients_of(list(range(len(cases)))))
    if not cases.manifest.nominal_declared:
        return [Finding("nominal-proposed", f"{nominal} was rounded from {real}")]
    if nominal == real:
        return [Finding("nominal-exact", f"{real}")]
    return [Finding("nominal-differs", f"{nominal} is said, {real} are here")]


def _noise(cases: Cases, accountant: Accountant) -> list[Finding]:
    if cases.manifest.role == "held-out":
        return []
    policy = cases.manifest.policy
    train = [case for case in range(len(cases)) if cases.sides[case] == "train"]
    patients = len(cases.patients_of(train))
    sigma = accountant(patients, policy.epsilon_cap)
    asked = f"{patients} train patients at ε ≤ {policy.epsilon_cap:g} for each {policy.privacy_unit}"
    if sigma is None:
        least, lowest = _TABLE[0][0], _EPSILONS[0]
        return [Finding("too-few-for-privacy", f"{asked}; the rule begins at {least} patients and ε = {lowest:g}")]
    basis = f"{_PATIENTS_A_STEP} patients a step, {_PASSES} passes"
    cost = f"{asked} need noise of at most {sigma:g} times what one patient may add to a step ({basis})"
    return [Finding("too-few-for-privacy" if sigma > _TOO_MUCH else "privacy-noise", cost)]

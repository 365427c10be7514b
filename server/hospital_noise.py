"""Noise that hides a whole hospital from the others (McMahan et al. 2018, with hospitals for users,
all in every round).
"""

from __future__ import annotations

__all__ = ["FEWEST", "hospital_mean", "hospital_plan", "require_enough"]

from collections.abc import Mapping

import numpy as np

from common.config import HospitalPrivacy
from common.entropy import Entropy
from common.errors import BadInput
from common.privacy import Plan, calibrate
from common.update import Update, Weights, norm

FEWEST = 50
"""Training sites below which the noise drowns what they learned."""


def hospital_plan(privacy: HospitalPrivacy, *, sites: int, rounds: int) -> tuple[Plan, float]:
    """What the run costs a hospital, every one of which is in every round, and δ: 1 / (10 · sites) by the rule."""
    delta = privacy.delta or 1 / (10 * sites)
    sigma = privacy.noise_multiplier
    if sigma is None:
        assert privacy.epsilon is not None
        sigma = calibrate(privacy.epsilon, delta=delta, sampling_rate=1.0, steps=rounds)
    return Plan(sigma, 1.0, rounds), delta


def require_enough(privacy: HospitalPrivacy, *, sites: int, rounds: int) -> None:
    """Raise BadInput, with the reason, where there are fewer than `FEWEST` training sites."""
    if sites < FEWEST:
        plan, _ = hospital_plan(privacy, sites=sites, rounds=rounds)
        share = plan.noise_multiplier / sites
        raise BadInput(
            f"privacy.kind = 'hospital' needs {FEWEST} training sites or more, and here are {sites}: its noise would "
            f"be {share:.2g} of the clipping norm on every coordinate of the mean; protect patients instead "
            "(kind = 'patient')"
        )


def hospital_mean(updates: Mapping[str, Update], privacy: HospitalPrivacy, plan: Plan, *, sites: int) -> Weights:
    """The noisy mean of the sites' changes, each clipped and counting 1 / `sites`; who gave none counts as zero."""
    clipped = [_clipped(updates[site].mean(), privacy.clip) for site in sorted(updates)]
    entropy, spread = Entropy(), plan.noise_multiplier * privacy.clip
    return {
        name: (sum(change[name] for change in clipped) + spread * _noise(entropy, array.shape)) / sites
        for name, array in clipped[0].items()
    }


def _clipped(change: Weights, clip: float) -> Weights:
    length = norm(change)
    factor = min(1.0, clip / length) if length else 1.0
    return {name: array * factor for name, array in change.items()}


def _noise(entropy: Entropy, shape: tuple[int, ...]) -> np.ndarray:
    return entropy.normal(int(np.prod(shape))).astype(np.float64).reshape(shape)

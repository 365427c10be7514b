"""What the server asks for in a private run: every number follows from the sites' nominal numbers of patients."""

from __future__ import annotations

__all__ = [
    "PrivateRun",
    "check_mechanism",
    "image_privacy",
    "is_private",
    "private_samples",
    "private_steps_total",
    "require_private",
]

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

from common.config import Experiment, ImagePrivacy, PatientPrivacy, Privacy, Training
from common.errors import BadInput, RunFailed
from common.orders import TrainReport
from common.privacy import mechanism_of
from common.private_orders import PrivateOrder
from server.budget import apportion, round_budgets
from server.heads import KnownHeads, require_forward


def is_private(privacy: Privacy) -> TypeGuard[PatientPrivacy | ImagePrivacy]:
    """Whether sites train with privacy of their patients or images."""
    return isinstance(privacy, PatientPrivacy | ImagePrivacy)


def image_privacy(privacy: Privacy) -> bool:
    """Whether the unit is the image, so that a patient's ε must stand beside it."""
    return isinstance(privacy, ImagePrivacy)


def private_steps_total(training: Training, privacy: PatientPrivacy | ImagePrivacy, patients: Mapping[str, int]) -> int:
    """Steps of one final model: those of `training`, or `training.epochs` passes over the nominal patients."""
    if training.steps is not None:
        return training.steps
    assert training.epochs is not None
    nominal = sum(patients.values())
    match privacy:
        case PatientPrivacy(patients_per_step=each):
            return max(1, math.ceil(training.epochs * nominal / each))
        case ImagePrivacy(images_per_step=each, images_per_patient=most):
            return max(1, math.ceil(training.epochs * nominal * most / each))


def private_samples(privacy: PatientPrivacy | ImagePrivacy, *, steps: int) -> int:
    """Sample gradients of `steps` steps, as the plan expects them with every patient giving `images_per_patient`."""
    match privacy:
        case PatientPrivacy(patients_per_step=each, images_per_patient=images):
            return steps * each * images
        case ImagePrivacy(images_per_step=each):
            return steps * each


def require_private(report: TrainReport, order: PrivateOrder | None) -> None:
    """Raise RunFailed where a site was asked for privacy and gave none, LedgerRefused where its ledger went back."""
    if order is None:
        return
    if report.private is None:
        raise RunFailed("it answered without privacy, which was asked for; does it run the same release?")
    require_forward(report.site, report.private.head, order.seen)


@dataclass(frozen=True)
class PrivateRun:
    """One run's private orders: noise by site, calibrated once for all of its rounds, and the heads that are known."""

    name: str
    privacy: Mapping[str, PatientPrivacy | ImagePrivacy]
    steps: Mapping[str, int]
    heads: KnownHeads

    @classmethod
    def of(cls, experiment: Experiment, patients: Mapping[str, int], *, name: str, heads: KnownHeads) -> PrivateRun:
        """For training sites of these nominal numbers of patients. BadInput where a site is too small for a step."""
        privacy = experiment.privacy
        assert is_private(privacy)
        steps = steps_by_site(experiment, privacy, patients)
        settled = {site: _settled(privacy, site, patients[site], steps=steps[site]) for site in sorted(patients)}
        return cls(name, settled, steps, heads)

    def order(self, site: str) -> PrivateOrder:
        """What goes with a site's order of any round."""
        return PrivateOrder(self.privacy[site], self.name, self.steps[site], self.heads.of(site))


def steps_by_site(
    experiment: Experiment, privacy: PatientPrivacy | ImagePrivacy, patients: Mapping[str, int]
) -> dict[str, int]:
    """How many steps each site makes in the whole run."""
    total = private_steps_total(experiment.training, privacy, patients)
    shares = [apportion(budget.steps, patients) for budget in round_budgets(experiment.training.rounds, total)]
    return {site: sum(share[site] for share in shares) for site in patients}


def _settled(
    privacy: PatientPrivacy | ImagePrivacy, site: str, patients: int, *, steps: int
) -> PatientPrivacy | ImagePrivacy:
    """With the noise itself where an ε was asked for, so that no site needs to look for it in each round."""
    check_mechanism(privacy, site, patients)
    mechanism = mechanism_of(privacy, nominal_patients=patients, steps=steps)
    return replace(privacy, epsilon=None, noise_multiplier=mechanism.noise_multiplier)


def check_mechanism(privacy: PatientPrivacy | ImagePrivacy, site: str, patients: int) -> None:
    """Raise BadInput where a step would ask for more than the site nominally has; looks for no noise."""
    try:
        mechanism_of(replace(privacy, epsilon=None, noise_multiplier=1.0), nominal_patients=patients, steps=1)
    except BadInput as error:
        raise BadInput(f"site {site}: {error}") from None

"""The game of the audit: canary patients whose gradients are known, each in the data or not by a coin.

A canary is the strongest patient there can be: all of its images ask for the same single coordinate, far beyond the
clipping norm. It goes through the site's own code: sampling, clipping, noise. What is released at its coordinate, added
up over all steps, says how likely it took part.
"""

from __future__ import annotations

__all__ = ["CanaryLesson", "Played", "Step", "play", "plan_of"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.precision import Place
from client.private_gradients import Lessons, Unit
from client.private_training import step_gradients
from common.entropy import Entropy
from common.errors import BadInput
from common.privacy import Mechanism, calibrate

STEPS, RATE = 16, 0.5
PULL = 10.0
"""How many clipping norms the gradient of each image of a canary has."""
Step = Callable[[Lessons, list[np.ndarray], Mechanism, Entropy], list[Tensor]]
"""What one step releases; a planted bug is another one."""


@dataclass(frozen=True)
class CanaryLesson:
    """`base`, and canaries behind its images: row `first + k · i + j` is image j of canary i,
    which pulls at `places[i]`.
    """

    base: Lessons
    first: int
    each: int
    places: NDArray[np.int64]
    pull: float

    @property
    def model(self) -> nn.Module:
        """The model that trains."""
        return self.base.model

    @property
    def where(self) -> Place:
        """Where it computes."""
        return self.base.where

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that train; canaries pull at coordinates of all of them, laid end to end."""
        return self.base.trained

    def losses(self, units: Sequence[Unit]) -> Tensor:
        """Each image's loss, (B,)."""
        parts = [self._pulls(unit) if unit.rows[0] >= self.first else self.base.losses([unit]) for unit in units]
        return torch.cat(parts)

    def _pulls(self, unit: Unit) -> Tensor:
        canaries = (unit.rows - self.first) // self.each
        return self.pull * torch.cat([each.flatten() for each in self.trained])[self.places[canaries]]

    def canary(self, number: int) -> NDArray[np.int64]:
        """The rows of one canary."""
        start = self.first + self.each * number
        return np.arange(start, start + self.each)


@dataclass(frozen=True)
class Played:
    """One game: canaries' scores (m,), and whether each was there."""

    scores: NDArray[np.float64]
    present: NDArray[np.bool_]


def plan_of(mechanism: Mechanism, *, epsilon: float, delta: float, patients: int) -> tuple[Mechanism, int]:
    """The mechanism with the noise that `epsilon` asks for over the game's `STEPS` steps, half of all patients in each.

    Few steps of many patients: there the canaries' sum is nearly all that an attacker can know.
    """
    sigma = calibrate(epsilon, delta=delta, sampling_rate=RATE, steps=STEPS)
    played = replace(
        mechanism, unit="patient", noise_multiplier=sigma, sampling_rate=RATE, divisor=RATE * patients, trains="head"
    )
    return played, STEPS


def real_step(lesson: Lessons, people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy) -> list[Tensor]:
    """The site's own step."""
    return step_gradients(lesson, people, mechanism, entropy, way="by-patient", images=64)


def play(
    base: Lessons,
    people: list[np.ndarray],
    mechanism: Mechanism,
    *,
    canaries: int,
    steps: int,
    seed: int,
    rate: float = 0.05,
    step: Step = real_step,
) -> Played:
    """Train `base` for `steps` steps of plain descent on `people` and on the canaries that coins drawn by `seed` let
    in.

    The seed draws canaries' coins and places alone; sampling and noise are the mechanism's own. BadInput where fewer
    coordinates train than there are canaries.
    """
    rng = np.random.default_rng(seed)
    size = sum(parameter.numel() for parameter in base.trained)
    if size < canaries:
        raise BadInput(f"{canaries} canaries need as many coordinates that train, and there are {size}; ask for fewer")
    first = 1 + max((int(rows.max()) for rows in people), default=-1)
    places = rng.choice(size, canaries, replace=False)
    lesson = CanaryLesson(base, first, mechanism.images_per_patient, places, PULL * mechanism.clip)
    present = rng.random(canaries) < 0.5
    everyone = [*people, *(lesson.canary(int(i)) for i in np.flatnonzero(present))]
    scores, entropy = np.zeros(canaries), Entropy()
    for _ in range(steps):
        gradients = step(lesson, everyone, mechanism, entropy)
        scores += torch.cat([each.flatten() for each in gradients])[places].double().cpu().numpy()
        with torch.no_grad():
            for parameter, gradient in zip(lesson.trained, gradients, strict=True):
                parameter.sub_(rate * gradient)
    return Played(scores, present)

"""Mistakes that were made in real systems, planted into the private step for the audit to find."""

from __future__ import annotations

__all__ = ["BUGS", "Bug", "game", "plan"]

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from client.precision import place
from client.private_features import SeenLesson
from client.private_gradients import ClippedSum, Lessons, Unit, by_patient, noisy_mean
from client.private_training import sample
from common.entropy import Entropy
from common.privacy import Mechanism
from simulation.audit.bound import lower_bound
from simulation.audit.canaries import Step, plan_of, play, real_step

CANARIES, DELTA = 1000, 1e-3


@dataclass(frozen=True)
class Bug:
    """`make` gives a fresh step; `longer`: how many times as many steps as the noise was made for."""

    make: Callable[[], Step]
    longer: int = 1


def _less_noise(factor: float) -> Step:
    def step(lesson: Lessons, people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy) -> list[Tensor]:
        sigma = max(mechanism.noise_multiplier * factor, 1e-9)
        return real_step(lesson, people, replace(mechanism, noise_multiplier=sigma), entropy)

    return step


def _each_image(lesson: Lessons, people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy) -> list[Tensor]:
    units = [
        Unit(unit.rows[[i]], unit.seed) for unit in sample(people, mechanism, entropy) for i in range(len(unit.rows))
    ]
    return _noisy(by_patient(lesson, units, clip=mechanism.clip), mechanism, entropy)


def _not_zeroed() -> Step:
    kept: list[Tensor] = []

    def step(lesson: Lessons, people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy) -> list[Tensor]:
        found = by_patient(lesson, sample(people, mechanism, entropy), clip=mechanism.clip)
        kept[:] = [old + new for old, new in zip(kept, found.tensors, strict=True)] if kept else found.tensors
        return _noisy(ClippedSum([each.clone() for each in kept], found.sensitivity), mechanism, entropy)

    return step


def _batch_mean(lesson: Lessons, people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy) -> list[Tensor]:
    """The mean gradient clipped as one, then held to be as insensitive as a mean of clipped ones."""
    units = sample(people, mechanism, entropy)
    raw = by_patient(lesson, units, clip=1e12).tensors
    mean = [each / max(1, len(units)) for each in raw]
    length = float(torch.linalg.vector_norm(torch.cat([each.flatten() for each in mean])))
    factor = min(1.0, mechanism.clip / max(length, 1e-12))
    return _noisy(ClippedSum([each * factor * mechanism.divisor for each in mean], mechanism.clip), mechanism, entropy)


def _noisy(clipped: ClippedSum, mechanism: Mechanism, entropy: Entropy) -> list[Tensor]:
    return noisy_mean(clipped, noise_multiplier=mechanism.noise_multiplier, divisor=mechanism.divisor, entropy=entropy)


BUGS: dict[str, Bug] = {
    "no noise": Bug(lambda: _less_noise(0.0)),
    "a quarter of the noise": Bug(lambda: _less_noise(0.25)),
    "clipped per image, then summed": Bug(lambda: _each_image),
    "gradients not zeroed": Bug(_not_zeroed),
    "the batch mean clipped": Bug(lambda: _batch_mean),
    "one noise for twice the steps": Bug(lambda: real_step, longer=2),
}


def game(epsilon: float, seed: int, bug: Bug | None = None) -> float:
    """The bound that one audit finds of a mechanism made for `epsilon`:
    40 patients with images, 1,000 canaries of 4.
    """
    base, people = _lesson()
    mechanism, steps = plan(epsilon)
    chosen, longer = (bug.make(), bug.longer) if bug else (real_step, 1)
    played = play(base, people, mechanism, canaries=CANARIES, steps=steps * longer, seed=seed, step=chosen)
    return lower_bound(played.scores, played.present, delta=DELTA)


def plan(epsilon: float) -> tuple[Mechanism, int]:
    """The mechanism and the steps of the game."""
    made = Mechanism("patient", 1.0, 1.0, 0.5, 1.0, 4, "head")
    return plan_of(made, epsilon=epsilon, delta=DELTA, patients=40 + CANARIES // 2)


def _lesson() -> tuple[SeenLesson, list[np.ndarray]]:
    """A head on 1,000 features of noise, 40 patients of 3 images."""
    rng = np.random.default_rng(0)
    head = nn.Linear(1000, 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    seen = torch.from_numpy(rng.normal(size=(120, 1000)).astype(np.float32))
    lesson = SeenLesson(
        nn.ModuleList([head]), (seen,), np.arange(120) // 3 % 2, place(head, side=32, precision="float32")
    )
    return lesson, [np.arange(3 * i, 3 * i + 3) for i in range(40)]

"""How many steps each site makes in each round, so that every final model costs the same number of sample gradients."""

from __future__ import annotations

__all__ = ["RoundBudget", "apportion", "check_budget", "round_budgets", "sample_gradients", "total_steps"]

import math
from collections.abc import Mapping
from dataclasses import dataclass

from common.config import Training
from common.errors import BadInput


@dataclass(frozen=True)
class RoundBudget:
    """The steps of one round, numbered from 1, and which share of the whole budget it covers."""

    number: int
    steps: int
    progress: tuple[float, float]


def check_budget(training: Training, *, images: Mapping[str, int], steps: int) -> None:
    """Raise BadInput, before anything is trained, where some round could not give each site of `images` a step."""
    if empty := sorted(site for site, count in images.items() if count == 0):
        raise BadInput(f"site {empty[0]}: no image to train on; give it train cases or the role held-out")
    if not training.full_batch:
        apportion(round_budgets(training.rounds, steps)[-1].steps, images)


def sample_gradients(training: Training, *, images: int, steps: int) -> int:
    """What one final model costs, where it trains on `images` images in all."""
    return steps * (images if training.full_batch else training.batch_size)


def total_steps(training: Training, *, images: int) -> int:
    """Optimizer steps of one final model, where all sites' train parts hold `images` images in all."""
    if training.full_batch:
        return training.rounds
    if training.steps is not None:
        return training.steps
    assert training.epochs is not None
    return max(1, math.ceil(training.epochs * images / training.batch_size))


def round_budgets(rounds: int, steps: int) -> list[RoundBudget]:
    """`steps` divided over `rounds` as evenly as whole numbers allow; earlier rounds take the remainder."""
    if steps < rounds:
        raise BadInput(f"training: {steps} steps cannot be divided over {rounds} rounds; raise steps or lower rounds")
    budgets, done = [], 0
    for number in range(1, rounds + 1):
        share = steps // rounds + (number <= steps % rounds)
        budgets.append(RoundBudget(number, share, (done / steps, (done + share) / steps)))
        done += share
    return budgets


def apportion(steps: int, images: Mapping[str, int]) -> dict[str, int]:
    """Divide a round's steps over sites in proportion to their images (largest remainder; at least one step each).

    The sum is exactly `steps`; BadInput where there are fewer steps than sites.
    """
    if steps < len(images):
        raise BadInput(
            f"training: {steps} steps a round are too few for {len(images)} sites; raise steps or lower rounds"
        )
    spare, total = steps - len(images), sum(images.values())
    shares = {site: spare * count / total for site, count in sorted(images.items())}
    given = {site: 1 + int(share) for site, share in shares.items()}
    by_remainder = sorted(shares, key=lambda site: (-(shares[site] % 1), site))
    for site in by_remainder[: steps - sum(given.values())]:
        given[site] += 1
    return given

"""Which models a comparison trains: a pure function of the experiment and its sites."""

from __future__ import annotations

__all__ = ["ModelPlan", "plan_models"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from common.config import Experiment
from common.errors import BadInput

IN_FEDERATION: Final = "in-federation"
LEAVE_ONE_OUT: Final = "leave-one-center-out"


@dataclass(frozen=True)
class ModelPlan:
    """One final model: who trains it, how, and what it is called."""

    arm: Literal["federated", "pooled", "local"]
    protocol: Literal["in-federation", "leave-one-center-out"]
    seed: int
    trained_on: tuple[str, ...]
    held_out: str | None

    @property
    def name(self) -> str:
        """Such as `federated/without-center-1/seed-0`; also its folder in the run folder."""
        if self.arm == "local":
            middle = self.trained_on[0]
        else:
            middle = f"without-{self.held_out}" if self.held_out else IN_FEDERATION
        return f"{self.arm}/{middle}/seed-{self.seed}"


def plan_models(experiment: Experiment, train_sites: Sequence[str]) -> list[ModelPlan]:
    """Every model of the comparison, in an order that gives each protocol's contrasts early.

    A local model is trained once per seed and serves both protocols. Leave-one-center-out needs two training sites.
    """
    comparison = experiment.comparison
    plans: list[ModelPlan] = []
    sites = tuple(sorted(train_sites))
    for seed in range(experiment.seed, experiment.seed + comparison.seeds):
        if "local" in comparison.arms or "ensemble" in comparison.arms:
            plans += [ModelPlan("local", IN_FEDERATION, seed, (site,), None) for site in sites]
        arms: tuple[Literal["federated", "pooled"], ...] = ("federated", "pooled")
        for arm in arms:
            if arm not in comparison.arms:
                continue
            if IN_FEDERATION in comparison.protocols:
                plans.append(ModelPlan(arm, IN_FEDERATION, seed, sites, None))
            if LEAVE_ONE_OUT in comparison.protocols and len(sites) > 1:
                plans += [
                    ModelPlan(arm, LEAVE_ONE_OUT, seed, tuple(s for s in sites if s != site), site) for site in sites
                ]
    if not plans:
        raise BadInput("comparison: no arm and protocol to run; leave-one-center-out needs two sites that train")
    return plans

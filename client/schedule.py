"""The learning rate over a whole training, and the optimizer that follows it."""

from __future__ import annotations

__all__ = ["make_optimizer", "rate_at", "set_rate"]

import math
from collections.abc import Iterable

import torch
from torch import nn

from client.optimizer import DenseAdamW, DenseSgd
from common.config import AdamW, Sgd, Training


def rate_at(plan: Training, progress: float) -> float:
    """The learning rate's factor in [0, 1] at `progress` in [0, 1] of the whole training, all rounds together.

    A linear warm-up over the share `plan.warmup`, then constant or half a cosine (Loshchilov and Hutter 2017).
    """
    if progress < plan.warmup:
        return progress / plan.warmup
    match plan.schedule:
        case "constant":
            return 1.0
        case "cosine":
            done = (progress - plan.warmup) / max(1 - plan.warmup, 1e-12)
            return (1 + math.cos(math.pi * min(done, 1.0))) / 2


def make_optimizer(model: nn.Module, plan: Training) -> torch.optim.Optimizer:
    """AdamW or SGD; norms and biases do not decay, and all but the trunk learns `plan.head_rate` times as fast."""
    groups = [
        {
            "params": parameters,
            "weight_decay": plan.optimizer.weight_decay if decays else 0.0,
            "lr": plan.optimizer.learning_rate * factor,
            "peak": plan.optimizer.learning_rate * factor,
        }
        for in_trunk, factor in ((True, 1.0), (False, plan.head_rate))
        for decays in (True, False)
        if (parameters := _select(model.named_parameters(), in_trunk=in_trunk, decays=decays))
    ]
    match plan.optimizer:
        case AdamW():
            return DenseAdamW(groups, fused=True)
        case Sgd(momentum=momentum):
            return DenseSgd(groups, momentum=momentum, fused=True)


def _select(named: Iterable[tuple[str, nn.Parameter]], *, in_trunk: bool, decays: bool) -> list[nn.Parameter]:
    return [
        parameter
        for name, parameter in named
        if parameter.requires_grad and name.startswith("trunk.") == in_trunk and (parameter.ndim > 1) == decays
    ]


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor

"""torch's fused optimizers, for weights in any layout.

On a CPU their kernels walk through memory as it lies: a gradient in another layout than its weight is applied to the
wrong values without a word (torch 2.15), and one that is channels-last, as its weight, is copied first. So each
weight and its gradient are shown to them as they lie: contiguous, their dimensions in the order of their strides.
"""

from __future__ import annotations

__all__ = ["DenseAdamW", "DenseSgd"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _AsTheyLie:
    """Puts torch's step between the two turns."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step by the gradients that lie at the parameters."""
        with _as_they_lie(self.param_groups):  # type: ignore[attr-defined]
            return super().step(closure)  # type: ignore[misc]


class DenseAdamW(_AsTheyLie, torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019)."""


class DenseSgd(_AsTheyLie, torch.optim.SGD):
    """Stochastic gradient descent with momentum."""


@contextmanager
def _as_they_lie(groups: list[dict[str, Any]]) -> Iterator[None]:
    turned = [
        parameter
        for group in groups
        for parameter in group["params"]
        if parameter.grad is not None and not (parameter.is_contiguous() and parameter.grad.is_contiguous())
    ]
    orders = [_order(parameter) for parameter in turned]
    for parameter, order in zip(turned, orders, strict=True):
        _turn(parameter, order)
    try:
        yield
    finally:
        for parameter, order in zip(turned, orders, strict=True):
            _turn(parameter, [order.index(axis) for axis in range(parameter.ndim)])


def _order(weight: Tensor) -> list[int]:
    """The axes from the outermost in memory to the innermost."""
    strides = weight.stride()
    return sorted(range(weight.ndim), key=lambda axis: (-strides[axis], axis))


def _turn(parameter: nn.Parameter, order: list[int]) -> None:
    """The same values in the same memory, with axes in another order; a gradient in another layout is copied."""
    gradient, parameter.grad = parameter.grad, None
    parameter.data = parameter.data.permute(order)
    if gradient is not None:
        gradient = gradient.permute(order)
        same = gradient.stride() == parameter.stride()
        parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)

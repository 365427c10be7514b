"""The fused steps against torch's plain ones, whatever the layouts of a weight and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from client.optimizer import DenseAdamW, DenseSgd

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def _after_steps(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    layout: torch.memory_format,
    of_gradient: torch.memory_format,
) -> Tensor:
    def laid(t: Tensor) -> Tensor:
        return t.contiguous(memory_format=layout)

    weight = nn.Parameter(laid(torch.linspace(-1, 1, 8 * 6 * 9).view(8, 6, 3, 3)))
    bias = nn.Parameter(torch.ones(5))
    unused = nn.Parameter(laid(torch.zeros(2, 2, 3, 3)))
    optimizer = make([weight, bias, unused])
    for step in range(3):
        slopes = torch.sin((step + 1) * torch.arange(8 * 6 * 9.0)).view(8, 6, 3, 3)
        weight.grad = slopes.contiguous(memory_format=of_gradient)
        bias.grad = torch.full((5,), step + 0.5)
        optimizer.step()
        assert weight.grad is not None
        assert weight.grad.shape == weight.shape
    assert weight.stride() == laid(torch.zeros(8, 6, 3, 3)).stride()
    return torch.cat([weight.detach().flatten(), bias.detach(), unused.detach().flatten()])


@pytest.mark.parametrize("weight", LAYOUTS)
@pytest.mark.parametrize("gradient", LAYOUTS)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_steps_are_those_of_the_plain_loop(
    weight: torch.memory_format, gradient: torch.memory_format, kind: str
) -> None:
    def dense(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if kind == "adamw":
            return DenseAdamW(parameters, lr=0.1, weight_decay=0.1, fused=True)
        return DenseSgd(parameters, lr=0.1, momentum=0.9, fused=True)

    def plain(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if kind == "adamw":
            return torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1, foreach=False)
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False)

    ours = _after_steps(dense, weight, gradient)
    assert torch.allclose(ours, _after_steps(plain, weight, gradient), atol=1e-6)

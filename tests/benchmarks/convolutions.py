"""The convolutions on the matrix unit against torch's own, values and gradients."""

from __future__ import annotations

__all__ = ["convolutions_against_torch"]

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.convolution import Conv
from tests.benchmarks.rows import Row, interleave

BATCH = 32
RESNET18 = (
    (4, 64, 64, 56, 3, 1),
    (1, 64, 128, 56, 3, 2),
    (1, 64, 128, 56, 1, 2),
    (3, 128, 128, 28, 3, 1),
    (1, 128, 256, 28, 3, 2),
    (1, 128, 256, 28, 1, 2),
    (3, 256, 256, 14, 3, 1),
    (1, 256, 512, 14, 3, 2),
    (1, 256, 512, 14, 1, 2),
    (3, 512, 512, 7, 3, 1),
)
"""How many of ResNet-18 at 224 px have these channels in and out, side of the map, taps a side and stride; no stem."""


def convolutions_against_torch() -> Row:
    """Images a second through all of them there and back, in bf16 with channels last on both sides."""
    ours, theirs = interleave(_turns(Conv), _turns(nn.Conv2d), rounds=9, rest=2.0)
    what = f"ResNet-18's convolutions, 224 px, bf16, batch {BATCH}, {torch.get_num_threads()} threads"
    return Row("convolutions-vs-torch", ours / theirs, ours, theirs, "images/s", what)


def _turns(kind: type[nn.Conv2d]) -> Callable[[], int]:
    runs = [_there_and_back(kind, *sizes) for sizes in RESNET18]

    def turn() -> int:
        for run in runs:
            run()
        return BATCH

    return turn


def _there_and_back(
    kind: type[nn.Conv2d], times: int, channels: int, outputs: int, side: int, taps: int, stride: int
) -> Callable[[], None]:
    coins = torch.Generator().manual_seed(0)
    conv = kind(channels, outputs, taps, stride, taps // 2, bias=False).to(memory_format=torch.channels_last)
    x, slope = (_last(coins, each, wide) for each, wide in ((channels, side), (outputs, side // stride)))
    x.requires_grad_()

    def run() -> None:
        for _ in range(times):
            with torch.autocast("cpu", torch.bfloat16):
                y = conv(x)
            y.backward(slope)
            x.grad = conv.weight.grad = None

    return run


def _last(coins: torch.Generator, channels: int, side: int) -> Tensor:
    values = torch.randn(BATCH, channels, side, side, generator=coins).bfloat16()
    return values.contiguous(memory_format=torch.channels_last)

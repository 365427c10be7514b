"""Normalisation layers that the model may be built with."""

from __future__ import annotations

__all__ = ["GroupNorm", "norm_layer"]

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

Norm = Literal["group", "batch", "frozen"]


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, with the parameters' names and the values of that class (Wu and He 2018)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over each group of channels of each sample."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def norm_layer(norm: Norm, *, groups: int = 32) -> Callable[[int], nn.Module]:
    """What makes the normalisation of a given number of channels.

    `frozen` is batch normalisation whose statistics and affine part are buffers that nothing trains.
    """
    match norm:
        case "group":
            return partial(GroupNorm, groups)
        case "batch":
            return nn.BatchNorm2d
        case "frozen":
            return FrozenBatchNorm2d  # type: ignore[no-any-return]

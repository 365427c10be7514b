"""From gray crops to what the model takes, with or without random changes; whole batches of tensors at once.

Every draw is the generator's, on the CPU, in a fixed order: the same generator gives the same images on every device.
Shapes: B images, S pixels a side.
"""

from __future__ import annotations

__all__ = ["MEAN", "SPREAD", "augment", "normalise"]

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import Augmentation

MEAN, SPREAD = 0.35, 0.22
"""Of gray values in [0, 1] in B-mode images, roughly; the same at every site, so that no site's statistics leave it."""


def normalise(crops_BSS: Tensor) -> Tensor:
    """Gray values 0…255 (uint8) to (B, 1, S, S) float32 in about N(0, 1)."""
    return crops_BSS.float().div_(255).sub_(MEAN).div_(SPREAD).unsqueeze(1)


def augment(crops_BSS: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """As `normalise`, after the random changes that `augmentation` asks for; without any, exactly `normalise`."""
    a = augmentation
    x = crops_BSS.float().unsqueeze(1)
    if a.rotate or a.scale or a.shift or a.flip:
        x = _move(x, a, generator)
    x.div_(255)
    if a.gamma:
        x.pow_(torch.exp(_normal(x, a.gamma, generator)))
    if a.gain:
        x.mul_(torch.exp(_normal(x, a.gain, generator))).add_(_normal(x, a.gain / 4, generator)).clamp_(0, 1)
    if a.blur:
        x = _blur(x, a.blur, generator)
    if a.noise:
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        x.mul_(noise.mul_(a.noise).add_(1)).clamp_(0, 1)
    if a.erase:
        x = _erase(x, a.erase, generator)
    return x.sub_(MEAN).div_(SPREAD)


def _uniform(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(len(x), 1, 1, 1, generator=generator) * 2 - 1).to(x.device) * spread


def _normal(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    return torch.randn(len(x), 1, 1, 1, generator=generator).to(x.device) * spread


def _move(x: Tensor, a: Augmentation, generator: torch.Generator) -> Tensor:
    """Each pixel of the result is read at a place of its own: one affine map per image, mirror included.

    The grid is made by broadcasting and kept as (B, 2, S, S): a quarter of the time of `affine_grid`.
    """
    angle, scale, shift_x, shift_y, mirror = torch.rand(5, len(x), generator=generator) * 2 - 1
    angle, scale = angle * math.radians(a.rotate), torch.exp(scale * math.log1p(a.scale))
    shift_x, shift_y = shift_x * 2 * a.shift, shift_y * 2 * a.shift
    mirror = torch.where((mirror + 1) / 2 < a.flip, -1.0, 1.0)
    if not (a.rotate or a.scale or a.shift):
        return torch.where(mirror[:, None, None, None].to(x) < 0, x.flip(3), x)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    from_x = torch.stack([cos * mirror, sin * mirror], 1)[:, :, None, None].to(x)
    from_y = torch.stack([-sin, cos], 1)[:, :, None, None].to(x)
    shift = torch.stack([shift_x, shift_y], 1)[:, :, None, None].to(x)
    side = x.shape[-1]
    at = ((torch.arange(side, device=x.device) * 2 + 1) / side - 1).to(x)
    where_B2SS = torch.addcmul(from_y * at[:, None] + shift, from_x, at)
    return F.grid_sample(x, where_B2SS.permute(0, 2, 3, 1), "bilinear", "zeros", align_corners=False)


def _blur(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    coins = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device) < probability
    amount = _uniform(x, 1.0, generator)
    smooth = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.where(coins, torch.lerp(x, smooth, amount), x).clamp(0, 1)


def _erase(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    side = x.shape[-1]
    coins = torch.rand(len(x), generator=generator) < probability
    heights, widths = ((torch.rand(len(x), generator=generator) * 0.2 + 0.1) * side for _ in range(2))
    tops, lefts = (torch.rand(len(x), generator=generator) * (side - size) for size in (heights, widths))
    at = torch.arange(side)
    rows = (at >= tops[:, None]) & (at < (tops + heights)[:, None])
    columns = (at >= lefts[:, None]) & (at < (lefts + widths)[:, None])
    patch = coins[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return x.masked_fill(patch.unsqueeze(1).to(x.device), MEAN)

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
    return ((crops_BSS.float() - 255 * MEAN) / (255 * SPREAD)).unsqueeze(1)


def augment(crops_BSS: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """As `normalise`, after the random changes that `augmentation` asks for; without any, exactly `normalise`."""
    a = augmentation
    x = crops_BSS.float().unsqueeze(1)
    if a.rotate or a.scale or a.shift or a.flip:
        x = _move(x, a, generator)
    x = x / 255
    if a.gamma:
        x = x.clamp_min(0) ** torch.exp(_normal(x, a.gamma, generator))
    if a.gain:
        x = (x * torch.exp(_normal(x, a.gain, generator)) + _normal(x, a.gain / 4, generator)).clamp(0, 1)
    if a.blur:
        x = _blur(x, a.blur, generator)
    if a.noise:
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        x = (x * (1 + a.noise * noise)).clamp(0, 1)
    if a.erase:
        x = _erase(x, a.erase, generator)
    return (x - MEAN) / SPREAD


def _uniform(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(len(x), 1, 1, 1, generator=generator) * 2 - 1).to(x.device) * spread


def _normal(x: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    return torch.randn(len(x), 1, 1, 1, generator=generator).to(x.device) * spread


def _move(x: Tensor, a: Augmentation, generator: torch.Generator) -> Tensor:
    angle = _uniform(x, math.radians(a.rotate), generator).flatten()
    scale = torch.exp(_uniform(x, math.log1p(a.scale), generator)).flatten()
    shift_x, shift_y = (2 * _uniform(x, a.shift, generator).flatten() for _ in range(2))
    mirror = 1 - 2 * (torch.rand(len(x), generator=generator) < a.flip).to(x)
    if not (a.rotate or a.scale or a.shift):
        return torch.where(mirror[:, None, None, None] < 0, x.flip(3), x)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([cos * mirror, -sin, shift_x, sin * mirror, cos, shift_y], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


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

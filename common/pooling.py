"""What the stem does with the maps of a few images at a time: the maximum of 3 × 3 with stride 2, and its gradient.

In the loops of `common/maps.c` each is one pass through memory; without them torch's layers do the same in several.

Shapes: B images of a part, O channels, H × W positions before the maximum, h × w after it; bf16, channels last.
Coefficients are float32, (B, O), contiguous.
"""

from __future__ import annotations

__all__ = ["Pooled", "pool", "rectify", "slopes", "unpool"]

from dataclasses import dataclass

import torch
from torch import Tensor

from common.maps import maps_suit, run
from common.norm import affine, channel_sums

_aten = torch.ops.aten
_POOL = ([3, 3], [2, 2], [1, 1])


@dataclass(frozen=True)
class Pooled:
    """The maxima (B, O, h, w), where they came from, and each image's mean and variance before it, (B, O) both."""

    maxima: Tensor
    places: Tensor
    mean_BO: Tensor
    variance_BO: Tensor


def pool(z: Tensor) -> Pooled:
    """The maxima of z (B, O, H, W)."""
    images, channels, height, width = z.shape
    if not maps_suit(z) or height % 2 or width % 2:
        none = torch.zeros(channels)
        both = [_aten.batch_norm_update_stats(image, none, none, 0.0) for image in torch.split(z, 1)]
        maxima, places = _aten.max_pool2d_with_indices(z, *_POOL)
        return Pooled(maxima, places, *(torch.stack(each) for each in zip(*both, strict=True)))
    shape = (images, height // 2, width // 2, channels)
    maxima, places = z.new_empty(shape), z.new_empty(shape, dtype=torch.uint8)
    sums_BDO = z.new_empty((images, 2, channels), dtype=torch.float64)
    run("sonofed_pool", z, images, height, width, channels, torch.get_num_threads(), maxima, places, sums_BDO)
    by_BO, square_BO = (sums_BDO / (height * width)).unbind(1)
    variance_BO = (square_BO - by_BO * by_BO).clamp_min(0).float()
    return Pooled(maxima.permute(0, 3, 1, 2), places, (by_BO + z[:, :, 0, 0]).float(), variance_BO)


def rectify(x: Tensor, scale_BO: Tensor, offset_BO: Tensor, *, out: Tensor) -> None:
    """Write max(0, x · scale + offset) of x (B, O, h, w) into `out`."""
    if not maps_suit(x, out):
        zero, one = torch.zeros_like(scale_BO[0]), torch.ones_like(scale_BO[0])
        for image, scale, offset, to in zip(torch.split(x, 1), scale_BO, offset_BO, torch.split(out, 1), strict=True):
            affine(image, scale, offset, zero, one, 0.0, out=to)
        out.relu_()
    else:
        run("sonofed_rectify", x, *_sizes(x), scale_BO, offset_BO, torch.get_num_threads(), out)


def slopes(dy: Tensor, x: Tensor, y: Tensor, mean_BO: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """g = dy where y is above zero (B, O, h, w), and each image's Σ g and Σ g · (x − mean), (B, O) both."""
    if not maps_suit(x, dy):
        g = _aten.threshold_backward(dy, y, 0)
        ones = torch.ones_like(mean_BO)
        plain_BO, scaled_BO = channel_sums(
            torch.split(g, 1), torch.split(x, 1), mean_BO.unbind(), ones.unbind(), eps=0.0
        )
        return g, plain_BO, scaled_BO
    g, sums_BDO = torch.empty_like(x), x.new_empty((len(x), 2, x.shape[1]), dtype=torch.float64)
    run("sonofed_slopes", dy, x, y, *_sizes(x), mean_BO, torch.get_num_threads(), g, sums_BDO)
    plain_BO, scaled_BO = sums_BDO.float().unbind(1)
    return g, plain_BO, scaled_BO


def unpool(g: Tensor, pooled: Pooled, z: Tensor, scale_BO: Tensor, by_z_BO: Tensor, by_one_BO: Tensor) -> Tensor:
    """D · scale + z · by_z + by_one (B, O, H, W), D being the sum of slopes g whose maximum a position was."""
    if pooled.places.dtype != torch.uint8:
        zero, one = torch.zeros_like(scale_BO[0]), torch.ones_like(scale_BO[0])
        weighted, line = torch.empty_like(g), torch.empty_like(z)
        for image in range(len(z)):
            part = slice(image, image + 1)
            affine(g[part], scale_BO[image], zero, zero, one, 0.0, out=weighted[part])
            affine(z[part], by_z_BO[image], by_one_BO[image], zero, one, 0.0, out=line[part])
        dz: Tensor = _aten.max_pool2d_with_indices_backward(weighted, z, *_POOL, [1, 1], False, pooled.places)
        return dz.add_(line)
    dz = torch.empty_like(z)
    sizes = (len(z), z.shape[2], z.shape[3], z.shape[1])
    run("sonofed_unpool", g, pooled.places, z, *sizes, scale_BO, by_z_BO, by_one_BO, torch.get_num_threads(), dz)
    return dz


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Sets, rows and channels, an image being a set."""
    return len(x), x.shape[2] * x.shape[3], x.shape[1]

"""The first layers of a ResNet in one pass through memory: convolution, normalisation and the maximum of 3 × 3.

On a CPU these layers cost a fifth of a training step, though they hold a fiftieth of its multiplications: their maps of
112 × 112 × 64 fit into no cache, and each layer reads and writes them. Here a few images at a time pass through all of
them. Normalisation is an affine map per channel, and rising where its weight is positive; so the maximum is taken
first, on the convolution's own values, and only its quarter is normalised. Where the weight is negative, the filter is
turned over beforehand.

What is normalised per channel over a batch (Ioffe 2015) or per group of channels of an image (Wu and He 2018) has
values z, mean m, deviation 1/r, weight w and bias b:

    y = max(0, max(z − m) · r · w + b)
    dz = r · (w · D − A − (z − m) · r · B),   D = g at each maximum, A = mean(w · g), B = mean(w · g · (z − m) · r)

with g = dy where y is above zero.

Shapes: B images, O channels out, S pixels a side, H × W positions of the convolution, h × w of the maximum.
"""

from __future__ import annotations

__all__ = ["pooled_stem", "suits_stem"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from common.maps import hooked
from common.norm import follow
from common.pooling import pool, rectify, slopes, unpool

_TOGETHER = 2
"""Images that pass together: torch's pooling gives each thread an image, and two images' maps fit the caches."""
_TAPS, _PAD = 7, 3


def pooled_stem(images_B1SS: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d | nn.GroupNorm) -> Tensor:
    """What `relu(maxpool(norm(conv(images))))` is in training, (B, O, h, w) in bf16; 7 × 7 filters, stride 2.

    The gradient reaches the weights only, not the images. Batch normalisation's running statistics move as they do
    there. S must be even.
    """
    signs_O = torch.where(norm.weight.detach() < 0, -1.0, 1.0)
    filters_O1KK = (conv.weight * signs_O[:, None, None, None]).bfloat16()
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else 0
    with torch.autocast("cpu", enabled=False):
        y, mean_O, variance_O = _Stem.apply(
            images_B1SS.bfloat16(), filters_O1KK, norm.weight * signs_O, norm.bias, signs_O, groups, norm.eps
        )
    if isinstance(norm, nn.BatchNorm2d):
        positions = images_B1SS.shape[2] * images_B1SS.shape[3] // 4
        follow(norm, mean_O * signs_O, variance_O, values=len(images_B1SS) * positions)
    return y  # type: ignore[no-any-return]


def suits_stem(images_B1SS: Tensor, conv: nn.Conv2d, norm: nn.Module) -> bool:
    """Whether `pooled_stem` may stand in: training in bf16 on a CPU, for weights alone, nobody at the layers' hooks."""
    return (
        images_B1SS.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and torch.is_grad_enabled()
        and not images_B1SS.requires_grad
        and conv.weight.requires_grad
        and conv.weight.dtype == torch.float32
        and images_B1SS.shape[-1] % 2 == 0
        and images_B1SS.shape[-1] == images_B1SS.shape[-2]
        and (isinstance(norm, nn.GroupNorm) or (isinstance(norm, nn.BatchNorm2d) and norm.training))
        and not hooked(conv, norm)
    )


class _Stem(torch.autograd.Function):
    """`groups` is 0 for batch normalisation."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, signs: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        maps = [F.conv2d(images, filters, stride=2, padding=_PAD) for images in torch.split(x, _TOGETHER)]
        parts = [pool(z) for z in maps]
        both = (torch.cat([part.mean_BO for part in parts]), torch.cat([part.variance_BO for part in parts]))
        mean_BO, variance_BO = _joined(*both, signs, groups)
        scale_BO = weight * (variance_BO + eps).rsqrt()
        offset_BO = bias - mean_BO * scale_BO
        y = torch.empty((len(x), *parts[0].maxima.shape[1:]), dtype=x.dtype, memory_format=torch.channels_last)
        for part, *given, out in zip(parts, *_split(scale_BO, offset_BO, y), strict=True):
            rectify(part.maxima, *given, out=out)
        ctx.save_for_backward(x, filters, weight, signs, mean_BO, variance_BO, y)
        ctx.maps, ctx.parts, ctx.groups, ctx.eps = maps, parts, groups, eps
        ctx.mark_non_differentiable(mean_BO, variance_BO)
        return y, mean_BO[0], variance_BO[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, filters, weight, signs, mean_BO, variance_BO, y = ctx.saved_tensors
        maps, parts = ctx.maps, ctx.parts
        dy = dy.to(y.dtype).contiguous(memory_format=torch.channels_last)
        rate_BO = (variance_BO + ctx.eps).rsqrt()
        told = [
            slopes(slope, part.maxima, result, mean)
            for part, slope, result, mean in zip(parts, *_split(dy, y, mean_BO), strict=True)
        ]
        plain_BO, scaled_BO = (torch.cat([each[i] for each in told]) for i in (1, 2))
        scaled_BO = scaled_BO * rate_BO
        values = maps[0][0, 0].numel() * (1 if ctx.groups else len(x))
        across_BO = _means(plain_BO * weight * signs, values, ctx.groups) * signs
        along_BO = _means(scaled_BO * weight, values, ctx.groups)
        by_z_BO = -rate_BO * rate_BO * along_BO
        by_one_BO = -rate_BO * across_BO - by_z_BO * mean_BO
        of_filters = torch.zeros_like(filters, dtype=weight.dtype)
        given = zip(maps, parts, told, *_split(x, weight * rate_BO, by_z_BO, by_one_BO), strict=True)
        for z, part, (g, _plain, _scaled), images, *coefficients in given:
            of_filters += _of_filters(images, unpool(g, part, z, *coefficients))
        return None, of_filters.to(filters), scaled_BO.sum(0), plain_BO.sum(0), None, None, None


def _split(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Each of them by the images that pass together, the last few perhaps fewer."""
    return [torch.split(each, _TOGETHER) for each in tensors]


def _joined(mean_BO: Tensor, variance_BO: Tensor, signs_O: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The mean and variance that each image is normalised by, from each image's own (Chan 1979), (B, O) both."""
    if groups:
        mean_BGO = (mean_BO * signs_O).view(len(mean_BO), groups, -1)
        center_BG1 = mean_BGO.mean(2, keepdim=True)
        spread_BG1 = (variance_BO.view_as(mean_BGO) + (mean_BGO - center_BG1).square()).mean(2, keepdim=True)
        center_BO, spread_BO = (each.expand_as(mean_BGO).reshape(mean_BO.shape) for each in (center_BG1, spread_BG1))
        return center_BO * signs_O, spread_BO
    center_O = mean_BO.mean(0)
    spread_O = (variance_BO + (mean_BO - center_O).square()).mean(0)
    return center_O.repeat(len(mean_BO), 1), spread_O.repeat(len(mean_BO), 1)


def _means(sums_BO: Tensor, values: int, groups: int) -> Tensor:
    """Means over what is normalised together, `values` a channel:
    the group of an image, or the channel of the batch.
    """
    if groups:
        sums_BGO = sums_BO.view(len(sums_BO), groups, -1)
        return (sums_BGO.mean(2, keepdim=True) / values).expand_as(sums_BGO).reshape(sums_BO.shape)
    return (sums_BO.sum(0) / values).expand_as(sums_BO)


def _of_filters(images_B1SS: Tensor, dz_BOHW: Tensor) -> Tensor:
    """The filters' gradient (O, 1, 7, 7) as one product; oneDNN takes three times as long with a single channel in.

    The patches come from the image's four phases (even and odd rows and columns), so that they are copied row by row;
    taps are 8 × 8 and the last row and column is dropped.
    """
    images, side = len(images_B1SS), images_B1SS.shape[-1]
    half = side // 2
    padded = F.pad(images_B1SS[:, 0], (_PAD, 5, _PAD, 5)).view(images, half + 4, 2, half + 4, 2)
    phases = padded.permute(2, 4, 0, 1, 3).contiguous()
    of_row, of_column, of_image, down, right = phases.stride()
    strides = (down, of_row, right, of_column, of_image, down, right)
    patches_KP = phases.as_strided((4, 2, 4, 2, images, half, half), strides).reshape(64, -1)
    product_KO = patches_KP @ dz_BOHW.permute(0, 2, 3, 1).reshape(-1, dz_BOHW.shape[1])
    return product_KO.t().float().view(-1, 1, 8, 8)[:, :, :_TAPS, :_TAPS]

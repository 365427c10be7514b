"""The first layers of a ResNet in one pass through memory: convolution, normalisation and the maximum of 3 × 3.

On a CPU these layers cost a fifth of a training step, though they hold a fiftieth of its multiplications: their maps of
112 × 112 × 64 fit into no cache, and each layer reads and writes them. Here a few images at a time pass through all of
them. Normalisation is an affine map per channel, and rising where its weight is positive; so the maximum is taken
first, on the convolution's own values, and only its quarter is normalised. Where the weight is negative, the filter is
turned over beforehand.

What is normalised per channel over a batch (Ioffe 2015) or per group of channels of an image (Wu and He 2018) has
values z, mean m, deviation 1/r, weight w and bias b:

    y = max(z − m) · r · w + b
    dz = r · (w · D − A − (z − m) · r · B),   D = dy at each maximum, A = mean(w · dy), B = mean(w · dy · (z − m) · r)

Shapes: B images, O channels out, S pixels a side, H × W positions of the convolution, h × w of the maximum.
"""

from __future__ import annotations

__all__ = ["pooled_stem", "suits_stem"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from common.norm import affine, channel_sums

_aten = torch.ops.aten
_TOGETHER = 2
"""Images that pass together: the pooling kernels give each thread an image, and two images' maps fit the caches."""
_TAPS, _PAD = 7, 3
_POOL = ([3, 3], [2, 2], [1, 1])


def pooled_stem(images_B1SS: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d | nn.GroupNorm) -> Tensor:
    """What `maxpool(norm(conv(images)))` is in training, (B, O, h, w) in bf16, for a 7 × 7 convolution of stride 2.

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
        _follow(norm, mean_O * signs_O, variance_O, values=len(images_B1SS) * positions)
    return y  # type: ignore[no-any-return]


def suits_stem(images_B1SS: Tensor, conv: nn.Conv2d, norm: nn.Module) -> bool:
    """Whether `pooled_stem` may stand in: training in bf16 on a CPU, for weights alone,
    with nobody at the layers' hooks.
    """
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
        and not any(each._forward_hooks or each._forward_pre_hooks for each in (conv, norm))
    )


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean_O: Tensor, variance_O: Tensor, *, values: int) -> None:
    """Move the running statistics as torch does, the variance without bias."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean_O, share)
    norm.running_var.lerp_(variance_O * (values / (values - 1)), share)


class _Stem(torch.autograd.Function):
    """`groups` is 0 for batch normalisation.

    Parts are what shares one mean a channel: an image, or all of a batch's.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, filters: Tensor, weight: Tensor, bias: Tensor, signs: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        part = 1 if groups else _TOGETHER
        maps, maxima, places, means, variances = [], [], [], [], []
        none = torch.zeros_like(weight)
        for images in _parts(x, _TOGETHER):
            z = F.conv2d(images, filters, stride=2, padding=_PAD)
            maximum, place = _aten.max_pool2d_with_indices(z, *_POOL)
            for each in _parts(z, part):
                mean, variance = _aten.batch_norm_update_stats(each, none, none, 0.0)
                means.append(mean)
                variances.append(variance)
            maps.append(z)
            maxima.append(maximum)
            places.append(place)
        sizes = torch.tensor([len(each) for each in _parts(x, part)], dtype=weight.dtype)
        mean_RO, variance_RO = _joined(torch.stack(means), torch.stack(variances), sizes, signs, groups)
        small = maxima[0]
        y = torch.empty((len(x), *small.shape[1:]), dtype=small.dtype, memory_format=torch.channels_last)
        ready = [each for maximum in maxima for each in _parts(maximum, part)]
        for each, out, mean, variance in zip(ready, _parts(y, part), mean_RO, variance_RO, strict=True):
            affine(each, weight, bias, mean, variance, eps, out=out)
        ctx.save_for_backward(x, filters, weight, signs, mean_RO, variance_RO, *maps, *maxima, *places)
        ctx.part, ctx.groups, ctx.eps = part, groups, eps
        ctx.mark_non_differentiable(mean_RO, variance_RO)
        return y, mean_RO[0], variance_RO[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, filters, weight, signs, mean_RO, variance_RO, *kept = ctx.saved_tensors
        chunks = len(kept) // 3
        maps, maxima, places = kept[:chunks], kept[chunks : 2 * chunks], kept[2 * chunks :]
        dy = dy.contiguous(memory_format=torch.channels_last)
        slopes = _parts(dy, ctx.part)
        ready = tuple(each for maximum in maxima for each in _parts(maximum, ctx.part))
        plain_RO, scaled_RO = channel_sums(slopes, ready, mean_RO.unbind(), variance_RO.unbind(), eps=ctx.eps)
        values = maps[0][0, 0].numel() * (1 if ctx.groups else len(x))
        across_RO = _means(plain_RO * weight * signs, values, ctx.groups) * signs
        along_RO = _means(scaled_RO * weight, values, ctx.groups)
        rate_RO = (variance_RO + ctx.eps).rsqrt()
        zero, one = torch.zeros_like(weight), torch.ones_like(weight)
        of_filters = torch.zeros_like(filters, dtype=weight.dtype)
        r = 0
        for images, z, place, slope in zip(_parts(x, _TOGETHER), maps, places, _parts(dy, _TOGETHER), strict=True):
            weighted = torch.empty_like(slope, memory_format=torch.channels_last)
            affine(slope, weight, zero, zero, one, 0.0, out=weighted)
            at_maxima = _aten.max_pool2d_with_indices_backward(weighted, z, *_POOL, [1, 1], False, place)
            for image, part, dz in zip(
                _parts(images, ctx.part), _parts(z, ctx.part), _parts(at_maxima, ctx.part), strict=True
            ):
                line = torch.empty_like(part)
                affine(part, -along_RO[r], -across_RO[r], mean_RO[r], variance_RO[r], ctx.eps, out=line)
                of_filters += rate_RO[r][:, None, None, None] * _of_filters(image, dz.add_(line))
                r += 1
        return None, of_filters.to(filters), scaled_RO.sum(0), plain_RO.sum(0), None, None, None


def _parts(batch: Tensor, images: int) -> tuple[Tensor, ...]:
    """The batch in pieces of `images` each, the last one perhaps smaller."""
    return torch.split(batch, images)


def _joined(
    mean_RO: Tensor, variance_RO: Tensor, sizes_R: Tensor, signs_O: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """The mean and variance that each part is normalised by, from each part's own (Chan 1979), (R, O) both."""
    if groups:
        mean_RGO = (mean_RO * signs_O).view(len(mean_RO), groups, -1)
        center_RG1 = mean_RGO.mean(2, keepdim=True)
        spread_RG1 = (variance_RO.view_as(mean_RGO) + (mean_RGO - center_RG1).square()).mean(2, keepdim=True)
        center_RO, spread_RO = (each.expand_as(mean_RGO).reshape(mean_RO.shape) for each in (center_RG1, spread_RG1))
        return center_RO * signs_O, spread_RO
    share_R1 = (sizes_R / sizes_R.sum())[:, None]
    center_O = (share_R1 * mean_RO).sum(0)
    spread_O = (share_R1 * (variance_RO + (mean_RO - center_O).square())).sum(0)
    return center_O.expand_as(mean_RO), spread_O.expand_as(mean_RO)


def _means(sums_RO: Tensor, values: int, groups: int) -> Tensor:
    """Means over what is normalised together, `values` a channel:
    the group of an image, or the channel of the batch.
    """
    if groups:
        sums_RGO = sums_RO.view(len(sums_RO), groups, -1)
        return (sums_RGO.mean(2, keepdim=True) / values).expand_as(sums_RGO).reshape(sums_RO.shape)
    return (sums_RO.sum(0) / values).expand_as(sums_RO)


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

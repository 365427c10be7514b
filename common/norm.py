"""Normalisation layers that the model may be built with, and a group normalisation that is quick in channels-last.

torch's own kernel is good on contiguous tensors and poor on channels-last ones, where its backward pass takes up to
thirty times as long (LOG.md has the figures). In bf16 `common.maps` takes both norms in one pass, ReLU with it.
Elsewhere the batch-norm kernels do what is needed in few passes, since one sample's group normalisation is an affine
map per channel:

    its evaluation mode     y = (x − m) · w / √(v + ε) + b in one pass, with float32 coefficients
    its backward's sums     Σ dy and Σ dy · (x − m) / √(v + ε) in one pass, in float32 (with dy = x: Σx and Σx²)

Shapes: B samples, C channels, H × W positions, G groups.
"""

from __future__ import annotations

__all__ = ["BatchNorm", "ByPart", "GroupNorm", "Norm", "affine", "channel_sums", "follow", "norm_layer"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from common.maps import maps_suit, normalised

Norm = Literal["group", "batch", "frozen"]
_aten = torch.ops.aten
_WORTH_A_LOOP = 16_384
"""Values per sample above which a loop over samples beats a copy to the contiguous layout and back."""


@dataclass(frozen=True)
class ByPart:
    """Who wants the gradients of weight and bias by part of the batch: both (parts, C), told in the backward pass."""

    parts: Sequence[slice]
    tell: Callable[[Tensor, Tensor], None]

    def sum_and_tell(self, weight_BC: Tensor, bias_BC: Tensor) -> None:
        """Tell the gradients by part, from those by image."""
        self.tell(*(torch.stack([each[part].sum(0) for part in self.parts]) for each in (weight_BC, bias_BC)))


class BatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` (Ioffe 2015)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over each channel of the batch; in evaluation, by the running statistics."""
        if self.suits(input):
            return self.in_one_pass(input)
        y: Tensor = super().forward(input)
        return y

    def suits(self, x: Tensor, shortcut: Tensor | None = None) -> bool:
        """Whether `in_one_pass` can take these."""
        return self.training and x.numel() > x.shape[1] and _suit(self.weight, self.bias, x, shortcut)

    def in_one_pass(self, x: Tensor, shortcut: Tensor | None = None, *, rectify: bool = False) -> Tensor:
        """The normalised x, plus a shortcut and rectified where asked; the running statistics move as torch's do."""
        args = (self.weight, self.bias)
        y, mean_1C, variance_1C = normalised(x, *args, eps=self.eps, shortcut=shortcut, rectify=rectify)
        follow(self, mean_1C[0], variance_1C[0], values=x.numel() // x.shape[1])
        return y


def _suit(weight: Tensor | None, bias: Tensor | None, x: Tensor, shortcut: Tensor | None) -> bool:
    """The loops trust what they are given: a weight and a bias for each channel, one after the other in memory."""
    if not maps_suit(x) or not x.numel() or not all(_serves(each, x.shape[1]) for each in (weight, bias)):
        return False
    return shortcut is None or (shortcut.shape == x.shape and maps_suit(shortcut))


def _serves(values: Tensor | None, channels: int) -> bool:
    if values is None or values.dtype != torch.float32 or values.device.type != "cpu":
        return False
    return values.shape == (channels,) and values.is_contiguous()


@torch.no_grad()
def follow(norm: nn.BatchNorm2d, mean_C: Tensor, variance_C: Tensor, *, values: int) -> None:
    """Move the running statistics as torch does, the variance of `values` without bias."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean_C, share)
    norm.running_var.lerp_(variance_C * (values / (values - 1)), share)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, with the parameters' names and the values of that class (Wu and He 2018)."""

    by_part: ByPart | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over each group of channels of each sample."""
        if self.suits(input):
            return self.in_one_pass(input)
        if self.by_part is not None:
            return self._told(input if input.requires_grad else input.detach().requires_grad_(), self.by_part)
        slow = input.ndim == 4 and not input.is_cuda and not input.is_contiguous()
        if not slow or not input.is_contiguous(memory_format=torch.channels_last):
            return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        if input[0].numel() <= _WORTH_A_LOOP:
            y = F.group_norm(input.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
            return y.contiguous(memory_format=torch.channels_last)
        y_BCHW: Tensor = _ChannelsLast.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return y_BCHW

    def suits(self, x: Tensor, shortcut: Tensor | None = None) -> bool:
        """Whether `in_one_pass` can take these."""
        return _suit(self.weight, self.bias, x, shortcut)

    def in_one_pass(self, x: Tensor, shortcut: Tensor | None = None, *, rectify: bool = False) -> Tensor:
        """The normalised x, plus a shortcut and rectified where asked."""
        tell = None
        if self.by_part is not None:
            _require_one_view(x, self.by_part)
            x, tell = (x if x.requires_grad else x.detach().requires_grad_()), self.by_part.sum_and_tell
        args, groups = (self.weight, self.bias), self.num_groups
        return normalised(x, *args, eps=self.eps, groups=groups, shortcut=shortcut, rectify=rectify, tell=tell)[0]

    def _told(self, x: Tensor, by_part: ByPart) -> Tensor:
        _require_one_view(x, by_part)
        args = (self.weight, self.bias, self.num_groups, self.eps, by_part)
        if not x.is_contiguous() and not x.is_cuda and x[0].numel() > _WORTH_A_LOOP:
            y: Tensor = _ChannelsLast.apply(x.contiguous(memory_format=torch.channels_last), *args)
            return y
        y = _Contiguous.apply(x.contiguous(), *args)
        return y if x.is_contiguous() else y.contiguous(memory_format=torch.channels_last)


class _Contiguous(torch.autograd.Function):
    """torch's own kernels, the backward one part after the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, by_part: ByPart) -> Tensor:
        y, mean_BG, rate_BG = _aten.native_group_norm(x, weight, bias, *_sizes(x), groups, eps)
        ctx.save_for_backward(x, weight, mean_BG, rate_BG)
        ctx.groups, ctx.by_part = groups, by_part
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        x, weight, mean_BG, rate_BG = ctx.saved_tensors
        dy, dx, told = dy.contiguous(), torch.empty_like(x), []
        for part in ctx.by_part.parts:
            dx[part], *both = _aten.native_group_norm_backward(
                dy[part], x[part], mean_BG[part], rate_BG[part], weight, *_sizes(x[part]), ctx.groups, [True] * 3
            )
            told.append(both)
        ctx.by_part.tell(*(torch.stack(each) for each in zip(*told, strict=True)))
        return dx, None, None, None, None, None


def _require_one_view(x: Tensor, by_part: ByPart) -> None:
    if by_part.parts[-1].stop != len(x):
        raise TypeError("no gradients by part where a layer sees images in several views")


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return len(x), x.shape[1], x[0, 0].numel()


class _ChannelsLast(torch.autograd.Function):
    """Group normalisation of a channels-last tensor on the CPU; statistics and coefficients in float32, or float64."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, by_part: ByPart | None = None
    ) -> Tensor:
        mean_BC, variance_BC = _statistics(x, weight, groups)
        y = torch.empty_like(x)
        for sample, out, mean, variance in zip(x.chunk(len(x)), y.chunk(len(x)), mean_BC, variance_BC, strict=True):
            affine(sample, weight, bias, mean, variance, eps, out=out)
        ctx.save_for_backward(x, weight, mean_BC, variance_BC)
        ctx.groups, ctx.eps, ctx.by_part = groups, eps, by_part
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """With x̂ = (x − m) r: dx = r (w dy − mean(w dy) − x̂ mean(w dy x̂)), the means over a sample's group."""
        x, weight, mean_BC, variance_BC = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        samples, slopes = x.chunk(len(x)), dy.chunk(len(x))
        bias_BC, weight_BC = channel_sums(slopes, samples, mean_BC.unbind(), variance_BC.unbind(), eps=ctx.eps)
        along_BC, across_BC = (_group_means(t * weight, x, ctx.groups) for t in (weight_BC, bias_BC))
        r_BC = (variance_BC + ctx.eps).rsqrt()
        from_dy, from_x = r_BC * weight, -r_BC * r_BC * along_BC
        offset = -r_BC * across_BC - from_x * mean_BC
        zero, one = torch.zeros_like(weight), torch.ones_like(weight)
        dx, part = torch.empty_like(x), torch.empty_like(samples[0])
        for i, out in enumerate(dx.chunk(len(x))):
            affine(samples[i], from_x[i], offset[i], zero, one, 0.0, out=part)
            affine(slopes[i], from_dy[i], zero, zero, one, 0.0, out=out)
            out.add_(part)
        if ctx.by_part is not None:
            ctx.by_part.sum_and_tell(weight_BC, bias_BC)
        return dx, weight_BC.sum(0), bias_BC.sum(0), None, None, None


def _statistics(x: Tensor, like: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The mean and variance of each sample's group, at each of its channels, (B, C) both, as precise as `like`."""
    none, one = like.new_zeros(x.shape[1]), like.new_ones(x.shape[1])
    samples = x.chunk(len(x))
    sums_BC, squares_BC = channel_sums(samples, samples, [none] * len(x), [one] * len(x), eps=0.0)
    size = x[0].numel() // groups
    mean_BG = sums_BC.view(len(x), groups, -1).sum(2) / size
    square_BG = squares_BC.view(len(x), groups, -1).sum(2) / size
    variance_BG = (square_BG - mean_BG * mean_BG).clamp_min(0)
    return _to_channels(mean_BG, x), _to_channels(variance_BG, x)


def channel_sums(
    slopes: tuple[Tensor, ...], samples: tuple[Tensor, ...], means: Any, variances: Any, *, eps: float
) -> tuple[Tensor, Tensor]:
    """For each part of a batch and channel Σ dy and Σ dy · (x − mean) / √(variance + eps): two tensors (parts, C)."""
    one = torch.ones_like(means[0])
    both = [
        _aten.native_batch_norm_backward(dy, x, one, m, v, None, None, False, eps, [False, True, True])[1:]
        for dy, x, m, v in zip(slopes, samples, means, variances, strict=True)
    ]
    return torch.stack([plain for _, plain in both]), torch.stack([scaled for scaled, _ in both])


def affine(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, *, out: Tensor) -> None:
    """Write (x − mean) / √(variance + eps) · weight + bias into `out`, all four of them (C,), in one pass."""
    nothing = mean.new_empty(0)
    _aten.native_batch_norm.out(
        x, weight, bias, mean, variance, False, 0.0, eps, out=out, save_mean=nothing, save_invstd=nothing
    )


def _group_means(values_BC: Tensor, x: Tensor, groups: int) -> Tensor:
    """The mean over each group's values of sums over positions, at each of its channels: (B, C)."""
    return _to_channels(values_BC.view(len(x), groups, -1).sum(2) / (x[0].numel() // groups), x)


def _to_channels(values_BG: Tensor, x: Tensor) -> Tensor:
    return values_BG.repeat_interleave(x.shape[1] // values_BG.shape[1], 1)


def norm_layer(norm: Norm, *, groups: int = 32) -> Callable[[int], nn.Module]:
    """What makes the normalisation of a given number of channels.

    `frozen` is batch normalisation whose statistics and affine part are buffers that nothing trains.
    """
    match norm:
        case "group":
            return partial(GroupNorm, groups)
        case "batch":
            return BatchNorm
        case "frozen":
            return FrozenBatchNorm2d  # type: ignore[no-any-return]

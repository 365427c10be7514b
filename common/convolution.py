"""Convolutions over small maps, each sum in the quickest of the ways to it.

oneDNN gives the matrix unit of a processor sixteen positions of a row at a time. A map of 7 × 7 leaves more than half
of each such tile empty, one of 2 × 2 seven eighths. So rows of several images are joined, with zeros between them; only
for the weight's gradient of the smallest maps one product of unfolded patches (im2col; Chellapilla 2006) is quicker
still:

    results up to      values, input's gradient    weight's gradient
    4 × 4              joined                      product
    7 × 7              joined                      joined
    14 × 14            as torch does it            joined

Shapes: B images, C channels in, O channels out, H × W positions in, h × w positions out, K taps a side, J images
joined.
"""

from __future__ import annotations

__all__ = ["Conv", "joined", "replace_convolutions", "separated"]

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from common.patches import unfold_patches

_TINY, _SMALL, _MIDDLE = 4, 7, 14
"""Sides of the largest results in each line of the table above (LOG.md has the figures)."""
_COLUMNS, _POSITIONS = 28, 200
"""Joined rows fill two tiles, and joined maps have positions enough for the weights that they meet."""


class Conv(nn.Conv2d):
    """nn.Conv2d, the same values and parameters."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._is_small(input):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        geometry = _Geometry.of(input, taps=self.kernel_size[0], stride=self.stride[0])
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _OverSmallMaps.apply(input.bfloat16(), weight, geometry)
            return y

    def _is_small(self, x: Tensor) -> bool:
        taps, stride = self.kernel_size[0], self.stride[0]
        return (
            max(x.shape[2:]) <= _MIDDLE * stride
            and taps > 1
            and taps % 2 == 1
            and self.kernel_size == (taps, taps)
            and self.padding == (taps // 2, taps // 2)
            and self.stride == (stride, stride)
            and self.bias is None
            and self.groups == 1
            and self.dilation == (1, 1)
            and x.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and x.is_contiguous(memory_format=torch.channels_last)
            and self.weight.is_contiguous(memory_format=torch.channels_last)
        )


def replace_convolutions(model: nn.Module) -> None:
    """Put a `Conv` in the place of each plain convolution (no bias, groups, dilation) below `model`; values are new."""
    for name, module in model.named_children():
        if type(module) is nn.Conv2d and module.bias is None and module.groups == 1 and module.dilation == (1, 1):
            taps, step, pad = (int(each[0]) for each in (module.kernel_size, module.stride, module.padding))
            own = Conv(module.in_channels, module.out_channels, taps, step, pad, bias=False)
            setattr(model, name, own)
        else:
            replace_convolutions(module)


@dataclass(frozen=True)
class _Geometry:
    """A convolution of odd `taps` that keeps the middle, over maps of `width`: how many `images` to join.

    Each takes `before` columns of a joined row, zeros enough for the filters and for the next one to begin at a stride,
    and `after` columns of its result, of which `out` are its own; `side` is the larger one of the result's.
    """

    taps: int
    stride: int
    width: int
    out: int
    before: int
    after: int
    images: int
    side: int

    @classmethod
    def of(cls, x: Tensor, *, taps: int, stride: int) -> _Geometry:
        """The smallest number of images that is enough and divides the batch, or all of it."""
        batch, _, height, width = x.shape
        rows, out = -(-height // stride), -(-width // stride)
        after = -(-(width + taps // 2) // stride)
        enough = max(_COLUMNS / after, _POSITIONS / (rows * after))
        images = next((n for n in range(1, batch) if batch % n == 0 and n >= enough), batch)
        return cls(taps, stride, width, out, after * stride, after, images, max(rows, out))

    def values(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution of bf16 tensors."""
        if self.side > _SMALL:
            return F.conv2d(x, weight, stride=self.stride, padding=self.taps // 2)
        wide = joined(x, images=self.images, columns=self.before)
        return separated(
            F.conv2d(wide, weight, stride=self.stride, padding=self.taps // 2), self.images, width=self.out
        )

    def of_input(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The gradient by x."""
        if self.side > _SMALL:
            return self._onednn(dy, x, weight, of_input=True)
        joint, channels, height = len(x) // self.images, x.shape[1], x.shape[2]
        # oneDNN asks for the input's shape and layout; values are not read
        unread_BHWC = x.new_empty(joint, height, self.images * self.before, channels)
        wide_dy = joined(dy, images=self.images, columns=self.after)
        wide = self._onednn(wide_dy, unread_BHWC.permute(0, 3, 1, 2), weight, of_input=True)
        return separated(wide, self.images, width=self.width)

    def of_weight(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """The gradient by the weight, channels-last."""
        if self.side > _TINY:
            wide_dy = joined(dy, images=self.images, columns=self.after)
            wide_x = joined(x, images=self.images, columns=self.before)
            return self._onednn(wide_dy, wide_x, weight, of_input=False)
        outputs, channels, taps, _ = weight.shape
        # copied, since with a transposed view the product takes a third longer
        dy_OP = dy.permute(1, 0, 2, 3).reshape(outputs, -1)
        stride, padding = (self.stride, self.stride), (taps // 2, taps // 2)
        patches_PK = unfold_patches(x, taps=taps, stride=stride, padding=padding)
        return (dy_OP @ patches_PK).view(outputs, taps, taps, channels).permute(0, 3, 1, 2)

    def _onednn(self, dy: Tensor, x: Tensor, weight: Tensor, *, of_input: bool) -> Tensor:
        stride, padding = [self.stride] * 2, [self.taps // 2] * 2
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            dy, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [of_input, not of_input, False]
        )
        return found[0 if of_input else 1]


class _OverSmallMaps(torch.autograd.Function):
    """The convolution that a `_Geometry` describes, in bf16; the weight's gradient as the weight is, in one copy."""

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight_OCKK: Tensor, geometry: _Geometry) -> Tensor:
        narrow_OCKK = weight_OCKK.bfloat16()
        ctx.save_for_backward(x_BCHW, narrow_OCKK)
        ctx.geometry, ctx.dtype = geometry, weight_OCKK.dtype
        return geometry.values(x_BCHW, narrow_OCKK)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BOHW: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_BCHW, weight_OCKK = ctx.saved_tensors
        dy_BOHW = dy_BOHW.contiguous(memory_format=torch.channels_last)
        of_x = ctx.geometry.of_input(dy_BOHW, x_BCHW, weight_OCKK) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_x, None, None
        of_weight_OCKK = ctx.geometry.of_weight(dy_BOHW, x_BCHW, weight_OCKK)
        return of_x, of_weight_OCKK.to(ctx.dtype, memory_format=torch.channels_last), None


def joined(x_BCHW: Tensor, *, images: int, columns: int) -> Tensor:
    """Every `images` maps of a batch side by side, each in `columns`, zeros behind it: (B / J, C, H, J · columns)."""
    batch, channels, height, width = x_BCHW.shape
    padded_BHWC = F.pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, 0, columns - width))
    rows = padded_BHWC.view(batch // images, images, height, columns, channels).transpose(1, 2)
    return rows.reshape(batch // images, height, -1, channels).contiguous().permute(0, 3, 1, 2)


def separated(wide_BCHW: Tensor, images: int, *, width: int) -> Tensor:
    """The inverse of `joined`: the first `width` columns of each of the `images` in a row, (J · B, C, H, width)."""
    joint, channels, height, columns = wide_BCHW.shape
    rows = wide_BCHW.permute(0, 2, 3, 1).reshape(joint, height, images, columns // images, channels)[:, :, :, :width]
    return rows.transpose(1, 2).reshape(-1, height, width, channels).contiguous().permute(0, 3, 1, 2)

"""Convolutions whose weight gradient is one matrix product where the maps are small.

A convolution of 512 to 512 channels over maps of 7 × 7 takes oneDNN 10 ms for its weight gradient in bf16 and 4 ms for
the same sums as one product of the unfolded patches (im2col; Chellapilla 2006) with the output's gradient. On larger
maps unfolding costs more than it gains (LOG.md).

Where few images pass at a time, as in training by patient, oneDNN spends more on bringing the weights into its own layout
than on the sums: there all three sums are products, which read the weights as they lie.

Shapes: B images, C channels in, O channels out, H × W positions out, K taps a side, P = B · H · W.
"""

from __future__ import annotations

__all__ = ["Conv", "few_at_a_time", "replace_convolutions", "unfold_patches"]

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_SMALL = 64
"""The most positions of a map for which the product is the quicker way; 7 × 7 gains, 14 × 14 loses."""
_FEW = 256
"""The most positions of a batch, B · H · W, for which all three products are the quicker way where weights do not change."""


class Conv(nn.Conv2d):
    """nn.Conv2d, the same values and parameters; its weight gradient takes the quicker of two ways."""

    few = False
    """Whether few images pass at a time; `few_at_a_time` says so."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._as_products(input):
            low = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if low else input.dtype
            with torch.autocast("cpu", enabled=False):
                z: Tensor = _Products.apply(input.to(dtype), weight.to(dtype), self.stride, self.padding)
                return z
        if not self._as_product(input):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _ByProduct.apply(input.bfloat16(), weight.bfloat16(), self.stride, self.padding)
            return y

    def _as_products(self, x: Tensor) -> bool:
        positions = len(x) * (x.shape[-2] // self.stride[0]) * (x.shape[-1] // self.stride[1])
        return (
            self.few
            and positions <= _FEW
            and self.bias is None
            and self.groups == 1
            and self.dilation == (1, 1)
            and x.device.type == "cpu"
            and torch.is_grad_enabled()
        )

    def _as_product(self, x: Tensor) -> bool:
        positions = (x.shape[-2] // self.stride[0]) * (x.shape[-1] // self.stride[1])
        return (
            positions <= _SMALL
            and self.bias is None
            and self.groups == 1
            and self.dilation == (1, 1)
            and x.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and self.weight.is_contiguous(memory_format=torch.channels_last)
        )


@contextmanager
def few_at_a_time(model: nn.Module, *, bf16: bool) -> Iterator[None]:
    """While it lasts, each `Conv` below `model` expects passes of few images, between which weights do not change.

    With `bf16` their weights are bf16 copies, made once where autocast would make them for each pass: a gradient is then
    asked for of `Conv.weight` as it is meanwhile.
    """
    layers = [module for module in model.modules() if isinstance(module, Conv)]
    weights = [layer.weight for layer in layers]
    try:
        for layer, weight in zip(layers, weights, strict=True):
            layer.few = True
            if bf16:
                layer.weight = nn.Parameter(weight.detach().bfloat16(), requires_grad=weight.requires_grad)
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.few, layer.weight = False, weight


def replace_convolutions(model: nn.Module) -> None:
    """Put a `Conv` in the place of each plain convolution (no bias, groups or dilation) below `model`; values are new."""
    for name, module in model.named_children():
        if type(module) is nn.Conv2d and module.bias is None and module.groups == 1 and module.dilation == (1, 1):
            taps, step, pad = (int(each[0]) for each in (module.kernel_size, module.stride, module.padding))
            own = Conv(module.in_channels, module.out_channels, taps, step, pad, bias=False)
            setattr(model, name, own)
        else:
            replace_convolutions(module)


class _ByProduct(torch.autograd.Function):
    """A convolution without bias, groups or dilation, of bf16 tensors; the weight's gradient lies channels-last."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_OCKK: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_OCKK)
        ctx.geometry = stride, padding
        return F.conv2d(x_BCHW, weight_OCKK, stride=stride, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOHW: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x_BCHW, weight_OCKK = ctx.saved_tensors
        stride, padding = ctx.geometry
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x, _, _ = torch.ops.aten.convolution_backward(
                gradient_BOHW,
                x_BCHW,
                weight_OCKK,
                None,
                stride,
                padding,
                (1, 1),
                False,
                (0, 0),
                1,
                (True, False, False),
            )
        outputs, channels, taps, _ = weight_OCKK.shape
        gradient_PO = gradient_BOHW.permute(0, 2, 3, 1).reshape(-1, outputs)
        patches_PK = unfold_patches(x_BCHW, taps=taps, stride=stride, padding=padding)
        of_weight_OKKC = (gradient_PO.t() @ patches_PK).view(outputs, taps, taps, channels)
        return of_x, of_weight_OKKC.permute(0, 3, 1, 2), None, None


class _Products(torch.autograd.Function):
    """A convolution without bias, groups or dilation whose values and both gradients are products with unfolded patches.

    Patches take the order of the weight's values in memory, whose gradient then lies as it does; V = K · K · C.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_OCKK: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        outputs, _, taps, _ = weight_OCKK.shape
        ctx.geometry = taps, stride, padding
        ctx.side = x_BCHW.shape[2:]
        ctx.as_torch = weight_OCKK.is_contiguous()
        rows, columns = ((n + 2 * p - taps) // s + 1 for n, p, s in zip(ctx.side, padding, stride, strict=True))
        if ctx.as_torch:
            weight_OV = weight_OCKK.flatten(1)
            unfolded_BVP = F.unfold(x_BCHW, taps, padding=padding, stride=stride)
            patches = unfolded_BVP.transpose(0, 1).reshape(weight_OV.shape[1], -1)
            y_BOHW = (weight_OV @ patches).view(outputs, -1, rows, columns).transpose(0, 1).contiguous()
        else:
            weight_OV = weight_OCKK.permute(0, 2, 3, 1).flatten(1)
            patches = unfold_patches(x_BCHW, taps=taps, stride=stride, padding=padding)
            y_BOHW = (patches @ weight_OV.t()).view(-1, rows, columns, outputs).permute(0, 3, 1, 2)
        ctx.save_for_backward(patches, weight_OV)
        return y_BOHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOHW: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        patches, weight_OV = ctx.saved_tensors
        outputs, images, taps = len(weight_OV), len(gradient_BOHW), ctx.geometry[0]
        gradient_OP = gradient_BOHW.transpose(0, 1).reshape(outputs, -1).contiguous()
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight_OV = gradient_OP @ (patches.t() if ctx.as_torch else patches)
            of_weight = of_weight_OV.view(outputs, -1, taps, taps)
            if not ctx.as_torch:
                of_weight = of_weight_OV.view(outputs, taps, taps, -1).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            slopes_PV = gradient_OP.t() @ weight_OV
            of_x = _folded(slopes_PV, images, ctx.side, ctx.geometry, as_torch=ctx.as_torch)
        return of_x, of_weight, None, None


def _folded(slopes_PV: Tensor, images: int, side: torch.Size, geometry: Any, *, as_torch: bool) -> Tensor:
    """Add up each value's slopes over the patches that hold it, (B, C, H, W) of `side`; in float32."""
    taps, stride, padding = geometry
    if as_torch:
        slopes_BVP = slopes_PV.view(images, -1, slopes_PV.shape[1]).transpose(1, 2)
        return F.fold(slopes_BVP, (side[0], side[1]), taps, padding=padding, stride=stride)
    rows, columns = ((n + 2 * p - taps) // s + 1 for n, p, s in zip(side, padding, stride, strict=True))
    slopes = slopes_PV.view(images, rows, columns, taps, taps, -1)
    dtype = torch.promote_types(slopes.dtype, torch.float32)
    height, width = side
    padded = slopes.new_zeros(images, height + 2 * padding[0], width + 2 * padding[1], slopes.shape[-1], dtype=dtype)
    for i in range(taps):
        for j in range(taps):
            to = padded[:, i : i + stride[0] * rows : stride[0], j : j + stride[1] * columns : stride[1]]
            to += slopes[:, :, :, i, j]
    inside = padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
    return inside.to(slopes.dtype).contiguous().permute(0, 3, 1, 2)


def unfold_patches(x_BCHW: Tensor, *, taps: int, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """The values under the filter at each position, (P, K · K · C): rows, columns, then channels within a patch."""
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    padded = F.pad(x_BHWC, (0, 0, padding[1], padding[1], padding[0], padding[0])) if any(padding) else x_BHWC
    images, height, width, channels = padded.shape
    of_image, of_row, of_column, of_channel = padded.stride()
    rows, columns = (height - taps) // stride[0] + 1, (width - taps) // stride[1] + 1
    patches = padded.as_strided(
        (images, rows, columns, taps, taps, channels),
        (of_image, of_row * stride[0], of_column * stride[1], of_row, of_column, of_channel),
        padded.storage_offset(),
    )
    return patches.reshape(images * rows * columns, taps * taps * channels)

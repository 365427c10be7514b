"""Convolutions as products of unfolded patches (im2col; Chellapilla 2006).

Shapes: B images, C channels in, O channels out, H × W positions in, K taps a side, P positions out of all images,
V = K · K · C values of a patch.
"""

from __future__ import annotations

__all__ = ["Products", "unfold_patches"]

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Products(torch.autograd.Function):
    """A convolution without bias, groups or dilation whose values and both gradients are products with unfolded
    patches.

    Patches take the order of the weight's values in memory, whose gradient then lies as it does.
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

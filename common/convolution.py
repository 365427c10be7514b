"""Convolutions whose weight gradient is one matrix product where the maps are small.

A convolution of 512 to 512 channels over maps of 7 × 7 takes oneDNN 10 ms for its weight gradient in bf16 and 4 ms for
the same sums as one product of the unfolded patches (im2col; Chellapilla 2006) with the output's gradient. On larger
maps unfolding costs more than it gains (LOG.md).

Shapes: B images, C channels in, O channels out, H × W positions out, K taps a side, P = B · H · W.
"""

from __future__ import annotations

__all__ = ["Conv", "replace_convolutions", "unfold_patches"]

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_SMALL = 64
"""The most positions of a map for which the product is the quicker way; 7 × 7 gains, 14 × 14 loses."""


class Conv(nn.Conv2d):
    """nn.Conv2d, the same values and parameters; its weight gradient takes the quicker of two ways."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._as_product(input):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _ByProduct.apply(input.bfloat16(), weight.bfloat16(), self.stride, self.padding)
            return y

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

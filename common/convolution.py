"""Convolutions of 3 × 3, and shortcuts of 1 × 1 with stride 2, in bf16 on a processor's matrix unit (AMX).

The loops are in `common/tiles.c`; where they or the unit are missing, torch's own do the same (LOG.md has the figures).
Products are of bf16 values and sums float32, as torch's are. Gradients of weights stay float32, where torch rounds them
to bf16 on the way.
"""

from __future__ import annotations

__all__ = ["Conv", "replace_convolutions", "unit_is_there"]

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.maps import LANES, compiled, run

_NEEDED = ("amx_tile", "amx_bf16", "avx512_bf16")
_LAST = torch.channels_last


@cache
def unit_is_there() -> bool:
    """Whether the loops are compiled, the processor has a matrix unit, and the system lets this process use it."""
    loops, instructions = compiled(), torch.cpu.get_capabilities()
    return loops is not None and all(instructions.get(name) for name in _NEEDED) and bool(loops.sonofed_tiles())


class Conv(nn.Conv2d):
    """nn.Conv2d, the same values and parameters."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._suits(input, weight):
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _OnTiles.apply(input.bfloat16(), weight, self.stride[0])
            return y

    def write_gradients(self, x: Tensor, dy: Tensor, ends: Sequence[int], into: Tensor) -> None:
        """Each patient's gradient by the weight (or each image's), whatever the others' are; patients lie in turn.

        x (B, C, H, W), which the layer `takes`, the slopes dy and `into` are bf16; the u-th has the images ends[u] up
        to ends[u + 1], and its gradient goes to into[u], (O, C, K, K), which has channels last.
        """
        channels, height, width = x.shape[1:]
        shape = (height, width, channels, self.out_channels, self.kernel_size[0], self.stride[0])
        dy = dy.contiguous(memory_format=_LAST)
        count, threads = len(ends) - 1, torch.get_num_threads()
        run("sonofed_convolve_weights_by_unit", dy, x, torch.tensor(ends), count, *shape, threads, into)

    def takes(self, x: Tensor) -> bool:
        """Whether the matrix unit is there for this layer and the values `x`, but for their precision."""
        side, stride = self.kernel_size[0], self.stride[0]
        return (
            (side, stride) in {(3, 1), (3, 2), (1, 2)}
            and self.kernel_size == (side, side)
            and self.stride == (stride, stride)
            and self.padding == (side // 2, side // 2)
            and self.bias is None
            and self.groups == 1
            and self.dilation == (1, 1)
            and self.padding_mode == "zeros"
            and self.in_channels % LANES == self.out_channels % LANES == 0
            and self.in_channels > 0
            and self.out_channels > 0
            and x.device.type == "cpu"
            and x.ndim == 4
            and x.shape[1] == self.in_channels
            and x.numel() > 0
            and x.is_contiguous(memory_format=_LAST)
            and unit_is_there()
        )

    def _suits(self, x: Tensor, weight: Tensor) -> bool:
        return (
            self.takes(x)
            and x.dtype in {torch.float32, torch.bfloat16, torch.float16}
            and weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and weight.shape == (self.out_channels, self.in_channels, *self.kernel_size)
            and weight.is_contiguous(memory_format=_LAST)
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
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


class _OnTiles(torch.autograd.Function):
    """x (B, C, H, W) in bf16, the weight (O, C, K, K) in float32, both with channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        (images, channels, height, width), (outputs, _, side, _) = x.shape, weight.shape
        ctx.save_for_backward(x, weight)
        ctx.shape = (images, height, width, channels, outputs, side, stride)
        results = (images, outputs, -(-height // stride), -(-width // stride))
        y = torch.empty(results, dtype=x.dtype, device=x.device, memory_format=_LAST)
        run("sonofed_convolve", x, weight, *ctx.shape, torch.get_num_threads(), y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        dy = dy.to(x.dtype).contiguous(memory_format=_LAST)
        given = (*ctx.shape, torch.get_num_threads())
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = torch.empty_like(x)
            run("sonofed_convolve_back", dy, weight, *given, dx)
        if ctx.needs_input_grad[1]:
            dw = torch.empty_like(weight)
            run("sonofed_convolve_weights", dy, x, *given, dw)
        return dx, dw, None

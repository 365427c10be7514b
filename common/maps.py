"""Normalisation, sum with a shortcut and ReLU over maps in bf16 with channels last, in one pass each way on a CPU.

The loops are in `common/maps.c` and `common/pool.c`, built where the package is installed and a compiler is there;
without them, torch's own layers do the same in more passes (LOG.md has the figures). `compiled` and `run` are the way
to all loops of `common/*.c`. The values are those of the
layers, rounded once instead of after each layer. With the mean m and variance v of a set's channel, or of a group of
channels of an image:

    y = max(0, (x − m) · w / √(v + ε) + b + shortcut)

Shapes: B images, C channels, H × W positions, S sets that share statistics (1 for a batch, B for images).
"""

from __future__ import annotations

__all__ = ["LANES", "compiled", "hooked", "maps_suit", "normalised", "run"]

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LANES = 32
"""Channels come in multiples of this (LANES in rows.h)."""
_PLAIN, _FROM_VALUES, _FROM_RESULT = 0, 1, 2
_RELEASE = 4
"""What `sonofed_loops` must answer; another number once a function takes something else."""
_NEEDED = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq", "fma3")
_TYPES = {"p": ctypes.c_void_p, "s": ctypes.c_size_t, "i": ctypes.c_int, "d": ctypes.c_double}
_ARGUMENTS = {
    "sonofed_normalise": "pp ssss pp d i i ppppp",
    "sonofed_normalise_backward": "ppp ssss ppppp d i i pppp",
    "sonofed_pool": "p ssss i ppp",
    "sonofed_unpool": "ppp ssss ppp i p",
    "sonofed_rectify": "p sss pp i p",
    "sonofed_slopes": "ppp sss p i pp",
    "sonofed_convolve": "pp sssssss i p",
    "sonofed_convolve_back": "pp sssssss i p",
    "sonofed_convolve_weights": "pp sssssss i p",
    "sonofed_convolve_weights_by_unit": "ppp s ssssss i p",
    "sonofed_tiles": "",
    "sonofed_squares": "pss i p",
    "sonofed_add_scaled": "pss p i p",
    "sonofed_add_noise": "pps p ddd p",
}
"""What each function of the loops takes: pointers, sizes, ints, doubles."""

Tell = Callable[[Tensor, Tensor], None]


@cache
def compiled() -> ctypes.CDLL | None:
    """The loops, or None where they were not built, are of another release, or miss instructions of this processor."""
    found = find_spec("common._maps")
    instructions = torch.cpu.get_capabilities()
    if found is None or found.origin is None or not all(instructions.get(name) for name in _NEEDED):
        return None
    try:
        loops = ctypes.CDLL(found.origin)
    except OSError:  # built on another system
        return None
    if not hasattr(loops, "sonofed_loops") or loops.sonofed_loops() != _RELEASE:
        return None
    for name, arguments in _ARGUMENTS.items():
        getattr(loops, name).argtypes = [_TYPES[each] for each in arguments.replace(" ", "")]
    return loops


def run(name: str, *arguments: Any) -> None:
    """Call one of the loops; a tensor stands for where its values lie, in the order that they are declared in."""
    loops = compiled()
    if loops is None:
        raise RuntimeError("the compiled loops are not there")
    if getattr(loops, name)(*(each.data_ptr() if isinstance(each, Tensor) else each for each in arguments)):
        raise MemoryError(f"no memory for {name}")


def maps_suit(*maps: Tensor) -> bool:
    """Whether the loops can take these: in bf16 with channels last on a CPU, a multiple of 32 channels each."""
    return compiled() is not None and all(
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.ndim == 4
        and x.shape[1] % LANES == 0
        and x.is_contiguous(memory_format=torch.channels_last)
        for x in maps
    )


def hooked(*layers: nn.Module) -> bool:
    """Whether somebody wants to see what goes into one of these layers or comes out of it, either way."""
    return any(
        each._forward_hooks or each._forward_pre_hooks or each._backward_hooks or each._backward_pre_hooks
        for each in layers
    )


def normalised(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float,
    groups: int | None = None,
    shortcut: Tensor | None = None,
    rectify: bool = False,
    tell: Tell | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, C, H, W), and the means and variances (S, C) that it was normalised by, without gradient.

    `groups` of channels of an image share statistics, or, where it is None, all images of a channel. With a shortcut,
    the sum is rectified. `tell` is given the gradients of weight and bias of each set, (S, C) both, in the backward
    pass.
    """
    y, mean_SC, variance_SC = _Normalised.apply(x, weight, bias, shortcut, groups, eps, rectify, tell)
    return y, mean_SC, variance_SC


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        shortcut: Tensor | None,
        groups: int | None,
        eps: float,
        rectify: bool,
        tell: Tell | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, shape = torch.empty_like(x), _shape(x, groups)
        mean, variance, scale, offset = x.new_empty((4, shape[0], x.shape[1]), dtype=torch.float32)
        threads = torch.get_num_threads()
        kept = (mean, variance, scale, offset)
        run("sonofed_normalise", x, shortcut, *shape, weight, bias, eps, rectify, threads, y, *kept)
        how = _FROM_RESULT if shortcut is not None else _FROM_VALUES if rectify else _PLAIN
        ctx.save_for_backward(x, weight, y if how == _FROM_RESULT else None, *kept)
        ctx.shape, ctx.eps, ctx.how, ctx.tell = shape, eps, how, tell
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, y, *kept = ctx.saved_tensors
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, of_shortcut = torch.empty_like(x), None if y is None else torch.empty_like(x)
        of_weight_SC, of_bias_SC = torch.empty_like(kept[0]), torch.empty_like(kept[0])
        given = (dy, x, y, *ctx.shape, weight, *kept, ctx.eps, ctx.how, torch.get_num_threads())
        run("sonofed_normalise_backward", *given, of_shortcut, dx, of_weight_SC, of_bias_SC)
        if ctx.tell is not None:
            ctx.tell(of_weight_SC, of_bias_SC)
        return dx, of_weight_SC.sum(0), of_bias_SC.sum(0), of_shortcut, None, None, None, None


def _shape(x: Tensor, groups: int | None) -> tuple[int, int, int, int]:
    images, channels = x.shape[:2]
    positions = x.shape[2] * x.shape[3]
    return (1, images * positions, channels, channels) if groups is None else (images, positions, channels, groups)

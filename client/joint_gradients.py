"""Each unit's own gradient out of one forward and one backward pass of many units: the quicker way on a processor.

What passes from layer to layer is computed for all units at once, and only the weights' gradients unit by unit, from
what went into a layer and the slopes that came back. No layer of the model mixes images, so that this is each unit's
gradient as if it passed alone, but for what the kernels round: `client.private_training` looks at that before it takes
this way.

Shapes: U units of a pack, B images of theirs, in turn, N values of a parameter; those of a convolution's weight lie in
memory as channels-last has them, whatever the parameter's own layout.
"""

from __future__ import annotations

__all__ = ["by_pack"]

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from client.layer_gradients import write_gradients
from client.private_gradients import ClippedSum, Lessons, Unit, clip_factors, packs, squared_norms
from common.maps import compiled, run
from common.norm import ByPart, GroupNorm

_IMAGES = {True: 48, False: 24}
"""The most images that pass together in bf16 and otherwise: the more the quicker."""
_HELD = 360 * 2**20
"""Bytes of units' gradients that may wait for their norms."""
_PIECE = 1 << 16
"""Values of each unit that are brought to float32 at a time."""


def by_pack(lesson: Lessons, units: Sequence[Unit], *, clip: float, images: int) -> ClippedSum:
    """The clipped sum of units that pass some at a time, `images` at most; one unit with more passes alone."""
    trained = lesson.trained
    values = sum(parameter.numel() * (2 if lesson.where.bf16 else parameter.itemsize) for parameter in trained)
    together = min(images, _IMAGES[lesson.where.bf16])
    total = [parameter.new_zeros(parameter.numel()) for parameter in trained]
    if units:
        for pack in packs(units, together, most=max(1, _HELD // max(values, 1))):
            _add_rows(total, _gradients(lesson, pack), clip=clip)
    return ClippedSum(
        [torch.empty_like(like).copy_(_shaped(sum_[None], like)[0]) for sum_, like in zip(total, trained, strict=True)],
        clip,
    )


def _gradients(lesson: Lessons, pack: Sequence[Unit]) -> list[Tensor]:
    """Each unit's mean gradient: (U, N) for each trained parameter."""
    counts = [len(unit.rows) for unit in pack]
    notes = _Notes(np.cumsum([0, *counts]).tolist())
    trained = lesson.trained
    with notes.taken(lesson.model, trained):
        losses = lesson.losses(pack)
        shares = np.repeat(1 / np.array(counts), counts)
        torch.autograd.backward(losses, torch.from_numpy(shares).to(losses))
    return [notes.rows_of(parameter) for parameter in trained]


def _add_rows(total: list[Tensor], rows: list[Tensor], *, clip: float) -> None:
    """Add rows (U, N) to sums (N,), each clipped over all tensors; one that is not finite adds nothing."""
    squares = [_squares(each, sum_.dtype) for sum_, each in zip(total, rows, strict=True)]
    factors_U, finite_U = clip_factors(torch.stack(squares).sum(0).sqrt(), clip=clip)
    for sum_, each in zip(total, rows, strict=True):
        factors = factors_U.to(sum_)
        if _suits_loops(each) and sum_.dtype == torch.float32:
            run("sonofed_add_scaled", each, *each.shape, factors, torch.get_num_threads(), sum_)
            continue
        if not finite_U.all():
            each[~finite_U] = 0
        for into, piece in zip(torch.split(sum_, _PIECE), torch.split(each, _PIECE, dim=1), strict=True):
            into.addmv_(piece.to(sum_).t(), factors)


def _squares(rows_UN: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ x² of each row, (U,) float64; where it is not in loops, values are brought to `dtype` before."""
    if not _suits_loops(rows_UN):
        return torch.stack([squared_norms(piece.to(dtype)) for piece in torch.split(rows_UN, _PIECE, dim=1)]).sum(0)
    squares_U = torch.empty(len(rows_UN), dtype=torch.float64)
    run("sonofed_squares", rows_UN, *rows_UN.shape, torch.get_num_threads(), squares_U)
    return squares_U


def _suits_loops(rows: Tensor) -> bool:
    return (
        rows.dtype == torch.bfloat16 and rows.device.type == "cpu" and rows.is_contiguous() and compiled() is not None
    )


def _shaped(rows_UN: Tensor, like: Tensor) -> Tensor:
    """The rows as (U, *shape) of the parameter, in the same memory."""
    if like.ndim != 4:
        return rows_UN.view(-1, *like.shape)
    outputs, channels, *taps = like.shape
    return rows_UN.view(-1, outputs, *taps, channels).permute(0, 1, 4, 2, 3)


@dataclass
class _Notes:
    """What a pass writes down: rows (U, N) for each parameter; `ends` are the images at which units begin and end."""

    ends: list[int]
    rows: dict[Tensor, Tensor] = field(default_factory=dict)

    def rows_of(self, parameter: nn.Parameter) -> Tensor:
        """Zero where no gradient came back."""
        if parameter not in self.rows:
            return parameter.new_zeros(len(self.ends) - 1, parameter.numel())
        return self.rows[parameter]

    @contextmanager
    def taken(self, model: nn.Module, trained: list[nn.Parameter]) -> Iterator[None]:
        """While it lasts no parameter asks for a gradient of its own, and layers that own one note what comes back."""
        layers = [layer for layer in model.modules() if set(trained).intersection(layer.parameters(recurse=False))]
        norms = [layer for layer in layers if isinstance(layer, GroupNorm)]
        hooks = [layer.register_forward_hook(self._tap) for layer in layers if layer not in norms]
        try:
            for norm in norms:
                norm.by_part = ByPart([span for (span,) in self._spans(self.ends[-1])], partial(self._note_norm, norm))
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
            for norm in norms:
                norm.by_part = None
            for hook in hooks:
                hook.remove()

    def _spans(self, batch: int) -> list[list[slice]]:
        """Each unit's parts of a layer's batch; a layer that sees images in several views has one in each."""
        views = range(0, batch, self.ends[-1])
        return [[slice(view + a, view + b) for view in views] for a, b in pairwise(self.ends)]

    def _parts(self, batch: int) -> list[slice]:
        """The same in the order of the batch."""
        return sorted((each for span in self._spans(batch) for each in span), key=lambda part: part.start)

    def _places(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        rows = torch.empty(len(self.ends) - 1, parameter.numel(), dtype=dtype, device=parameter.device)
        self._keep(parameter, rows)
        return _shaped(rows, parameter)

    def _keep(self, parameter: Tensor, rows: Tensor) -> None:
        if parameter in self.rows:
            raise TypeError("no gradients by unit for a layer that is passed twice")
        self.rows[parameter] = rows

    def _note_norm(self, norm: GroupNorm, of_weight_UC: Tensor, of_bias_UC: Tensor) -> None:
        self._keep(norm.weight, of_weight_UC)
        self._keep(norm.bias, of_bias_UC)

    def _tap(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear):  # a product's rounding depends on how many rows it has
            output = torch.cat(
                [F.linear(inputs[0][part], layer.weight, layer.bias) for part in self._parts(len(output))]
            )
        anchor = output.new_zeros((), requires_grad=True)
        y: Tensor = _Tap.apply(output, anchor, inputs[0].detach(), partial(self._note, layer))
        return y

    def _note(self, layer: nn.Module, x: Tensor, dy: Tensor) -> None:
        write_gradients(layer, x, dy, self._spans(len(x)), self._places)


class _Tap(torch.autograd.Function):
    """Passes values on, and calls `note` with x and the slopes that come back; the anchor makes sure that they do."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, _anchor: Tensor, x: Tensor, note: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.note = note
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.note(ctx.saved_tensors[0], dy)
        return dy, None, None, None

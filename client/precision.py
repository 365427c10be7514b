"""Where and in which number format the model computes, chosen by what the hardware gains from."""

from __future__ import annotations

__all__ = ["Place", "place"]

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["auto", "float32", "float64", "bf16"]
Layout = Literal["auto", "channels-last", "contiguous"]


@dataclass(frozen=True)
class Place:
    """A device, the dtype of weights and images, whether matrix products run in bf16, and the memory format."""

    device: torch.device
    dtype: torch.dtype
    bf16: bool
    channels_last: bool

    def images(self, images_B1SS: Tensor) -> Tensor:
        """The images where and as the model wants them."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return images_B1SS.to(self.device, self.dtype, non_blocking=True).contiguous(memory_format=layout)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision around a forward pass, where it is on."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            yield


def place(model: nn.Module, *, side: int, precision: Precision = "auto", layout: Layout = "auto") -> Place:
    """Move the model, in place, to the device, dtype and layout that suit images of `side` pixels.

    Weights are float64 if precision is `float64`, else float32; bf16 is only what products are computed in. `auto`
    takes bf16 on CUDA and on processors with instructions for it, and the layout that was the quicker one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float64 if precision == "float64" else torch.float32
    bf16 = precision == "bf16" or (precision == "auto" and _gains_by_bf16(device.type))
    channels_last = layout == "channels-last" or (
        layout == "auto" and dtype == torch.float32 and _gains_by_channels_last(model, device, side, bf16)
    )
    model.to(device=device, dtype=dtype)
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return Place(device=device, dtype=dtype, bf16=bf16, channels_last=channels_last)


def _gains_by_channels_last(model: nn.Module, device: torch.device, side: int, bf16: bool) -> bool:
    """For large images always, for small ones in bf16 unless group normalisation then loses more; see LOG.md."""
    if not bf16:
        return device.type == "cpu" and side >= 128
    groups = any(isinstance(module, nn.GroupNorm) for module in model.modules())
    return not groups or side >= 128 or device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


@cache
def _gains_by_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    instructions = torch.cpu.get_capabilities()
    return bool(instructions.get("amx_bf16") or instructions.get("avx512_bf16"))

"""Between a torch module, named arrays, and a safetensors file."""

from __future__ import annotations

__all__ = ["TailAverage", "fingerprint", "get_weights", "load", "save", "set_weights"]

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import BadInput
from common.files import write_atomic
from common.update import Weights, fingerprint, tensorwise

if TYPE_CHECKING:
    from torch import Tensor, nn


def get_weights(module: nn.Module) -> Weights:
    """Copies of every floating-point tensor of the state, by name; counters (integers) stay behind."""
    state = module.state_dict()
    return {name: _copy(t).numpy() for name, t in state.items() if t.is_floating_point()}


def _copy(tensor: Tensor) -> Tensor:
    import torch

    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def set_weights(module: nn.Module, weights: Weights) -> None:
    """Write the arrays into the module; names and shapes must fit."""
    import torch

    state = module.state_dict()
    missing = {name for name, t in state.items() if t.is_floating_point()} ^ weights.keys()
    if missing:
        raise BadInput(
            f"the weights do not fit the model: {min(missing)} has no counterpart; is it another architecture?"
        )
    with torch.no_grad():
        for name, array in weights.items():
            if tuple(state[name].shape) != array.shape:
                raise BadInput(
                    f"the weights do not fit the model: {name} is {array.shape}, not {tuple(state[name].shape)}"
                )
            state[name].copy_(torch.from_numpy(np.ascontiguousarray(array)))


def save(path: Path, weights: Weights) -> None:
    """Write a safetensors file, atomically."""
    from safetensors.numpy import save as to_bytes

    write_atomic(path, to_bytes({name: np.ascontiguousarray(array) for name, array in weights.items()}))


def load(path: Path) -> Weights:
    """Read a safetensors file; BadInput where it is missing or torn."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    try:
        return dict(from_bytes(path.read_bytes()))
    except FileNotFoundError:
        raise BadInput(f"{path.name}: no such weights file; check the path") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{path.name}: not a safetensors file ({type(error).__name__}); restore it") from None


@dataclass
class TailAverage:
    """The mean of the last `share` of `rounds` models (Izmailov et al. 2018, stochastic weight averaging).

    With share 0 it is the last model itself. `total` is float64 and can be stored and put back.
    """

    rounds: int
    share: float
    total: Weights | None = None
    count: int = 0

    @property
    def first(self) -> int:
        """The first round, from 1, that counts."""
        return self.rounds - max(1, math.ceil(round(self.share * self.rounds, 9))) + 1

    def add(self, round_number: int, weights: Weights) -> None:
        """Take in the model after `round_number`."""
        if round_number < self.first:
            return
        if self.total is None:
            self.total = {name: array.astype(np.float64) for name, array in weights.items()}
        else:
            self.total = tensorwise(np.add, self.total, weights)
        self.count += 1

    def mean(self, like: Weights) -> Weights:
        """The averaged model in the precision of `like`; `like` itself while nothing was added."""
        if self.total is None:
            return like
        return {name: (self.total[name] / self.count).astype(array.dtype) for name, array in like.items()}

"""What a site contributes to a round: it adds, and is divided once, at the end.

`sum(updates, Update.zero()).mean()` is the weighted mean of the sites' changes (McMahan et al. 2017, algorithm 1).
"""

from __future__ import annotations

__all__ = ["Update", "Weights", "apply_change", "check_finite", "difference", "norm"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import RunFailed

Weights = dict[str, NDArray[np.floating]]
"""A model's floating-point tensors by name: parameters, and buffers such as running statistics."""


@dataclass(frozen=True)
class Update:
    """A change of the weights, already multiplied by `weight`; float64, so that the order of few sites costs no digits."""

    total: Weights
    weight: float

    @classmethod
    def zero(cls) -> Update:
        """The neutral element of `+`."""
        return cls({}, 0.0)

    @classmethod
    def of(cls, delta: Weights, *, weight: float) -> Update:
        """One site's change `delta`, which counts `weight` times (its number of training images)."""
        if not weight > 0:
            raise RunFailed(f"an update of weight {weight} cannot count; a site must train on at least one image")
        return cls({name: array.astype(np.float64) * weight for name, array in delta.items()}, weight)

    def __add__(self, other: Update) -> Update:
        if not self.total:
            return other
        if not other.total:
            return self
        if self.total.keys() != other.total.keys():
            strange = sorted(self.total.keys() ^ other.total.keys())
            raise RunFailed(
                f"two updates differ in their tensors, {strange[0]} first; do all sites run the same release?"
            )
        for name, array in self.total.items():
            if array.shape != other.total[name].shape:
                raise RunFailed(f"two updates differ in the shape of {name}; do all sites run the same release?")
        return Update({name: self.total[name] + other.total[name] for name in self.total}, self.weight + other.weight)

    def mean(self) -> Weights:
        """The weighted mean change, float64."""
        if not self.total:
            raise RunFailed("no site sent an update; see the failures above")
        return {name: array / self.weight for name, array in self.total.items()}


def difference(after: Weights, before: Weights) -> Weights:
    """`after` − `before`, tensor by tensor, in their own precision."""
    return {name: after[name] - before[name] for name in before}


def apply_change(weights: Weights, change: Weights) -> Weights:
    """`weights` + `change`, in the precision of `weights`; tensors that did not train are not in `change`.

    RunFailed where `change` has one that `weights` lacks.
    """
    if strange := sorted(change.keys() - weights.keys()):
        raise RunFailed(
            f"an update has a tensor that the model lacks, {strange[0]}; do all sites run the same release?"
        )
    return {
        name: (array + change[name]).astype(array.dtype) if name in change else array for name, array in weights.items()
    }


def check_finite(change: Weights) -> None:
    """Raise RunFailed where a tensor holds NaN or infinity: one such update would spoil every site's model."""
    for name, array in change.items():
        if not np.isfinite(array).all():
            raise RunFailed(f"its update is not finite ({name}); lower the learning rate, or look at the site's images")


def norm(change: Weights) -> float:
    """The Euclidean norm over all tensors."""
    return float(np.sqrt(sum(_square(array.astype(np.float64, copy=False)) for array in change.values())))


def _square(array: NDArray[np.float64]) -> float:
    return float(np.vdot(array, array))

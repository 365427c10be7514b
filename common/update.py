"""What a site contributes to a round: it adds, and is divided once, at the end.

`sum(updates, Update.zero()).mean()` is the weighted mean of the sites' changes (McMahan et al. 2017, algorithm 1).
"""

from __future__ import annotations

__all__ = ["Update", "Weights", "apply_change", "check_finite", "difference", "fingerprint", "norm", "tensorwise"]

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import RunFailed

Weights = dict[str, NDArray[np.floating]]
"""A model's floating-point tensors by name: parameters, and buffers such as running statistics."""


def fingerprint(weights: Weights) -> str:
    """SHA-256 over names, shapes, types and bits: equal exactly where the weights are equal bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Update:
    """A change of the weights, already multiplied by `weight`;
    float64, so that the order of few sites costs no digits.
    """

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
        return cls(tensorwise(lambda array: _times(array, weight), delta), weight)

    def __add__(self, other: Update) -> Update:
        if not self.total:
            return other
        if not other.total:
            return self
        _require_alike(self, other)
        return Update(tensorwise(np.add, self.total, other.total), self.weight + other.weight)

    @classmethod
    def sum(cls, updates: Sequence[Update]) -> Update:
        """All of them added in their order: the bits of `+`, in the memory of one."""
        some = [update for update in updates if update.total]
        if len(some) < 2:
            return some[0] if some else cls.zero()
        for update in some[1:]:
            _require_alike(some[0], update)
        total = tensorwise(_added, *(update.total for update in some))
        return cls(total, sum((update.weight for update in some), 0.0))

    def mean(self) -> Weights:
        """The weighted mean change, float64."""
        if not self.total:
            raise RunFailed("no site sent an update; see the failures above")
        return tensorwise(lambda array: array / self.weight, self.total)


def _added(
    first: NDArray[np.floating], second: NDArray[np.floating], *more: NDArray[np.floating]
) -> NDArray[np.floating]:
    total: NDArray[np.floating] = np.asarray(first + second)
    for each in more:
        np.add(total, each, out=total)
    return total


def _require_alike(one: Update, other: Update) -> None:
    if one.total.keys() != other.total.keys():
        strange = sorted(one.total.keys() ^ other.total.keys())
        raise RunFailed(f"two updates differ in their tensors, {strange[0]} first; do all sites run the same release?")
    for name, array in one.total.items():
        if array.shape != other.total[name].shape:
            raise RunFailed(f"two updates differ in the shape of {name}; do all sites run the same release?")


def difference(after: Weights, before: Weights, *, spend: bool = False) -> Weights:
    """`after` − `before`, tensor by tensor, in their own precision; with `spend`, in the memory of `after`."""
    return tensorwise(lambda new, old: np.subtract(new, old, out=new if spend else None), after, before)


def apply_change(weights: Weights, change: Weights) -> Weights:
    """`weights` + `change`, in the precision of `weights`; tensors that did not train are not in `change`.

    RunFailed where `change` has one that `weights` lacks.
    """
    if strange := sorted(change.keys() - weights.keys()):
        raise RunFailed(
            f"an update has a tensor that the model lacks, {strange[0]}; do all sites run the same release?"
        )
    changed = {name: array for name, array in weights.items() if name in change}
    return weights | tensorwise(lambda array, by: (array + by).astype(array.dtype), changed, change)


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


def _times(array: NDArray[np.floating], weight: float) -> NDArray[np.floating]:
    exact = array.astype(np.float64)
    exact *= weight
    return exact


def tensorwise(function: Callable[..., NDArray[np.floating]], first: Weights, *others: Weights) -> Weights:
    """`function` of the tensors of each name, two names at a time: numpy leaves the interpreter to others meanwhile.

    Each tensor is made by one thread, so that its bits are those of a plain loop.
    """
    names = list(first)
    with ThreadPoolExecutor(2) as threads:
        made = threads.map(lambda name: function(first[name], *(other[name] for other in others)), names)
        return dict(zip(names, made, strict=True))

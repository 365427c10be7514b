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

_BLOCK = 2**16  # values, 512 KiB in float64: a part of a core's own cache


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
    """Changes of the weights and how often each counts; `+` puts them side by side, `mean` adds and divides, once."""

    parts: tuple[tuple[Weights, float], ...] = ()

    @classmethod
    def zero(cls) -> Update:
        """The neutral element of `+`."""
        return cls()

    @classmethod
    def of(cls, delta: Weights, *, weight: float) -> Update:
        """One site's change `delta`, which counts `weight` times (its number of training images)."""
        if not weight > 0:
            raise RunFailed(f"an update of weight {weight} cannot count; a site must train on at least one image")
        return cls(((delta, weight),))

    @property
    def weight(self) -> float:
        """How often all of it counts."""
        return sum((weight for _, weight in self.parts), 0.0)

    def __add__(self, other: Update) -> Update:
        if self.parts and other.parts:
            _require_alike(self.parts[0][0], other.parts[0][0])
        return Update(self.parts + other.parts)

    def mean(self) -> Weights:
        """The weighted mean change, float64, so that the order of few sites costs no digits."""
        if not self.parts:
            raise RunFailed("no site sent an update; see the failures above")
        changes, weights = [delta for delta, _ in self.parts], [weight for _, weight in self.parts]
        return tensorwise(lambda *arrays: _mean(arrays, weights), *changes)


def _mean(arrays: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> NDArray[np.float64]:
    """Σ weight · array / Σ weight, a block at a time: in one pass through memory, with the bits of whole arrays."""
    mean = np.empty(arrays[0].shape)
    flat, product, every = mean.reshape(-1), np.empty(min(mean.size, _BLOCK)), sum(weights, 0.0)
    rows = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    for begin in range(0, flat.size, _BLOCK):
        block = flat[begin : begin + _BLOCK]
        block[...] = rows[0][begin : begin + _BLOCK]
        block *= weights[0]
        for row, weight in zip(rows[1:], weights[1:], strict=True):
            term = product[: len(block)]
            term[...] = row[begin : begin + _BLOCK]
            term *= weight
            block += term
        block /= every
    return mean


def _require_alike(one: Weights, other: Weights) -> None:
    if one.keys() != other.keys():
        strange = sorted(one.keys() ^ other.keys())
        raise RunFailed(f"two updates differ in their tensors, {strange[0]} first; do all sites run the same release?")
    for name, array in one.items():
        if array.shape != other[name].shape:
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
        if not _all_finite(array):
            raise RunFailed(f"its update is not finite ({name}); lower the learning rate, or look at the site's images")


def _all_finite(array: NDArray[np.floating]) -> bool:
    """A finite sum of squares has no other terms; where it is not, it may have overflowed, and each value is asked."""
    flat = np.ascontiguousarray(array).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(array).all())


def norm(change: Weights) -> float:
    """The Euclidean norm over all tensors."""
    return float(np.sqrt(sum(_square(array.astype(np.float64, copy=False)) for array in change.values())))


def _square(array: NDArray[np.float64]) -> float:
    return float(np.vdot(array, array))


def tensorwise(function: Callable[..., NDArray[np.floating]], first: Weights, *others: Weights) -> Weights:
    """`function` of the tensors of each name, two names at a time: numpy leaves the interpreter to others meanwhile.

    Each tensor is made by one thread, so that its bits are those of a plain loop.
    """
    names = list(first)
    with ThreadPoolExecutor(2) as threads:
        made = threads.map(lambda name: function(first[name], *(other[name] for other in others)), names)
        return dict(zip(names, made, strict=True))

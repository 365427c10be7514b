"""The messages of the shift panel: the arrays of `common.shift` as text, exact to the bit, checked on arrival.

Shapes: C classes, D descriptors, F features, Q axes, R frequencies, U coordinates, B draws.
"""

from __future__ import annotations

__all__ = ["Packed", "SentMoments", "SentReference", "SentSums", "ShiftOrder"]

import base64
import math
from dataclasses import fields
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.shift import DESCRIPTORS, Floats, ShiftMoments, ShiftReference, ShiftSums

_STRICT = ConfigDict(extra="forbid")
_MOST_AXES, _MOST_FREQUENCIES = 8, 64


@checked(frozen=True, config=_STRICT)
class Packed:
    """An array: its `shape`, and its numbers row by row, little-endian, of NumPy's `kind`, as base85 `text`.

    Every number is finite; anything else is no valid message.
    """

    kind: Literal["<i8", "<f4", "<f8"]
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=1 << 16)], ...], Field(max_length=3)]
    text: Annotated[str, Field(max_length=1 << 20)]

    def __post_init__(self) -> None:
        if not np.isfinite(self.array).all():
            raise ValueError("a number of the array is not finite")

    @classmethod
    def of(cls, array: NDArray[Any]) -> Packed:
        """From whole numbers, float32 or float64; ValueError where one is not finite."""
        if not np.isfinite(array).all():
            raise ValueError("a sum over patients is not finite; did training diverge?")
        kind = "<i8" if array.dtype.kind == "i" else f"<f{array.dtype.itemsize}"
        content = np.ascontiguousarray(array, dtype=kind).tobytes()
        return cls(kind, tuple(array.shape), base64.b85encode(content).decode())  # type: ignore[arg-type]

    @property
    def array(self) -> NDArray[Any]:
        """The numbers; ValueError where they are not as many as the shape says."""
        content = base64.b85decode(self.text)
        if len(content) != math.prod(self.shape) * np.dtype(self.kind).itemsize:
            raise ValueError(f"{len(content)} bytes are no array of shape {self.shape}")
        return np.frombuffer(bytearray(content), dtype=self.kind).reshape(self.shape)

    def like(self, kind: str, *shape: int) -> NDArray[Any]:
        """The numbers, where their kind and shape are these; else ValueError."""
        if (self.kind, self.shape) != (kind, shape):
            raise ValueError(f"an array {self.kind} of shape {self.shape}, where {kind} of {shape} is wanted")
        return self.array


@checked(frozen=True, config=_STRICT)
class SentMoments:
    """`ShiftMoments`: counts (C,), totals (C, D + F), and of the scatter the upper triangle alone."""

    counts: Packed
    totals: Packed
    scatter: Packed

    def __post_init__(self) -> None:
        moments = self.moments
        if moments.counts.min(initial=0) < 0 or moments.totals.shape[1] <= len(DESCRIPTORS):
            raise ValueError("a negative count, or no features")

    @classmethod
    def of(cls, moments: ShiftMoments) -> SentMoments:
        """As they are sent."""
        upper = moments.scatter[np.triu_indices(len(moments.scatter))]
        return cls(Packed.of(moments.counts), Packed.of(moments.totals), Packed.of(upper))

    @property
    def moments(self) -> ShiftMoments:
        """As they are added; ValueError where shapes do not fit each other."""
        if len(self.totals.shape) != 2:
            raise ValueError(f"totals of shape {self.totals.shape}")
        classes, width = self.totals.shape
        upper = self.scatter.like("<f8", width * (width + 1) // 2)
        scatter = np.zeros((width, width))
        scatter[np.triu_indices(width)] = upper
        scatter.T[np.triu_indices(width)] = upper
        return ShiftMoments(self.counts.like("<i8", classes), self.totals.like("<f8", classes, width), scatter)


@checked(frozen=True, config=_STRICT)
class SentReference:
    """`ShiftReference`, array by array; at most 8 axes and 64 frequencies, so that an answer stays small."""

    weights: Packed
    centre: Packed
    spread: Packed
    slope: Packed
    axes: Packed
    frequencies: Packed

    def __post_init__(self) -> None:
        reference = self.reference
        if (reference.weights < 0).any() or not (reference.spread > 0).all():
            raise ValueError("a negative weight, or a spread that is not positive")

    @classmethod
    def of(cls, reference: ShiftReference) -> SentReference:
        """As it is sent."""
        return cls(**{one.name: Packed.of(getattr(reference, one.name)) for one in fields(cls)})

    @property
    def reference(self) -> ShiftReference:
        """As patients are embedded by it; ValueError where shapes do not fit each other."""
        if len(self.axes.shape) != 2 or len(self.frequencies.shape) != 2 or len(self.weights.shape) != 1:
            raise ValueError(f"axes of shape {self.axes.shape}, frequencies of {self.frequencies.shape}")
        (features, axes), frequencies, d = self.axes.shape, self.frequencies.shape[1], len(DESCRIPTORS)
        if axes > _MOST_AXES or frequencies > _MOST_FREQUENCIES:
            raise ValueError(f"{axes} axes and {frequencies} frequencies are more than a site answers")
        return ShiftReference(
            weights=self.weights.like("<f8", *self.weights.shape),
            centre=self.centre.like("<f8", d + features),
            spread=self.spread.like("<f8", d),
            slope=self.slope.like("<f8", d, features),
            axes=self.axes.like("<f8", features, axes),
            frequencies=self.frequencies.like("<f8", axes, frequencies),
        )


@checked(frozen=True, config=_STRICT)
class SentSums:
    """`ShiftSums`, array by array."""

    counts: Packed
    mean: Packed
    variance: Packed
    draws: Packed
    halves_mean: Packed
    halves_scatter: Packed

    @classmethod
    def of(cls, sums: ShiftSums) -> SentSums:
        """As they are sent."""
        return cls(**{one.name: Packed.of(getattr(sums, one.name)) for one in fields(cls)})

    def sums(self, reference: ShiftReference) -> ShiftSums:
        """As centers are compared by them; ValueError where they are not in the coordinates of `reference`."""
        total, axes, classes = reference.coordinates.total, reference.axes.shape[1], len(reference.weights)
        counts, variance = self.counts.like("<i8", classes), self.variance.like("<f8", total)
        draws = self.draws.shape[0] if self.draws.shape else 0
        if not 2 <= draws < counts.sum() / 3 or (counts[reference.weights > 0] < 2).any() or (variance < 0).any():
            raise ValueError("too few patients, too many draws for them, or a negative variance")
        return ShiftSums(
            counts=counts,
            mean=self.mean.like("<f8", total),
            variance=variance,
            draws=self.draws.like("<f4", draws, total),
            halves_mean=_floats(self.halves_mean, 2, axes),
            halves_scatter=_floats(self.halves_scatter, 2, axes, axes),
        )


def _floats(packed: Packed, *shape: int) -> Floats:
    return packed.like("<f8", *shape)


@checked(frozen=True, config=_STRICT)
class ShiftOrder:
    """Tell how your patients look to the model: moments first, then, in the coordinates of `reference`, weighted sums.

    `seed` names the directions that wide features are projected on, the same at every site. It makes no multipliers:
    those follow from a secret of the site alone (`client.multipliers`).
    """

    seed: Annotated[int, Field(ge=0)]
    reference: SentReference | None = None

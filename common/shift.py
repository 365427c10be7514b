"""What sites and server exchange to compare centers: moments that add, then a reference, then sums in its coordinates.

    round 1    a site sends `ShiftMoments`: patients by class, sums, and the scatter within class
    server     adds them to a `ShiftReference`: how to center, scale, adjust and embed one patient
    round 2    a site sends `ShiftSums`: means in these coordinates, their variance, and its secret multiplier draws

A patient is one vector, the mean over the patient's images: first `DESCRIPTORS`, then the model's pooled features. A
patient's class is what the patient's images say (with two classes: positive where any image is).

Shapes: P patients, C classes, D descriptors, F features, Q axes, R frequencies, U coordinates, B draws.
"""

from __future__ import annotations

__all__ = ["DESCRIPTORS", "Coordinates", "ShiftMoments", "ShiftReference", "ShiftSums"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

DESCRIPTORS = (
    "mean gray",
    "gray SD",
    "gray 5th percentile",
    "gray median",
    "gray 95th percentile",
    "gradient energy",
    "speckle length, axial (px)",
    "speckle length, lateral (px)",
    "high-frequency share",
    "local contrast",
)


@dataclass(frozen=True, eq=False)
class ShiftMoments:
    """`counts` (C,) patients by class; `totals` (C, D + F) sums; `scatter` (D + F, D + F) about each class's own mean.

    Scatter is taken within site and class, so it holds no difference between sites.
    """

    counts: Whole
    totals: Floats
    scatter: Floats

    @classmethod
    def of(cls, values: Floats, classes: Whole, *, count: int) -> ShiftMoments:
        """Patients `values` (P, D + F) of `classes` (P,) in 0..count − 1."""
        if values.ndim != 2 or len(values) != len(classes) or not np.isfinite(values).all():
            raise ValueError(
                "a patient's values are not finite, or not one row for each patient; did training diverge?"
            )
        member = (classes[:, None] == np.arange(count)).astype(np.float64)
        counts = member.sum(axis=0)
        totals = member.T @ values
        inner = values - (totals / np.maximum(counts, 1)[:, None])[classes]
        return cls(counts.astype(np.int64), totals, inner.T @ inner)

    def __add__(self, other: ShiftMoments) -> ShiftMoments:
        if self.totals.shape != other.totals.shape:
            raise ValueError(f"moments of shape {self.totals.shape} and {other.totals.shape} do not add; use one model")
        return ShiftMoments(
            self.counts + other.counts, self.totals + other.totals, self.scatter + other.scatter
        )  # fmt: skip


@dataclass(frozen=True)
class Coordinates:
    """Where each kind of coordinate lies among the U of a patient."""

    classes: slice
    descriptors: slice
    axes: slice
    fourier: slice
    products: slice

    @classmethod
    def of(cls, *, classes: int, axes: int, frequencies: int) -> Coordinates:
        """One after the other: C class indicators, D descriptors, Q axes, 2R waves, Q (Q + 1) / 2 products of axes."""
        sizes = (classes, len(DESCRIPTORS), axes, 2 * frequencies, axes * (axes + 1) // 2)
        ends = np.cumsum(sizes).tolist()
        return cls(*(slice(end - size, end) for size, end in zip(sizes, ends, strict=True)))

    @property
    def total(self) -> int:
        """U."""
        return int(self.products.stop)


@dataclass(frozen=True, eq=False)
class ShiftReference:
    """How the federation sees one patient.

    `weights` (C,): the federation's share of each class, 0 for a class that is not compared; all sums are standardised
    to it. `centre` (D + F,); `spread` (D,): the standard deviation of descriptors within site and class. `slope` (D,
    F): what the features change for each standard deviation of a descriptor (least squares within site and class), so
    that what acquisition explains is taken out. `axes` (F, Q): principal axes of what is left, scaled to variance 1.
    `frequencies` (Q, R) of random Fourier features (Rahimi and Recht 2007), of a Gaussian kernel of variance Q.
    """

    weights: Floats
    centre: Floats
    spread: Floats
    slope: Floats
    axes: Floats
    frequencies: Floats

    @property
    def coordinates(self) -> Coordinates:
        """Where each kind lies."""
        return Coordinates.of(
            classes=len(self.weights), axes=self.axes.shape[1], frequencies=self.frequencies.shape[1]
        )  # fmt: skip

    def embed(self, values: Floats) -> Floats:
        """Patients (P, D + F) to their coordinates without the class indicators, (P, U − C)."""
        d = len(self.spread)
        seen = (values[:, :d] - self.centre[:d]) / self.spread
        along = (values[:, d:] - self.centre[d:] - seen @ self.slope) @ self.axes
        phase = along @ self.frequencies
        waves = np.concatenate([np.cos(phase), np.sin(phase)], axis=1) / np.sqrt(max(self.frequencies.shape[1], 1))
        first, second = np.triu_indices(along.shape[1])
        return np.concatenate([seen, along, waves, along[:, first] * along[:, second]], axis=1)


@dataclass(frozen=True, eq=False)
class ShiftSums:
    """One site in the reference's coordinates.

    `counts` (C,) patients by class; `mean` (U,): shares of classes, then means standardised to the reference's classes;
    `variance` (U,) of these means over patients; `draws` (B, U): Σ ξ_bi ψ_i over patients with secret standard normal
    ξ, ψ_i a patient's influence on `mean`; B is less than a third of the patients. `halves_mean` (2, Q),
    `halves_scatter` (2, Q, Q): standardised means of the axes and their covariance within class, in two random halves
    of the patients.
    """

    counts: Whole
    mean: Floats
    variance: Floats
    draws: NDArray[np.float32]
    halves_mean: Floats
    halves_scatter: Floats

    @property
    def patients(self) -> int:
        """How many, over all classes."""
        return int(self.counts.sum())

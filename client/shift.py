"""What a site sends so that centers can be compared: sums over its patients, none of them one patient's.

The draws' multipliers stay at the site. They are fewer than a third of the patients, so the patients' values cannot be
solved for from the draws; ask for them with the same `rng` state at every evaluation (one secret of the site), since
fresh multipliers each time would add up to more.

Shapes: N images, P patients, C classes, D descriptors, F features, U coordinates, B draws.
"""

from __future__ import annotations

__all__ = ["MOST_DRAWS", "TOO_FEW", "Patients", "draws_allowed", "patients_of", "shift_moments", "shift_sums"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.shift import Floats, ShiftMoments, ShiftReference, ShiftSums, Whole

MOST_DRAWS = 64
"""More cost bandwidth and add little: the server weighs them anew."""
TOO_FEW = 25
"""Below so many patients there are fewer than eight draws, and no card."""


@dataclass(frozen=True, eq=False)
class Patients:
    """One row for each patient: `values` (P, D + F), the mean over the patient's images; `classes` (P,)."""

    values: Floats
    classes: Whole


def patients_of(descriptors: Floats, features: Floats, *, labels: Whole, patients: Whole, positive: int) -> Patients:
    """From images to patients: descriptors (N, D), features (N, F), labels (N,) and patient numbers (N,).

    With more than one class among a patient's images, `positive` counts where it is there, else the lowest.
    """
    _, code = np.unique(patients, return_inverse=True)
    count = np.bincount(code)
    images = np.concatenate([descriptors, features.astype(np.float64)], axis=1)
    totals = np.zeros((len(count), images.shape[1]))
    np.add.at(totals, code, images)
    classes = np.full(len(count), np.iinfo(np.int64).max)
    np.minimum.at(classes, code, labels)
    classes[code[labels == positive]] = positive
    return Patients(totals / count[:, None], classes.astype(np.int64))


def shift_moments(patients: Patients, *, classes: int) -> ShiftMoments:
    """The first round's sums."""
    return ShiftMoments.of(patients.values, patients.classes, count=classes)


def draws_allowed(patients: int) -> int:
    """How many draws a site of so many patients sends: fewer than a third of them, at most 64."""
    return max(0, min(MOST_DRAWS, (patients - 1) // 3))


def shift_sums(patients: Patients, reference: ShiftReference, *, rng: np.random.Generator) -> ShiftSums:
    """The second round's sums; `rng` makes the multipliers and is the site's secret.

    Raises ValueError below 25 patients, or with fewer than two patients of a class that is compared.
    """
    c, n = len(reference.weights), len(patients.classes)
    counts = np.bincount(patients.classes, minlength=c)
    if n < TOO_FEW or (counts[reference.weights > 0] < 2).any():
        raise ValueError(f"{n} patients, or a class of fewer than 2, are too few to compare the center")
    member = (patients.classes[:, None] == np.arange(c)).astype(np.float64)
    u = reference.embed(patients.values)
    means = (member.T @ u) / np.maximum(counts, 1)[:, None]
    inner = u - means[patients.classes]
    share = counts / n
    weight = (reference.weights / np.maximum(counts, 1))[patients.classes]
    influence = np.concatenate([(member - share) / n, inner * weight[:, None]], axis=1)
    # The variance of a class's mean divides by its patients less one.
    grown = np.sqrt(counts / np.maximum(counts - 1, 1))[patients.classes]
    variance = np.concatenate([share * (1 - share) / n, ((inner * (weight * grown)[:, None]) ** 2).sum(axis=0)])
    xi = rng.standard_normal((draws_allowed(n), n))
    along = u[:, _within(reference)]
    halves = [_half(along[rows], member[rows], reference.weights) for rows in np.array_split(rng.permutation(n), 2)]
    return ShiftSums(
        counts=counts.astype(np.int64),
        mean=np.concatenate([share, reference.weights @ means]),
        variance=variance,
        draws=(xi @ influence).astype(np.float32),
        halves_mean=np.stack([mean for mean, _ in halves]),
        halves_scatter=np.stack([scatter for _, scatter in halves]),
    )


def _within(reference: ShiftReference) -> slice:
    """The axes among the coordinates without class indicators."""
    c, axes = len(reference.weights), reference.coordinates.axes
    return slice(axes.start - c, axes.stop - c)


def _half(along: Floats, member: Floats, weights: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """Standardised mean (Q,) and covariance within class (Q, Q) of some patients."""
    counts = member.sum(axis=0)
    means = (member.T @ along) / np.maximum(counts, 1)[:, None]
    present = weights * (counts > 0)
    inner = along - member @ means
    scatter = inner.T @ inner / max(len(along) - int((counts > 0).sum()), 1)
    return (present / max(present.sum(), 1e-12)) @ means, scatter

"""Which covariates may be told beside each other: the cells in which all of them together part a site's cases.

Whatever is added or taken away of told groups, and of the whole, is made of these cells. Each is empty or holds enough
patients, of every class and on both sides of the threshold, so that no difference is about fewer.
"""

from __future__ import annotations

__all__ = ["Joint", "Kind"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
Kind = Literal["sizes", "classes", "sensitivity", "specificity"]
"""What is told of a group: images and patients; positive images and AUC; each kind of decision."""


@dataclass(frozen=True)
class Joint:
    """`cells` (N,) of the cases by kind of number; `sides` (N,) by kind: what is counted in a cell, -1 where the case
    is not; `patients` (N,); `least`: patients that a side of a cell needs, by kind.
    """

    cells: Mapping[Kind, Whole]
    sides: Mapping[Kind, Whole]
    patients: Whole
    least: Mapping[Kind, int]

    @classmethod
    def of(cls, sides: Mapping[Kind, Whole], patients: Whole, *, least: Mapping[Kind, int]) -> Joint:
        """Nothing told but the whole."""
        return cls({kind: np.zeros(len(patients), dtype=np.int64) for kind in sides}, sides, patients, least)

    def beside(self, kind: Kind, levels: Whole) -> Whole | None:
        """The cells with `levels` (N,) told too, 0 where a case's level is not; None where one would be too small."""
        if not levels.any():
            return self.cells[kind]
        cells, counted = _numbered(self.cells[kind], levels), self.sides[kind] >= 0
        sides, patients = _numbered(cells, self.sides[kind])[counted], self.patients[counted]
        found = np.unique(np.stack([sides, patients]), axis=1)[0]
        return cells if (np.unique(found, return_counts=True)[1] >= self.least[kind]).all() else None


def _numbered(*codes: Sequence[int] | Whole) -> Whole:
    """One code (N,) for each combination of codes."""
    return np.unique(np.stack(codes), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)

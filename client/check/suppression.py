"""Small cells of a table of counts, hidden so that no total gives them back.

Patients are counted by class, split and device. A cell about fewer patients than `smallest` is hidden, and then more
cells, until whoever knows every number that is shown, that hidden cells are not empty, and that no count is negative,
still has to reckon with any number from the least to `smallest` and beyond: the least is what hidden cells leave that
are not empty, were every one hidden. This is a linear program (Fischetti and Salazar 2001: the attacker's problem).
"""

from __future__ import annotations

__all__ = ["ALL", "Cell", "cells_over", "hidden_cells"]

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

ALL = "all"
"""Stands in a cell for the sum over one of its dimensions."""

Cell = tuple[str, ...]
Counts = Mapping[Cell, int]


def cells_over(counts: Counts, views: Sequence[Sequence[bool]]) -> dict[Cell, int]:
    """Sums of `counts` over the dimensions that a view leaves out: a view says of each dimension whether it is kept.

    Every combination of names that occur is a cell, also where it is empty.
    """
    names = [sorted({cell[axis] for cell in counts}) for axis in range(len(next(iter(counts))))]
    summed: dict[Cell, int] = {}
    for view in views:
        combinations: list[Cell] = [()]
        for kept, known in zip(view, names, strict=True):
            combinations = [(*cell, name) for cell in combinations for name in (known if kept else [ALL])]
        for cell in combinations:
            summed[cell] = sum(number for base, number in counts.items() if _covers(cell, base))
    return summed


def hidden_cells(counts: Sequence[Counts], views: Sequence[Sequence[bool]], *, smallest: int) -> set[Cell]:
    """The cells of `views` that must not be shown.

    `counts` are patients by cell, then whatever else is shown of the same cells, such as images: hidden together. Empty
    cells are shown as empty.
    """
    published = [cells_over(count, views) for count in counts]
    patients = published[0]
    hidden = {cell for cell, number in patients.items() if 0 < number < smallest}
    small = set(hidden)
    while exposed := _exposed(published, small, hidden, smallest):
        shown = [cell for cell, number in patients.items() if number and cell not in hidden]
        hidden.add(min(shown, key=lambda cell: (_distance(cell, exposed), patients[cell], cell)))
    return hidden


def _exposed(
    published: Sequence[Mapping[Cell, int]], small: Collection[Cell], hidden: Collection[Cell], smallest: int
) -> Cell | None:
    """A small cell that what is shown pins down too well, or None."""
    if len(hidden) == sum(number > 0 for number in published[0].values()):
        return None
    for values in published:
        system, dark = _System(values, hidden), _System(values, [cell for cell in values if values[cell] > 0])
        for cell in sorted(small):
            (low, high), (least, _) = (known.bounds(cell, enough=smallest) for known in (system, dark))
            if low > least + 1e-6 or high < smallest - 1e-6:
                return cell
    return None


def _distance(cell: Cell, other: Cell) -> int:
    """In how many dimensions two cells differ."""
    return sum(a != b for a, b in zip(cell, other, strict=True))


def _covers(cell: Cell, base: Cell) -> bool:
    return all(name in (ALL, part) for name, part in zip(cell, base, strict=True))


class _System:
    """What an attacker knows: base counts that are not negative, sums that are shown, hidden sums of at least one."""

    def __init__(self, values: Mapping[Cell, int], hidden: Collection[Cell]) -> None:
        axes = len(next(iter(values)))
        names = [sorted({cell[axis] for cell in values} - {ALL}) for axis in range(axes)]
        bases: list[Cell] = [()]
        for known in names:
            bases = [(*base, name) for base in bases for name in known or [ALL]]
        self._rows = {cell: self._row(cell, bases) for cell in values}
        shown = [cell for cell in values if cell not in hidden]
        self._equal = np.array([self._rows[cell] for cell in shown]).reshape(-1, len(bases))
        self._sums = np.array([values[cell] for cell in shown], dtype=np.float64)
        self._least = -np.array([self._rows[cell] for cell in values if cell in hidden]).reshape(-1, len(bases))

    @staticmethod
    def _row(cell: Cell, bases: Sequence[Cell]) -> npt.NDArray[np.float64]:
        return np.array([float(_covers(cell, base)) for base in bases])

    def bounds(self, cell: Cell, *, enough: int) -> tuple[float, float]:
        """The least and the greatest number that `cell` can be; no more than twice `enough` is asked for."""
        return self._extreme(cell, 1.0, enough), self._extreme(cell, -1.0, enough)

    def _extreme(self, cell: Cell, sign: float, enough: int) -> float:
        from scipy.optimize import linprog

        row = self._rows[cell]
        answer = linprog(
            sign * row,
            A_ub=np.vstack([self._least, row]),
            b_ub=np.append(-np.ones(len(self._least)), 2.0 * enough),
            A_eq=self._equal if len(self._equal) else None,
            b_eq=self._sums if len(self._equal) else None,
        )
        return sign * float(answer.fun or 0.0)

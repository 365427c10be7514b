"""What a sonographer's measurement leaves in a saved picture: crosses at a lesion's ends, and a dotted line between."""

from __future__ import annotations

__all__ = ["burn_diameter"]

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
"""Row and column, px."""


def burn_diameter(gray: NDArray[np.uint8], start: Point, end: Point, *, dotted: bool, arm: int = 4) -> None:
    """Draw a cross at either end in place, and a dotted line from one to the other where asked."""
    for row, column in (start, end):
        _cross(gray, round(row), round(column), arm=arm)
    if not dotted:
        return
    steps = int(np.hypot(end[0] - start[0], end[1] - start[1]) // 5)
    for step in range(1, steps):
        share = step / steps
        row = round(start[0] + share * (end[0] - start[0]))
        column = round(start[1] + share * (end[1] - start[1]))
        gray[max(row, 0) : row + 1, max(column, 0) : column + 2] = 230


def _cross(gray: NDArray[np.uint8], row: int, column: int, *, arm: int) -> None:
    gray[max(row, 0) : row + 1, max(column - arm, 0) : column + arm + 1] = 255
    gray[max(row - arm, 0) : row + arm + 1, max(column, 0) : column + 1] = 255

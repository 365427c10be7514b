"""From a gray image to the square that the model sees.

The square is centred on the lesion's box and has side max(width, height) · (1 + 2 · margin), or, where the margin is in
millimetres, max(width, height) + 2 · margin_mm / spacing; the lesion keeps its shape. Where it leaves the frame it is
filled with black (0): edges repeated or mirrored would invent tissue. No pixel outside the square touches the result,
so burned-in text beyond the margin cannot leak in.
"""

from __future__ import annotations

__all__ = ["crop", "crop_square"]

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.box import Box
from common.config import Crop


def crop_square(
    size: tuple[int, int], box: Box | None, spec: Crop, *, spacing_mm: float | None = None
) -> tuple[float, float, float, float]:
    """The square in pixels of a frame of `size` (width, height): left, top, right, bottom; it may leave the frame.

    With `region = "frame"` it is the smallest centred square that holds the whole frame. `spacing_mm` are millimetres
    per pixel. Raises ValueError where the region is the lesion and there is no box, or no spacing for a margin in mm.
    """
    match spec.region:
        case "frame":
            (x, y), (width, height), half = (0, 0), size, max(size) / 2
        case "lesion":
            if box is None:
                raise ValueError("a lesion crop needs a box")
            x, y, width, height = box
            half = _half_side(max(width, height), spec, spacing_mm)
    across, down = x + width / 2, y + height / 2
    return across - half, down - half, across + half, down + half


def _half_side(longer: int, spec: Crop, spacing_mm: float | None) -> float:
    """Half the side of a lesion's square, in pixels."""
    if spec.margin_mm is None:
        return longer * (1 + 2 * spec.margin) / 2
    if spacing_mm is None:
        raise ValueError("a margin in millimetres needs the spacing of pixels")
    return longer / 2 + spec.margin_mm / spacing_mm


def crop(image: Image.Image, box: Box | None, spec: Crop, *, spacing_mm: float | None = None) -> npt.NDArray[np.uint8]:
    """The square of `image` (mode L) as gray values, (size, size), uint8; bilinear with antialiasing."""
    left, top, right, bottom = crop_square(image.size, box, spec, spacing_mm=spacing_mm)
    edge_left, edge_top = math.floor(left), math.floor(top)
    canvas = image.crop((edge_left, edge_top, math.ceil(right), math.ceil(bottom)))
    window = (left - edge_left, top - edge_top, right - edge_left, bottom - edge_top)
    square = canvas.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=window)
    return np.asarray(square, dtype=np.uint8)

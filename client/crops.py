"""From a gray image to the square that the model sees.

The square is centred on the lesion's box and has side max(width, height) · (1 + 2 · margin), so the lesion keeps its
shape. Where it leaves the frame it is filled with black (0): edges repeated or mirrored would invent tissue. No pixel
outside the square touches the result, so burned-in text beyond the margin cannot leak in.
"""

from __future__ import annotations

__all__ = ["crop", "crop_square"]

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.box import Box
from common.config import Crop


def crop_square(size: tuple[int, int], box: Box | None, spec: Crop) -> tuple[float, float, float, float]:
    """The square in pixels of a frame of `size` (width, height): left, top, right, bottom; it may leave the frame.

    With `region = "frame"` it is the smallest centred square that holds the whole frame. Raises ValueError where the
    region is the lesion and there is no box.
    """
    match spec.region:
        case "frame":
            x, y, width, height, margin = 0, 0, *size, 0.0
        case "lesion":
            if box is None:
                raise ValueError("a lesion crop needs a box")
            x, y, width, height, margin = *box, spec.margin
    half = max(width, height) * (1 + 2 * margin) / 2
    across, down = x + width / 2, y + height / 2
    return across - half, down - half, across + half, down + half


def crop(image: Image.Image, box: Box | None, spec: Crop) -> npt.NDArray[np.uint8]:
    """The square of `image` (mode L) as gray values, (size, size), uint8; bilinear with antialiasing."""
    left, top, right, bottom = crop_square(image.size, box, spec)
    edge_left, edge_top = math.floor(left), math.floor(top)
    canvas = image.crop((edge_left, edge_top, math.ceil(right), math.ceil(bottom)))
    window = (left - edge_left, top - edge_top, right - edge_left, bottom - edge_top)
    square = canvas.resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=window)
    return np.asarray(square, dtype=np.uint8)

"""The crop against a slow loop that knows only the definition, and the properties that models rely on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.box import Box
from client.crops import crop, crop_square
from common.config import Crop, Experiment
from common.errors import BadInput
from common.parsing import parse


def slow_crop(gray: np.ndarray, box: Box | None, spec: Crop, spacing: float = 1.0) -> np.ndarray:
    """Triangle-filter resampling of the black-padded square, written as the sums that define it; float (S, S)."""
    height, width = gray.shape
    if spec.region == "frame":
        x, y, w, h, margin = 0, 0, width, height, 0.0
    else:
        assert box is not None
        x, y, w, h = box
        margin = spec.margin if spec.margin_mm is None else spec.margin_mm / spacing / max(w, h)
    half = max(w, h) * (1 + 2 * margin) / 2
    left, top = x + w / 2 - half, y + h / 2 - half
    first_column, last_column = math.floor(left), math.ceil(left + 2 * half)
    first_row, last_row = math.floor(top), math.ceil(top + 2 * half)
    padded = np.zeros((last_row - first_row, last_column - first_column))
    for row in range(first_row, last_row):
        for column in range(first_column, last_column):
            if 0 <= row < height and 0 <= column < width:
                padded[row - first_row, column - first_column] = gray[row, column]
    down = _weights(padded.shape[0], top - first_row, 2 * half, spec.size)
    across = _weights(padded.shape[1], left - first_column, 2 * half, spec.size)
    return down @ padded @ across.T


def _weights(pixels: int, start: float, length: float, size: int) -> np.ndarray:
    """How much each source pixel counts in each target pixel: a triangle as wide as the shrinkage, (size, pixels)."""
    step = length / size
    reach = max(step, 1.0)
    weights = np.zeros((size, pixels))
    for target in range(size):
        centre = start + (target + 0.5) * step
        for pixel in range(pixels):
            weights[target, pixel] = max(0.0, 1 - abs(pixel + 0.5 - centre) / reach)
        weights[target] /= weights[target].sum()
    return weights


CASES = [
    pytest.param((50, 40), Box(10, 8, 20, 12), Crop(size=16), id="inside"),
    pytest.param((50, 40), Box(0, 0, 50, 40), Crop(size=32), id="full-frame box"),
    pytest.param((50, 40), Box(0, 0, 9, 30), Crop(size=24, margin=0.5), id="at a corner"),
    pytest.param((50, 40), Box(45, 35, 5, 5), Crop(size=48, margin=1.0), id="at the far corner, enlarged"),
    pytest.param((50, 40), Box(20, 20, 1, 1), Crop(size=16, margin=0.0), id="one pixel"),
    pytest.param((50, 40), Box(7, 9, 11, 6), Crop(size=19, margin=0.1), id="odd numbers"),
    pytest.param((50, 40), None, Crop(size=20, region="frame"), id="frame"),
    pytest.param((31, 64), Box(1, 1, 5, 5), Crop(size=20, region="frame"), id="tall frame"),
]


@pytest.mark.parametrize(("size", "box", "spec"), CASES)
def test_crop_is_its_definition(size: tuple[int, int], box: Box | None, spec: Crop) -> None:
    gray = np.random.default_rng(3).integers(0, 256, size[::-1], dtype=np.uint8)
    fast = crop(Image.fromarray(gray), box, spec)
    assert fast.shape == (spec.size, spec.size)
    assert fast.dtype == np.uint8
    # PIL rounds to whole grays twice, once per axis
    assert np.abs(fast.astype(float) - slow_crop(gray, box, spec)).max() <= 1.01


boxes = st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40)).map(
    lambda b: Box(b[0], b[1], min(b[2], 60 - b[0]), min(b[3], 40 - b[1]))
)


@settings(max_examples=60, deadline=None)
@given(box=boxes, margin=st.floats(0, 2), size=st.integers(16, 64))
def test_the_box_is_inside_its_square_and_in_the_middle(box: Box, margin: float, size: int) -> None:
    left, top, right, bottom = crop_square((60, 40), box, Crop(size=size, margin=margin))
    assert right - left == pytest.approx(bottom - top)
    assert left <= box.x + 1e-9
    assert right >= box.x + box.width - 1e-9
    assert left + right == pytest.approx(2 * box.x + box.width)
    assert top + bottom == pytest.approx(2 * box.y + box.height)


@settings(max_examples=40, deadline=None)
@given(box=boxes, margin=st.floats(0, 2), size=st.integers(16, 40))
def test_what_lies_beyond_the_square_leaves_no_trace(box: Box, margin: float, size: int) -> None:
    spec = Crop(size=size, margin=margin)
    gray = np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8)
    left, top, right, bottom = crop_square((60, 40), box, spec)
    rows, columns = np.mgrid[:40, :60]
    outside = (rows < math.floor(top)) | (rows >= bottom) | (columns < math.floor(left)) | (columns >= right)
    assert np.array_equal(
        crop(Image.fromarray(gray), box, spec),
        crop(Image.fromarray(np.where(outside, 255 - gray, gray).astype(np.uint8)), box, spec),
    )


def test_a_square_beyond_the_frame_is_black_there() -> None:
    white = Image.new("L", (40, 40), 255)
    square = crop(white, Box(0, 0, 40, 40), Crop(size=80, margin=0.5))
    assert square[:18].max() == 0
    assert square[22:58, 22:58].min() == 255


def test_the_lesion_keeps_its_shape() -> None:
    gray = np.zeros((60, 60), dtype=np.uint8)
    gray[20:30, 10:50] = 255
    square = crop(Image.fromarray(gray), Box(10, 20, 40, 10), Crop(size=60, margin=0.25)) > 127
    assert square.any(axis=0).sum() == pytest.approx(4 * square.any(axis=1).sum(), abs=2)


def test_a_lesion_crop_without_a_box_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs a box"):
        crop(Image.new("L", (20, 20)), None, Crop())


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d", "-1 2 3 4", "1 2 0 4", "1.5 2 3 4"])
def test_what_is_no_box(text: str) -> None:
    with pytest.raises(ValueError):
        Box.parse(text)


@given(boxes)
def test_a_box_survives_writing(box: Box) -> None:
    assert Box.parse(str(box)) == box
    assert box.inside((60, 40))
    assert not box.inside((box.x + box.width - 1, 40))


@pytest.mark.parametrize("spacing", [0.25, 0.7, 1.3])
@pytest.mark.parametrize("margin_mm", [0.0, 3.5, 12.0])
def test_a_margin_in_millimetres(margin_mm: float, spacing: float) -> None:
    gray = np.random.default_rng(5).integers(0, 256, (40, 50), dtype=np.uint8)
    spec, box = Crop(size=24, margin_mm=margin_mm), Box(12, 9, 14, 8)
    fast = crop(Image.fromarray(gray), box, spec, spacing_mm=spacing)
    assert np.abs(fast.astype(float) - slow_crop(gray, box, spec, spacing)).max() <= 1.01
    left, top, right, bottom = crop_square((50, 40), box, spec, spacing_mm=spacing)
    assert (right - left - 14) / 2 * spacing == pytest.approx(margin_mm)
    assert bottom - top == pytest.approx(right - left)


def test_a_margin_in_millimetres_needs_the_spacing_and_no_other_margin() -> None:
    with pytest.raises(ValueError, match="needs the spacing"):
        crop_square((50, 40), Box(1, 1, 5, 5), Crop(margin_mm=5))
    with pytest.raises(BadInput, match=r"crop: give either margin .* or margin_mm, not both"):
        parse(Experiment, {"name": "x", "task": TASK, "crop": {"margin": 0.5, "margin_mm": 5}}, where="x")
    with pytest.raises(BadInput, match=r"crop\.margin_mm"):
        parse(Experiment, {"name": "x", "task": TASK, "crop": {"margin_mm": -1}}, where="x")


TASK = {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"}

"""Breast lesions as a machine would show them, made quickly (some 8 ms each): what initial weights are learned on.

Unlike the archives' phantoms, which imitate particular centers, every lump has a machine of its own: resolution,
looks, dynamic range, gain, gray curve, smoothing, field of view, calipers and text are drawn anew, far beyond what real
machines span, so that what is learned holds on many.
"""

from __future__ import annotations

__all__ = ["Lump", "draw_lump"]

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from simulation.phantom.lump_scene import SIDE, Field, Rng, Scene, draw_scene
from simulation.phantom.lump_signs import Signs, draw_signs

_KY = fft.fftfreq(SIDE).astype(np.float32)[:, None]
_KX = fft.fftfreq(SIDE).astype(np.float32)[None, :]

Extent = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Lump:
    """`image` (SIDE, SIDE) uint8, `mask` (SIDE, SIDE), `box` (x, y, width, height) in px, and the signs it shows."""

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    box: Extent
    signs: Signs


def draw_lump(rng: Rng) -> Lump:
    """A lesion and a machine, both at random."""
    signs = draw_signs(rng)
    scene = draw_scene(rng, signs)
    rows, columns = np.nonzero(scene.mask)
    box = (int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    gray = _post_process(rng, _scan(rng, scene))
    _blacken(rng, gray, box)
    if rng.random() < 0.5:
        _mark_calipers(rng, gray, box)
    if rng.random() < 0.15:
        _write_text(rng, gray)
    return Lump(image=(gray * 255).astype(np.uint8), mask=scene.mask, box=box, signs=signs)


def _scan(rng: Rng, scene: Scene) -> Field:
    """Gray in [0, 1]: scatterers, point-spread function, the envelopes of some looks, log compression, a gray curve."""
    size = np.exp(rng.normal(0, 0.4))
    across = float(np.clip(1.3 * size * np.exp(rng.normal(0, 0.25)), 0.5, 6))
    down = float(np.clip(0.7 * size * np.exp(rng.normal(0, 0.25)), 0.4, 4))
    spread = _gaussian_response(across, down)
    amplitude = 10 ** (scene.echo_db / 20)
    looks = int(rng.choice([1, 2, 3, 4, 6]))
    power = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(looks):
        planes = rng.standard_normal((2, SIDE, SIDE), dtype=np.float32)
        echo = fft.ifft2(fft.fft2((planes[0] + 1j * planes[1]) * amplitude) * spread)
        power += np.abs(echo) ** 2
    level = 10 * np.log10(power / looks / np.mean(spread**2) + 1e-8)
    white = np.percentile(level, rng.uniform(96, 99.9))
    gray = np.clip(1 + (level - white) / rng.uniform(36, 62), 0, 1)
    return np.asarray(gray ** np.exp(rng.normal(0.25, 0.25)), dtype=np.float32)


def _gaussian_response(across: float, down: float) -> Field:
    return np.asarray(np.exp(-2 * np.pi**2 * ((_KX * across) ** 2 + (_KY * down) ** 2)), dtype=np.float32)


def _post_process(rng: Rng, gray: Field) -> Field:
    """Smoothing or sharpening in half of the machines, gain and offset in all."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.5, 1.3)
        smooth = fft.ifft2(fft.fft2(gray) * _gaussian_response(sigma, sigma)).real
        gray = smooth if rng.random() < 0.6 else gray + rng.uniform(0.3, 1) * (gray - smooth)
    shown = np.clip(gray * rng.uniform(0.45, 1.05) + rng.uniform(-0.03, 0.08), 0, 1)
    return np.asarray(shown, dtype=np.float32)


def _blacken(rng: Rng, gray: Field, box: Extent) -> None:
    """Black outside the field of view, which may end close to the lesion."""
    x, y, width, height = box
    if rng.random() < 0.35:
        gray[: max(0, int(y - rng.uniform(2, 30)))] = 0
    if rng.random() < 0.1:
        gray[min(SIDE, int(y + height + rng.uniform(5, 40))) :] = 0
    if rng.random() < 0.1:
        gray[:, : max(0, int(x - rng.uniform(2, 30)))] = 0
    if rng.random() < 0.1:
        gray[:, min(SIDE, int(x + width + rng.uniform(2, 30))) :] = 0


def _mark_calipers(rng: Rng, gray: Field, box: Extent) -> None:
    """Crosses about the lesion's extremes, whatever its class: no shortcut."""
    x, y, width, height = box
    value, arm = rng.uniform(0.5, 1), int(rng.integers(2, 6))
    middle_x, middle_y = x + width / 2, y + height / 2
    sides = [(middle_y, x), (middle_y, x + width), (y, middle_x), (y + height, middle_x)]
    corners = [(y, x), (y + height, x + width), (y, x + width), (y + height, x)]
    ends = corners if rng.random() < 0.3 else sides
    slanted = rng.random() < 0.2
    for end in ends[: rng.integers(2, 5)]:
        row, column = (int(at + rng.normal(0, 2.5)) for at in end)
        for k in range(-arm, arm + 1):
            strokes = ((k, k), (k, -k)) if slanted else ((k, 0), (0, k))
            for down, across in strokes:
                if 0 <= row + down < SIDE and 0 <= column + across < SIDE:
                    gray[row + down, column + across] = value


def _write_text(rng: Rng, gray: Field) -> None:
    """A line of illegible letters of 3 × 5 pixels above or below."""
    row = int(rng.integers(2, 20) if rng.random() < 0.5 else rng.integers(105, 122))
    column, value = int(rng.integers(0, 80)), rng.uniform(0.5, 1)
    for letter in range(rng.integers(3, 12)):
        at = column + 4 * letter
        ink = (rng.random((5, 3)) < 0.6)[:, : max(0, SIDE - at)]
        gray[row : row + 5, at : at + 3][ink] = value

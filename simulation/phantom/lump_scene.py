"""What the beam meets at a breast lesion: a map of echo levels in dB, and the lesion's mask.

Everything lies on a square of `SIDE` pixels; the lesion's longer extent is 44 to 78 of them.
"""

from __future__ import annotations

__all__ = ["SIDE", "Scene", "draw_scene", "smooth_noise"]

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

from simulation.phantom.lump_signs import Signs

SIDE = 128
"""Pixels a side of a scene."""

Field = npt.NDArray[np.float32]
Rng = np.random.Generator

_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32)
_KY = fft.fftfreq(SIDE).astype(np.float32)[:, None]
_KX = fft.rfftfreq(SIDE).astype(np.float32)[None, :]
_ANGLES = np.linspace(0, 2 * np.pi, 256, endpoint=False)


@dataclass(frozen=True, slots=True)
class Scene:
    """`echo_db` (SIDE, SIDE): backscatter before any machine; `mask` (SIDE, SIDE): the lesion, never empty."""

    echo_db: Field
    mask: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Place:
    """A lesion in the square, lengths in px; for each pixel its polar angle and its depth under the outline."""

    row: float
    down: float
    length: float
    angle: Field
    depth: Field


def smooth_noise(rng: Rng, across: float, down: float, *, tilt: float = 0.0) -> Field:
    """(SIDE, SIDE) Gaussian noise of mean 0 and deviation 1, smoothed by so many px along tilted axes."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    kx, ky = _KX * cos + _KY * sin, _KY * cos - _KX * sin
    low_pass = np.exp(-2 * np.pi**2 * ((kx * across) ** 2 + (ky * down) ** 2)).astype(np.float32)
    white = rng.standard_normal((2, *low_pass.shape), dtype=np.float32)
    spectrum = (white[0] + 1j * white[1]) * low_pass
    spectrum[0, 0] = 0
    noise = fft.irfft2(spectrum, (SIDE, SIDE))
    return np.asarray(noise / (noise.std() + 1e-9), dtype=np.float32)


def draw_scene(rng: Rng, signs: Signs) -> Scene:
    """The lesion with its `signs` in tissue that is drawn at random."""
    place = _place(rng, signs)
    mask = place.depth > 0
    if mask.sum() < 50:
        return draw_scene(rng, signs)
    share = _sigmoid(place.depth / _border_width(rng, signs))
    around = _tissue(rng) + _strands(rng, signs, place)
    level = signs.echo + signs.heterogeneity * smooth_noise(rng, rng.uniform(3, 9), rng.uniform(2, 7))
    echo = around * (1 - share) + (level + rng.uniform(0, 0.5) * around) * share
    echo += _rim(rng, signs, place) + _inclusions(rng, signs, mask, share) + _behind(rng, signs, place, mask, share)
    echo += rng.normal(0, 5) * (_ROWS / SIDE - 0.5) + rng.normal(0, 2) * smooth_noise(rng, 40, 40)
    return Scene(echo_db=np.asarray(echo, dtype=np.float32), mask=mask)


def _place(rng: Rng, signs: Signs) -> _Place:
    length = rng.uniform(44, 78)
    across = length / 2 / max(1.0, signs.aspect)
    down = across * signs.aspect
    row, column = SIDE / 2 + rng.normal(0, 7), SIDE / 2 + rng.normal(0, 5)
    dx, dy = _COLUMNS - column, _ROWS - row
    cos, sin = np.cos(signs.tilt), np.sin(signs.tilt)
    u, v = (dx * cos + dy * sin) / across, (dy * cos - dx * sin) / down
    angle = np.arctan2(v, u) % (2 * np.pi)
    outline = _outline(rng, signs)
    radius = np.interp(angle, np.append(_ANGLES, 2 * np.pi), np.append(outline, outline[0]))
    depth = (1 - np.hypot(u, v) / radius) * np.sqrt(across * down)
    depth += rng.uniform(0, 0.75) * smooth_noise(rng, 4, 4)
    return _Place(row=row, down=down, length=length, angle=angle, depth=depth.astype(np.float32))


def _outline(rng: Rng, signs: Signs) -> npt.NDArray[np.float64]:
    """The radius in each of `_ANGLES`, as a factor on the ellipse's."""
    irregular = signs.shape == "irregular"
    amplitude = {"oval": 0.03, "round": 0.02, "lobulated": 0.03, "irregular": 0.17}[signs.shape] * rng.uniform(0.6, 1.5)
    radius = np.ones_like(_ANGLES)
    for order in range(2, 10):
        wave = np.cos(order * _ANGLES + rng.uniform(0, 2 * np.pi))
        radius += 1.6 * amplitude * rng.normal() / order ** (0.9 if irregular else 1.4) * wave
    if signs.shape == "lobulated":
        lobes = np.abs(np.cos(rng.integers(2, 5) * _ANGLES / 2 + rng.uniform(0, 2 * np.pi)))
        radius += rng.uniform(0.08, 0.2) * (lobes - 0.6) + 0.06 * np.cos(3 * _ANGLES + rng.uniform(0, 2 * np.pi))
    match signs.margin:
        case "microlobulated":
            bent = rng.integers(7, 16) * _ANGLES / 2 + 0.8 * np.cos(2 * _ANGLES + rng.uniform(0, 2 * np.pi))
            radius += rng.uniform(0.04, 0.1) * np.abs(np.sin(bent + rng.uniform(0, 2 * np.pi)))
        case "angular":
            radius = 0.35 * radius + 0.65 * _polygon(rng, corners=int(rng.integers(4, 8)))
        case "spiculated":
            for _ in range(rng.integers(5, 14)):
                away = np.abs((_ANGLES - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)
                radius += rng.uniform(0.15, 0.55) * np.clip(1 - away / rng.uniform(0.06, 0.2), 0, 1) ** 1.5
        case "circumscribed" | "indistinct":
            pass
    return np.clip(radius, 0.25, 2.2)


def _polygon(rng: Rng, *, corners: int) -> npt.NDArray[np.float64]:
    normals, distances = rng.uniform(0, 2 * np.pi, corners), rng.uniform(0.6, 1.1, corners)
    towards = np.cos(_ANGLES[:, None] - normals[None])
    reach = np.where(towards > 0.05, distances / np.maximum(towards, 0.05), np.inf)
    return np.asarray(np.minimum(reach.min(1), 1.9))


def _border_width(rng: Rng, signs: Signs) -> Field | float:
    """How many px the border is wide: one value for a circumscribed lesion, else varying around it."""
    if signs.margin == "circumscribed":
        return 0.6
    widest = {"indistinct": rng.uniform(3, 7), "microlobulated": 0.8, "angular": 1.0, "spiculated": 1.2}[signs.margin]
    return np.asarray(0.8 + widest * (0.5 + 0.5 * np.tanh(1.5 * smooth_noise(rng, 18, 18))), dtype=np.float32)


def _tissue(rng: Rng) -> Field:
    """Layers of fat, gland and muscle with fasciae between them, their texture, and fibrous strands."""
    borders = np.sort(rng.uniform(-5, SIDE + 20, rng.integers(2, 6)))
    if rng.random() < 0.35:
        borders[0] = rng.uniform(0, 25)
    tilt = rng.normal(0, 0.1)
    tissue = np.full((SIDE, SIDE), rng.normal(0, 4), np.float32)
    for border in borders:
        wave = smooth_noise(rng, rng.uniform(15, 40), rng.uniform(30, 60))[0] * rng.uniform(1, 6)
        below = _ROWS - (border + wave[None, :] + (_COLUMNS - SIDE / 2) * tilt)
        share = _sigmoid(below / rng.uniform(0.5, 3))
        tissue = tissue * (1 - share) + share * rng.normal(0, 5)
        if rng.random() < 0.75:
            broken = 0.6 + 0.4 * np.tanh(smooth_noise(rng, 12, 12))
            tissue += rng.uniform(4, 18) * _ridge(below, rng.uniform(1, 3)) * broken
    grain = smooth_noise(rng, rng.uniform(8, 30), rng.uniform(3, 8), tilt=rng.normal(0, 0.15))
    tissue += rng.uniform(1, 6) * grain
    for _ in range(rng.integers(0, 3)):
        strand = smooth_noise(rng, rng.uniform(8, 30), rng.uniform(2.5, 7), tilt=rng.normal(0, 0.3))
        tissue += rng.uniform(2, 10) * _ridge(strand - rng.normal(0, 0.5), rng.uniform(0.15, 0.4))
    return np.asarray(tissue, dtype=np.float32)


def _strands(rng: Rng, signs: Signs, place: _Place) -> Field | float:
    """Spicules and distorted tissue: rays that leave the outline, brighter or darker than the tissue."""
    if signs.margin != "spiculated" and not signs.distortion:
        return 0.0
    phase = rng.integers(8, 24) * place.angle + rng.uniform(0, 2 * np.pi) + 2 * np.cos(2 * place.angle)
    fading = np.exp(-np.clip(-place.depth, 0, None) / (0.35 * place.length)) * (place.depth < 1)
    level = rng.uniform(2, 9) * max(signs.distortion, 0.5) * (1 if rng.random() < 0.6 else -1)
    return np.asarray(level * np.clip(np.cos(phase), 0, 1) ** 4 * fading, dtype=np.float32)


def _rim(rng: Rng, signs: Signs, place: _Place) -> Field:
    """A bright halo outside the outline, broken and weaker below; a thin capsule on it."""
    rim = np.zeros((SIDE, SIDE), np.float32)
    if signs.halo:
        thickness = 0.06 * place.length
        partial = (0.5 + 0.5 * np.tanh(1.5 * smooth_noise(rng, 18, 18))) * (place.row + 0.8 * place.down > _ROWS)
        rim += signs.halo * rng.uniform(4, 10) * _ridge(place.depth + thickness, thickness) * partial
    if signs.capsule:
        facing = 0.8 * np.abs(np.sin(place.angle)) ** 1.5 + 0.2
        rim += signs.capsule * rng.uniform(4, 12) * _ridge(place.depth, 1.2) * facing
    return rim


def _inclusions(rng: Rng, signs: Signs, mask: npt.NDArray[np.bool_], share: Field) -> Field:
    """Calcifications, bright points; cysts, dark discs."""
    level = np.zeros((SIDE, SIDE), np.float32)
    rows, columns = np.nonzero(mask)
    for _ in range(signs.cysts):
        at = rng.integers(len(rows))
        distance = np.hypot(_COLUMNS - columns[at], 1.4 * (_ROWS - rows[at]))
        level -= 18 * _sigmoid((rng.uniform(0.04, 0.16) * np.ptp(columns) - distance) / 0.8) * share
    for _ in range(signs.calcifications):
        at = rng.integers(len(rows))
        distance = np.hypot(_COLUMNS - columns[at], _ROWS - rows[at])
        level += rng.uniform(8, 22) * _ridge(distance, rng.uniform(0.7, 1.5))
    return level


def _behind(rng: Rng, signs: Signs, place: _Place, mask: npt.NDArray[np.bool_], share: Field) -> Field:
    """Shadow or enhancement, growing with the path through the lesion, and the shadows of its lateral edges."""
    rows, columns = np.nonzero(mask)
    path = np.cumsum(share, 0) / (np.ptp(rows) + 1)
    below = _sigmoid((_ROWS - place.row) / (0.6 * place.down))
    inside_too = signs.posterior < 0 and rng.random() < 0.5
    reach = path * (0.8 + 0.2 * below) if inside_too else path * (1 - 0.7 * share) * below
    level = signs.posterior * np.clip(reach, 0, 1.2)
    if signs.edge_shadow:
        for edge in (columns.min(), columns.max()):
            ray = _COLUMNS - edge - rng.normal(0, 0.1) * (_ROWS - place.row)
            fading = (place.row < _ROWS) * np.exp(-np.clip(_ROWS - place.row, 0, None) / 60)
            level = level - signs.edge_shadow * _ridge(ray, rng.uniform(1.5, 3.5)) * fading
    return np.asarray(level, dtype=np.float32)


def _ridge(distance: Field, width: float) -> Field:
    return np.asarray(np.exp(-((distance / width) ** 2)), dtype=np.float32)


def _sigmoid(x: Field) -> Field:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), dtype=np.float32)

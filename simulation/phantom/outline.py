"""Closed outlines in the image plane: an ellipse whose radius is modulated around the circle."""

from __future__ import annotations

__all__ = ["Outline", "blob", "harmonics", "inside"]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.physics import FloatImage

ANGLES = 512
"""Directions at which a modulation is tabulated."""


@dataclass(frozen=True, slots=True)
class Outline:
    """An ellipse with a modulated radius.

    row, column: center, px. across, down: semi-axes along the ellipse's own axes, px. tilt: radians, clockwise.
    modulation: (ANGLES,) factor on the radius, tabulated over 0 to 2π of the ellipse's own angle.
    """

    row: float
    column: float
    across: float
    down: float
    tilt: float
    modulation: NDArray[np.float32]

    def distance(self, shape: tuple[int, int]) -> FloatImage:
        """(H, W) about the distance to the outline, px: negative inside, exact along the ellipse's axes."""
        return self.distance_at(
            np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None, :]
        )

    def distance_at(self, rows: FloatImage, columns: FloatImage) -> FloatImage:
        """The same at points of any unit, where `rows` and `columns` meet by broadcasting."""
        cosine, sine = np.cos(self.tilt), np.sin(self.tilt)
        y = rows - np.float32(self.row)
        x = columns - np.float32(self.column)
        u = (x * np.float32(cosine) + y * np.float32(sine)) / np.float32(self.across)
        v = (y * np.float32(cosine) - x * np.float32(sine)) / np.float32(self.down)
        radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
        index = (np.arctan2(v, u) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        # A step of one radius is between `down` and `across` px long, depending on the direction.
        length = np.sqrt((u * np.float32(self.across)) ** 2 + (v * np.float32(self.down)) ** 2) / radius
        return np.asarray((radius - self.modulation[index]) * length, dtype=np.float32)


def harmonics(rng: np.random.Generator, *, orders: range, amplitude: float, decay: float = 1.0) -> NDArray[np.float32]:
    """(ANGLES,) zero-mean modulation: sines of the given orders with random phase, standard deviation `amplitude`."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    order = np.array(orders, dtype=float)
    weight = rng.standard_normal((2, len(order))) * order**-decay
    weight *= amplitude / np.sqrt((weight**2).sum() / 2 + 1e-12)
    wave = weight[0] @ np.sin(order[:, None] * angle) + weight[1] @ np.cos(order[:, None] * angle)
    return np.asarray(wave, dtype=np.float32)


def blob(
    rng: np.random.Generator, *, row: float, column: float, across: float, down: float, roughness: float = 0.1
) -> Outline:
    """A plain rounded area, such as a cyst, slightly out of round."""
    modulation = np.float32(1) + harmonics(rng, orders=range(2, 6), amplitude=roughness)
    return Outline(row, column, across, down, float(rng.uniform(-0.4, 0.4)), modulation)


def inside(distance: FloatImage, *, width_px: float) -> FloatImage:
    """(H, W) share that belongs to the inside, 1 to 0 across a border that is about `width_px` wide."""
    return np.asarray(np.float32(0.5) - np.float32(0.5) * np.tanh(distance * np.float32(1.5 / max(width_px, 0.3))))

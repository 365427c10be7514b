"""Breast-like lesions of every description, for learning initial weights that carry nobody's data.

Attributes follow the lexicon of BI-RADS ultrasound (Mendelson et al., ACR BI-RADS Atlas, 2013): shape, orientation,
margin, echo pattern, posterior features, calcifications. They are drawn broadly and mostly independently; malignancy is
then a noisy weighing of them, in the direction in which Stavros et al., Radiology 196 (1995) found each to point.
"""

from __future__ import annotations

__all__ = ["CATEGORIES", "SCALES", "LesionAttributes", "LesionImage", "draw_attributes", "sample_lesion"]

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.phantom.lesion_drawing import draw_lesion
from simulation.phantom.machines import Machine, acquire, random_machine

CATEGORIES: dict[str, tuple[str, ...]] = {
    "shape": ("round", "oval", "lobulated", "angular", "spiculated"),
    "echo_pattern": ("anechoic", "hypoechoic", "isoechoic", "hyperechoic", "heterogeneous"),
}
"""The attributes that are an index, and what each index means."""
SCALES: tuple[str, ...] = (
    "tallness",
    "lobulation",
    "angularity",
    "spiculation",
    "blur",
    "rim",
    "echo",
    "heterogeneity",
    "posterior",
    "calcification",
    "cystic",
)
"""The attributes that are a number in [0, 1], in the order of `LesionAttributes.scales`."""
WEIGHTS = {
    "tallness": 2.5,
    "lobulation": 0.8,
    "angularity": 2.5,
    "spiculation": 3.5,
    "blur": 1.8,
    "rim": 1.5,
    "echo": -1.0,
    "heterogeneity": 1.2,
    "posterior": -2.0,
    "calcification": 1.5,
    "cystic": -1.5,
}
"""Logit of malignancy per unit of each attribute."""
OFFSET = 1.2
"""Logit that makes about half of the lesions malignant."""


@dataclass(frozen=True, slots=True)
class LesionAttributes:
    """How a lesion looks. Scales are in [0, 1]; an index is a place in `CATEGORIES`.

    tallness: 0 lies flat, .5 as tall as wide, 1 stands. lobulation, angularity, spiculation: of the border. blur: of
    the margin. rim: an echogenic halo. echo: 0 free of echoes, .75 as the surroundings, 1 brighter. heterogeneity:
    patches inside. posterior: 0 shadow, .5 nothing, 1 enhancement. calcification: from none to many. cystic: share of
    fluid.
    """

    tallness: float
    lobulation: float
    angularity: float
    spiculation: float
    blur: float
    rim: float
    echo: float
    heterogeneity: float
    posterior: float
    calcification: float
    cystic: float
    shape: int
    echo_pattern: int

    def scales(self) -> NDArray[np.float32]:
        """The numbers in [0, 1], (len(SCALES),), in the order of `SCALES`."""
        return np.array(astuple(self)[: len(SCALES)], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class LesionImage:
    """A picture with one lesion.

    image: (H, W) uint8. mask: (H, W) bool. box: left, top, width, height of the mask, px. malignant: see the module.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    attributes: LesionAttributes
    malignant: bool


def sample_lesion(rng: np.random.Generator, *, machine: Machine | None = None) -> LesionImage:
    """One lesion in breast-like tissue; without a machine, any of a wide range. Some 15 ms on one thread."""
    machine = machine or random_machine(rng)
    attributes = draw_attributes(rng)
    shape = machine.frame.draw(rng, share=float(rng.uniform()))
    scene = draw_lesion(rng, attributes, shape, pixel_mm=machine.pixel_mm)
    image = acquire(rng, scene.tissue, machine, pixel_mm=machine.pixel_mm)
    rows, columns = np.flatnonzero(scene.mask.any(axis=1)), np.flatnonzero(scene.mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
    if rng.uniform() < 0.4:
        _burn_calipers(rng, image, box)
    weighed = OFFSET + sum(weight * (getattr(attributes, name) - 0.3) for name, weight in WEIGHTS.items())
    return LesionImage(image, scene.mask, box, attributes, bool(rng.logistic(scale=0.5) < weighed))


def draw_attributes(rng: np.random.Generator) -> LesionAttributes:
    """Attributes, broadly spread: each is plain in part of the lesions and anything in the others."""

    def sometimes(share: float) -> float:
        return float(rng.uniform()) if rng.uniform() < share else 0.0

    shape = int(rng.integers(len(CATEGORIES["shape"])))
    pattern = int(rng.choice(len(CATEGORIES["echo_pattern"]), p=[0.12, 0.40, 0.16, 0.10, 0.22]))
    low, high = ((0.0, 0.12), (0.2, 0.6), (0.65, 0.8), (0.85, 1.0), (0.2, 0.8))[pattern]
    named = CATEGORIES["shape"][shape]
    return LesionAttributes(
        tallness=float(rng.uniform(0.44, 0.56) if named == "round" else rng.beta(1.4, 2.0)),
        lobulation=float(rng.uniform(0.4, 1.0)) if named == "lobulated" else sometimes(0.3) * 0.6,
        angularity=float(rng.uniform(0.4, 1.0)) if named == "angular" else sometimes(0.2) * 0.4,
        spiculation=float(rng.uniform(0.4, 1.0)) if named == "spiculated" else 0.0,
        blur=sometimes(0.65),
        rim=sometimes(0.4),
        echo=float(rng.uniform(low, high)),
        heterogeneity=float(rng.uniform(0.5, 1.0)) if pattern == 4 else sometimes(0.4) * 0.4,
        posterior=float(np.clip(rng.normal(0.5, 0.28), 0, 1)),
        calcification=sometimes(0.3),
        cystic=sometimes(0.15),
        shape=shape,
        echo_pattern=pattern,
    )


def _burn_calipers(rng: np.random.Generator, image: NDArray[np.uint8], box: tuple[int, int, int, int]) -> None:
    """Draw white crosses in place where an operator measured: at the ends of the width, and mostly of the height."""
    left, top, width, height = box
    middle_row, middle_column = top + height // 2, left + width // 2
    places = [(middle_row, left), (middle_row, left + width)]
    if rng.uniform() < 0.7:
        places += [(top, middle_column), (top + height, middle_column)]
    arm, gray = int(rng.integers(3, 6)), np.uint8(rng.integers(180, 256))
    for row, column in places:
        row = int(np.clip(row + rng.normal(0, 3), arm, image.shape[0] - arm - 1))
        column = int(np.clip(column + rng.normal(0, 3), arm, image.shape[1] - arm - 1))
        image[row, column - arm : column + arm + 1] = gray
        image[row - arm : row + arm + 1, column] = gray

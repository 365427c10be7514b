"""One phantom case: features drawn, node drawn, picture acquired."""

from __future__ import annotations

__all__ = ["DEFAULT_VISIBILITY", "Case", "center_case", "sample_case"]

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from simulation.phantom.anatomy import draw_node
from simulation.phantom.centers import Center, lymphus_centers
from simulation.phantom.features import CaseMix, NodeFeatures, draw_features
from simulation.phantom.machines import Machine, acquire, random_machine, settings

DEFAULT_VISIBILITY = 0.75
"""Visibility at which a model reaches an AUC of .80 to .95 in its own center.

Measured with a ResNet-18 of group norm at 64 px on a center's own 60 % of patients, four centers, one phantom seed: .91
in the own center and .79 elsewhere at shift 1.
"""
TYPICAL_MM = 14.0
"""Middle of the maximum diameters, in mm."""
ARROW_SHARE = 0.07
"""Share of pictures with a burnt-in arrow, the same in both classes."""


@dataclass(frozen=True, slots=True)
class Case:
    """A picture and all that is known of it.

    image: (H, W) uint8. mask: (H, W) bool, the node. features: what a reader would note. values: the numbers that were
    put into the picture, by name.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    malignant: bool
    features: NodeFeatures
    machine: Machine
    values: dict[str, float]

    def truth(self) -> dict[str, str | float | bool]:
        """Every drawn value by name: features, drawing, machine."""
        machine = {f"machine_{name}": value for name, value in settings(self.machine).items()}
        frame = {"height": self.image.shape[0], "width": self.image.shape[1]}
        return {**asdict(self.features), **self.values, **frame, **machine}


def center_case(rng: np.random.Generator, center: Center, *, malignant: bool, visibility: float) -> Case:
    """One case of a center, with its machine, its case mix and its habit."""
    side = 1 if malignant else -1
    depth, contrast = (
        0.6 * rng.standard_normal(2) + (side * center.depth_habit, side * center.contrast_habit)
    ).tolist()
    machine = center.machine.set_for_depth(depth).set_for_contrast(contrast)
    return _case(
        rng, machine, center.mix[malignant], malignant=malignant, visibility=visibility, setting=(depth, contrast)
    )


def sample_case(
    rng: np.random.Generator,
    *,
    machine: Machine | None = None,
    malignant: bool | None = None,
    visibility: float = DEFAULT_VISIBILITY,
) -> Case:
    """One case for learning, in memory: any machine, the common case mix, no habit; both classes equally likely."""
    bad = bool(rng.uniform() < 0.5) if malignant is None else malignant
    return _case(
        rng, machine or random_machine(rng), _COMMON.mix[bad], malignant=bad, visibility=visibility, setting=(0.0, 0.0)
    )


_COMMON = lymphus_centers(seed=0, shift=0.0, extra=0, patients=None)[0]


def _case(
    rng: np.random.Generator,
    machine: Machine,
    mix: CaseMix,
    *,
    malignant: bool,
    visibility: float,
    setting: tuple[float, float],
) -> Case:
    features = draw_features(rng, mix)
    zoom = float(np.exp(rng.normal(0, 0.12)))
    # Frames are cut around the node: a large node mostly lies in a large frame.
    size = np.log(features.max_mm / TYPICAL_MM) / 0.3
    frame = machine.frame.draw(rng, share=float(ndtr(0.75 * size + 0.66 * rng.standard_normal())))
    node = draw_node(rng, features, frame, pixel_mm=machine.pixel_mm * zoom, visibility=visibility)
    image = acquire(rng, node.tissue, machine, pixel_mm=node.pixel_mm)
    arrow = rng.uniform() < ARROW_SHARE
    if arrow:
        _burn_arrow(rng, image, node.mask)
    values = {
        **node.values,
        "set_for_depth": setting[0],
        "set_for_contrast": setting[1],
        "arrow": float(arrow),
        "drawn_pixel_mm": node.pixel_mm,
    }
    return Case(image, node.mask, malignant, features, replace(machine, pixel_mm=node.pixel_mm), values)


def _burn_arrow(rng: np.random.Generator, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Draw a white arrow in place that points at the node from the upper left or right."""
    rows, columns = np.nonzero(mask)
    side = rng.choice([-1, 1])
    tip = rows.mean() - 0.3 * np.ptp(rows), columns.mean() + side * 0.42 * np.ptp(columns)
    size = 0.09 * min(image.shape)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    along = ((x - tip[1]) * side - (y - tip[0])) / np.sqrt(2)
    off = np.abs((x - tip[1]) * side + (y - tip[0])) / np.sqrt(2)
    head = (along >= 0) & (along < 0.45 * size) & (off < 0.6 * along)
    shaft = (along >= 0.4 * size) & (along < size) & (off < 0.09 * size)
    image[head | shaft] = 255

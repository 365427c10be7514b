"""Lesions for initial weights: their attributes are in range and show in the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.phantom.lesion_drawing import draw_lesion
from simulation.phantom.lesions import CATEGORIES, SCALES, LesionAttributes, draw_attributes, sample_lesion
from simulation.phantom.machines import COMMON_MACHINE, acquire

PLAIN = LesionAttributes(
    tallness=0.4,
    lobulation=0.0,
    angularity=0.0,
    spiculation=0.0,
    blur=0.0,
    rim=0.0,
    echo=0.4,
    heterogeneity=0.0,
    posterior=0.5,
    calcification=0.0,
    cystic=0.0,
    shape=1,
    echo_pattern=1,
)


def pictures(attributes: LesionAttributes, number: int = 10) -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        scene = draw_lesion(rng, attributes, (300, 320), pixel_mm=0.09)
        drawn.append((acquire(rng, scene.tissue, COMMON_MACHINE, pixel_mm=0.09).astype(float), scene.mask))
    return drawn


def level_behind(attributes: LesionAttributes) -> float:
    """Mean gray of the strip below the lesion less that of the same rows beside it."""
    differences = []
    for gray, mask in pictures(attributes):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        middle = slice(columns[0] + len(columns) // 4, columns[-1] - len(columns) // 4)
        below = gray[rows[-1] + 5 : rows[-1] + 45]
        beside = np.concatenate([below[:, : max(columns[0] - 5, 1)], below[:, columns[-1] + 5 :]], axis=1)
        differences.append(below[:, middle].mean() - beside.mean())
    return float(np.mean(differences))


def test_a_lesion_is_whole_and_boxed() -> None:
    rng = np.random.default_rng(0)
    lesions = [sample_lesion(rng) for _ in range(120)]
    for lesion in lesions:
        left, top, width, height = lesion.box
        assert lesion.image.dtype == np.uint8
        assert lesion.image.shape == lesion.mask.shape
        assert lesion.mask[top : top + height, left : left + width].sum() == lesion.mask.sum()
        assert lesion.mask[top].any()
        assert lesion.mask[:, left + width - 1].any()
    assert 0.35 < np.mean([lesion.malignant for lesion in lesions]) < 0.65


def test_attributes_are_in_range_and_use_it() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_attributes(rng) for _ in range(500)]
    scales = np.stack([attributes.scales() for attributes in drawn])
    assert scales.shape == (500, len(SCALES))
    assert scales.min() >= 0
    assert scales.max() <= 1
    assert np.all(np.ptp(scales, axis=0) > 0.6)
    for name, meanings in CATEGORIES.items():
        assert {getattr(attributes, name) for attributes in drawn} == set(range(len(meanings)))


def test_the_same_generator_gives_the_same_lesion() -> None:
    one, two = (sample_lesion(np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert one.attributes == two.attributes


def test_shadow_and_enhancement_lie_behind_the_lesion() -> None:
    shadow, none, bright = (level_behind(replace(PLAIN, posterior=value)) for value in (0.05, 0.5, 0.95))
    assert shadow < none - 15
    assert bright > none + 15


@pytest.mark.parametrize("name", ["spiculation", "angularity", "lobulation"])
def test_borders_are_longer_than_a_plain_one(name: str) -> None:
    def roughness(attributes: LesionAttributes) -> float:
        """Border pixels squared over area."""
        values = []
        for _, mask in pictures(attributes, 6):
            border = mask & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1))
            values.append(border.sum() ** 2 / mask.sum())
        return float(np.mean(values))

    assert roughness(replace(PLAIN, **{name: 1.0})) > 1.03 * roughness(PLAIN)


def test_tallness_and_echo_show() -> None:
    def height_over_width(attributes: LesionAttributes) -> float:
        return float(np.mean([np.ptp(np.nonzero(m)[0]) / np.ptp(np.nonzero(m)[1]) for _, m in pictures(attributes, 6)]))

    def brightness(attributes: LesionAttributes) -> float:
        return float(np.mean([gray[mask].mean() for gray, mask in pictures(attributes, 6)]))

    assert height_over_width(replace(PLAIN, tallness=0.9)) > 1.3 > 0.8 > height_over_width(replace(PLAIN, tallness=0.1))
    assert brightness(replace(PLAIN, echo=0.9)) > brightness(PLAIN) + 15 > brightness(replace(PLAIN, echo=0.05)) + 30

"""Features as Table 1 counts them, and whether they show in the picture."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.stats import binomtest

from simulation.phantom.anatomy import draw_node
from simulation.phantom.cases import center_case, sample_case
from simulation.phantom.centers import lymphus_centers
from simulation.phantom.features import TABLE_1, CaseMix, NodeFeatures, draw_features
from simulation.phantom.machines import COMMON_MACHINE, acquire, random_machine

PLAIN = NodeFeatures(
    max_mm=14.0,
    min_mm=7.0,
    echo="hypoechoic",
    heterogeneous=False,
    hilum_lost=False,
    eccentric=False,
    microcalcifications=False,
    necrosis=False,
    irregular_margin=False,
    ill_defined_margin=False,
    mixed=False,
    cyst=False,
)
FRAME = (360, 400)


def picture(features: NodeFeatures, seed: int, *, visibility: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gray values and mask of one node on the common machine."""
    rng = np.random.default_rng(seed)
    node = draw_node(rng, features, FRAME, pixel_mm=0.06, visibility=visibility)
    machine = replace(COMMON_MACHINE, smoothing=0.0, edge=0.0)
    return acquire(rng, node.tissue, machine, pixel_mm=node.pixel_mm).astype(float), node.mask


@pytest.mark.parametrize("center", [1, 2])
@pytest.mark.parametrize("malignant", [False, True])
def test_features_are_as_frequent_as_in_table_1(center: int, malignant: bool) -> None:
    mix = TABLE_1[center][malignant]
    rng = np.random.default_rng(center)
    drawn = [draw_features(rng, mix) for _ in range(3000)]
    for field in fields(CaseMix):
        share = getattr(mix, field.name)
        match field.name:
            case "max_mm":
                assert np.mean([node.max_mm for node in drawn]) == pytest.approx(share, rel=0.04)
            case "aspect":
                assert np.mean([node.aspect for node in drawn]) == pytest.approx(share, abs=0.015)
            case name:
                hits = sum(node.echo == name if name == "hyperechoic" else getattr(node, name) for node in drawn)
                assert binomtest(hits, len(drawn), share).pvalue > 1e-4, name


def test_features_come_together() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_features(rng, TABLE_1[1][True]) for _ in range(2000)]
    assert np.corrcoef([n.heterogeneous for n in drawn], [n.microcalcifications for n in drawn])[0, 1] > 0.08


def test_at_shift_zero_centers_differ_in_number_and_counts_alone() -> None:
    first, *others = lymphus_centers(seed=0, shift=0.0, extra=3, patients=None)
    for other in others:
        assert replace(other.machine, name="") == replace(first.machine, name="")
        assert other.mix == first.mix
        assert other.depth_habit == other.contrast_habit == first.depth_habit == first.contrast_habit == 0
    one = center_case(np.random.default_rng(5), first, malignant=True, visibility=0.5)
    two = center_case(np.random.default_rng(5), others[0], malignant=True, visibility=0.5)
    assert np.array_equal(one.image, two.image)


def test_at_shift_one_the_mix_is_table_1() -> None:
    one, two = lymphus_centers(seed=0, shift=1.0, extra=0, patients=None)
    for center in (one, two):
        for malignant in (False, True):
            for field in fields(CaseMix):
                want = getattr(TABLE_1[center.number][malignant], field.name)
                assert getattr(center.mix[malignant], field.name) == pytest.approx(want)
    assert one.depth_habit * two.depth_habit < 0
    assert one.contrast_habit * two.contrast_habit < 0


def test_a_kept_hilum_is_brighter_than_the_cortex_and_a_lost_one_is_not() -> None:
    def contrast(features: NodeFeatures) -> float:
        differences = []
        for seed in range(12):
            gray, mask = picture(features, seed)
            rows, columns = np.nonzero(mask)
            y, x = np.ogrid[: FRAME[0], : FRAME[1]]
            across, down = np.ptp(columns) / 2, np.ptp(rows) / 2
            radius = np.hypot((x - columns.mean()) / across, (y - rows.mean()) / down)
            differences.append(gray[mask & (radius < 0.2)].mean() - gray[mask & (radius > 0.7)].mean())
        return float(np.mean(differences))

    assert contrast(PLAIN) > contrast(replace(PLAIN, hilum_lost=True)) + 20


def test_the_mask_has_the_aspect_ratio_and_the_size() -> None:
    for aspect in (0.35, 0.8):
        seen, widths = [], []
        for seed in range(12):
            _, mask = picture(replace(PLAIN, min_mm=14 * aspect), seed)
            area = mask.sum()
            rows, columns = np.nonzero(mask)
            major = 4 * np.sqrt(np.linalg.eigvalsh(np.cov(rows, columns))[1])
            seen.append(4 * area / np.pi / major**2)
            widths.append(major * 0.06)
        assert np.mean(seen) == pytest.approx(aspect, abs=0.12)
        assert np.mean(widths) == pytest.approx(14, rel=0.12)


def test_calcifications_shine_and_a_cyst_is_dark() -> None:
    def quantile(features: NodeFeatures, q: float) -> float:
        return float(np.mean([np.quantile(gray[mask], q) for gray, mask in (picture(features, s) for s in range(8))]))

    lost = replace(PLAIN, hilum_lost=True)
    assert quantile(replace(lost, microcalcifications=True), 0.999) > quantile(lost, 0.999) + 10
    assert quantile(replace(lost, cyst=True), 0.1) < quantile(lost, 0.1) - 5


def test_nothing_of_the_class_is_drawn_at_visibility_zero() -> None:
    rng = np.random.default_rng(3)
    worst = replace(
        PLAIN, min_mm=13.0, hilum_lost=True, heterogeneous=True, irregular_margin=True, cyst=True, echo="hyperechoic"
    )
    values = {
        name: np.array(
            [
                list(draw_node(rng, features, (120, 130), pixel_mm=0.18, visibility=0.0).values.values())
                for _ in range(60)
            ]
        )
        for name, features in (("plain", PLAIN), ("worst", worst))
    }
    spread = values["plain"].std(axis=0) + 1e-9
    assert np.all(np.abs(values["plain"].mean(axis=0) - values["worst"].mean(axis=0)) / spread < 0.7)


def test_a_sampled_case_is_whole_and_a_function_of_its_generator() -> None:
    for seed in range(6):
        case, again = (sample_case(np.random.default_rng(seed)) for _ in range(2))
        assert case.image.dtype == np.uint8
        assert case.image.shape == case.mask.shape
        assert 0 < case.mask.sum() < case.mask.size
        assert np.array_equal(case.image, again.image)
        assert case.truth() == again.truth()


def test_random_machines_span_more_than_the_presets() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_machine(rng) for _ in range(300)]
    centers = lymphus_centers(seed=0, shift=1.0, extra=2, patients=None)
    for name in ("frequency_mhz", "dynamic_range_db", "gain_db", "smoothing", "edge", "compensated_db"):
        values = [getattr(machine, name) for machine in drawn]
        presets = [getattr(center.machine, name) for center in centers]
        assert min(values) < min(presets)
        assert max(presets) < max(values)

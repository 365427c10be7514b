"""Descriptors of tissue: against plain loops, and what moves which."""

from __future__ import annotations

import numpy as np
import pytest

from client.descriptors import blank_edges, describe, tissue_mask
from common.shift import DESCRIPTORS
from tests.speckle_world import BASE, GAIN, GAMMA, MARGIN, SPECKLE, Machine, pictures


def crops(machine: Machine = BASE, count: int = 60, *, bright: int = 0, malignant: int = 0) -> np.ndarray:
    return pictures(np.random.default_rng(0), np.full(count, malignant), np.full(count, bright), machine)


def means(images: np.ndarray) -> dict[str, float]:
    return dict(zip(DESCRIPTORS, describe(images, margin=MARGIN).mean(axis=0), strict=True))


def test_against_plain_loops() -> None:
    images = crops(count=3)
    mask = tissue_mask(32, margin=MARGIN)
    for image, row in zip(images, describe(images, margin=MARGIN), strict=True):
        gray = image.astype(float) / 255
        pixels = gray[mask]
        local, spread = np.zeros_like(gray), []
        for y in range(32):
            for x in range(32):
                window = np.s_[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
                near = gray[window][mask[window]]
                local[y, x] = near.mean() if len(near) else 0
                if mask[y, x]:
                    spread.append(near.std())
        residual = np.where(mask, gray - local, 0)
        down = [gray[y + 1, x] - gray[y, x] for y in range(31) for x in range(32) if mask[y, x] and mask[y + 1, x]]
        right = [gray[y, x + 1] - gray[y, x] for y in range(32) for x in range(31) if mask[y, x] and mask[y, x + 1]]
        power = np.abs(np.fft.fft2(residual)) ** 2
        radius = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)[None])
        expected = [
            pixels.mean(),
            pixels.std(),
            *np.quantile(pixels, [0.05, 0.5, 0.95]),
            (np.mean(np.square(down)) + np.mean(np.square(right))) / pixels.var(),
            half_length(residual, mask),
            half_length(residual.T, mask.T),
            power[radius > 0.25].sum() / power.sum(),
            np.mean(spread),
        ]
        np.testing.assert_allclose(row, expected, rtol=2e-3)


def half_length(residual: np.ndarray, mask: np.ndarray) -> float:
    power, before = (residual[mask] ** 2).mean(), 1.0
    for lag in range(1, 9):
        both = mask[lag:] & mask[:-lag]
        now = (residual[lag:] * residual[:-lag])[both].mean() / power
        if now < 0.5:
            return lag - 1 + (before - 0.5) / (before - now)
        before = now
    return 8.0


def test_a_machine_moves_what_it_should() -> None:
    base, gain, gamma, long = (means(crops(machine)) for machine in (BASE, GAIN, GAMMA, SPECKLE))
    assert gain["mean gray"] - base["mean gray"] == pytest.approx(3 / 60, abs=0.004)
    assert gamma["gray median"] == pytest.approx(base["gray median"] ** 1.3, abs=0.01)
    for name in ("speckle length, axial (px)", "speckle length, lateral (px)"):
        assert long[name] > 1.2 * base[name]
        assert gain[name] == pytest.approx(base[name], rel=0.03)
    assert long["high-frequency share"] < base["high-frequency share"]


def test_the_lesion_moves_nothing() -> None:
    """Other lesions in the same speckle: no pixel of theirs is counted."""
    plain = crops()
    inside = ~tissue_mask(32, margin=MARGIN)
    changed = plain.copy()
    changed[:, inside] = np.random.default_rng(1).integers(0, 256, changed[:, inside].shape)
    np.testing.assert_allclose(describe(plain, margin=MARGIN), describe(changed, margin=MARGIN), rtol=1e-5)


def test_a_blank_surround_does_not_count() -> None:
    images = crops(count=40)
    images[20:, :5], images[20:, :, 30:] = 0, 0
    assert blank_edges(images)[[0, 25]].tolist() == [[0, 0, 0, 0], [5, 0, 0, 2]]
    found = describe(images, margin=MARGIN)
    gray = [images[i][tissue_mask(32, margin=MARGIN, blank=(5, 0, 0, 2))].mean() / 255 for i in range(20, 40)]
    np.testing.assert_allclose(found[20:, 0], gray, rtol=1e-5)


def test_a_black_picture_and_a_crop_without_margin_give_numbers() -> None:
    assert np.isfinite(describe(np.zeros((2, 32, 32), dtype=np.uint8), margin=MARGIN)).all()
    assert tissue_mask(32, margin=0.0).all()
    assert np.isfinite(describe(crops(count=2), margin=0.0)).all()

"""Image formation against what the textbooks say of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from simulation.phantom import physics
from simulation.phantom.machines import COMMON_MACHINE, MACHINES, TISSUE_ATTENUATION, acquire, blend
from simulation.phantom.physics import Psf, Tissue

SHAPE = (384, 384)
PIXEL_MM = 0.06


def speckle(rng: np.random.Generator, psf: Psf, shape: tuple[int, int] = SHAPE) -> NDArray[np.complex64]:
    return physics.beamform(rng, physics.scatterers(rng, shape), psf)


def even(axial_px: float, lateral_px: float, rows: int = SHAPE[0]) -> Psf:
    return Psf(axial_px, np.full(rows, lateral_px))


def flat(level_db: float = 0.0, shape: tuple[int, int] = SHAPE) -> Tissue:
    return Tissue(np.full(shape, level_db, dtype=np.float32), None, np.empty((0, 3)))


def test_fully_developed_speckle_has_a_rayleigh_envelope() -> None:
    rng = np.random.default_rng(0)
    envelope = np.abs(speckle(rng, even(1.5, 2.5, rows=1024), (1024, 1024)))
    # Rayleigh: mean σ√(π/2), standard deviation σ√(2 − π/2); their ratio is 1.913.
    assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.02)
    assert np.mean(envelope**2) == pytest.approx(1, rel=0.03)
    apart = envelope[::12, ::20].ravel().astype(float)
    assert kstest(apart, "rayleigh", args=(0, np.sqrt(0.5))).pvalue > 0.01


@pytest.mark.parametrize("axis", [0, 1])
def test_beamforming_is_the_slow_convolution(axis: int) -> None:
    rng = np.random.default_rng(1)
    field = physics.scatterers(rng, (40, 48))
    psf = even(1.3, 2.1, rows=40)
    sigma = (1.3, 2.1)[axis]
    offset = np.arange(-12, 13)
    kernel = np.exp(-(offset**2) / (2 * sigma**2))
    kernel /= np.sqrt((kernel**2).sum())
    other = Psf(1e-3, psf.lateral_px) if axis else Psf(1.3, np.full(40, 1e-3))
    slow = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), axis, field)
    fast = physics.beamform(rng, field, other)
    middle = (slice(13, -13), slice(13, -13))
    assert np.allclose(fast[middle], slow[middle], atol=2e-3)


def correlation_px(envelope: NDArray[np.float32], axis: int) -> float:
    """Lag at which the autocovariance of the intensity falls to one half."""
    intensity = envelope**2 - (envelope**2).mean()
    spectrum = np.abs(np.fft.fft(intensity, axis=axis)) ** 2
    covariance = np.fft.ifft(spectrum.mean(axis=1 - axis)).real
    covariance /= covariance[0]
    below = int(np.argmax(covariance < 0.5))
    return float(below - (0.5 - covariance[below]) / (covariance[below - 1] - covariance[below]))


def test_speckle_grows_with_the_wavelength() -> None:
    depth = 18 + np.zeros(SHAPE[0])
    lengths = []
    for frequency in (5.0, 7.5, 10.0, 13.0):
        axial = physics.axial_sigma_mm(frequency, 0.6) / PIXEL_MM
        lateral = physics.lateral_sigma_mm(depth, frequency_mhz=frequency, f_number=2.0, focus_mm=18) / PIXEL_MM
        envelope = np.abs(speckle(np.random.default_rng(2), Psf(axial, lateral)))
        lengths.append((correlation_px(envelope, 0), correlation_px(envelope, 1)))
    assert all(coarse[axis] > fine[axis] for coarse, fine in pairwise(lengths) for axis in (0, 1))
    # Lateral lengths are proportional to the wavelength where the pixel resolves them.
    assert lengths[0][1] / lengths[2][1] == pytest.approx(2.0, rel=0.1)


def test_the_beam_is_narrowest_at_its_focus() -> None:
    depth = np.linspace(2, 40, 200)
    width = physics.lateral_sigma_mm(depth, frequency_mhz=8, f_number=2, focus_mm=18)
    assert depth[np.argmin(width)] == pytest.approx(18, abs=0.2)
    assert width.min() == pytest.approx(2 * 1.54 / 8 / 2.3548, rel=1e-3)


@pytest.mark.parametrize("compensated", [0.40, 0.55, 0.65])
def test_the_level_falls_with_depth_as_attenuation_less_compensation(compensated: float) -> None:
    depth = PIXEL_MM * np.arange(SHAPE[0])
    left = physics.attenuation_db(depth, frequency_mhz=8.0, tissue_db=TISSUE_ATTENUATION, compensated_db=compensated)
    rng = np.random.default_rng(3)
    field = physics.backscatter(rng, flat(), frequency_mhz=8.0, pixel_mm=PIXEL_MM, left_db=left)
    envelope = np.abs(physics.beamform(rng, field, even(1.2, 2.0)))
    level = 10 * np.log10(np.mean(envelope**2, axis=1))
    slope_db_per_cm = np.polyfit(depth / 10, level, 1)[0]
    assert slope_db_per_cm == pytest.approx(-2 * (TISSUE_ATTENUATION - compensated) * 8.0, abs=0.25)


def test_an_attenuating_block_casts_a_shadow_of_its_own_depth_times_frequency() -> None:
    excess = np.zeros(SHAPE, dtype=np.float32)
    excess[100:200, :192] = 0.5
    tissue = replace(flat(), excess=excess)
    rng = np.random.default_rng(4)
    field = physics.backscatter(rng, tissue, frequency_mhz=6.0, pixel_mm=PIXEL_MM, left_db=np.zeros(SHAPE[0]))
    intensity = np.abs(field[220:]) ** 2
    shadow = 10 * np.log10(intensity[:, :192].mean() / intensity[:, 192:].mean())
    assert shadow == pytest.approx(-2 * 0.5 * 6.0 * 100 * PIXEL_MM / 10, abs=0.2)


def test_compression_spans_the_dynamic_range() -> None:
    envelope = np.array([1.0, 10 ** (20 / 20), 10 ** (-20 / 20)], dtype=np.float32)
    gray = physics.compress(envelope, dynamic_range_db=60, gain_db=6)
    assert gray == pytest.approx([physics.MID_GRAY + 6 / 60 + step / 60 for step in (0, 20, -20)], abs=1e-5)


def test_display_without_processing_is_a_rounding() -> None:
    gray = np.linspace(-0.2, 1.2, 50, dtype=np.float32)[:, None]
    shown = physics.display(gray, smooth_px=1, smoothing=0, edge_px=1, edge=0, gamma=1)
    assert np.array_equal(shown, np.round(np.clip(gray, 0, 1) * 255))


def test_machines_coincide_at_shift_zero_and_part_with_the_dial() -> None:
    names = ("frequency_mhz", "dynamic_range_db", "gain_db", "smoothing", "pixel_mm", "compensated_db")
    at_zero = [replace(blend(COMMON_MACHINE, own, shift=0.0), name="") for own in MACHINES]
    assert all(machine == replace(COMMON_MACHINE, name="") for machine in at_zero)
    for own in MACHINES:
        assert all(
            getattr(blend(COMMON_MACHINE, own, shift=1.0), name) == pytest.approx(getattr(own, name)) for name in names
        )
    for name in names:
        apart = [
            abs(np.subtract(*(getattr(blend(COMMON_MACHINE, own, shift=shift), name) for own in MACHINES[:2])))
            for shift in (0.0, 0.5, 1.0, 1.2)
        ]
        assert apart == sorted(apart)


def test_a_brighter_setting_gives_a_brighter_picture() -> None:
    pictures = [
        acquire(np.random.default_rng(5), flat(), replace(COMMON_MACHINE, gain_db=gain), pixel_mm=PIXEL_MM)
        for gain in (-6.0, 0.0, 6.0)
    ]
    means = [picture.mean() for picture in pictures]
    assert np.diff(means) == pytest.approx(6 / COMMON_MACHINE.dynamic_range_db * 255, rel=0.05)

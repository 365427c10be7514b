"""B-mode image formation: from a map of tissue to the gray values that a machine would show.

The chain is the field's linear model. Many scatterers below the resolution of the machine, with random phase, are
convolved with a point-spread function that is separable in depth and width; depth attenuation is partly undone by the
time-gain compensation; noise is added before the receive filter; the envelope is compressed to decibels and mapped to
gray. The field is computed in the complex baseband, whose modulus is the envelope, so that the grid must resolve the
pulse's envelope and not its carrier.

Axes: 0 is depth (downwards), 1 is width. Lengths in mm unless a name ends in `_px`; levels in dB of amplitude
(20 log10), 0 dB being the mean muscle of the neck.

Sources: Jensen, "Field: a program for simulating ultrasound systems", Med Biol Eng Comput 34 (1996), for the
convolution of scatterers with a point-spread function; Wagner, Smith, Sandrik and Lopez, "Statistics of speckle in
ultrasound B-scans", IEEE Trans Sonics Ultrason 30 (1983), for circular Gaussian fields, the Rayleigh envelope and its
ratio of mean to standard deviation of 1.91; Szabo, "Diagnostic Ultrasound Imaging: Inside Out" (2014), chapters 4
(attenuation) and 10 (imaging systems and their processing).
"""

from __future__ import annotations

__all__ = [
    "SPEED_MM_PER_US",
    "FloatImage",
    "Psf",
    "Tissue",
    "attenuation_db",
    "axial_sigma_mm",
    "backscatter",
    "beamform",
    "compress",
    "display",
    "lateral_sigma_mm",
    "scatterers",
]

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

FloatImage = NDArray[np.float32]
ComplexImage = NDArray[np.complex64]

SPEED_MM_PER_US = 1.54
"""Speed of sound in soft tissue, mm/µs, as every machine assumes."""
FWHM_PER_SIGMA = float(2 * np.sqrt(2 * np.log(2)))
MID_GRAY = 0.42
"""Gray, in [0, 1], at which 0 dB is shown with no extra gain."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """What the beam meets: the scene before any machine.

    echo_db: (H, W), backscatter level in dB.
    excess: (H, W), attenuation above that of the surrounding tissue, dB/cm/MHz, one way; negative where fluid
        attenuates less, which gives the enhancement behind a cyst. None where nothing differs.
    points: (P, 3) of row, column (px) and amplitude in dB: bright targets smaller than a pixel, such as calcifications.
    """

    echo_db: FloatImage
    excess: FloatImage | None
    points: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Psf:
    """A separable Gaussian point-spread function: standard deviations of its amplitude, in pixels.

    axial_px: along depth. lateral_px: (H,), along width for each row, since the beam widens away from its focus.
    """

    axial_px: float
    lateral_px: NDArray[np.float64]


def axial_sigma_mm(frequency_mhz: float, bandwidth: float) -> float:
    """Standard deviation in depth of the envelope of a Gaussian pulse whose −6 dB bandwidth is `bandwidth`, a fraction.

    A spectrum of full width B·f₀ at half amplitude has σ_f = B·f₀ / 2.355; in time σ_t = 1 / (2π σ_f), and a two-way
    path halves it in space. Szabo 2014, section 3.3.
    """
    sigma_mhz = bandwidth * frequency_mhz / FWHM_PER_SIGMA
    return SPEED_MM_PER_US / 2 / (2 * np.pi * sigma_mhz)


def lateral_sigma_mm(
    depth_mm: NDArray[np.float64], *, frequency_mhz: float, f_number: float, focus_mm: float
) -> NDArray[np.float64]:
    """Standard deviation of the beam's width at each depth: F·λ wide (−6 dB, two-way) at the focus, wider off it.

    Off the focus the width grows as that of a Gaussian beam with a depth of field of 8·F²·λ, which dynamic receive
    focusing stretches fourfold here. Szabo 2014, section 6.6.
    """
    wavelength = SPEED_MM_PER_US / frequency_mhz
    depth_of_field = 32 * f_number**2 * wavelength
    spread = np.sqrt(1 + ((depth_mm - focus_mm) / depth_of_field) ** 2)
    return np.asarray(f_number * wavelength / FWHM_PER_SIGMA * spread)


def attenuation_db(
    depth_mm: NDArray[np.float64], *, frequency_mhz: float, tissue_db: float, compensated_db: float
) -> NDArray[np.float64]:
    """Level left at each depth, dB: two-way loss (tissue_db − compensated_db)·f per cm, both in dB/cm/MHz one way.

    Zero where the time-gain compensation knows the tissue exactly. Szabo 2014, section 4.2.
    """
    return np.asarray(-2 * (tissue_db - compensated_db) * frequency_mhz * depth_mm / 10)


def scatterers(rng: np.random.Generator, shape: tuple[int, int]) -> ComplexImage:
    """(H, W) circular complex Gaussian of unit variance: the sum of many scatterers of random phase in each pixel."""
    planes = rng.standard_normal((*shape, 2), dtype=np.float32)
    planes *= np.float32(np.sqrt(0.5))
    return planes.view(np.complex64)[..., 0]


def backscatter(
    rng: np.random.Generator, tissue: Tissue, *, frequency_mhz: float, pixel_mm: float, left_db: NDArray[np.float64]
) -> ComplexImage:
    """The scatterers' (H, W) strengths as they return: level, what is left at their depth, and shadows from above."""
    level = tissue.echo_db + left_db[:, None].astype(np.float32)
    if tissue.excess is not None:
        shadow = np.cumsum(tissue.excess, axis=0, dtype=np.float32)
        level = level - shadow * np.float32(2 * frequency_mhz * pixel_mm / 10)
    field = scatterers(rng, (level.shape[0], level.shape[1]))
    field *= amplitude(level)
    if len(tissue.points):
        rows, columns = tissue.points[:, 0].astype(int), tissue.points[:, 1].astype(int)
        phase = rng.uniform(0, 2 * np.pi, len(rows))
        field[rows, columns] += 10 ** (tissue.points[:, 2] / 20) * np.exp(1j * phase)
    return field


def amplitude(level_db: FloatImage) -> FloatImage:
    """10^(dB/20), through the faster exp."""
    return np.asarray(np.exp(level_db * np.float32(np.log(10) / 20)))


def beamform(
    rng: np.random.Generator, field: ComplexImage, psf: Psf, *, noise: NDArray[np.float64] | None = None
) -> ComplexImage:
    """Convolve with the point-spread function: along the width row by row, add noise, then along the depth.

    Both kernels have unit energy, so fully developed speckle keeps its mean square. noise: (H,) standard deviation of
    the amplitude of the receiver's noise in each row; it passes the receive filter like an echo. Returns (H, W).
    """
    height, width = field.shape
    margin_x, margin_z = int(4 * psf.lateral_px.max()) + 1, int(4 * psf.axial_px) + 1
    columns, rows = fft.next_fast_len(width + margin_x), fft.next_fast_len(height + margin_z)
    lateral = unit_energy_response(columns, psf.lateral_px[:, None])
    spread = fft.ifft(fft.fft(field, columns, axis=1) * lateral, axis=1, overwrite_x=True)[:, :width]
    if noise is not None:
        spread += scatterers(rng, (height, width)) * noise[:, None].astype(np.float32)
    axial = unit_energy_response(rows, np.array([psf.axial_px]))[0][:, None]
    return fft.ifft(fft.fft(spread, rows, axis=0) * axial, axis=0, overwrite_x=True)[:height]


def unit_energy_response(length: int, sigma_px: NDArray[np.float64]) -> FloatImage:
    """Transfer function, (..., length), of a Gaussian kernel of unit energy.

    With |H|² = exp(−(2πσν)²) scaled so that its mean over the frequencies is one (Parseval), white noise of unit
    variance keeps it; this also holds for kernels narrower than a pixel.
    """
    frequency = fft.fftfreq(length)
    response = np.exp(-2 * (np.pi * sigma_px.reshape(-1, 1) * frequency) ** 2)
    response /= np.sqrt(np.mean(response**2, axis=1, keepdims=True))
    return response.astype(np.float32)


def compress(envelope: FloatImage, *, dynamic_range_db: float, gain_db: float) -> FloatImage:
    """Gray in [0, 1] and beyond, linear in dB: 0 dB without gain is MID_GRAY, the range spans black to white."""
    level = np.log(np.maximum(envelope, np.float32(1e-4))) * np.float32(20 / np.log(10))
    return level * np.float32(1 / dynamic_range_db) + np.float32(MID_GRAY + gain_db / dynamic_range_db)


def display(
    gray: FloatImage, *, smooth_px: float, smoothing: float, edge_px: float, edge: float, gamma: float
) -> NDArray[np.uint8]:
    """What vendors do after compression: speckle reduction, edge enhancement, a gray curve; (H, W) of 0 to 255.

    smoothing: share, in [0, 1], of the picture that a Gaussian of `smooth_px` replaces. edge: weight of the unsharp
    mask of `edge_px`. gamma: exponent of the gray curve. Szabo 2014, section 10.11.
    """
    if smoothing > 0:
        gray = gray + np.float32(smoothing) * (gaussian_filter(gray, smooth_px, truncate=2.5) - gray)
    if edge > 0:
        gray = gray + np.float32(edge) * (gray - gaussian_filter(gray, edge_px, truncate=2.5))
    shown = np.clip(gray, 0, 1) ** np.float32(gamma)
    return (shown * np.float32(255) + np.float32(0.5)).astype(np.uint8)

"""Small speckle pictures by the thousand, and patients drawn from banks of them: for tests of domain shift.

A picture is log-compressed Rayleigh speckle (a complex Gaussian field through a Gaussian point spread) of tissue with a
darker lesion in its middle; malignant ones are darker and less regular. A lesion of subtype 1 has a bright core: more
of them is another case mix, which changes nothing beside the lesion. None of it uses the code under test.
"""

from __future__ import annotations

__all__ = [
    "BASE",
    "GAIN",
    "GAMMA",
    "SIZE",
    "SPECKLE",
    "MARGIN",
    "Bank",
    "Machine",
    "draw_sites",
    "features",
    "make_bank",
    "pictures",
]

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view

from client.descriptors import describe
from client.shift import Patients

SIZE, MARGIN = 32, 0.25


@dataclass(frozen=True)
class Machine:
    """How a picture is taken: gain in dB on a display of 60 dB, exponent of the gray curve,
    factor of speckle length.
    """

    gain: float = 0.0
    gamma: float = 1.0
    length: float = 1.0


BASE, GAIN, GAMMA, SPECKLE = Machine(), Machine(gain=3.0), Machine(gamma=1.3), Machine(length=1.5)


def pictures(
    rng: np.random.Generator, malignant: np.ndarray, subtype: np.ndarray, machine: Machine = BASE
) -> np.ndarray:
    """One picture (SIZE, SIZE) uint8 for each of `malignant` (N,) 0/1 and `subtype` (N,) 0/1."""
    n = len(malignant)
    field = rng.standard_normal((n, SIZE, SIZE), dtype=np.float32) + 1j * rng.standard_normal(
        (n, SIZE, SIZE), dtype=np.float32
    )
    down, across = np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None]
    a, b = 0.8 * machine.length, 1.2 * machine.length
    pass_band = np.exp(-2 * np.pi**2 * ((a * down) ** 2 + (b * across) ** 2)).astype(np.float32)
    field = scipy.fft.ifft2(scipy.fft.fft2(field.astype(np.complex64)) * (pass_band / np.sqrt((pass_band**2).mean())))
    decibel = 20 * np.log10(np.abs(field) / np.sqrt(2) + 1e-4) + 34 + machine.gain
    decibel += rng.normal(0, 1.5, (n, 1, 1))
    decibel += _lesion(rng, malignant, subtype)
    gray = np.clip(decibel / 60, 0, 1) ** machine.gamma
    return np.round(255 * gray).astype(np.uint8)


def _lesion(rng: np.random.Generator, malignant: np.ndarray, subtype: np.ndarray) -> np.ndarray:
    """What lesions add in dB, (N, SIZE, SIZE)."""
    n = len(malignant)
    at = np.arange(SIZE) - (SIZE - 1) / 2
    y, x = at[None, :, None], at[None, None, :]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    spikes = np.where(malignant, 0.13, 0.04)[:, None, None] * np.sin(5 * angle + rng.uniform(0, 6.3, (n, 1, 1)))
    edge = rng.uniform(6, 8.5, (n, 1, 1)) * (1 + spikes)
    darker = -np.where(malignant, rng.normal(12, 3.5, n), rng.normal(7.5, 3.5, n))[:, None, None]
    core = np.where(subtype, 12.0, 0.0)[:, None, None] * (radius < 3.5)
    inside: np.ndarray = np.where(radius < edge, darker + core, 0.0)
    return inside


def features(crops: np.ndarray) -> np.ndarray:
    """What stands in for a model's pooled features: 32 random 5 × 5 filters, rectified, pooled over the middle and over
    all.

    (N, S, S) to (N, 64).
    """
    rng = np.random.default_rng(5)
    filters = rng.standard_normal((25, 32)).astype(np.float32) / 5
    bias = rng.normal(0, 0.3, 32).astype(np.float32)
    found = []
    for at in range(0, len(crops), 256):
        images = (crops[at : at + 256].astype(np.float32) / 255 - 0.45) / 0.2
        windows = sliding_window_view(images, (5, 5), axis=(1, 2))[:, ::2, ::2].reshape(len(images), 14, 14, 25)
        maps = np.maximum(windows @ filters + bias, 0)
        found.append(np.concatenate([maps[:, 3:11, 3:11].mean(axis=(1, 2)), maps.mean(axis=(1, 2))], axis=1))
    return np.concatenate(found).astype(np.float64)


@dataclass(frozen=True)
class Bank:
    """Patients' vectors by class and subtype, each (P, D + 64); every draw from it is independent, with replacement."""

    patients: dict[tuple[int, int], np.ndarray]

    def draw(self, rng: np.random.Generator, count: int, *, prevalence: float = 0.5, bright: float = 0.3) -> Patients:
        """`count` patients, a share of about `prevalence` positive and `bright` of subtype 1."""
        classes = (rng.random(count) < prevalence).astype(np.int64)
        subtype = (rng.random(count) < bright).astype(np.int64)
        values = np.empty((count, next(iter(self.patients.values())).shape[1]))
        for (c, s), known in self.patients.items():
            which = (classes == c) & (subtype == s)
            values[which] = known[rng.integers(0, len(known), int(which.sum()))]
        return Patients(values, classes)


@functools.lru_cache(maxsize=16)
def make_bank(machine: Machine = BASE, *, each: int = 500) -> Bank:
    """`each` patients of every class and subtype, with 1 to 3 pictures a patient."""
    rng = np.random.default_rng(
        [17, round(100 * machine.gain), round(100 * machine.gamma), round(100 * machine.length)]
    )
    return Bank({(c, s): _patients(rng, machine, c, s, each) for c in (0, 1) for s in (0, 1)})


def _patients(rng: np.random.Generator, machine: Machine, malignant: int, subtype: int, count: int) -> np.ndarray:
    times = rng.integers(1, 4, count)
    owner = np.repeat(np.arange(count), times)
    crops = pictures(rng, np.full(len(owner), malignant), np.full(len(owner), subtype), machine)
    vectors = np.concatenate([describe(crops, margin=MARGIN), features(crops)], axis=1)
    totals = np.zeros((count, vectors.shape[1]))
    np.add.at(totals, owner, vectors)
    return np.asarray(totals / times[:, None])


def draw_sites(
    rng: np.random.Generator, banks: Sequence[Bank], count: int, *, prevalence: Sequence[float], bright: Sequence[float]
) -> dict[str, Patients]:
    """One site for each bank, `count` patients each."""
    return {
        f"site-{i}": bank.draw(rng, count, prevalence=p, bright=b)
        for i, (bank, p, b) in enumerate(zip(banks, prevalence, bright, strict=True))
    }

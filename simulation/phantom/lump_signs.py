"""The sonographic signs of a breast lesion, drawn as they go with a benign or a malignant one.

The signs are BI-RADS's: shape, margin, orientation, echo pattern, posterior features, and what goes with them. How
often each sign accompanies which class follows, roughly, Stavros et al., Radiology 196:123 (1995), and Rahbar et al.,
Radiology 213:889 (1999). The frequencies are the literature's, not any data set's.
"""

from __future__ import annotations

__all__ = ["MARGINS", "SHAPES", "Signs", "draw_signs"]

from dataclasses import dataclass
from typing import Literal

import numpy as np

Shape = Literal["oval", "round", "lobulated", "irregular"]
Margin = Literal["circumscribed", "indistinct", "microlobulated", "angular", "spiculated"]

SHAPES: tuple[Shape, ...] = ("oval", "round", "lobulated", "irregular")
MARGINS: tuple[Margin, ...] = ("circumscribed", "indistinct", "microlobulated", "angular", "spiculated")

_SHAPE_ODDS = {False: (0.62, 0.10, 0.20, 0.08), True: (0.12, 0.08, 0.15, 0.65)}
_MARGIN_ODDS = {False: (0.74, 0.15, 0.06, 0.04, 0.01), True: (0.10, 0.30, 0.20, 0.20, 0.20)}


@dataclass(frozen=True, slots=True)
class Signs:
    """What a reader would note. Levels are in dB against the tissue around; strengths are 0 (absent) to 1.

    `aspect`: height over width before the tilt, which is in radians; `echo`: level inside; `heterogeneity`: its
    standard deviation; `posterior`: level behind the lesion, negative for a shadow; `halo`: bright rim of reaction;
    `capsule`: thin bright line on the outline; `calcifications`, `cysts`: how many; `edge_shadow`: dB lost behind the
    lateral edges; `distortion`: strands drawn towards the lesion.
    """

    malignant: bool
    shape: Shape
    margin: Margin
    aspect: float
    tilt: float
    echo: float
    heterogeneity: float
    posterior: float
    halo: float
    capsule: float
    calcifications: int
    cysts: int
    edge_shadow: float
    distortion: float


def draw_signs(rng: np.random.Generator) -> Signs:
    """A lesion that is malignant in 45 % of draws, with signs that go with its class."""
    bad = bool(rng.random() < 0.45)
    shape = SHAPES[rng.choice(len(SHAPES), p=_SHAPE_ODDS[bad])]
    margin = MARGINS[rng.choice(len(MARGINS), p=_MARGIN_ODDS[bad])]
    aspect = float(np.clip(np.exp(rng.normal(np.log(0.82 if bad else 0.58), 0.25)), 0.3, 1.6))
    if shape == "round":
        aspect = float(np.clip(aspect, 0.85, 1.15))
    cystic = not bad and rng.random() < 0.13
    echo = float(rng.normal(*((-28, 3) if cystic else (-11, 4) if bad else (-8, 4))))
    posterior = _posterior(rng, bad)
    return Signs(
        malignant=bad,
        shape=shape,
        margin=margin,
        aspect=aspect,
        tilt=float(rng.normal(0, 0.45 if bad else 0.18)),
        echo=echo,
        heterogeneity=float(abs(rng.normal(0, 3.5 if bad else 2))),
        posterior=abs(posterior) + 3 if echo < -20 else posterior,
        halo=_maybe(rng, 0.35 if bad else 0.04),
        capsule=_maybe(rng, 0.03 if bad else 0.35),
        calcifications=int(rng.integers(3, 18)) if rng.random() < (0.30 if bad else 0.07) else 0,
        cysts=int(rng.integers(1, 6)) if rng.random() < (0.07 if bad else 0.12) else 0,
        edge_shadow=10 * _maybe(rng, 0.10 if bad else 0.30),
        distortion=_maybe(rng, 0.35 if bad else 0.03),
    )


def _posterior(rng: np.random.Generator, bad: bool) -> float:
    shadow, enhancement = (0.38, 0.20) if bad else (0.07, 0.40)
    coin = rng.random()
    if coin < shadow:
        return float(-rng.uniform(3, 18))
    if coin < shadow + enhancement:
        return float(rng.uniform(2, 9))
    return float(rng.normal(0, 1))


def _maybe(rng: np.random.Generator, probability: float) -> float:
    return float(rng.uniform(0.3, 1)) if rng.random() < probability else 0.0

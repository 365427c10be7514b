"""The semantic features of a cervical node, drawn as LymphUs's Table 1 counts them.

Source: LymphUs, Data in Brief 66:112694 (2026), Table 1; the features are those that sonographers read in nodes of
papillary thyroid carcinoma (Leboulleux et al., J Clin Endocrinol Metab 92 (2007)).
"""

from __future__ import annotations

__all__ = ["TABLE_1", "CaseMix", "NodeFeatures", "blend_mix", "draw_features"]

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from scipy.special import ndtr

Echo = Literal["hypoechoic", "isoechoic", "hyperechoic"]


@dataclass(frozen=True, slots=True)
class CaseMix:
    """How a class looks at one center: mean diameter (mm) and aspect ratio, and the share of nodes with a feature."""

    max_mm: float
    aspect: float
    hyperechoic: float
    heterogeneous: float
    hilum_lost: float
    eccentric: float
    microcalcifications: float
    necrosis: float
    irregular_margin: float
    ill_defined_margin: float
    mixed: float
    cyst: float


TABLE_1: dict[int, dict[bool, CaseMix]] = {
    1: {
        True: CaseMix(16.1, 0.68, 0.567, 0.555, 1.0, 0.0, 0.555, 0.061, 0.506, 0.296, 0.061, 0.037),
        False: CaseMix(13.0, 0.34, 0.010, 0.0, 0.181, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    },
    2: {
        True: CaseMix(14.4, 0.64, 0.426, 0.426, 0.951, 0.780, 0.487, 0.085, 0.317, 0.0, 0.109, 0.146),
        False: CaseMix(14.3, 0.42, 0.0, 0.0, 0.118, 0.039, 0.0, 0.0, 0.026, 0.0, 0.0, 0.013),
    },
}
"""Case mix by center and by malignancy."""

SEVERITY_SHARE = 0.5
"""Correlation of a feature's latent variable with the node's common severity: features come together."""
ISOECHOIC_SHARE = 0.08
"""Of the nodes that are not hyperechoic; Table 1 does not say."""


@dataclass(frozen=True, slots=True)
class NodeFeatures:
    """What a reader would note of one node. Diameters in mm in the best plane; aspect is minimum over maximum."""

    max_mm: float
    min_mm: float
    echo: Echo
    heterogeneous: bool
    hilum_lost: bool
    eccentric: bool
    microcalcifications: bool
    necrosis: bool
    irregular_margin: bool
    ill_defined_margin: bool
    mixed: bool
    cyst: bool

    @property
    def aspect(self) -> float:
        """Minimum over maximum diameter, in (0, 1]."""
        return self.min_mm / self.max_mm


def blend_mix(common: CaseMix, own: CaseMix, *, shift: float) -> CaseMix:
    """`common` at shift 0, `own` at 1, straight on beyond; shares stay in [0, 1]."""
    values = []
    for field in fields(CaseMix):
        start, end = getattr(common, field.name), getattr(own, field.name)
        value = start + shift * (end - start)
        match field.name:
            case "max_mm":
                values.append(max(value, 6.0))
            case "aspect":
                values.append(float(np.clip(value, 0.2, 0.85)))
            case _:
                values.append(float(np.clip(value, 0.0, 1.0)))
    return CaseMix(*values)


def draw_features(rng: np.random.Generator, mix: CaseMix) -> NodeFeatures:
    """One node; every share of `mix` holds exactly on average, and features are correlated through a severity."""
    severity = rng.standard_normal()

    def happens(share: float) -> bool:
        latent = SEVERITY_SHARE * severity + np.sqrt(1 - SEVERITY_SHARE**2) * rng.standard_normal()
        return bool(ndtr(latent) > 1 - share) if 0 < share < 1 else share >= 1

    max_mm = float(np.clip(mix.max_mm * np.exp(rng.normal(-0.045, 0.3)), 5.5, 34.0))
    aspect = float(np.clip(rng.normal(mix.aspect, 0.11), 0.18, 0.97))
    hyperechoic, isoechoic = happens(mix.hyperechoic), rng.uniform() < ISOECHOIC_SHARE
    return NodeFeatures(
        max_mm=round(max_mm, 1),
        min_mm=round(max(max_mm * aspect, 1.5), 1),
        echo="hyperechoic" if hyperechoic else "isoechoic" if isoechoic else "hypoechoic",
        heterogeneous=happens(mix.heterogeneous),
        hilum_lost=happens(mix.hilum_lost),
        eccentric=happens(mix.eccentric),
        microcalcifications=happens(mix.microcalcifications),
        necrosis=happens(mix.necrosis),
        irregular_margin=happens(mix.irregular_margin),
        ill_defined_margin=happens(mix.ill_defined_margin),
        mixed=happens(mix.mixed),
        cyst=happens(mix.cyst),
    )

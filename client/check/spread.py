"""How frames spread in size and brightness, by class, split and device; who stands apart;
what alone tells the class.
"""

from __future__ import annotations

__all__ = ["MEASURES", "Spread", "check_spread", "measured", "spreads"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from client.check.finding import Finding
from client.check.images import Examined
from client.check.table import Cases
from common.auc import clustered_auc

Floats = npt.NDArray[np.float64]

MEASURES: Mapping[str, Callable[[Examined], float | None]] = {
    "width (px)": lambda seen: None if seen.size is None else seen.size[0],
    "height (px)": lambda seen: None if seen.size is None else seen.size[1],
    "mean gray": lambda seen: seen.mean,
    "contrast (SD of gray)": lambda seen: seen.deviation,
}
"""What is measured of every image."""

_FAR = 5.0
"""Robust standard deviations from the median at which an image stands apart."""
_FLOOR = 0.05
"""Least robust standard deviation, as a share of the median:
equal frames make no outlier of one that is a pixel off.
"""
_FEW = 10
_TELLS = 0.8
"""AUC from which on (or 1 − it) a measure tells the class."""


@dataclass(frozen=True)
class Spread:
    """The quantiles of one measure over one group of images: 5 %, 25 %, 50 %, 75 %, 95 %.

    `kind` is all, class, split or device, `name` which one.
    """

    measure: str
    kind: str
    name: str
    images: int
    quantiles: tuple[float, float, float, float, float]


def measured(examined: Sequence[Examined], measure: str) -> Floats:
    """One measure of every case; NaN where the image could not be read."""
    values = (MEASURES[measure](seen) for seen in examined)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def spreads(cases: Cases, examined: Sequence[Examined]) -> list[Spread]:
    """Every measure over every group that has an image."""
    made = []
    for measure in MEASURES:
        values = measured(examined, measure)
        for kind, name, members in _groups(cases):
            there = values[members][np.isfinite(values[members])]
            if len(there):
                q05, q25, q50, q75, q95 = (float(q) for q in np.quantile(there, [0.05, 0.25, 0.5, 0.75, 0.95]))
                made.append(Spread(measure, kind, name, len(there), (q05, q25, q50, q75, q95)))
    return made


def check_spread(cases: Cases, examined: Sequence[Examined]) -> list[Finding]:
    """Outliers within a device, and measures that tell a class from the others."""
    return [*_outliers(cases, examined), *_tells(cases, examined)]


def _groups(cases: Cases) -> list[tuple[str, str, list[int]]]:
    every = list(range(len(cases)))
    return [
        ("all", "all", every),
        *(
            ("class", name, [case for case in every if cases.labels[case] == code])
            for code, name in enumerate(cases.manifest.task.classes)
        ),
        *(("split", side, [case for case in every if cases.sides[case] == side]) for side in cases.used_sides),
        *(
            ("device", name, [case for case in every if cases.device(case) == name])
            for name in dict.fromkeys(cases.device(case) for case in every)
        ),
    ]


def _outliers(cases: Cases, examined: Sequence[Examined]) -> list[Finding]:
    apart: dict[int, list[str]] = {}
    for measure in MEASURES:
        values = measured(examined, measure)
        for kind, _, members in _groups(cases):
            if kind == "device" and len(members) >= _FEW:
                for case in _far(values, members):
                    apart.setdefault(case, []).append(measure)
    names = [measure for measure in MEASURES if any(measure in reasons for reasons in apart.values())]
    said = f"{len(apart)} by {', '.join(names)}"
    return [Finding("outlier", said, tuple((case,) for case in sorted(apart)))] if apart else []


def _far(values: Floats, members: Sequence[int]) -> list[int]:
    """Members further than `_FAR` robust standard deviations (1.4826 · MAD) from their median."""
    there = [case for case in members if np.isfinite(values[case])]
    if not there:
        return []
    middle = float(np.median(values[there]))
    scale = max(1.4826 * float(np.median(np.abs(values[there] - middle))), _FLOOR * abs(middle), 1.0)
    return [case for case in there if abs(values[case] - middle) > _FAR * scale]


def _tells(cases: Cases, examined: Sequence[Examined]) -> list[Finding]:
    findings = []
    for topic, measures in (
        ("size-tells-class", ("width (px)", "height (px)")),
        ("brightness-tells-class", ("mean gray", "contrast (SD of gray)")),
    ):
        said = [line for measure in measures for line in _told(cases, measured(examined, measure), measure)]
        if said:
            findings.append(Finding(topic, "; ".join(said)))
    return findings


def _told(cases: Cases, values: Floats, measure: str) -> list[str]:
    """One phrase for each class that the measure tells from the others; with two classes, for the positive one."""
    task = cases.manifest.task
    usable = [
        case
        for case in range(len(cases))
        if np.isfinite(values[case]) and cases.labels[case] is not None and cases.patients[case] is not None
    ]
    patients = np.array([cases.patients[case] for case in usable], dtype=np.int64)
    said = []
    for code in [task.positive_index] if len(task.classes) == 2 else range(len(task.classes)):
        inside = np.array([cases.labels[case] == code for case in usable], dtype=np.bool_)
        if min(len(set(patients[inside])), len(set(patients[~inside]))) < _FEW:
            continue
        area = clustered_auc(inside, values[usable], patients).auc
        if area is not None and max(area, 1 - area) >= _TELLS:
            said.append(f"{measure} tells {task.classes[code]} with AUC {max(area, 1 - area):.2f}")
    return said

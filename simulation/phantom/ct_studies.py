"""Patients, studies and key slices of DeepLesion, in the real data set's proportions."""

from __future__ import annotations

__all__ = ["KeySlice", "Study", "draw_slices"]

from dataclasses import dataclass

import numpy as np

from common.randomness import derive
from simulation.phantom.counts import apportioned, dealt
from simulation.phantom.ct import SCANNERS, SIDE, Scanner, blend_scanner
from simulation.phantom.ct_anatomy import Body, Section, section_of

Rng = np.random.Generator

REAL_LESIONS, REAL_SLICES, REAL_STUDIES, REAL_PATIENTS = 32_735, 32_120, 10_594, 4_427
SLICES = 2000
"""Default number of pictures on disk."""
SPLIT_SHARES = (70, 15, 15)
"""Patients in split 1, 2, 3."""
TYPE_SHARES = (0.025, 0.22, 0.17, 0.13, 0.245, 0.05, 0.07, 0.09)
"""Share of the types 1 to 8."""
NOISY_SHARE = 0.005
ABSENT_SHARE = 0.01
"""Further slices, of those on disk, that the table names and nobody has."""
SPACINGS = (0.585938, 0.625, 0.664062, 0.703125, 0.742188, 0.78125, 0.820312, 0.859375, 0.898438, 0.9375, 0.976562)
"""mm; pixels that scanners commonly reconstruct to."""


@dataclass(frozen=True, slots=True)
class Study:
    """One scan of one patient. number, series: as in the file name. split: 1 train, 2 validation, 3 test."""

    patient: int
    number: int
    series: int
    split: int
    gender: str
    age: float
    body: Body
    scanner: Scanner
    spacing_mm: float
    thickness_mm: float
    slices: int


@dataclass(frozen=True, slots=True)
class KeySlice:
    """One slice with its lesions. index: within the scan; first, last: of the part that is published with it.

    types, noisy: of each lesion. on_disk: whether its picture is there.
    """

    study: Study
    index: int
    first: int
    last: int
    section: Section
    types: tuple[int, ...]
    noisy: tuple[bool, ...]
    on_disk: bool

    @property
    def series(self) -> str:
        """The folder."""
        return f"{self.study.patient:06d}_{self.study.number:02d}_{self.study.series:02d}"

    @property
    def lung_window(self) -> bool:
        """Whether the lesion was drawn in a lung window."""
        return self.types[0] == 5


def draw_slices(*, seed: int, shift: float, patients: int | None) -> list[KeySlice]:
    """Every key slice, patient by patient. patients: None for as many as `SLICES` slices come from."""
    rng = derive(seed, "phantom", "deeplesion", "slices")
    people = round(SLICES * REAL_PATIENTS / REAL_SLICES) if patients is None else patients
    on_disk = SLICES if patients is None else round(people * REAL_SLICES / REAL_PATIENTS)
    absent = max(round(ABSENT_SHARE * on_disk), 1)
    total = on_disk + absent
    studies = _studies(rng, people, shift=shift)
    hands = dealt(rng, total, len(studies), spread=0.6).tolist()
    keys = [(study, index) for study, hand in zip(studies, hands, strict=True) for index in _indices(rng, study, hand)]
    doubled = _some(rng, total, round(total * (REAL_LESIONS / REAL_SLICES - 1)))
    gone = _some(rng, total, absent)
    noisy = _some(rng, total, max(round(NOISY_SHARE * total), 1))
    types = rng.permutation(np.repeat(range(1, 9), apportioned(total, TYPE_SHARES)))
    slices = []
    for at, (study, index) in enumerate(keys):
        kind = int(types[at])
        lesions = (kind, kind) if at in doubled else (kind,)
        thick = 12 if study.thickness_mm > 2 else 30
        slices.append(
            KeySlice(
                study, index, max(index - thick, 1), min(index + thick, study.slices), section_of(rng, kind), lesions,
                tuple(at in noisy and place == 0 for place in range(len(lesions))), at not in gone,
            )
        )  # fmt: skip
    return slices


def _some(rng: Rng, total: int, number: int) -> set[int]:
    return set(rng.choice(total, size=number, replace=False).tolist())


def _studies(rng: Rng, people: int, *, shift: float) -> list[Study]:
    """Every scan of everybody. Split, sex and build are the patient's; scanner, contrast and age the study's."""
    scanners = [blend_scanner(own, shift=shift) for own in SCANNERS]
    split = rng.permutation(np.repeat((1, 2, 3), apportioned(people, SPLIT_SHARES, least=1)))
    indices = np.sort(rng.choice(max(REAL_PATIENTS, people), size=people, replace=False)) + 1
    each = dealt(rng, round(people * REAL_STUDIES / REAL_PATIENTS), people, spread=0.6)
    studies = []
    for patient, part, number in zip(indices.tolist(), split.tolist(), each.tolist(), strict=True):
        female = bool(rng.uniform() < 0.45)
        width, age = float(rng.normal(325 if female else 350, 26)), float(np.clip(round(rng.normal(56, 15)), 8, 87))
        fat = float(np.clip(rng.normal(19, 7), 8, 40))
        for study in range(1, number + 1):
            contrast = float(rng.uniform(0.6, 1.4)) if rng.uniform() < 0.8 else 0.0
            body = Body(width, width * float(rng.normal(0.68, 0.02)), fat, contrast)
            studies.append(_study(rng, patient, study, part, "F" if female else "M", age + study // 3, body, scanners))
    return studies


def _study(
    rng: Rng, patient: int, number: int, split: int, gender: str, age: float, body: Body, scanners: list[Scanner]
) -> Study:
    scanner = scanners[int(rng.integers(len(scanners)))]
    thin = bool(rng.uniform() < scanner.thin)
    fits = max(scanner.spacing_mm, body.width_mm * float(rng.uniform(1.06, 1.2)) / SIDE)
    spacing = next((value for value in SPACINGS if value >= fits), SPACINGS[-1])
    length = float(rng.uniform(300, 650))
    return Study(
        patient=patient,
        number=number,
        series=int(rng.choice((1, 2, 3), p=(0.81, 0.17, 0.02))),
        split=split,
        gender=gender,
        age=age,
        body=body,
        scanner=scanner,
        spacing_mm=spacing,
        thickness_mm=1.0 if thin else 5.0,
        slices=round(length / (1 if thin else 5)),
    )


def _indices(rng: Rng, study: Study, number: int) -> list[int]:
    """Different slices of one scan, in their order."""
    last = max(study.slices, number + 1)
    return sorted((rng.choice(last, size=number, replace=False) + 1).tolist())

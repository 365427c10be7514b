"""The patients of SMC-LUD: who has how many clean and caliper pictures, and in which split.

Counts of classes, patients, splits and clean pictures are the data set's own. Not known, and chosen here: how clean
pictures and the patients that have any divide between the classes, that a patient is in one split, and that sizes and
stages go with each other as they do in any hospital.
"""

from __future__ import annotations

__all__ = ["CLASSES", "LEAST_PATIENTS", "SPLITS", "SmcPatient", "draw_patients"]

from dataclasses import dataclass

import numpy as np

from common.randomness import derive
from simulation.phantom.counts import apportioned, dealt

CLASSES = ("HCC", "Hemangioma")
SPLITS = ("train", "val", "test")
PATIENTS = (600, 421)
"""By class."""
IMAGES = (2716, 2669)
"""By class."""
ALL_BY_SPLIT = (3769, 1076, 540)
CLEAN_BY_SPLIT = (1858, 530, 268)
WITH_CLEAN = 744
"""Patients with a clean picture."""
CLEAN_BY_CLASS = (1190, 1466)
"""Chosen: carcinomas are measured more often."""
WITH_CLEAN_BY_CLASS = (410, 334)
LEAST_PATIENTS = 12
"""One for each class, each split, and with and without a clean picture."""


@dataclass(frozen=True, slots=True)
class SmcPatient:
    """One patient. identifier: `P0001`. clean, caliper: how many pictures of each kind."""

    identifier: str
    carcinoma: bool
    split: str
    clean: int
    caliper: int
    female: bool
    age: int
    height_cm: int
    weight_kg: float
    size_cm: float
    stage: str

    @property
    def group(self) -> str:
        """The class's folder."""
        return CLASSES[0] if self.carcinoma else CLASSES[1]


def draw_patients(*, seed: int, patients: int | None) -> list[SmcPatient]:
    """Everybody, in the order of the identifiers, which say nothing of class or split."""
    rng = derive(seed, "phantom", "smclud", "patients")
    everybody = sum(PATIENTS)
    total = everybody if patients is None else patients
    people = _people(total)
    clean, caliper = _images(total, people)
    drawn: list[tuple[int, int, int, int]] = []
    for (group, split), (having, lacking) in people.items():
        own_clean = dealt(rng, clean[group, split], having)
        own_caliper = dealt(rng, caliper[group, split] - lacking, having + lacking, least=0)
        own_caliper[having:] += 1
        counts = [*own_clean.tolist(), *[0] * lacking]
        drawn += [(group, split, a, b) for a, b in zip(counts, own_caliper.tolist(), strict=True)]
    order = rng.permutation(len(drawn)).tolist()
    return [_patient(seed, number, *drawn[who]) for number, who in enumerate(order, start=1)]


Cell = tuple[int, int]
"""Class and split, by number."""


def _people(total: int) -> dict[Cell, tuple[int, int]]:
    """Patients with and without a clean picture, by class and split: 7 : 2 : 1, at least one of each."""
    lacking = [all_ - with_ for all_, with_ in zip(PATIENTS, WITH_CLEAN_BY_CLASS, strict=True)]
    groups = apportioned(total, [*WITH_CLEAN_BY_CLASS, *lacking], least=len(SPLITS))
    split = [apportioned(count, ALL_BY_SPLIT, least=1) for count in groups]
    return {(c, s): (split[c][s], split[2 + c][s]) for c in range(2) for s in range(3)}


def _images(total: int, people: dict[Cell, tuple[int, int]]) -> tuple[dict[Cell, int], dict[Cell, int]]:
    """Clean and caliper pictures by class and split, with the totals of both; at least what the patients need."""
    everybody = sum(PATIENTS)
    caliper_split = [a - c for a, c in zip(ALL_BY_SPLIT, CLEAN_BY_SPLIT, strict=True)]
    clean = _crossed(
        [round(count * total / everybody) for count in CLEAN_BY_SPLIT], CLEAN_BY_CLASS,
        {cell: having for cell, (having, _) in people.items()},
    )  # fmt: skip
    caliper = _crossed(
        [round(count * total / everybody) for count in caliper_split],
        [i - c for i, c in zip(IMAGES, CLEAN_BY_CLASS, strict=True)],
        {cell: lacking for cell, (_, lacking) in people.items()},
    )
    return clean, caliper


def _crossed(by_split: list[int], by_class: tuple[int, ...] | list[int], least: dict[Cell, int]) -> dict[Cell, int]:
    """A table of both margins: the first class in proportion, the second the rest; raised where patients need more."""
    total = sum(by_split)
    first = apportioned(apportioned(total, by_class)[0], by_split)
    table = {(0, s): first[s] for s in range(3)} | {(1, s): by_split[s] - first[s] for s in range(3)}
    return {cell: max(count, least[cell]) for cell, count in table.items()}


def _patient(seed: int, number: int, group: int, split: int, clean: int, caliper: int) -> SmcPatient:
    rng = derive(seed, "phantom", "smclud", "patient", number)
    carcinoma = group == 0
    female = bool(rng.uniform() < (0.22 if carcinoma else 0.52))
    height = float(rng.normal(158 if female else 170, 6))
    size = float(np.clip((2.6 if carcinoma else 2.2) * np.exp(rng.normal(0, 0.4)), 0.8, 7.5))
    stage = ""
    if carcinoma:
        small = "1a" if size <= 2 else "1b"
        stage = small if rng.uniform() < 0.62 else ("2" if rng.uniform() < 0.75 else "3")
    return SmcPatient(
        identifier=f"P{number:04d}",
        carcinoma=carcinoma,
        split=SPLITS[split],
        clean=clean,
        caliper=caliper,
        female=female,
        age=int(np.clip(round(rng.normal(60 if carcinoma else 51, 10)), 20, 88)),
        height_cm=round(height),
        weight_kg=round(float(rng.normal(24, 3.0) * (height / 100) ** 2), 1),
        size_cm=round(size, 1),
        stage=stage,
    )

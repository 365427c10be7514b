"""The people of BEHSOF: grades as the data set counts them, blood and elastography that go with them.

Counts of centers, steatosis and fibrosis are the data set's own. Not known, and chosen here: how grades divide between
the centers, what each blood value does with the grades (direction and size as textbooks of hepatology have them), and
the thresholds of CAP, which are the usual 238, 260 and 290 dB/m.
"""

from __future__ import annotations

__all__ = ["IMAGES", "Person", "draw_people"]

from dataclasses import dataclass

import numpy as np

from common.randomness import derive
from simulation.phantom.counts import apportioned, dealt

Rng = np.random.Generator

CENTERS = {"TAL": 18, "BEH": 95}
"""People of each center."""
STEATOSIS = (12, 57, 36, 8)
"""People of expert grade 0, 1, 2, 3."""
FIBROSIS = (24, 78, 11)
"""People of F0, F1, F2."""
IMAGES = 1513
LEAST_IMAGES = 3
SEVERE_AT_TAL = 0.5
"""At shift 1, logit per grade by which people of a high grade are rather at the hospital than at the clinic."""
WRONG_IDS = 4
"""People whose id disagrees with the table, of 113; the data set's own number is not known."""
FAT = (0.04, 0.10, 0.19, 0.32)
"""Middle of the share of fat by expert grade."""
CAP_STEPS = (238, 260, 290)
"""dB/m from which CAP reads S1, S2, S3."""
STIFFNESS = (4.3, 5.8, 8.2)
"""Middle of the stiffness by F0, F1, F2, kPa."""


@dataclass(frozen=True, slots=True)
class Person:
    """One person. The grades are the table's; `identifier` may say otherwise.

    site: TAL or BEH. number: within the site. fat: share that shows, before visibility. blood: column → value, None
    where it was not measured. images: how many pictures.
    """

    site: str
    number: int
    identifier: str
    steatosis: int
    cap_steatosis: int
    fibrosis: int
    fat: float
    female: bool
    age: int
    bmi: float
    cap: int
    stiffness: float
    blood: dict[str, float | None]
    images: int

    @property
    def id_disagrees(self) -> bool:
        """Whether the id's digits are others than the table's grades."""
        return self.identifier[-3:] != f"{self.steatosis}{self.cap_steatosis}{self.fibrosis}"


def draw_people(*, seed: int, shift: float, patients: int | None) -> list[Person]:
    """Everybody, TAL first. patients: people of each center; None for as many as the data set has."""
    rng = derive(seed, "phantom", "behsof", "people")
    sites = CENTERS if patients is None else dict.fromkeys(CENTERS, patients)
    total = sum(sites.values())
    steatosis = np.repeat(range(4), apportioned(total, STEATOSIS))
    fibrosis = _paired(rng, steatosis, np.repeat(range(3), apportioned(total, FIBROSIS)))
    # Who is at TAL: a draw without replacement in which a high grade counts more, and nothing counts at shift 0.
    rank = rng.gumbel(size=total) + SEVERE_AT_TAL * shift * steatosis
    order = np.argsort(-rank, kind="stable")
    everybody = sum(CENTERS.values())
    images = dealt(rng, round(IMAGES * total / everybody), total, least=LEAST_IMAGES)
    wrong = set(rng.permutation(total)[: max(round(WRONG_IDS * total / everybody), 1)].tolist())
    people = []
    start = 0
    for site, count in sites.items():
        members = rng.permutation(order[start : start + count])
        for number, who in enumerate(members.tolist(), start=1):
            own = derive(seed, "phantom", "behsof", "person", site, number)
            people.append(
                _person(
                    own, site, number, steatosis=int(steatosis[who]), fibrosis=int(fibrosis[who]),
                    images=int(images[who]), wrong=who in wrong,
                )
            )  # fmt: skip
        start += count
    return people


def _paired(rng: Rng, steatosis: np.ndarray, fibrosis: np.ndarray) -> np.ndarray:
    """The sorted fibrosis grades in an order that goes loosely with steatosis."""
    rank = np.argsort(np.argsort(0.5 * steatosis + rng.standard_normal(len(steatosis))))
    return np.asarray(fibrosis[rank])


def _person(rng: Rng, site: str, number: int, *, steatosis: int, fibrosis: int, images: int, wrong: bool) -> Person:
    fat = float(np.clip(FAT[steatosis] * np.exp(rng.normal(0, 0.22)), 0.01, 0.5))
    bmi = float(np.clip(rng.normal(25 + 14 * fat, 3.2), 18, 45))
    cap = int(np.clip(round(205 + 330 * fat**0.8 + rng.normal(0, 22)), 100, 400))
    cap_steatosis = int(np.searchsorted(CAP_STEPS, cap, side="right"))
    female = bool(rng.uniform() < 0.48)
    identifier = f"{site}{number:02d}{steatosis}{cap_steatosis}{fibrosis}"
    if wrong:
        identifier = _misspelt(rng, identifier)
    return Person(
        site=site,
        number=number,
        identifier=identifier,
        steatosis=steatosis,
        cap_steatosis=cap_steatosis,
        fibrosis=fibrosis,
        fat=fat,
        female=female,
        age=int(np.clip(round(rng.normal(44 + 3 * fibrosis, 11)), 18, 82)),
        bmi=round(bmi, 1),
        cap=cap,
        stiffness=round(float(STIFFNESS[fibrosis] * np.exp(rng.normal(0, 0.11))), 1),
        blood=_blood(rng, fat=fat, fibrosis=fibrosis, female=female),
        images=images,
    )


def _misspelt(rng: Rng, identifier: str) -> str:
    """The id with another digit in one of its three grades."""
    place = int(rng.integers(3))
    old = int(identifier[-3 + place])
    new = old - 1 if old > 0 and (old == 3 or rng.uniform() < 0.5) else old + 1
    digits = list(identifier)
    digits[-3 + place] = str(new)
    return "".join(digits)


def _blood(rng: Rng, *, fat: float, fibrosis: int, female: bool) -> dict[str, float | None]:
    """Values by the table's column, whole numbers; liver enzymes and lipids rise with fat,
    platelets fall with scars.
    """
    severity = rng.standard_normal()

    def around(middle: float, spread: float) -> float:
        return float(round(middle * np.exp(spread * (0.5 * severity + 0.87 * rng.standard_normal()))))

    male = 0.0 if female else 1.0
    values: dict[str, float | None] = {
        "AST (SGOT)": around(19 + 30 * fat + 5 * fibrosis, 0.28),
        "ALT (SGPT)": around(18 + 85 * fat + 4 * male, 0.36),
        "Platelets": around(255 - 14 * fibrosis, 0.2),
        "GGT": around(20 + 60 * fat + 8 * male, 0.4),
        "Cholestrol": around(172 + 70 * fat, 0.18),
        "Triglyceride": around(105 + 230 * fat, 0.35),
        "HDL": around(50 - 22 * fat - 5 * male, 0.18),
        "LDL": around(102 + 40 * fat, 0.24),
        "FBS": around(90 + 60 * fat, 0.16),
    }
    for name in values:
        if rng.uniform() < 0.02:
            values[name] = None
    return values

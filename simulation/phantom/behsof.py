"""BEHSOF's on-disk format: a folder of pictures for each person, and a table with the clinic's and the blood's values.

`image_Data/<PatientID>/Image*.jpg`, at TAL in a further folder for each acquisition; `Demo_data.csv`. An id is center,
number, expert steatosis, CAP steatosis and fibrosis: the labels are in it. Chosen here, since not known: which columns
stand besides those that are, and their spelling; that pictures are 8-bit RGB; the numbers of pictures of a person.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "SECTOR", "demo_table", "liver_look", "liver_picture", "write_behsof"]

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import BadInput
from common.randomness import derive
from simulation.phantom.behsof_people import Person, draw_people
from simulation.phantom.liver import VIEWS, LiverLook, draw_liver
from simulation.phantom.machines import Machine, blend
from simulation.phantom.sector import ABDOMINAL, Sector, sector_picture
from simulation.phantom.truth import Value, csv_text

COLUMNS = (
    "Patient ID", "sex", "Age", "BMI", "AST (SGOT)", "ALT (SGPT)", "Platelets", "GGT", "Cholestrol", "Triglyceride",
    "HDL", "LDL", "FBS", "CAP score", "E score", "Steatosis stage", "Fibroscan S", "Fibroscan F",
)  # fmt: skip
"""The table's columns in their order, misspelling included."""
MACHINES = {
    "TAL": replace(
        ABDOMINAL, name="TAL", frequency_mhz=3.1, compensated_db=0.53, dynamic_range_db=54, gain_db=0, smoothing=0.7,
        smooth_mm=0.7, edge=0.7, gamma=1.1,
    ),
    "BEH": replace(
        ABDOMINAL, name="BEH", frequency_mhz=4.0, compensated_db=0.59, dynamic_range_db=68, gain_db=3, smoothing=0.2,
        smooth_mm=0.4, edge=0.1, gamma=0.9,
    ),
}  # fmt: skip
"""Each center's own machine, which it has at shift 1."""
SECTOR = Sector(radius_mm=55, half_angle=0.56, depth_mm=160, samples=360, beams=160, height=300, width=400)
"""The frame that every center has at shift 0."""
SECTORS = {
    "TAL": replace(SECTOR, radius_mm=60, half_angle=0.52, depth_mm=165, height=320, width=420),
    "BEH": replace(SECTOR, radius_mm=50, half_angle=0.60, depth_mm=155, height=290, width=400),
}
SHOWN = 0.75
"""Visibility at which the liver shows the fat that the person has."""
MOST_PEOPLE = 99
"""An id has two digits for the person."""


def write_behsof(
    folder: Path,
    *,
    seed: int,
    shift: float,
    visibility: float,
    patients: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill `folder`. patients: people of each of the two centers. BadInput where ids cannot number them."""
    if patients is not None and patients > MOST_PEOPLE:
        raise BadInput(f"patients is {patients}; an id of behsof numbers at most {MOST_PEOPLE} people of a center")
    people = draw_people(seed=seed, shift=shift, patients=patients)
    total = sum(person.images for person in people)
    truth: list[dict[str, Value]] = []
    for person in people:
        rng = derive(seed, "phantom", "behsof", "pictures", person.site, person.number)
        look = liver_look(rng, person, visibility=visibility)
        machine = blend(ABDOMINAL, MACHINES[person.site], shift=shift)
        for path in _paths(rng, person):
            gray, values = liver_picture(rng, look, machine, _sector(person.site, shift=shift))
            _save(folder / path, gray)
            truth.append({**_known(person, path), **values, "machine": machine.name})
            if progress is not None:
                progress(len(truth), total)
    (folder / "Demo_data.csv").write_bytes(demo_table(people, rng=derive(seed, "phantom", "behsof", "table")))
    (folder / "truth.csv").write_text(csv_text(truth), encoding="utf-8")


def demo_table(people: Sequence[Person], *, rng: np.random.Generator) -> bytes:
    """`Demo_data.csv`: in any order, some ids behind a path or among spaces, and a last row without anything."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for who in rng.permutation(len(people)).tolist():
        person = people[who]
        spelt = (person.identifier, f"\\Data\\{person.identifier}", f" {person.identifier}  ")
        cells: dict[str, object] = {
            "Patient ID": spelt[int(rng.choice(3, p=[0.6, 0.25, 0.15]))],
            "sex": "F" if person.female else "M",
            "Age": person.age,
            "BMI": person.bmi,
            "CAP score": person.cap,
            "E score": person.stiffness,
            "Steatosis stage": person.steatosis,
            "Fibroscan S": person.cap_steatosis,
            "Fibroscan F": person.fibrosis,
            **{name: "" if value is None else int(value) for name, value in person.blood.items()},
        }
        writer.writerow([cells[name] for name in COLUMNS])
    writer.writerow([""] * len(COLUMNS))
    return text.getvalue().encode()


def liver_look(rng: np.random.Generator, person: Person, *, visibility: float) -> LiverLook:
    """The person's liver; visibility moves its fat and scars away from everybody's middle."""
    clear = visibility / SHOWN
    fat = 0.13 + clear * (person.fat - 0.13) + rng.normal(0, 0.035)
    scars = 0.25 + clear * (0.08 + 0.28 * person.fibrosis - 0.25) + rng.normal(0, 0.12)
    return LiverLook(
        fat=float(np.clip(fat, 0, 0.6)),
        fibrosis=float(np.clip(scars, 0, 1)),
        wall_mm=float(np.clip(14 + 0.9 * (person.bmi - 22) + rng.normal(0, 2.5), 10, 38)),
        build=float(np.clip(rng.normal(1, 0.06), 0.85, 1.15)),
        kidney_db=float(rng.normal(-5, 1.5)),
    )


def liver_picture(
    rng: np.random.Generator, look: LiverLook, machine: Machine, sector: Sector
) -> tuple[NDArray[np.uint8], dict[str, Value]]:
    """One plane, with the gain and compensation that the operator turned to."""
    view = VIEWS[int(rng.choice(3, p=[0.5, 0.3, 0.2]))]
    turned = replace(
        machine,
        gain_db=machine.gain_db + float(rng.normal(0, 2.5)),
        compensated_db=machine.compensated_db + float(rng.normal(0, 0.045)),
    )
    scene = draw_liver(rng, look, sector, view=view)
    gray = sector_picture(rng, scene.tissue(), turned, sector)
    _burn_scale(gray)
    values: dict[str, Value] = {
        "view": view,
        "drawn_fat": look.fat,
        "drawn_fibrosis": look.fibrosis,
        "wall_mm": look.wall_mm,
        "kidney_db": look.kidney_db,
        "gain_db": turned.gain_db,
        "compensated_db": turned.compensated_db,
        "height": gray.shape[0],
        "width": gray.shape[1],
    }
    return gray, values


def _burn_scale(gray: NDArray[np.uint8]) -> None:
    """Draw a bar of grays on the left and the ticks of depth on the right, in place."""
    height, width = gray.shape
    gray[height // 6 : height // 2, 6:12] = np.linspace(255, 0, height // 2 - height // 6).astype(np.uint8)[:, None]
    for tick in range(16):
        row = round(height * (0.04 + 0.058 * tick))
        gray[row, width - (10 if tick % 5 == 0 else 6) : width - 2] = 190


def _sector(site: str, *, shift: float) -> Sector:
    share, own = min(shift, 1.0), SECTORS[site]

    def between(name: str) -> float:
        start, end = float(getattr(SECTOR, name)), float(getattr(own, name))
        return start + share * (end - start)

    return replace(
        SECTOR,
        radius_mm=between("radius_mm"),
        half_angle=between("half_angle"),
        depth_mm=between("depth_mm"),
        height=round(between("height")),
        width=round(between("width")),
    )


def _paths(rng: np.random.Generator, person: Person) -> list[str]:
    """Where the person's pictures lie."""
    home = f"image_Data/{person.identifier}"
    if person.site != "TAL":
        return [f"{home}/Image{number}.jpg" for number in range(1, person.images + 1)]
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(1, 13)), int(rng.integers(2021, 2024))
    begin = int(rng.integers(8, 14)) * 3600
    times = begin + np.cumsum(rng.integers(15, 90, person.images))
    stamps = [f"{time // 3600:02d}_{time // 60 % 60:02d}_{time % 60:02d}" for time in times.tolist()]
    return [f"{home}/{day:02d}_{month:02d}_{year}_{stamp}/Image.jpg" for stamp in stamps]


def _known(person: Person, path: str) -> dict[str, Value]:
    return {
        "path": path,
        "site": person.site,
        "patient": person.identifier,
        "id_disagrees": person.id_disagrees,
        "steatosis": person.steatosis,
        "cap_steatosis": person.cap_steatosis,
        "fibrosis": person.fibrosis,
        "fat": person.fat,
        "cap": person.cap,
        "stiffness": person.stiffness,
    }


def _save(path: Path, gray: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gray).convert("RGB").save(path, "JPEG", quality=90)

"""SMC-LUD's on-disk format: three folders of the same pictures, and a table of the patients.

`original_data/{HCC,Hemangioma}` and `split_for_train/{train,val,test}/{HCC,Hemangioma}` hold every picture,
`clean_ver_for_train/{train,val,test}_clean/{HCC,Hemangioma}` those without calipers; copies are the same bytes. Chosen
here, since not known: names, `<patient>_<number>.png` with `P0001` for a patient, and the table's name and columns.

A caliper picture always has crosses. The dotted line between them and a second diameter go with carcinoma: the label
can be read off them, as the real data set's users are warned.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "write_smclud"]

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import BadInput
from common.randomness import derive
from simulation.phantom.calipers import burn_diameter
from simulation.phantom.liver import LiverLook, View, draw_liver
from simulation.phantom.liver_lesions import LesionLook, add_lesion, draw_lesion_look
from simulation.phantom.machines import Machine, blend
from simulation.phantom.outline import Outline
from simulation.phantom.sector import ABDOMINAL, Sector, sector_picture
from simulation.phantom.smclud_patients import LEAST_PATIENTS, SmcPatient, draw_patients
from simulation.phantom.truth import Value, csv_text
from simulation.phantom.workbook import sheet_bytes

COLUMNS = ("Patient", "Diagnosis", "Age", "Sex", "Height", "Weight", "Tumor size", "pT stage")
MACHINE = replace(
    ABDOMINAL, name="SMC", frequency_mhz=3.9, dynamic_range_db=56, gain_db=1, smoothing=0.5, edge=0.5, gamma=1.05
)
"""The hospital's own machine, which it has at shift 1."""
SECTOR = Sector(radius_mm=50, half_angle=0.56, depth_mm=125, samples=300, beams=160, height=260, width=320)
DOTTED = {True: 0.88, False: 0.12}
"""Share of caliper pictures with a dotted line, by whether it is a carcinoma."""
SECOND = {True: 0.8, False: 0.2}
"""Share with a second diameter across the first."""
CLEAR = 0.85
"""Share of the textbook's difference between the classes that shows at the default visibility."""
DEFAULT = 0.75


def write_smclud(
    folder: Path,
    *,
    seed: int,
    shift: float,
    visibility: float,
    patients: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill `folder`. patients: in all. BadInput where they are too few to fill classes, splits and subsets."""
    if patients is not None and patients < LEAST_PATIENTS:
        raise BadInput(
            f"patients is {patients}; smclud needs at least {LEAST_PATIENTS}, for each class, split and subset"
        )
    people = draw_patients(seed=seed, patients=patients)
    machine = blend(ABDOMINAL, MACHINE, shift=shift)
    total = sum(person.clean + person.caliper for person in people)
    truth: list[dict[str, Value]] = []
    for person in people:
        rng = derive(seed, "phantom", "smclud", "pictures", person.identifier)
        for number, (caliper, picture, values) in enumerate(_pictures(rng, person, machine, visibility), start=1):
            name = f"{person.identifier}_{number:03d}.png"
            _place(folder, person, name, _png(picture), clean=not caliper)
            truth.append({"name": name, **_known(person), "caliper": caliper, **values})
            if progress is not None:
                progress(len(truth), total)
    (folder / "patient_information.xlsx").write_bytes(sheet_bytes(COLUMNS, [_cells(person) for person in people]))
    (folder / "truth.csv").write_text(csv_text(truth), encoding="utf-8")


Drawn = tuple[bool, NDArray[np.uint8], dict[str, Value]]
"""Whether it has calipers, the picture, what was drawn."""


def _pictures(rng: np.random.Generator, person: SmcPatient, machine: Machine, visibility: float) -> Sequence[Drawn]:
    """The patient's pictures in any order; lesion and liver are the patient's, plane and gain the picture's."""
    clear = CLEAR * visibility / DEFAULT
    lesion = replace(draw_lesion_look(rng, carcinoma=person.carcinoma, clear=clear), size_mm=10 * person.size_cm)
    scars = 0.3 + 0.15 * clear * (1 if person.carcinoma else -1) + rng.normal(0, 0.15)
    liver = LiverLook(
        fat=float(np.clip(rng.normal(0.1, 0.06), 0.01, 0.35)),
        fibrosis=float(np.clip(scars, 0, 1)),
        wall_mm=float(np.clip(rng.normal(17, 4), 10, 30)),
        build=float(np.clip(rng.normal(1, 0.06), 0.85, 1.15)),
        kidney_db=float(rng.normal(-5, 1.5)),
    )
    marked = rng.permutation([False] * person.clean + [True] * person.caliper).tolist()
    return [_picture(rng, person, machine, lesion, liver, caliper=caliper) for caliper in marked]


def _picture(
    rng: np.random.Generator,
    person: SmcPatient,
    machine: Machine,
    lesion: LesionLook,
    liver: LiverLook,
    *,
    caliper: bool,
) -> Drawn:
    views: tuple[View, ...] = ("plain", "veins", "kidney", "gallbladder")
    scene = draw_liver(rng, liver, SECTOR, view=views[int(rng.choice(4, p=[0.5, 0.3, 0.1, 0.1]))])
    seen = replace(
        lesion,
        size_mm=lesion.size_mm * float(rng.uniform(0.8, 1.0)),
        level_db=lesion.level_db + float(rng.normal(0, 1.2)),
        mosaic_db=lesion.mosaic_db * float(np.exp(rng.normal(0, 0.15))),
    )
    outline = add_lesion(rng, scene, seen)
    turned = replace(machine, gain_db=machine.gain_db + float(rng.normal(0, 2.5)))
    gray = sector_picture(rng, scene.tissue(), turned, SECTOR)
    dotted, second = (bool(rng.uniform() < odds[person.carcinoma]) for odds in (DOTTED, SECOND))
    if caliper:
        _measure(gray, outline, dotted=dotted, second=second)
    row, column = SECTOR.pixel(outline.column, outline.row)
    values: dict[str, Value] = {
        "dotted": caliper and dotted,
        "second_diameter": caliper and second,
        "row": row,
        "column": column,
        "radius_px": outline.across / SECTOR.frame_mm,
        **{f"drawn_{name}": value for name, value in asdict(seen).items()},
        "liver_fibrosis": liver.fibrosis,
        "gain_db": turned.gain_db,
    }
    return caliper, gray, values


def _measure(gray: NDArray[np.uint8], outline: Outline, *, dotted: bool, second: bool) -> None:
    """Burn the largest diameter into the picture in place, and the one across it."""
    for turn, reach, wanted in ((0.0, outline.across, True), (np.pi / 2, outline.down, second)):
        if wanted:
            angle = outline.tilt + turn
            x, z = reach * np.cos(angle), reach * np.sin(angle)
            ends = [SECTOR.pixel(outline.column + side * x, outline.row + side * z) for side in (-1, 1)]
            burn_diameter(gray, ends[0], ends[1], dotted=dotted)


def _place(folder: Path, person: SmcPatient, name: str, content: bytes, *, clean: bool) -> None:
    homes = [f"original_data/{person.group}", f"split_for_train/{person.split}/{person.group}"]
    if clean:
        homes.append(f"clean_ver_for_train/{person.split}_clean/{person.group}")
    for home in homes:
        path = folder / home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _known(person: SmcPatient) -> dict[str, Value]:
    return {"patient": person.identifier, "group": person.group, "split": person.split}


def _cells(person: SmcPatient) -> list[str | int | float | None]:
    carcinoma = (person.size_cm, person.stage) if person.carcinoma else (None, None)
    sex = "F" if person.female else "M"
    return [person.identifier, person.group, person.age, sex, person.height_cm, person.weight_kg, *carcinoma]


def _png(gray: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

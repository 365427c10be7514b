"""DeepLesion's on-disk format: `DL_info.csv` with its 18 columns, and key slices as 16-bit PNG, HU = value − 32768.

`000001_01_01_109.png` in the table is `Images_png/000001_01_01/109.png` on disk. Counts are in the proportions of the
real data set: 32,735 lesions on 32,120 slices of 10,594 studies of 4,427 patients. Its shares of the types are those of
Yan et al., J Med Imaging 5(3):036501 (2018), rounded.
"""

from __future__ import annotations

__all__ = ["COLUMNS", "write_deeplesion"]

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import BadInput
from common.randomness import derive
from simulation.phantom.ct import SIDE, acquire_slice
from simulation.phantom.ct_anatomy import draw_section
from simulation.phantom.ct_lesions import CtLesion, add_lesion
from simulation.phantom.ct_studies import KeySlice, draw_slices
from simulation.phantom.truth import Value, csv_text

COLUMNS = (
    "File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Measurement_coordinates",
    "Bounding_boxes", "Lesion_diameters_Pixel_", "Normalized_lesion_location", "Coarse_lesion_type", "Possibly_noisy",
    "Slice_range", "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender", "Patient_age", "Train_Val_Test",
)  # fmt: skip
OFFSET = 32768
"""Added to HU in the file."""
DEFAULT = 0.75
LEAST_PATIENTS = 3
WITHOUT_TYPE = 1
"""The split whose rows say −1 instead of a type."""
HEIGHT_IN_BODY = {1: 0.56, 2: 0.64, 3: 0.41, 4: 0.60, 5: 0.48, 6: 0.66, 7: 0.39, 8: 0.80}
"""Middle of the normalized position along the body, by type, as in rows of the real table."""


def write_deeplesion(
    folder: Path,
    *,
    seed: int,
    shift: float,
    visibility: float,
    patients: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill `folder`. patients: in all. BadInput where they are too few for three splits."""
    if patients is not None and patients < LEAST_PATIENTS:
        raise BadInput(f"patients is {patients}; deeplesion needs at least {LEAST_PATIENTS}, one for each split")
    slices = draw_slices(seed=seed, shift=shift, patients=patients)
    rows: list[dict[str, str]] = []
    truth: list[dict[str, Value]] = []
    for done, key in enumerate(slices, start=1):
        rng = derive(seed, "phantom", "deeplesion", "slice", done)
        hu, lesions = _draw(rng, key, clear=visibility / DEFAULT)
        if key.on_disk:
            _save(folder / "Images_png" / key.series / f"{key.index:03d}.png", hu)
        for (lesion, noisy), kind in zip(lesions, key.types, strict=True):
            rows.append(_row(rng, key, lesion, kind, noisy=noisy))
            truth.append(_known(key, lesion, kind, noisy=noisy))
        if progress is not None:
            progress(done, len(slices))
    (folder / "DL_info.csv").write_bytes(_table(rows))
    (folder / "truth.csv").write_text(csv_text(truth), encoding="utf-8")


def _draw(
    rng: np.random.Generator, key: KeySlice, *, clear: float
) -> tuple[NDArray[np.int16], list[tuple[CtLesion, bool]]]:
    """The slice in HU and its lesions, each with whether it is noisily annotated."""
    study = key.study
    drawn = draw_section(rng, key.section, study.body, spacing_mm=study.spacing_mm, table=study.scanner.table)
    lesions = [
        (add_lesion(rng, drawn, kind, clear=clear), noisy)
        for kind, noisy in zip(key.types, key.noisy, strict=True)
    ]  # fmt: skip
    mean = (study.body.width_mm + study.body.height_mm) / 2
    hu = acquire_slice(rng, drawn.canvas, study.scanner, thickness_mm=study.thickness_mm, body_mm=mean)
    return hu, lesions


def _row(rng: np.random.Generator, key: KeySlice, lesion: CtLesion, kind: int, *, noisy: bool) -> dict[str, str]:
    """One row of the table, as the real one spells its numbers: six digits, separated by a comma and a space."""
    study = key.study
    cells = (
        f"{key.series}_{key.index:03d}.png",
        str(study.patient),
        str(study.number),
        str(study.series),
        str(key.index),
        _numbers(value for end in lesion.ends for value in end),
        _numbers(lesion.box),
        _numbers(lesion.diameters_px),
        _numbers(_location(rng, key, lesion, kind)),
        str(-1 if study.split == WITHOUT_TYPE else kind),
        str(int(noisy)),
        f"{key.first}, {key.last}",
        _numbers((study.spacing_mm, study.spacing_mm, study.thickness_mm)),
        f"{SIDE}, {SIDE}",
        "-1500, 500" if key.lung_window else "-175, 275",
        study.gender,
        f"{study.age:.1f}",
        str(study.split),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _numbers(values: Iterator[float] | Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _location(rng: np.random.Generator, key: KeySlice, lesion: CtLesion, kind: int) -> tuple[float, float, float]:
    """The box's middle as a share of the body's width, depth and length."""
    left, top, right, bottom = lesion.box
    body, pixel = key.study.body, key.study.spacing_mm
    x = ((left + right) / 2 - SIDE / 2) * pixel / body.width_mm + 0.5
    y = ((top + bottom) / 2 - SIDE / 2) * pixel / body.height_mm + 0.5
    along = HEIGHT_IN_BODY[kind] + 0.04 * rng.standard_normal()
    return tuple(float(np.clip(value, 0, 1)) for value in (x, y, along))  # type: ignore[return-value]


def _known(key: KeySlice, lesion: CtLesion, kind: int, *, noisy: bool) -> dict[str, Value]:
    study = key.study
    return {
        "file": f"{key.series}_{key.index:03d}.png",
        "on_disk": key.on_disk,
        "patient": study.patient,
        "split": study.split,
        "lesion_type": kind,
        "possibly_noisy": noisy,
        "section": key.section,
        "lesion_hu": lesion.hu,
        "long_px": lesion.diameters_px[0],
        "short_px": lesion.diameters_px[1],
        "scanner": study.scanner.name,
        "noise": study.scanner.noise,
        "spacing_mm": study.spacing_mm,
        "thickness_mm": study.thickness_mm,
        "contrast": study.body.contrast,
    }


def _table(rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _save(path: Path, hu: NDArray[np.int16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((hu.astype(np.int32) + OFFSET).astype(np.uint16)).save(path, "PNG", compress_level=1)

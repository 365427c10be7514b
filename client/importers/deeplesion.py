"""DeepLesion: lesions in CT, eight types, one center (J. Med. Imaging 5(3):036501, 2018).

`DL_info.csv` lies beside `Images_png/<patient>_<study>_<series>/<slice>.png`; the row `000001_01_01_109.png` is about
the slice `000001_01_01/109.png`. Slices are 16-bit gray, HU = value − 32768.

A case is a row, so a slice with two lesions is two cases and is stored twice, each time as 8-bit gray through the row's
own `DICOM_windows` (low and high end in HU; linear between). `Bounding_boxes` (left, top, right, bottom; the data set
has widened them by 5 pixels) are rounded outwards to whole pixels and cut at the edge of the slice. `Spacing_mm_px_`
gives `spacing_mm`, so that a crop's margin may be in millimetres.

The official split is by patient, and every one of its train rows is unlabelled (type −1). Rows without a label are left
out, so the official test patients stay test, and where no labelled train case is left the official val patients are
drawn to train and val.
"""

from __future__ import annotations

__all__ = ["TASK", "TYPES", "deeplesion"]

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from client.box import Box
from client.importers.archive import Archive, Member, open_archive
from client.importers.artificial import cut
from client.importers.case import Case, Collection, File, Skipped
from client.importers.named_file import find_file
from client.importers.splits import completed_split
from client.importers.table import Row, csv_rows
from client.manifest import CovariateKind
from client.site import SPACING
from common.config import ImportOptions
from common.errors import BadInput, suggest
from common.tasks import Task

TYPES = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis")
"""The types 1 to 8 of `Coarse_lesion_type`."""
TASK = Task("lesion-type", TYPES, "lung")
"""With eight classes AUC is macro, one against the rest; `lung`, the commonest, is the positive one by choice."""

_TABLE = "DL_info.csv"
_IMAGES = "Images_png"
_COLUMNS = (
    *(
        "File_name",
        "Patient_index",
        "Bounding_boxes",
        "Lesion_diameters_Pixel_",
        "Coarse_lesion_type",
        "Possibly_noisy",
    ),
    *("Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender", "Patient_age", "Train_Val_Test"),
)
_COVARIATES: Mapping[str, CovariateKind] = {
    "age": "number",
    "sex": "category",
    "long_diameter_px": "number",
    "short_diameter_px": "number",
    "long_diameter_mm": "number",
    "short_diameter_mm": "number",
    SPACING: "number",
}
_SIDES = {"1": "train", "2": "val", "3": "test"}

_Find = Callable[[PurePosixPath, str], File | None]
"""Gives the file of a path below Images_png; the words are how errors name it."""


@contextmanager
def deeplesion(source: Path, options: ImportOptions, *, split_seed: int) -> Iterator[list[Collection]]:
    """The one center in `source` (a folder or a zip), or its artificial sites. Raises BadInput."""
    _check(options)
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give the folder that holds {_TABLE} and {_IMAGES}")
    with ExitStack() as stack:
        table, find = (
            _in_folder(source)
            if source.is_dir()
            else _in_zip(
                stack.enter_context(
                    open_archive(source, label="archive deeplesion", password_file=options.password_file)
                )
            )
        )
        whole = _collection(table, find)
        if options.sites is None:
            yield [whole]
        else:
            yield cut(whole, options.sites, by=options.by or "patient", seed=split_seed)


def _check(options: ImportOptions) -> None:
    if options.task not in (None, TASK.name):
        raise BadInput(f"--task: deeplesion knows {TASK.name} only{suggest(options.task, [TASK.name])}")
    if options.sites is None and options.by is not None:
        raise BadInput("--by: says how artificial sites are cut; give --sites N with it")
    if options.sites == 1:
        raise BadInput("--sites: one site is the whole center; give 2 or more, or leave it out")


def _in_folder(source: Path) -> tuple[File, _Find]:
    table = find_file(source, _TABLE, where=_TABLE)
    if table is None:
        raise BadInput(f"{source}: no {_TABLE} in it; give the folder that holds {_TABLE} and {_IMAGES}")
    return table, lambda path, where: find_file(source, f"{_IMAGES}/{path}", where=where)


def _in_zip(archive: Archive) -> tuple[File, _Find]:
    tables = [member for member in archive.members() if member.path.name == _TABLE]
    if len(tables) != 1:
        raise BadInput(f"{archive.label}: {len(tables)} files {_TABLE} where one is expected; put it beside {_IMAGES}")
    root = tables[0].path.parent / _IMAGES
    members: dict[PurePosixPath, Member] = {
        member.path.relative_to(root): member for member in archive.members() if member.path.is_relative_to(root)
    }
    return tables[0], lambda path, _: members.get(path)


def _collection(table: File, find: _Find) -> Collection:
    cases: list[Case] = []
    skipped: list[Skipped] = []
    train, rows = Counter[bool](), 0
    for row in csv_rows(table.read(), where=_TABLE, columns=_COLUMNS):
        rows += 1
        where = f"{_TABLE}, table row {row.number}"
        train[row.values["Coarse_lesion_type"] == "-1"] += row.values["Train_Val_Test"] == "1"
        image = find(_slice(row, where), where)
        reason = "no image of this slice" if image is None else _why_not(row, where)
        if image is None or reason:
            skipped.append(Skipped(where, reason))
        else:
            cases.append(_case(row, image, where))
    if not cases:
        raise BadInput(
            f"{_TABLE}: none of {rows} rows has its slice in {_IMAGES}, a label and no doubt; put the slices there"
        )
    completed, notes = completed_split(cases)
    if train[True]:
        notes.insert(0, f"{train[True]} of {train.total()} rows of the official train side have no type, so no label")
    return Collection(
        site="deeplesion",
        task=TASK,
        namespace="deeplesion",
        cases=tuple(completed),
        covariates=_COVARIATES,
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _slice(row: Row, where: str) -> PurePosixPath:
    match = re.fullmatch(r"([^/\\.][^/\\]*)_([^/\\_]+\.png)", row.values["File_name"])
    if match is None:
        raise BadInput(f"{where}: File_name is not <patient>_<study>_<series>_<slice>.png; correct the table")
    return PurePosixPath(match[1], match[2])


def _why_not(row: Row, where: str) -> str:
    """Why a row whose slice is there is left out all the same; empty where it is not. Raises BadInput."""
    values = row.values
    if values["Possibly_noisy"] not in ("0", "1"):
        raise BadInput(f"{where}: Possibly_noisy is neither 0 nor 1; correct the table")
    if values["Coarse_lesion_type"] == "-1":
        return "no type (-1), so no label"
    if values["Possibly_noisy"] == "1":
        return "possibly noisy"
    spacing = _numbers(row, "Spacing_mm_px_", 3, where)
    if abs(spacing[0] - spacing[1]) > 0.01 * spacing[0]:
        return "its pixels are not square"
    return "" if _box(row, where) else "its box lies outside the slice"


def _case(row: Row, image: File, where: str) -> Case:
    values = row.values
    if not re.fullmatch("[1-8]", values["Coarse_lesion_type"]):
        raise BadInput(f"{where}: Coarse_lesion_type is none of -1, 1 to 8; correct the table")
    if values["Train_Val_Test"] not in _SIDES:
        raise BadInput(f"{where}: Train_Val_Test is none of 1, 2, 3; correct the table")
    if not values["Patient_index"]:
        raise BadInput(f"{where}: Patient_index is empty; correct the table")
    low, high = _numbers(row, "DICOM_windows", 2, where)
    if low >= high:
        raise BadInput(f"{where}: DICOM_windows is not low, high; correct the table")
    return Case(
        image=image,
        mask=None,
        patient=values["Patient_index"],
        label=TYPES[int(values["Coarse_lesion_type"]) - 1],
        where=where,
        box=_box(row, where),
        split=_SIDES[values["Train_Val_Test"]],
        covariates=_covariates(row, where),
        window=(low, high),
    )


def _box(row: Row, where: str) -> Box | None:
    """Rounded outwards and cut at the slice's edge; None where nothing is left of it."""
    left, top, right, bottom = _numbers(row, "Bounding_boxes", 4, where)
    width, height = _numbers(row, "Image_size", 2, where)
    x, y = max(0, math.floor(left)), max(0, math.floor(top))
    across, down = min(int(width), math.ceil(right)) - x, min(int(height), math.ceil(bottom)) - y
    return Box(x, y, across, down) if across > 0 and down > 0 else None


def _covariates(row: Row, where: str) -> dict[str, str]:
    spacing = _numbers(row, "Spacing_mm_px_", 3, where)[0]
    longer, shorter = _numbers(row, "Lesion_diameters_Pixel_", 2, where)
    sizes = {
        "long_diameter_px": longer,
        "short_diameter_px": shorter,
        "long_diameter_mm": round(longer * spacing, 4),
        "short_diameter_mm": round(shorter * spacing, 4),
        SPACING: spacing,
    }
    age = row.values["Patient_age"]
    known = {"sex": row.values["Patient_gender"], "age": "" if age.lower() == "nan" else age}
    if known["age"]:
        known["age"] = repr(_numbers(row, "Patient_age", 1, where)[0])
    return {name: text for name, text in known.items() if text} | {name: repr(size) for name, size in sizes.items()}


def _numbers(row: Row, column: str, count: int, where: str) -> Sequence[float]:
    try:
        numbers = [float(part) for part in row.values[column].split(",")]
    except ValueError:
        numbers = []
    positive = column in ("Spacing_mm_px_", "Image_size")
    if len(numbers) != count or not all(math.isfinite(n) and (n > 0 or not positive) for n in numbers):
        raise BadInput(f"{where}: {column} is not {count} {'positive ' if positive else ''}numbers; correct the table")
    return numbers

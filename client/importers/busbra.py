"""BUS-BRA: breast ultrasound, benign or malignant, one site for each device (Medical Physics 51(4):3110-3123, 2024).

`bus_data.csv` lies beside `Images/<ID>.png` and `Masks/<ID with bus→mask>.png`. BBOX counts pixels from 1 and gives
last minus first as width and height: `[70,50,94,32]` is 95 × 33 pixels from column 69 and row 49. All masks agree.
"""

from __future__ import annotations

__all__ = ["TASK", "busbra"]

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from client.box import Box
from client.importers.archive import Archive, Member, open_archive
from client.importers.case import Case, Collection, Skipped
from client.importers.table import Row, csv_rows
from client.manifest import CovariateKind
from common.errors import BadInput, suggest
from common.tasks import Task

TASK = Task("breast-lesion-malignancy", ("benign", "malignant"), "malignant")

_COLUMNS = ("ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side", "BBOX")
_COVARIATES: Mapping[str, CovariateKind] = {"histology": "category", "birads": "category", "side": "category"}
_TABLE = "bus_data.csv"


@contextmanager
def busbra(source: Path, *, password_file: str | None = None) -> Iterator[list[Collection]]:
    """The devices in `source` (a folder or a zip), in order of first appearance in the table. Raises BadInput."""
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give the folder that holds {_TABLE}")
    with open_archive(source, label="archive busbra", password_file=password_file) as archive:
        yield _collections(archive)


def _collections(archive: Archive) -> list[Collection]:
    files, table = _files(archive)
    cases: dict[str, list[Case]] = {}
    skipped: dict[str, list[Skipped]] = {}
    first_site: dict[str, tuple[str, str]] = {}
    for row in csv_rows(table.read(), where=table.where, columns=_COLUMNS):
        where = f"{table.where}, table row {row.number}"
        site = _site_id(row.values["Device"], where)
        image = files.pop(("images", row.values["ID"].lower()), None)
        mask = files.pop(("masks", row.values["ID"].lower().replace("bus", "mask", 1)), None)
        if image is None:
            skipped.setdefault(site, []).append(Skipped(where, "no image of this ID"))
            continue
        if mask is None:
            raise BadInput(f"{where}: its mask is missing; get the archive again, or take the row out of the table")
        case = _case(row, image, mask, where)
        other, earlier = first_site.setdefault(case.patient, (site, where))
        if other != site:
            raise BadInput(f"{where}: a patient at two sites ({other} at {earlier}, {site} here); keep one device")
        cases.setdefault(site, []).append(case)
    if not cases:
        raise BadInput(f"{archive.label}: no image of the table is there; Images/ and Masks/ must lie beside {_TABLE}")
    first = next(iter(cases))
    skipped.setdefault(first, []).extend(
        Skipped(member.where, "no row of the table names it") for member in files.values()
    )
    return [_collection(site, cases[site], skipped.get(site, [])) for site in cases]


def _collection(site: str, cases: list[Case], skipped: list[Skipped]) -> Collection:
    return Collection(
        site=site, task=TASK, namespace="busbra", cases=tuple(cases), covariates=_COVARIATES, skipped=tuple(skipped)
    )


def _files(archive: Archive) -> tuple[dict[tuple[str, str], Member], Member]:
    """The PNG files by folder and stem, in lower case, beside the one table; and that table."""
    members = archive.members()
    tables = [member for member in members if member.path.name.lower() == _TABLE]
    if len(tables) != 1:
        raise BadInput(f"{archive.label}: {len(tables)} files {_TABLE} where one is expected; give BUS-BRA's folder")
    root = tables[0].path.parent
    files: dict[tuple[str, str], Member] = {}
    for member in members:
        if member.path.parent.parent == root and member.path.suffix.lower() == ".png":
            first = files.setdefault((member.path.parent.name.lower(), member.path.stem.lower()), member)
            if first is not member:
                raise BadInput(
                    f"{member.where}: bears the name of member {first.number} but for case; leave one of them"
                )
    return files, tables[0]


def _site_id(device: str, where: str) -> str:
    """`GE Logiq 5 @10-12MHz` is site ge-logiq-5."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.split("@")[0].lower()).strip("-")
    if not 1 <= len(slug) <= 63:
        raise BadInput(f"{where}: Device names no machine; correct the table")
    return slug


def _case(row: Row, image: Member, mask: Member, where: str) -> Case:
    values = row.values
    label = values["Pathology"].lower()
    if label not in TASK.classes:
        raise BadInput(f"{where}: Pathology is neither {' nor '.join(TASK.classes)}{suggest(label, TASK.classes)}")
    if not values["Case"]:
        raise BadInput(f"{where}: Case, the patient, is empty; correct the table")
    return Case(
        image=image,
        mask=mask,
        patient=values["Case"],
        label=label,
        where=where,
        box=_box(values["BBOX"], where),
        device=values["Device"],
        covariates={"histology": values["Histology"], "birads": values["BIRADS"], "side": values["Side"]},
    )


def _box(text: str, where: str) -> Box:
    match = re.fullmatch(r"\[\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\]", text)
    if match is None or match[1] == "0" or match[2] == "0":
        raise BadInput(f"{where}: BBOX is not [x,y,w,h] in pixels counted from 1; correct the table")
    x, y, width, height = (int(part) for part in match.groups())
    return Box(x - 1, y - 1, width + 1, height + 1)

"""BEHSOF: fatty liver, two sites, several images a patient (doi 10.1007/s00261-025-05309-9).

`image_Data/<PatientID>/Image*.jpg`, at TAL in a further folder for each acquisition, and one table (CSV or Excel) with
a row for each patient. **The labels are in the id**: site, two digits of row, expert steatosis, CAP steatosis,
fibrosis. The table is the authority; where an id says otherwise, that is counted, said and written to
private/remarks.csv.

`behsof_tasks.py` lists the tasks. There are neither masks nor boxes: train with `crop.region = "frame"`.
"""

from __future__ import annotations

__all__ = ["behsof"]

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from client.importers.archive import Archive, Member, open_archive
from client.importers.behsof_table import (
    EXPECTED,
    Columns,
    Patient,
    Table,
    columns_of,
    disagreements_of,
    find_table,
    id_of,
    patients_of,
)
from client.importers.behsof_tasks import DEFAULT_TASK, MEASURES, QUESTIONS, TASKS, Question
from client.importers.case import Case, Collection, Skipped
from common.errors import BadInput, suggest

_SITES = ("tal", "beh")
_IMAGE = re.compile(r"image.*\.jpe?g", re.IGNORECASE)


@contextmanager
def behsof(source: Path, *, task: str | None = None, password_file: str | None = None) -> Iterator[list[Collection]]:
    """The sites in `source` (a folder or a zip), labelled for `task`. Raises BadInput."""
    question = QUESTIONS.get(task or DEFAULT_TASK)
    if question is None:
        raise BadInput(f"task {task!r}{suggest(str(task), TASKS)} is none of BEHSOF's: {', '.join(TASKS)}")
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give the zip or folder that holds image_Data")
    with open_archive(source, label="archive behsof", password_file=password_file) as archive:
        yield _collections(archive, question)


def _collections(archive: Archive, question: Question) -> list[Collection]:
    folders, tables, skipped = _sort(archive)
    table = find_table(tables, archive.label)
    patients, unread = patients_of(table)
    patients, orphans = _with_images(patients, folders)
    others = [Skipped(member.where, "not BEHSOF's table") for member in tables if member.where != table.where]
    skipped += others + unread + orphans
    kept = {site: [p for p in patients if p.site == site and _lack(p, question) is None] for site in _SITES}
    sites = [site for site in _SITES if kept[site]]
    if not sites:
        raise BadInput(
            f"{archive.label}: no patient has both an image and a label for {question.task.name}; {EXPECTED}"
        )
    columns = columns_of(table)
    collections = [
        _collection(site, table, columns, question, [p for p in patients if p.site in (site, *_homeless(site, sites))])
        for site in sites
    ]
    first = replace(
        collections[0],
        skipped=(*skipped, *collections[0].skipped),
        remarks=(*collections[0].remarks, *columns.typed.remarks),
    )
    return [first, *collections[1:]]


def _homeless(site: str, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites without a single case, whose patients the first site's private files account for."""
    return tuple(other for other in _SITES if other not in sites) if site == sites[0] else ()


def _sort(archive: Archive) -> tuple[dict[str, list[Member]], list[Member], list[Skipped]]:
    """Images by the id of their patient's folder, in the order of their paths; tables; and what is neither."""
    folders: dict[str, list[Member]] = {}
    tables, skipped = [], []
    members = archive.members()
    rooted = any("image_data" in _folders(member) for member in members)
    for member in sorted(members, key=lambda member: str(member.path)):
        if member.hidden:
            skipped.append(Skipped(member.where, "a hidden file"))
        elif member.path.suffix.lower() in (".csv", ".xlsx"):
            tables.append(member)
        elif not _IMAGE.fullmatch(member.path.name):
            skipped.append(Skipped(member.where, "not a file of BEHSOF"))
        elif (patient := _folder_id(member, rooted=rooted)) is None:
            skipped.append(Skipped(member.where, "in no patient's folder"))
        else:
            folders.setdefault(patient, []).append(member)
    return folders, tables, skipped


def _folders(member: Member) -> list[str]:
    return [part.lower() for part in member.path.parts[:-1]]


def _folder_id(member: Member, *, rooted: bool) -> str | None:
    """The id that a folder above the image bears; where there is an image_Data, only below it."""
    parts = _folders(member)
    if rooted:
        parts = parts[parts.index("image_data") + 1 :] if "image_data" in parts else []
    return next((found for part in parts if (found := id_of(part))), None)


def _with_images(
    patients: Sequence[Patient], folders: Mapping[str, list[Member]]
) -> tuple[list[Patient], list[Skipped]]:
    """Give patients their folder: of their id, else the only one of their site and row;
    and files that nobody claims.
    """
    ids = {patient.id for patient in patients}
    rows = Counter(patient.id[:5] for patient in patients)
    spare: dict[str, list[str]] = {}
    for folder in folders:
        if folder not in ids:
            spare.setdefault(folder[:5], []).append(folder)
    joined = []
    for patient in patients:
        others = spare.get(patient.id[:5], []) if patient.id not in folders and rows[patient.id[:5]] == 1 else []
        other = others[0] if len(others) == 1 else None
        own = patient.id if patient.id in folders else other
        joined.append(replace(patient, folder=own, images=tuple(folders[own]) if own else ()))
    claimed = {patient.folder for patient in joined}
    orphans = [
        Skipped(member.where, "no row of the table is about this patient")
        for folder, members in folders.items()
        if folder not in claimed
        for member in members
    ]
    return joined, orphans


def _lack(patient: Patient, question: Question) -> str | None:
    """Why a patient cannot be taken; None for one who can."""
    if patient.grades[question.measure] is None:
        measure = MEASURES[question.measure]
        return f"the table gives no {measure.said} ({measure.header}: 0 to {measure.top})"
    return None if patient.images else "no image of this patient"


def _collection(
    site: str, table: Table, columns: Columns, question: Question, patients: Sequence[Patient]
) -> Collection:
    taken = [patient for patient in patients if patient.site == site and _lack(patient, question) is None]
    disagreements = [found for patient in patients for found in disagreements_of(patient, table)]
    return Collection(
        site=site,
        task=question.task,
        namespace="behsof",
        cases=tuple(case for patient in taken for case in _cases(patient, question, columns)),
        covariates=columns.typed.kinds,
        skipped=tuple(
            Skipped(f"{table.where}, table row {patient.row.number}", why)
            for patient in patients
            if (why := _lack(patient, question))
        ),
        image_formats=("JPEG",),
        notes=tuple(_notes(disagreements, columns)),
        remarks=tuple(Skipped(where, text) for _, where, text in disagreements),
    )


def _cases(patient: Patient, question: Question, columns: Columns) -> Iterator[Case]:
    grade = patient.grades[question.measure]
    assert grade is not None
    for image in patient.images:
        yield Case(
            image=image,
            mask=None,
            patient=patient.id,
            label=question.class_of[grade],
            where=image.where,
            covariates=columns.values[patient.row.number],
        )


def _notes(disagreements: Iterable[tuple[str, str, str]], columns: Columns) -> Iterator[str]:
    counts = Counter(about for about, _, _ in disagreements)
    if counts:
        listed = ", ".join(f"{about} {count}" for about, count in counts.items())
        yield (
            f"disagreements of patient id and table: {counts.total()} ({listed}); the table was followed, "
            "private/remarks.csv names the rows"
        )
    if columns.telling:
        yield f"not among the covariates, since they give a label away: {', '.join(columns.telling)}"
    if columns.typed.remarks:
        yield f"remarks on covariates: {len(columns.typed.remarks)}; see private/remarks.csv of the first site"
    yield 'neither masks nor boxes: train with crop.region = "frame"'

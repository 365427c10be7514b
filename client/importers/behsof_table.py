"""BEHSOF's table: a row for each patient, with the grades that are the authority and whatever may be a covariate."""

from __future__ import annotations

__all__ = [
    "EXPECTED",
    "Columns",
    "Patient",
    "Table",
    "columns_of",
    "disagreements_of",
    "find_table",
    "id_of",
    "patients_of",
]

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from client.importers.archive import Member
from client.importers.behsof_tasks import MEASURES
from client.importers.case import Skipped
from client.importers.covariates import Covariates, covariates_of, free_names, present
from client.importers.patient_table import find_column, headers_of, table_rows, tidy
from client.importers.table import Row
from common.errors import BadInput

_ID = re.compile(r"(TAL|BEH)(\d{2})(\d)(\d)(\d)")
_ANY_ID = re.compile(r"(TAL|BEH)\s*\d{3}", re.IGNORECASE)
_GRADE = re.compile(r"[SF]?\s*([0-4])(?:\.0+)?", re.IGNORECASE)
_NUMBERS = ("age", "ast_sgot", "alt_sgpt", "platelets", "ggt", "cholesterol")
_CORRECTIONS = {"cholestrol": "cholesterol"}
_TELLING = frozenset({
    "steatosis", "steatotic", "fatty", "fibroscan", "fibrosis", "cirrhosis", "cap", "stiffness", "elasticity",
    "elastography", "kpa", "lsm", "biopsy", "nas", "nafld", "nash", "masld", "mash", "diagnosis",
    "stage", "grade", "label", "class", "expert", "radiologist", "e", "iqr",
})  # fmt: skip
_TELLING_NAMES = ("s", "f", "s_score", "f_score")
"""Words and names of columns that give a label away: the grades, and what the grades are read off."""

EXPECTED = "expected image_Data/<PatientID>/Image*.jpg beside a table with Patient ID, " + ", ".join(
    measure.header for measure in MEASURES.values()
)


@dataclass(frozen=True)
class Patient:
    """A row of the table: the patient's id, the id of the patient's folder (None without one), and the grades."""

    id: str
    row: Row
    grades: Mapping[str, int | None]
    images: tuple[Member, ...] = ()
    folder: str | None = None

    @property
    def site(self) -> str:
        """Where the patient was seen: tal or beh."""
        return self.id[:3].lower()


class Table(NamedTuple):
    """The table: where errors place it, its rows, the header of the id, and the headers of the measures it has."""

    where: str
    rows: list[Row]
    id_header: str
    measures: dict[str, str]


class Columns(NamedTuple):
    """The table's further columns: names of those that give a label away, the typed others, and these by row number."""

    telling: tuple[str, ...]
    typed: Covariates
    values: dict[int, dict[str, str]]


def id_of(text: str) -> str | None:
    r"""The id in `\Data\ BEH01121 `: the last component, without spaces, in capitals; None where it is no id."""
    last = "".join(re.split(r"[\\/]", text.strip().rstrip("\\/"))[-1].split()).upper()
    return last if _ID.fullmatch(last) else None


def find_table(tables: Sequence[Member], label: str) -> Table:
    """The one table whose header has the id and a grade. Raises BadInput, also where the only table cannot be read."""
    found: list[Table] = []
    for member in tables:
        try:
            table = _read_table(member)
        except BadInput:
            if len(tables) == 1:
                raise
            continue
        if table is not None:
            found.append(table)
    if len(found) != 1:
        raise BadInput(f"{label}: {len(found)} of its {len(tables)} tables have BEHSOF's columns, not one; {EXPECTED}")
    return found[0]


def _read_table(member: Member) -> Table | None:
    content, suffix, where = member.read(), member.path.suffix, member.where
    headers = headers_of(table_rows(content, suffix=suffix, where=where))
    id_header = find_column(headers, ("patient_id", "patientid", "patient"), where=where)
    found = {name: find_column(headers, (tidy(m.header),), where=where) for name, m in MEASURES.items()}
    measures = {name: header for name, header in found.items() if header is not None}
    if id_header is None or not measures:
        return None
    rows = table_rows(content, suffix=suffix, where=where, columns=(id_header, *measures.values()))
    return Table(where, rows, id_header, measures)


def patients_of(table: Table) -> tuple[list[Patient], list[Skipped]]:
    """The table's patients, in its order, and its rows that are about none."""
    patients: dict[str, Patient] = {}
    skipped = []
    for row in table.rows:
        where = f"{table.where}, table row {row.number}"
        patient = id_of(row.values.get(table.id_header, ""))
        if patient is None:
            skipped.append(Skipped(where, "its Patient ID is not TAL or BEH and five digits"))
            continue
        if patient in patients:
            raise BadInput(f"{where}: the same patient as row {patients[patient].row.number}; leave one of them")
        grades = {name: _grade(row, table, name) for name in MEASURES}
        patients[patient] = Patient(patient, row, grades)
    return list(patients.values()), skipped


def _grade(row: Row, table: Table, measure: str) -> int | None:
    match = _GRADE.fullmatch(row.values.get(table.measures.get(measure, ""), ""))
    return int(match[1]) if match and int(match[1]) <= MEASURES[measure].top else None


def columns_of(table: Table) -> Columns:
    """The columns beside the id, sorted into what gives a label away and what is a covariate."""
    names = free_names(headers_of(table.rows), corrections=_CORRECTIONS)
    del names[table.id_header]
    telling = {header: name for header, name in names.items() if _tells_label(header)}
    telling |= {header: names[header] for header in table.measures.values()}
    others = {header: name for header, name in names.items() if header not in telling}
    typed = covariates_of(table.rows, others, numbers=_NUMBERS, never=_ANY_ID, where=table.where)
    values = {row.number: value for row, value in zip(table.rows, typed.values, strict=True)}
    return Columns(tuple(telling.values()), typed, values)


def _tells_label(header: str) -> bool:
    name = tidy(header)
    return name in _TELLING_NAMES or bool(_TELLING & set(name.split("_")))


def disagreements_of(patient: Patient, table: Table) -> Iterator[tuple[str, str, str]]:
    """What about, where, and in words: ids that do not say what the table says, or what each other says."""
    where = f"{table.where}, table row {patient.row.number}"
    if patient.folder not in (None, patient.id):
        yield "the folder's id", where, "the id of the images' folder has other grades than the table's Patient ID"
    for spelled in dict.fromkeys((patient.id, patient.folder or patient.id)):
        for name, measure in MEASURES.items():
            said, told = int(spelled[measure.digit]), patient.grades[name]
            if told is None and present(patient.row.values.get(table.measures.get(name, ""), "")):
                yield measure.said, where, f"{measure.said}: the id says {said}, the table no grade"
            elif told not in (None, said):
                yield measure.said, where, f"{measure.said}: the id says {said}, the table {told}"

"""Who is the patient of an image of SMC-LUD: a table of the user's says so, or a pattern, or nobody."""

from __future__ import annotations

__all__ = ["Patients", "patients_of"]

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from client.importers.archive import MAX_MEMBER_BYTES, Member
from client.importers.case import Case, Skipped
from client.importers.covariates import Covariates, covariates_of
from client.importers.patient_pattern import PatientPattern, patient_pattern
from client.importers.patient_table import find_column, headers_of, table_rows
from client.importers.table import Row
from client.manifest import CovariateKind
from common.errors import BadInput

_WHERE = "patient table"
_FILE = (
    "file",
    "file_name",
    "filename",
    "image",
    "image_name",
    "imagename",
    "image_file",
    "image_id",
    "img",
    "img_name",
)
_PATIENT = (
    "patient",
    "patient_id",
    "patientid",
    "patient_no",
    "patient_number",
    "pid",
    "subject",
    "subject_id",
    "case_id",
)
_COVARIATES: Mapping[str, tuple[str, ...]] = {
    "age": ("age", "age_years", "age_year"),
    "sex": ("sex", "gender"),
    "height": ("height", "height_cm", "height_m"),
    "weight": ("weight", "weight_kg", "body_weight"),
    "tumour_size": ("tumour_size", "tumor_size", "tumour_size_cm", "tumor_size_cm", "tumour_size_mm", "tumor_size_mm"),
    "pt_stage": ("pt_stage", "pt", "ptstage", "t_stage", "pathologic_t_stage", "pathological_t_stage"),
}
"""The covariates, and how their headers may be spelled; a remark in brackets, such as a unit, is not read."""
_TELLING = ("tumour_size", "pt_stage")

_Key = tuple[str, ...]
"""The last parts of a path, in lower case and without the file's ending."""


@dataclass(frozen=True, eq=False)
class _Table:
    """The patient table: rows by the end of the file's path and by patient;
    `used` are the rows that some image is of.
    """

    rows: list[Row]
    patients: list[str]
    by_file: dict[_Key, list[int]]
    by_patient: dict[str, int]
    covariates: Covariates
    used: set[int] = field(default_factory=set)

    def place(self, member: Member) -> int | None:
        """The row about a file: of those whose path ends as the file's does, over the most parts. Raises BadInput."""
        key = _key(str(member.path))
        places = next((found for n in range(len(key)) if (found := self.by_file.get(key[n:]))), [])
        if len({self.patients[place] for place in places}) > 1:
            first, second, *_ = (self.rows[place].number for place in places)
            raise BadInput(
                f"{member.where}: rows {first} and {second} of the {_WHERE} name it, with different patients; "
                "write more of its path there, such as HCC/ before the name"
            )
        return places[0] if places else None


@dataclass(frozen=True, eq=False)
class Patients:
    """Finds the patient of an image: by the pattern where there is one, else by the table, else each is its own."""

    pattern: PatientPattern | None = None
    table: _Table | None = None

    def of(self, member: Member) -> str | None:
        """The patient's original id; None where neither table nor pattern knows. Raises BadInput."""
        if self.pattern is not None:
            return self.pattern.patient(member.path.name, where=member.where)
        if self.table is None:
            return f"image {member.path}"
        place = self.table.place(member)
        return None if place is None else self.table.patients[place]

    def covariates(self, member: Member) -> dict[str, str]:
        """What the table says about the image's patient."""
        if self.table is None:
            return {}
        place = self.table.place(member) if self.pattern is None else self.table.by_patient.get(self.of(member) or "")
        if place is None:
            return {}
        self.table.used.add(place)
        return self.table.covariates.values[place]

    @property
    def kinds(self) -> dict[str, CovariateKind]:
        """The covariates and their kinds."""
        return {} if self.table is None else self.table.covariates.kinds

    @property
    def remarks(self) -> tuple[Skipped, ...]:
        """What was noticed in the table."""
        return () if self.table is None else self.table.covariates.remarks

    @property
    def why_none(self) -> str:
        """Why `of` gives None."""
        return "no row of the patient table names it" if self.pattern is None else "the pattern is not in its name"

    @property
    def expected(self) -> str:
        """What table or pattern would have to hold."""
        if self.pattern is not None:
            return "the pattern is searched for in file names, without their folders; correct it"
        return "the table's file column must hold the images' file names, with or without ending and folders"

    def left_over(self) -> Iterator[Skipped]:
        """Rows of the table that no image is about."""
        if self.table is None:
            return
        joined = {self.table.patients[place] for place in self.table.used} if self.pattern is not None else set()
        for place, row in enumerate(self.table.rows):
            if place not in self.table.used and self.table.patients[place] not in joined:
                yield Skipped(f"{_WHERE}, table row {row.number}", "no image of it is taken")

    def notes(self, cases: Sequence[Case]) -> tuple[str, ...]:
        """What whoever imports must know about patients and covariates."""
        notes = []
        if self.pattern is None and self.table is None:
            notes.append(
                "neither --patients nor --pattern was given, so each image counts as a patient: "
                "splits and intervals are per image, and one person may be on two sides"
            )
        if telling := [name for name in _TELLING if name in self.kinds]:
            notes.append(f"{' and '.join(telling)}: known for HCC only, so they give the label away; no inputs")
        classes: dict[str, set[str]] = {}
        for case in cases:
            classes.setdefault(case.patient, set()).add(case.label)
        if both := sum(len(found) > 1 for found in classes.values()):
            notes.append(
                f"{both} patients have images of both classes; make sure that numbers do not begin anew in each"
            )
        return tuple(notes)


def patients_of(table: str | None, pattern: str | None) -> Patients:
    """Read the user's table (CSV or Excel) and compile the pattern. Raises BadInput.

    With both, the pattern finds the patient and the table, joined by patient, gives covariates alone.
    """
    compiled = None if pattern is None else patient_pattern(pattern)
    return Patients(compiled, None if table is None else _read(Path(table), by_file=pattern is None))


def _read(path: Path, *, by_file: bool) -> _Table:
    rows = table_rows(_content(path), suffix=path.suffix, where=_WHERE)
    headers = headers_of(rows)
    columns = {name: find_column(headers, spelled, where=_WHERE) for name, spelled in _COVARIATES.items()}
    columns |= {
        "file": find_column(headers, _FILE, where=_WHERE),
        "patient": find_column(headers, _PATIENT, where=_WHERE),
    }
    patient, file = columns.pop("patient"), columns.pop("file")
    if patient is None or (by_file and file is None):
        raise BadInput(
            _missing([*columns, "file", "patient"], {**columns, "file": file, "patient": patient}, len(headers))
        )
    rows = [row for row in rows if row.values.get(patient) and (not by_file or row.values.get(file or ""))]
    ids = [row.values[patient] for row in rows]
    names = {header: name for name, header in columns.items() if header is not None}
    typed = covariates_of(
        rows, names, where=_WHERE, numbers=("age", "height", "weight", "tumour_size"), categories=("sex", "pt_stage")
    )
    return _Table(rows, ids, _by_file(rows, file) if by_file else {}, _by_patient(ids), typed)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MEMBER_BYTES:
            raise BadInput(f"the {_WHERE} is larger than {MAX_MEMBER_BYTES >> 20} MiB; give the right file")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such name"
        raise BadInput(f"the {_WHERE} cannot be read ({why}); give a csv or xlsx file with --patients") from None


def _missing(names: Sequence[str], columns: Mapping[str, str | None], count: int) -> str:
    """What was found, by what it was taken for: a header may be a patient's name where a table has none."""
    found = [name for name in names if columns[name] is not None]
    lacking = "patient" if columns["patient"] is None else "file name"
    return (
        f"{_WHERE}: none of its {count} columns is the {lacking} (found: {', '.join(found) or 'nothing known'}); "
        f"expected `file` (or {', '.join(_FILE[1:4])}, …) and `patient` (or {', '.join(_PATIENT[1:3])}, …), "
        f"and if you have them {', '.join(_COVARIATES)}"
    )


def _by_file(rows: Sequence[Row], header: str | None) -> dict[_Key, list[int]]:
    """Rows by every ending of the path that they name: `HCC/1.png` is found by hcc/1 and by 1."""
    found: dict[_Key, list[int]] = {}
    for place, row in enumerate(rows):
        key = _key(row.values[header or ""])
        for n in range(len(key)):
            found.setdefault(key[n:], []).append(place)
    return found


def _by_patient(ids: Sequence[str]) -> dict[str, int]:
    """The first row of each patient."""
    return {patient: place for place, patient in reversed(list(enumerate(ids)))}


def _key(path: str) -> _Key:
    plain = unicodedata.normalize("NFC", path).casefold()
    parts = [part.strip() for part in re.split(r"[\\/]", plain) if part.strip()]
    if not parts:
        return ()
    file = PurePosixPath(parts[-1])
    is_image = file.suffix in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
    return (*parts[:-1], file.stem if is_image else parts[-1])

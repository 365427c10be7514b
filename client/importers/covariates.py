"""Columns of a clinical table as covariates: tidy names, a type by content, and nothing that says who a patient is."""

from __future__ import annotations

__all__ = ["Covariates", "covariates_of", "free_names", "present"]

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from client.importers.case import Skipped
from client.importers.patient_table import tidy
from client.importers.table import Row, as_number, typed_columns
from client.manifest import CovariateKind
from client.site import COLUMNS
from common.errors import BadInput

_MISSING = frozenset({"na", "n/a", "nan", "null", "none", "#n/a", "#value!", "?"})
_MISSING_NUMBER = _MISSING | {"-", ".", "unknown"}
_SEXES = {"m": "male", "male": "male", "man": "male", "f": "female", "female": "female", "woman": "female"}

_WHO = frozenset({
    "name", "surname", "id", "ids", "code", "mrn", "ssn", "phone", "mobile", "tel", "address", "email",
    "birth", "birthday", "birthdate", "dob", "date", "datetime", "path", "file", "folder", "image",
    "doctor", "physician", "operator", "comment", "comments", "note", "notes", "remark", "remarks",
})  # fmt: skip
_NUMBERING = frozenset({"no", "nr", "number", "row", "index", "serial", "unnamed_0"})
"""Words in a column's name, and names, that say that it may tell who a patient is."""
_DATE_OR_PATH = re.compile(r"\d{1,4}[-/._]\d{1,2}[-/._]\d{1,4}|@|\\|/.*/|\d{8}")
_MOST_CATEGORIES = 20
_LONGEST_CATEGORY = 40


@dataclass(frozen=True)
class Covariates:
    """`values` per row under the columns' names, the columns' `kinds`, and what was noticed."""

    values: tuple[dict[str, str], ...]
    kinds: dict[str, CovariateKind]
    remarks: tuple[Skipped, ...]


def free_names(headers: Iterable[str], *, corrections: Mapping[str, str]) -> dict[str, str]:
    """Headers and their tidy names, none of them a column of cases.csv or the name of another;
    `corrections` mend some.
    """
    names: dict[str, str] = {}
    taken = set(COLUMNS)
    for header in headers:
        stem = name = corrections.get(tidy(header), tidy(header)) or "column"
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        names[header] = name
    return names


def covariates_of(
    rows: Sequence[Row],
    names: Mapping[str, str],
    *,
    where: str,
    numbers: Collection[str] = (),
    categories: Collection[str] = (),
    never: re.Pattern[str] | None = None,
) -> Covariates:
    """Type the columns that `names` lists (header to name).

    A column in `numbers` (by name) is of numbers, and what is none stays empty, with a remark; one in `categories` is
    of categories. Another is yes-no where its values are one of the usual pairs, of numbers where all are, else of
    categories; and it is left out, with a remark, where it may say who a patient is: by its name, by dates, paths or
    long numbers, by many different texts, or by a value that holds `never`. A column without any value is dropped.
    """
    values: list[dict[str, str]] = [{} for _ in rows]
    kinds: dict[str, CovariateKind] = {}
    remarks: list[Skipped] = []
    for place, (header, name) in enumerate(names.items(), start=1):
        texts = [present(row.values.get(header, "")) for row in rows]
        if not any(texts):
            continue
        is_known = name in numbers or name in categories
        if not is_known and _tells_who(name, [text for text in texts if text], never):
            remarks.append(Skipped(f"{where}, covariate column {place}", "may say who a patient is; left out"))
            continue
        forced: CovariateKind | None = "number" if name in numbers else "category" if name in categories else None
        kinds[name], typed = _typed(name, texts, forced)
        for row, own, text, value in zip(rows, values, texts, typed, strict=True):
            own[name] = value
            if text and not value and text.casefold() not in _MISSING_NUMBER:
                remarks.append(Skipped(f"{where}, table row {row.number}", f"{name} is no number; left empty"))
    return Covariates(tuple(values), kinds, tuple(remarks))


def present(text: str) -> str:
    """A cell's text, empty where it is one of the spellings of nothing."""
    return "" if text.casefold() in _MISSING else text


def _tells_who(name: str, texts: Sequence[str], never: re.Pattern[str] | None) -> bool:
    if name in _NUMBERING or _WHO & set(name.split("_")) or any(_DATE_OR_PATH.search(text) for text in texts):
        return True
    if never is not None and any(never.search(text) for text in texts):
        return True
    words = [text for text in texts if _number(text) is None]
    unlike = set(words)
    return (
        len(unlike) > _MOST_CATEGORIES
        or any(len(word) > _LONGEST_CATEGORY for word in unlike)
        or (len(unlike) == len(words) >= 5)
    )


def _typed(name: str, texts: Sequence[str], forced: CovariateKind | None) -> tuple[CovariateKind, list[str]]:
    if name in ("sex", "gender"):
        return "category", [_SEXES.get(text.casefold(), text) for text in texts]
    if forced == "category":
        return "category", list(texts)
    cells, kinds = typed_columns([{name: text} for text in texts], [name])
    numbers = ["" if text.casefold() in _MISSING_NUMBER else _number(text) for text in texts]
    if forced == "number" or (kinds[name] == "category" and all(number is not None for number in numbers)):
        return "number", [number or "" for number in numbers]
    return kinds[name], [cell[name] for cell in cells]


def _number(text: str) -> str | None:
    """The number in plain spelling, None where it is none."""
    try:
        return as_number(text, where="")
    except BadInput:
        return None

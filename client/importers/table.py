"""Tables as they come: CSV and Excel rows as stripped text, and columns with a type of their own."""

from __future__ import annotations

__all__ = ["Row", "as_number", "boolean_spelling", "csv_rows", "excel_rows", "stream_csv", "typed_columns"]

import csv
import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from client.manifest import CovariateKind
from common.errors import BadInput

_MAX_ROWS = 2**20
_MAX_LINE = 2**20
_MAX_COLUMNS = 128
_MAX_UNPACKED_BYTES = 2**30
_MAX_PART_BYTES = 64 * 2**20
"""Largest part of an Excel file that is not a sheet: the texts, which are held in memory. Sheets are streamed."""

_BOOLEANS = (
    ("0", "1"),
    ("no", "yes"),
    ("n", "y"),
    ("false", "true"),
    ("absent", "present"),
    ("negative", "positive"),
    ("-", "+"),
)
"""Spellings of no and yes. A column is boolean where all of its values come from one of these pairs."""


class Row(NamedTuple):
    """A row of a table: its number as a spreadsheet counts (the header is row 1 where nothing stands above it)."""

    number: int
    values: dict[str, str]


def csv_rows(content: bytes, *, where: str, columns: Sequence[str], delimiter: str = ",") -> Iterator[Row]:
    """Rows of a CSV file in UTF-8 that has at least `columns`; blank rows are left out. Raises BadInput."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
        yield from _rows(enumerate(reader, start=1), where=where, columns=columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{where}: cannot be read as CSV in UTF-8 ({type(error).__name__}); save it so") from None


def stream_csv(
    path: Path, *, where: str, columns: Sequence[str], delimiter: str = ",", encoding: str = "utf-8"
) -> Iterator[Row]:
    """Rows of a CSV file that has at least `columns`, read one at a time; blank rows are left out. Raises BadInput."""
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    number = 0
    try:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(_lines(file, where), delimiter=delimiter, strict=True)
            for row in _rows(enumerate(reader, start=1), where=where, columns=columns):
                number = row.number
                yield row
    except UnicodeError:
        raise BadInput(f"{where}: not {encoding} text soon after row {number}; say its encoding in the map") from None
    except csv.Error:
        raise BadInput(f"{where}: cannot be read as CSV after row {number}; look for a lone quote there") from None
    except OSError as error:
        raise BadInput(f"{where}: cannot be read ({error.strerror}); check the file and its permissions") from None


def _lines(file: TextIO, where: str) -> Iterator[str]:
    while line := file.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            raise BadInput(f"{where}: a line of more than {_MAX_LINE} characters; no table has one")
        yield line


def excel_rows(content: bytes, *, where: str, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of an Excel file's first sheet that has at least `columns`; formulas give their stored value.

    Blank rows are left out. Raises BadInput.
    """
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as parts:
            if sum(part.file_size for part in parts.infolist()) > _MAX_UNPACKED_BYTES:
                raise BadInput(f"{where}: unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB; do not trust this file")
            held = [part.file_size for part in parts.infolist() if not part.filename.startswith("xl/worksheets/")]
            if max(held, default=0) > _MAX_PART_BYTES:
                raise BadInput(f"{where}: texts of more than {_MAX_PART_BYTES >> 20} MiB; do not trust this file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write a wrong extent, and rows beyond it would be lost
        lines = (
            (number, [] if line.count(None) == len(line) else [_text(value) for value in line])
            for number, line in enumerate(sheet.iter_rows(values_only=True, max_col=_MAX_COLUMNS), start=1)
        )
        yield from _rows(lines, where=where, columns=columns)
    except BadInput:
        raise
    except Exception as error:  # the trust boundary: openpyxl raises nearly anything on a damaged file
        raise BadInput(f"{where}: not an Excel file, or damaged ({type(error).__name__}); save it again") from None


def _rows(lines: Iterator[tuple[int, list[str]]], *, where: str, columns: Sequence[str]) -> Iterator[Row]:
    header: list[str] | None = None
    for number, line in lines:
        if number > _MAX_ROWS:
            raise BadInput(f"{where}: more than {_MAX_ROWS} rows; no sheet has as many")
        values = [value.strip() for value in line]
        if not any(values):
            continue
        if header is None:
            header = values
            _check_header(header, where=where, columns=columns)
            continue
        values += [""] * (len(header) - len(values))  # a row that breaks off early
        yield Row(number, {name: value for name, value in zip(header, values, strict=False) if name})
    if header is None:
        needs = f"; it needs the columns {', '.join(columns)}" if columns else "; it needs a header and rows"
        raise BadInput(f"{where}: the table is empty{needs}")


def _check_header(header: Sequence[str], *, where: str, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in header]:
        alone = "; the header is a single cell, so look at the delimiter" if len(header) == 1 < len(columns) else ""
        raise BadInput(f"{where}: column {missing[0]!r} is missing; it needs {', '.join(columns)}{alone}")
    if doubled := [name for name in columns if header.count(name) > 1]:
        raise BadInput(f"{where}: two columns are called {doubled[0]!r}; rename one")


def _text(value: object) -> str:
    """A cell as text: 1.0 as 1, and true and false in lower case."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case _:
            return str(value)


def as_number(text: str, *, where: str) -> str:
    """A finite number in plain decimal spelling, empty where absent. A decimal comma and the unit mm are understood.

    Raises BadInput.
    """
    if not text:
        return ""
    if not (match := re.fullmatch(r"([+-]?\d+(?:[.,]\d*)?(?:[eE][+-]?\d+)?)\s*(?:mm)?", text)):
        raise BadInput(f"{where}: expected a number (of millimetres), found something else; correct the table")
    number = float(match[1].replace(",", "."))
    if number in (float("inf"), float("-inf")):
        raise BadInput(f"{where}: the number is too large; correct the table")
    return repr(number)


def typed_columns(
    rows: Sequence[Mapping[str, str]], names: Sequence[str]
) -> tuple[list[dict[str, str]], dict[str, CovariateKind]]:
    """Give each column one spelling: yes and no where its values are unambiguously boolean, else as it is spelled.

    Empty values stay empty and decide nothing. Gives the rows, of these columns alone, and each column's kind.
    """
    readings = {name: boolean_spelling({row.get(name, "").casefold() for row in rows} - {""}) for name in names}
    kinds: dict[str, CovariateKind] = {name: "yes-no" if reading else "category" for name, reading in readings.items()}
    typed = []
    for row in rows:
        spelled = {name: row.get(name, "") for name in names}
        typed.append({name: (readings[name] or {}).get(text.casefold(), text) for name, text in spelled.items()})
    return typed, kinds


def boolean_spelling(values: Collection[str]) -> dict[str, str] | None:
    """How `values` (in lower case) spell no and yes; None where they are not unambiguously boolean,
    or there are none.
    """
    for no, yes in _BOOLEANS:
        if values and set(values) <= {no, yes}:
            return {no: "no", yes: "yes"}
    return None

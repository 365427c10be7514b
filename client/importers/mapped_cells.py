"""What the cells of a mapped table say: boxes, labels, sides, numbers. Errors name the row, never what a cell holds."""

from __future__ import annotations

__all__ = ["box_of", "check_formulas", "label_of", "plain_number", "side_of", "typed_covariates"]

import re
from collections.abc import Mapping, Sequence

from client.box import Box
from client.importers.column_map import ColumnMap
from client.importers.table import Row, boolean_spelling
from client.manifest import CovariateKind
from common.errors import BadInput

_SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_FORMULA = re.compile(r"[=@]|[+-]\s*[A-Za-z]\w*[(|!]")


def check_formulas(row: Row, columns: Sequence[str], *, where: str) -> None:
    """Raise BadInput where a spreadsheet would calculate a cell: it would do so in the site's own tables too."""
    for column in columns:
        if _FORMULA.match(row.values.get(column, "")):
            raise BadInput(f"{where}: the cell under {column!r} is a formula; save the table with values instead")


def box_of(row: Row, columns: Sequence[str], *, where: str) -> Box | None:
    """The lesion's box from one column (`x y w h`) or four; None where they are empty. Raises BadInput."""
    cells = [row.values.get(column, "") for column in columns]
    if not any(cells):
        return None
    parts = re.split(r"[\s,;]+", cells[0].strip("[]() ")) if len(columns) == 1 else cells
    spelled = [re.fullmatch(r"(\d{1,6})(?:\.0*)?", part) for part in parts]
    numbers = [int(match[1]) for match in spelled if match]
    if len(numbers) != 4 or len(parts) != 4 or min(numbers[2:]) < 1:
        raise BadInput(f"{where}: the box is not x, y, w, h in whole pixels counted from 0; correct the table")
    return Box(*numbers)


def label_of(row: Row, told: ColumnMap, *, where: str) -> str:
    """The class of the row, empty where the cell is. Raises BadInput where the map knows no such label."""
    text = row.values.get(told.label_column, "")
    if isinstance(told.label, str) or not text:
        return text
    if text not in told.label.classes:
        known = ", ".join(told.label.classes)
        raise BadInput(f"{where}: its label is none that the map knows ({known}); correct it, or add it to the map")
    return told.label.classes[text]


def side_of(row: Row, column: str | None, *, where: str) -> str | None:
    """The official side of the row; None where the map or the cell names none. Raises BadInput."""
    text = row.values.get(column, "").lower() if column is not None else ""
    if text and text not in _SIDES:
        raise BadInput(f"{where}: the split is none of train, val, test; correct the table")
    return _SIDES.get(text)


def plain_number(text: str, decimal: str) -> str | None:
    """A finite number in plain spelling; None where `text` is none with this decimal mark."""
    mark = re.escape(decimal)
    if not re.fullmatch(rf"[+-]?(?:\d+(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d{{1,3}})?", text):
        return None
    number = float(text.replace(decimal, "."))
    return repr(number) if abs(number) < float("inf") else None


def typed_covariates(
    rows: Mapping[str, Mapping[str, str]], told: ColumnMap
) -> tuple[list[dict[str, str]], dict[str, CovariateKind]]:
    """The covariates of each row (by how errors name it) in one spelling, and each column's kind. Raises BadInput.

    A kind that the map leaves open is yes-no or number where every value is, else category.
    """
    typed: list[dict[str, str]] = [{} for _ in rows]
    kinds: dict[str, CovariateKind] = {}
    for name in told.covariates:
        values = {where: row.get(name, "") for where, row in rows.items()}
        asked = told.covariates[name] if isinstance(told.covariates, dict) else _kind(values, told.decimal)
        kinds[name] = asked
        for place, text in zip(typed, _spelled(name, values, asked, told.decimal), strict=True):
            if text:
                place[name] = text
    return typed, kinds


def _kind(values: Mapping[str, str], decimal: str) -> CovariateKind:
    there = {text.casefold() for text in values.values()} - {""}
    if boolean_spelling(there):
        return "yes-no"
    return "number" if there and all(plain_number(text, decimal) for text in there) else "category"


def _spelled(name: str, values: Mapping[str, str], kind: CovariateKind, decimal: str) -> list[str]:
    match kind:
        case "category":
            return list(values.values())
        case "number":
            numbers = {where: plain_number(text, decimal) if text else "" for where, text in values.items()}
            wrong = [where for where, number in numbers.items() if number is None]
            if wrong:
                raise BadInput(f"{wrong[0]}: {name!r} is no number with decimal = {decimal!r}; correct table or map")
            return [number or "" for number in numbers.values()]
        case "yes-no":
            there = {text.casefold() for text in values.values()} - {""}
            reading = boolean_spelling(there) if there else {}
            if reading is None:
                raise BadInput(f"table: the column {name!r} is no yes-no; call it a category in the map")
            return [reading.get(text.casefold(), "") for text in values.values()]

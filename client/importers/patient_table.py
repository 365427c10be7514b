"""Tables of patients whose headers are spelled as each copy pleases: CSV or Excel, columns found by what they mean."""

from __future__ import annotations

__all__ = ["find_column", "headers_of", "table_rows", "tidy"]

import re
import unicodedata
from collections.abc import Iterable, Sequence

from client.importers.table import Row, csv_rows, excel_rows
from common.errors import BadInput


def tidy(header: str) -> str:
    """A header as a snake_case name of ASCII letters and digits: `AST (SGOT)` is `ast_sgot`."""
    plain = unicodedata.normalize("NFKD", header).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def table_rows(content: bytes, *, suffix: str, where: str, columns: Sequence[str] = ()) -> list[Row]:
    """All rows of a table: Excel where `suffix` is .xlsx, else CSV, whatever separates its columns. Raises BadInput.

    A table that lacks one of `columns`, or has it twice, is refused.
    """
    if suffix.lower() == ".xlsx":
        return list(excel_rows(content, where=where, columns=columns))
    return list(csv_rows(content, where=where, columns=columns, delimiter=_delimiter(content)))


def _delimiter(content: bytes) -> str:
    """What separates the columns of a CSV file: what its first line holds most of."""
    header = content.lstrip()[: 1 << 16].split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(",;\t", key=header.count)


def headers_of(rows: Iterable[Row]) -> list[str]:
    """The table's headers, in order; a column that no row reaches is not among them."""
    return list(dict.fromkeys(header for row in rows for header in row.values))


def find_column(headers: Iterable[str], spellings: Sequence[str], *, where: str) -> str | None:
    """The header that tidies to one of `spellings`, a remark in brackets aside; None where there is none.

    Raises BadInput where two do.
    """
    found = [header for header in headers if {tidy(header), tidy(re.sub(r"\(.*\)", "", header))} & set(spellings)]
    if len(found) > 1:
        raise BadInput(f"{where}: two columns could be the {spellings[0]}; rename one")
    return found[0] if found else None

"""The map of a table: a small TOML file that says what the columns of a hospital's own CSV mean.

    image = "file"                          # a path relative to the table's folder
    label = "diagnosis"                     # or {column = "diagnosis", classes = {B = "benign", M = "malignant"}}
    positive = "malignant"                  # else the last class: of `classes`, or in sorted order
    patient = "pid"
    box = ["x", "y", "w", "h"]              # or one column that holds `x y w h`: whole pixels, counted from 0
    covariates = {age = "number", sex = "category"}   # or a list of columns, whose kinds are then found out
    delimiter = ";"
    decimal = ","
    encoding = "latin-1"

`mask`, `site`, `split` and `device` name a column each. A covariate called spacing_mm is the spacing of pixels.
"""

from __future__ import annotations

__all__ = ["ColumnMap", "Labels", "load_map"]

import tomllib
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from client.manifest import CovariateKind
from client.site import COLUMNS
from common.errors import BadInput
from common.parsing import parse

_STRICT = ConfigDict(extra="forbid")
_Column = Annotated[str, Field(min_length=1)]
_FourColumns = Annotated[list[_Column], Field(min_length=4, max_length=4)]


@checked(frozen=True, config=_STRICT)
class Labels:
    """The column of labels, and which class each of its values means."""

    column: _Column
    classes: Annotated[dict[str, _Column], Field(min_length=2)]


@checked(frozen=True, config=_STRICT)
class ColumnMap:
    """A parsed map: columns by what they mean, and how the file is written."""

    image: _Column
    label: _Column | Labels
    mask: _Column | None = None
    box: _Column | _FourColumns | None = None
    patient: _Column | None = None
    positive: _Column | None = None
    site: _Column | None = None
    split: _Column | None = None
    device: _Column | None = None
    covariates: list[_Column] | dict[_Column, CovariateKind] = field(default_factory=list)
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if taken := [name for name in self.covariates if name in COLUMNS]:
            raise ValueError(f"covariates: {taken[0]} is a column of cases.csv with a meaning of its own; rename it")
        if self.delimiter in '"\r\n':
            raise ValueError("delimiter: a quote or the end of a line separates nothing; name another character")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            raise ValueError("encoding: no encoding of text has this name; try utf-8, latin-1 or cp1252") from None

    @property
    def label_column(self) -> str:
        """The column that holds labels."""
        return self.label if isinstance(self.label, str) else self.label.column

    @property
    def box_columns(self) -> tuple[str, ...]:
        """No column, one, or four."""
        return (self.box,) if isinstance(self.box, str) else tuple(self.box or ())

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the map names, once each."""
        return tuple(dict.fromkeys(self._named()))

    def _named(self) -> Iterator[str]:
        single = (self.image, self.label_column, self.mask, self.patient, self.site, self.split, self.device)
        yield from (column for column in single if column is not None)
        yield from (*self.box_columns, *self.covariates)


def load_map(text: str | None) -> ColumnMap:
    """Read the file that the option --map names. Raises BadInput where it is absent or no map."""
    if text is None:
        raise BadInput("the format csv needs a map of its columns; give --map FILE.toml")
    path = Path(text)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; --map names the TOML file that says what the columns mean") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({type(error).__name__}); give a TOML file in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from None
    return parse(ColumnMap, table, where=path.name)

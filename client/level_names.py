"""Names of devices and categories that may leave a site: those that its `site.toml` declares under `[levels]`.

An import proposes, and prints, the names that several patients share and that look like no date, path, address, title
or number of a person or a device; no rule knows a surname, so whoever runs the site strikes out what must stay.
"""

from __future__ import annotations

__all__ = ["DEVICE", "MOST_LEVELS", "declarable", "may_be_named"]

import re
from collections.abc import Collection, Mapping, Sequence

from client.manifest import CovariateKind

DEVICE = "device"
MOST_LEVELS = 8
"""More different words than this are no groups."""
_FEWEST = 5
"""Patients that share a name before an import proposes it."""
_LONGEST = 40
_STRANGE = re.compile(r"\d{4}|\d{1,4}([-. ])\d{1,2}\1\d{1,4}|@\S*\.[A-Za-z]|[\\/]|[^\w .,;:+()@&%<>=≤≥-]")
_MONTH = (
    r"jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?|januar|februar|märz|mai|juni|juli|oktober|okt|dezember|dez"
)
_PERSON = r"dr|prof(essor)?|doctor|mr|mrs|ms|miss|herr|frau|sir|mme|mlle|sra?|mrn|pid|ids?|s\.? ?n|serial|ser|nhs|ssn"
_TELLING = re.compile(rf"(?<![^\W\d_])({_MONTH}|{_PERSON})(?![^\W\d_])", re.IGNORECASE)
"""Words, also beside digits, of dates, of persons and of what numbers them or a device."""
_NUMBER = re.compile(r"-?\d{1,3}(\.\d+)?")


def declarable(columns: Mapping[str, Sequence[str | None]], patients: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By column the names that an import proposes, sorted; columns of too many different words have none.

    `columns` and `patients` run over images.
    """
    found = {}
    for column, values in columns.items():
        sharing: dict[str, set[str]] = {}
        for value, patient in zip(values, patients, strict=True):
            if value:
                sharing.setdefault(value, set()).add(patient)
        names = tuple(sorted(name for name, who in sharing.items() if len(who) >= _FEWEST and _plain(name)))
        if names and len(sharing) <= MOST_LEVELS:
            found[column] = names
    return found


def may_be_named(level: str, *, kind: CovariateKind | None, declared: Collection[str]) -> bool:
    """Whether a level's own text may leave: a declared name, `yes` or `no`, or of a column of
    numbers one of at most four characters that is no year.
    """
    match kind:
        case "number":
            return len(level) <= 4 and _NUMBER.fullmatch(level) is not None
        case "yes-no":
            return level in ("yes", "no")
        case _:
            return level in declared


def _plain(name: str) -> bool:
    return len(name) <= _LONGEST and not _STRANGE.search(name) and not _TELLING.search(name.replace("_", " "))

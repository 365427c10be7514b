"""What was left out, kept on disk: a table may name a million files that are not there."""

from __future__ import annotations

__all__ = ["Spool"]

import csv
import tempfile
from collections.abc import Iterator
from types import TracebackType

from client.importers.case import Skipped
from common.errors import RunFailed


class Spool:
    """Rows that were left out, in the order they came.

    It lies in a file without a name, which goes with the process.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile("w+", encoding="utf-8", newline="")  # noqa: SIM115 — closed by __exit__
        self._writer = csv.writer(self._file)
        self._count = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def add(self, where: str, reason: str) -> None:
        """Add a row by number, and why. Raises RunFailed where the temporary folder is full."""
        try:
            self._writer.writerow((where, reason))
        except OSError as error:
            raise RunFailed(
                f"cannot list what is left out ({error.strerror}); free space in the temporary folder"
            ) from None
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Skipped]:
        self._file.seek(0)
        yield from (Skipped(where, reason) for where, reason in csv.reader(self._file))

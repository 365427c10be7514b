"""A workbook with one sheet, the same bytes for the same cells."""

from __future__ import annotations

__all__ = ["EPOCH", "sheet_bytes", "store", "without_times"]

import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import datetime

from openpyxl import Workbook

EPOCH = (2026, 1, 1, 0, 0, 0)
"""Time stamp of every member, so that a seed gives the same bytes."""


def sheet_bytes(header: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> bytes:
    """An `.xlsx` with a header and rows."""
    book = Workbook()
    book.properties.creator = "sonofed phantom"
    book.properties.created = datetime(*EPOCH)
    sheet = book.active
    assert sheet is not None
    sheet.append(list(header))
    for row in rows:
        sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    return without_times(buffer.getvalue())


def without_times(xlsx: bytes) -> bytes:
    """The same workbook without the time at which it was saved."""
    stamp = f"{datetime(*EPOCH).isoformat()}Z".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(xlsx)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + stamp, content)
            store(new, name, content)
    return buffer.getvalue()


def store(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Add a member with a fixed time, owner-independent and lightly compressed."""
    member = zipfile.ZipInfo(name, date_time=EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, compresslevel=1)

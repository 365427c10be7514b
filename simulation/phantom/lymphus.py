"""LymphUs's on-disk format: one archive for each center, with pictures, masks and a table of semantic features.

Members are `Center N/(Benign|Malignant)/<k> (Benign|Malignant) (Image.bmp|Mask.tif|Lesion.bmp)` and one `.xlsx`.
Source: Data in Brief 66:112694 (2026), doi 10.1016/j.dib.2026.112694. Two things are not known of the real archives
and are chosen here: the table's name and the spelling of its categories.
"""

from __future__ import annotations

__all__ = ["HEADERS", "bmp_bytes", "center_archive", "mask_bytes", "table_bytes"]

import io
import zipfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from openpyxl import Workbook
from openpyxl.styles import Alignment
from PIL import Image

from simulation.phantom.cases import Case
from simulation.phantom.features import NodeFeatures
from simulation.phantom.workbook import EPOCH, store, without_times

HEADERS = (
    "Image name",
    "Group",
    "Maximum diameter",
    "Minimum diameter",
    "Aspect ratio",
    "Hypoechoic",
    "Hyperechoic",
    "Isoechoic",
    "Homogeneity",
    "Prominent Echogenicty (For Heterogeneous nodes)",
    "Loss of fatty hilum/thinning of hilum",
    "Centrality",
    "Microcalcifications",
    "Necrosis",
    "Margin1",
    "Margin2",
    "Internal component",
    "Intranodal cystic lesion",
)
"""The table's columns in their order, misspelling included."""
GROUPS = {False: "Benign", True: "Malignant"}
BLANK_ROWS_AFTER = 3

Row = tuple[int, bool, NodeFeatures]
"""A row of the table: the case's number within its class, whether malignant, its features."""


def bmp_bytes(gray: NDArray[np.uint8]) -> bytes:
    """An 8-bit gray BMP of (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(gray, mode="L").save(buffer, "BMP")
    return buffer.getvalue()


def mask_bytes(mask: NDArray[np.bool_]) -> bytes:
    """A 1-bit TIFF of (H, W)."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255), mode="L").convert("1", dither=Image.Dither.NONE).save(
        buffer, "TIFF"
    )
    return buffer.getvalue()


def table_bytes(rows: Iterable[Row]) -> bytes:
    """The `.xlsx`: header, benign rows, a blank row, malignant rows, blank rows; the same bytes for the same rows."""
    book = Workbook()
    book.properties.creator = "sonofed phantom"
    book.properties.created = datetime(*EPOCH)
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADERS)
    ordered = sorted(rows, key=lambda row: (row[1], row[0]))
    for malignant in (False, True):
        for row in ordered:
            if row[1] == malignant:
                sheet.append(_cells(*row))
        for _ in range(BLANK_ROWS_AFTER if malignant else 1):
            at = sheet.max_row + 1
            for column in range(1, len(HEADERS) + 1):
                sheet.cell(at, column).alignment = Alignment(horizontal="center")
    buffer = io.BytesIO()
    book.save(buffer)
    return without_times(buffer.getvalue())


def _cells(number: int, malignant: bool, node: NodeFeatures) -> list[str | int | float | None]:
    prominent = None
    if node.heterogeneous:
        prominent = "Hyperechoic" if node.echo == "hyperechoic" else "Hypoechoic"
    return [
        number,
        GROUPS[malignant],
        node.max_mm,
        node.min_mm,
        round(node.aspect, 2),
        int(node.echo == "hypoechoic"),
        int(node.echo == "hyperechoic"),
        int(node.echo == "isoechoic"),
        "Heterogeneous" if node.heterogeneous else "Homogeneous",
        prominent,
        int(node.hilum_lost),
        "Eccentric" if node.eccentric else "Central",
        int(node.microcalcifications),
        int(node.necrosis),
        "Irregular" if node.irregular_margin else "Regular",
        "Ill-defined" if node.ill_defined_margin else "Well-defined",
        "Mixed" if node.mixed else "Solid",
        int(node.cyst),
    ]


def center_archive(path: Path, number: int, cases: Iterable[tuple[int, Case]]) -> None:
    """Write `Center-N.zip`. cases: each with its number within its class, in any order."""
    root = f"Center {number}"
    rows: list[Row] = []
    with zipfile.ZipFile(path, "w") as archive:
        for k, case in cases:
            group = GROUPS[case.malignant]
            stem = f"{root}/{group}/{k} {group} "
            store(archive, f"{stem}Image.bmp", bmp_bytes(case.image))
            store(archive, f"{stem}Mask.tif", mask_bytes(case.mask))
            store(archive, f"{stem}Lesion.bmp", bmp_bytes(case.image * case.mask))
            rows.append((k, case.malignant, case.features))
        store(archive, f"{root}/{root}.xlsx", table_bytes(rows))

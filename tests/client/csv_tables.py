"""Tables with images beside them for tests of the importer csv, and what an import made of them."""

from __future__ import annotations

__all__ = ["PLAIN", "SIZE", "Table", "left_out", "make_images", "only", "picture", "plain_rows", "take", "write_table"]

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image

from client.importers import import_site
from client.importers.case import ImportSummary
from client.site import Site, load_site
from common.config import ImportOptions

SIZE = (30, 20)
PLAIN: dict[str, Any] = {"image": "file", "label": "diagnosis", "patient": "pid"}
Table = list[dict[str, str]]


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, SIZE[::-1], dtype=np.uint8)


def make_images(folder: Path, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)


def write_table(folder: Path, rows: Table, *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "export.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def plain_rows(count: int = 10) -> Table:
    return [
        {"file": f"pictures/{n}.png", "diagnosis": ("lipoma", "cyst")[n // 2 % 2], "pid": f"K-{n // 2}"}
        for n in range(count)
    ]


def take(table: Path, out: Path, told: dict[str, Any], **options: Any) -> list[ImportSummary]:
    """Import the table with the map `told`; the site is called `ours` where the map names no column of sites."""
    path = table.parent / "map.toml"
    path.write_text(tomli_w.dumps(told), encoding="utf-8")
    site = {} if "site" in told else {"site": "ours"}
    return import_site("csv", table, out, options=ImportOptions(map=str(path), **(site | options)))


def only(table: Path, out: Path, told: dict[str, Any], **options: Any) -> tuple[Site, ImportSummary]:
    (summary,) = take(table, out, told, **options)
    return load_site(summary.folder), summary


def left_out(summary: ImportSummary) -> list[tuple[str, str]]:
    with (summary.folder / "private/skipped.csv").open(encoding="utf-8", newline="") as file:
        return [(row["where"], row["reason"]) for row in csv.DictReader(file)]

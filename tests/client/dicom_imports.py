"""Imports of DICOM for tests: a source folder, the site that it becomes, and what was stored and left out."""

from __future__ import annotations

__all__ = ["OPTIONS", "cut", "folder", "imported", "luma", "other", "reasons", "stored"]

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from client.importers import import_site
from client.importers.case import ImportSummary
from client.site import Site, load_site
from common.config import ImportOptions
from tests.client.dicom_files import picture, screen, written

OPTIONS = ImportOptions(site="our-clinic")


def folder(path: Path, files: Mapping[str, Dataset | bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else written(content))
    return path


def imported(tmp_path: Path, files: Mapping[str, Dataset | bytes], name: str = "out") -> tuple[Site, ImportSummary]:
    (summary,) = import_site("dicom", folder(tmp_path / "in", files), tmp_path / name, options=OPTIONS)
    return load_site(summary.folder), summary


def stored(site: Site, row: int) -> np.ndarray:
    with Image.open(site.folder / site.images[row]) as image:
        assert not image.info
        return np.asarray(image)


def reasons(site: Site) -> list[str]:
    with (site.folder / "private/skipped.csv").open(encoding="utf-8") as file:
        return sorted(row["reason"] for row in csv.DictReader(file))


def luma(values: np.ndarray) -> np.ndarray:
    return values.astype(float) @ [0.299, 0.587, 0.114]


def other(**tags: object) -> Dataset:
    """The picture of the other class, which every import needs."""
    return picture(screen(99), **{"PatientID": "P9", **tags})


def cut(content: bytes) -> bytes:
    return content[: len(content) - 1000]

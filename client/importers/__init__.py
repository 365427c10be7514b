"""From a data set as it lies on disk to site folders: one importer for each format, one writer for all."""

from __future__ import annotations

__all__ = ["FORMATS", "ImportSummary", "import_site", "site_ids"]

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path

from client.importers.behsof import behsof
from client.importers.busbra import busbra
from client.importers.case import Collection, ImportSummary
from client.importers.class_folders import class_folders
from client.importers.deeplesion import deeplesion
from client.importers.lymphus import lymphus
from client.importers.site_writer import Progress, write_sites
from client.importers.smclud import smclud
from client.importers.table_map import mapped_table
from common.config import ImportOptions
from common.errors import BadInput, suggest

FORMATS = (
    "lymphus",
    "behsof",
    "smclud",
    "deeplesion",
    "busbra",
    "csv",
    "folder",
    "dicom",
)

_TAKEN: Mapping[str, tuple[str, ...]] = {
    "lymphus": ("password_file",),
    "behsof": ("task", "password_file"),
    "smclud": ("patients", "pattern", "password_file"),
    "deeplesion": ("task", "sites", "by", "password_file"),
    "busbra": ("password_file",),
    "csv": ("map", "site", "task"),
    "folder": ("site", "task", "pattern", "password_file"),
    "dicom": ("site", "task", "password_file"),
}
"""The options that each format takes, besides those that all take."""
_EVERY = ("nominal_patients",)
_NONE = ImportOptions()


def import_site(
    format: str,
    source: Path,
    parent: Path,
    *,
    options: ImportOptions = _NONE,
    split_seed: int = 0,
    progress: Progress | None = None,
) -> list[ImportSummary]:
    """Write `parent/<site-id>/` for every site in `source`, all or none; `progress(done, total)` hears of each image.

    Where the data set has no official split, `split_seed` draws one. Raises BadInput where the format is unknown, the
    source is not of it or damaged, or a site is there already; RunFailed where the disk refuses.
    """
    with _opened(format, source, options, split_seed) as collections:
        return write_sites(
            collections, parent, split_seed=split_seed, nominal_patients=options.nominal_patients, progress=progress
        )


def site_ids(format: str, source: Path, *, options: ImportOptions = _NONE) -> list[str]:
    """The ids of the sites that an import would write; no picture is opened. Raises BadInput as `import_site` does."""
    with _opened(format, source, options, 0) as collections:
        return [collection.site for collection in collections]


def _opened(
    format: str, source: Path, options: ImportOptions, split_seed: int
) -> AbstractContextManager[list[Collection]]:
    _check_options(format, options)
    match format:
        case "lymphus":
            return lymphus(source, password_file=options.password_file)
        case "behsof":
            return behsof(source, task=options.task, password_file=options.password_file)
        case "smclud":
            return smclud(
                source, patients=options.patients, pattern=options.pattern, password_file=options.password_file
            )
        case "busbra":
            return busbra(source, password_file=options.password_file)
        case "deeplesion":
            return deeplesion(source, options, split_seed=split_seed)
        case "csv":
            return mapped_table(source, options)
        case "folder":
            return class_folders(source, options)
        case "dicom":
            from client.importers.dicom import dicom  # pydicom is slow to import

            return dicom(source, options)
        case _:
            known = ", ".join(FORMATS)
            raise BadInput(f"unknown format {format!r}{suggest(format, FORMATS)}; the formats are {known}")


def _check_options(format: str, options: ImportOptions) -> None:
    given = [field.name for field in fields(options) if getattr(options, field.name) is not None]
    taken = (*_TAKEN.get(format, tuple(given)), *_EVERY)
    if wrong := [name for name in given if name not in taken]:
        flag = wrong[0].replace("_", "-")
        raise BadInput(f"the format {format} takes no --{flag}; it takes {', '.join(taken)}")

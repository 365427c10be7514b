"""From a data set as it lies on disk to site folders: one importer for each format, one writer for all."""

from __future__ import annotations

__all__ = ["FORMATS", "ImportSummary", "import_site", "site_ids"]

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path

from client.importers.busbra import busbra
from client.importers.case import Collection, ImportSummary
from client.importers.lymphus import lymphus
from client.importers.site_writer import Progress, write_sites
from common.config import ImportOptions
from common.errors import BadInput, suggest

FORMATS = ("lymphus", "busbra", "dicom")

_TAKEN: Mapping[str, tuple[str, ...]] = {
    "lymphus": (),
    "busbra": (),
    "dicom": ("site", "task"),
}
"""The options that each format takes."""
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
    with _opened(format, source, options) as collections:
        return write_sites(collections, parent, split_seed=split_seed, progress=progress)


def site_ids(format: str, source: Path, *, options: ImportOptions = _NONE) -> list[str]:
    """The ids of the sites that an import would write; no picture is opened. Raises BadInput as `import_site` does."""
    with _opened(format, source, options) as collections:
        return [collection.site for collection in collections]


def _opened(format: str, source: Path, options: ImportOptions) -> AbstractContextManager[list[Collection]]:
    _check_options(format, options)
    match format:
        case "lymphus":
            return lymphus(source)
        case "busbra":
            return busbra(source)
        case "dicom":
            from client.importers.dicom import dicom  # pydicom is slow to import

            return dicom(source, options)
        case _:
            known = ", ".join(FORMATS)
            raise BadInput(f"unknown format {format!r}{suggest(format, FORMATS)}; the formats are {known}")


def _check_options(format: str, options: ImportOptions) -> None:
    given = [field.name for field in fields(options) if getattr(options, field.name) is not None]
    taken = _TAKEN.get(format, tuple(given))
    if wrong := [name for name in given if name not in taken]:
        flag = wrong[0].replace("_", "-")
        raise BadInput(f"the format {format} takes no --{flag}; it takes {', '.join(taken) or 'no options'}")

"""A small valid source of each format, to be damaged. To add a format, add a line to `FIXTURES`."""

from __future__ import annotations

__all__ = ["FIXTURES", "Fixture"]

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from common.config import ImportOptions


class Fixture(NamedTuple):
    """A valid source: `build` writes it into an empty folder and gives SOURCE; `options` are what the format needs."""

    format: str
    build: Callable[[Path], Path]
    options: ImportOptions = ImportOptions()


def _lymphus(folder: Path) -> Path:
    from tests.client.test_importers_lymphus import as_zip, center

    members = {name: content for name, content in center(benign=2, malignant=2).items() if "Lesion" not in name}
    return as_zip(folder / "Center-1.zip", members)


def _lymphus_folder(folder: Path) -> Path:
    from tests.client.test_importers_lymphus import as_folder, center

    return as_folder(folder / "in", center(benign=2, malignant=2)) / "Center 1"


def _busbra(folder: Path) -> Path:
    from tests.client.test_importers_busbra import make

    make(folder / "in", 3)
    return folder / "in"


def _dicom(folder: Path) -> Path:
    import numpy as np

    from tests.client import dicom_files as made

    screen = made.screen
    files = {
        "a/gray": made.picture(screen(1)),
        "a/loop": made.picture(np.stack([screen(2), screen(3)]), frames=2),
        "a/rle": made.rle(made.picture(screen(4), PatientID="P2")),
        "b/jpeg": made.encapsulated(made.picture(screen(5)), made.JPEG, [made.by_pillow(screen(5), "JPEG")]),
        "b/palette": made.palette(6)[0],
        "b/colours": made.picture(screen(7, channels=3), photometric="RGB", PatientID="P3"),
    }
    for name, dataset in files.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(made.written(dataset))
    return folder / "in"


def _dicom_zip(folder: Path) -> Path:
    """With the compressions whose decoders run in a process of their own."""
    from tests.client import dicom_files as made

    streams = {
        made.JPEG_LOSSLESS: made.jpeg_lossless(made.screen(1)),
        made.JPEG_2000: made.by_pillow(made.screen(2), "JPEG2000", no_jp2=True),
    }
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (syntax, stream) in zip("ab", streams.items(), strict=True):
            dataset = made.encapsulated(made.picture(made.screen(1), PatientID=name * 3), syntax, [stream])
            archive.writestr(f"{name}/x.dcm", made.written(dataset))
        archive.writestr("labels.csv", "file,label\na/x.dcm,benign\nb/x.dcm,malignant\n")
    return folder / "export.zip"


_SITE = ImportOptions(site="s")

FIXTURES: Mapping[str, Fixture] = {
    "lymphus": Fixture("lymphus", _lymphus),
    "lymphus-folder": Fixture("lymphus", _lymphus_folder),
    "busbra": Fixture("busbra", _busbra),
    "dicom": Fixture("dicom", _dicom, _SITE),
    "dicom-zip": Fixture("dicom", _dicom_zip, _SITE),
}

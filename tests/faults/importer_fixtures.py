"""A small valid source of each format, to be damaged. To add a format, add a line to `FIXTURES`.

A source holds the same bytes whenever it is built, so that a damage comes back from its seed alone: dates, salts and
unique ids, which libraries take from the clock or by chance, are given.
"""

from __future__ import annotations

__all__ = ["FIXTURES", "Fixture"]

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

from common.config import ImportOptions
from tests.faults.token_sources import Tokens


class Fixture(NamedTuple):
    """A valid source: `build` writes it into an empty folder and gives SOURCE; `options` are what the format needs.

    Files that options name are relative to that folder, and are damaged like the others.
    """

    format: str
    build: Callable[[Path], Path]
    options: ImportOptions = ImportOptions()

    def options_in(self, folder: Path) -> ImportOptions:
        """The options, with the files that they name found in `folder`."""
        named = {name: getattr(self.options, name) for name in ("map", "patients", "password_file")}
        return replace(self.options, **{name: str(folder / file) for name, file in named.items() if file})


def _packed(members: Mapping[str, bytes]) -> bytes:
    """A zip whose members have no date of their own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _undated(workbook: bytes) -> bytes:
    """An xlsx without the moments of its making: in its properties, and in the zip around it."""
    with zipfile.ZipFile(io.BytesIO(workbook)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    core = members["docProps/core.xml"]
    members["docProps/core.xml"] = re.sub(rb">\d{4}-\d\d-\d\dT[^<]*<", b">2026-01-01T00:00:00Z<", core)
    return _packed(members)


def _lymphus_members() -> dict[str, bytes]:
    from tests.client.test_importers_lymphus import center

    members = center(benign=2, malignant=2)
    return {name: _undated(content) if name.endswith(".xlsx") else content for name, content in members.items()}


def _lymphus(folder: Path) -> Path:
    members = {name: content for name, content in _lymphus_members().items() if "Lesion" not in name}
    (folder / "Center-1.zip").write_bytes(_packed(members))
    return folder / "Center-1.zip"


def _lymphus_folder(folder: Path) -> Path:
    from tests.client.test_importers_lymphus import as_folder

    return as_folder(folder / "in", _lymphus_members()) / "Center 1"


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
    for number, (name, dataset) in enumerate(files.items(), start=1):
        dataset.SOPInstanceUID = f"1.2.826.{number}"
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(made.written(dataset))
    return folder / "in"


def _dicom_zip(folder: Path) -> Path:
    """With the compressions whose decoders run in a process of their own."""
    from pydicom.encaps import get_frame

    from tests.client import dicom_files as made

    packed = made.by_gdcm(made.picture(made.screen(3)), made.JPEG_LS).PixelData
    streams = {
        made.JPEG_LOSSLESS: made.jpeg_lossless(made.screen(1)),
        made.JPEG_2000: made.by_pillow(made.screen(2), "JPEG2000", no_jp2=True),
        made.JPEG_LS: get_frame(packed, 0, number_of_frames=1),
    }
    members = {}
    for number, (name, (syntax, stream)) in enumerate(zip("abc", streams.items(), strict=True), start=1):
        tags = {"PatientID": name * 3, "SOPInstanceUID": f"1.2.826.{number}"}
        dataset = made.encapsulated(made.picture(made.screen(1), **tags), syntax, [stream])
        members[f"{name}/x.dcm"] = made.written(dataset)
    members["labels.csv"] = b"file,label\na/x.dcm,benign\nb/x.dcm,malignant\nc/x.dcm,benign\n"
    (folder / "export.zip").write_bytes(_packed(members))
    return folder / "export.zip"


def _behsof(folder: Path) -> Path:
    from tests.client import test_importers_behsof as made

    return made.as_folder(folder / "in", made.behsof(people=made.PEOPLE[:6]))


def _behsof_aes(folder: Path) -> Path:
    import pyzipper

    from tests.client import test_importers_behsof as made

    (folder / "password").write_text("open sesame\n", encoding="utf-8")
    with _salted(), pyzipper.AESZipFile(folder / "in.zip", "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"open sesame")
        for name, content in made.behsof(people=made.PEOPLE[:4]).items():
            archive.writestr(pyzipper.AESZipFile.zipinfo_cls(name), content)
    return folder / "in.zip"


@contextmanager
def _salted() -> Iterator[None]:
    """pyzipper with one salt for all members."""
    salt = SimpleNamespace(new=lambda: SimpleNamespace(read=lambda length: b"s" * length))
    with patch("pyzipper.zipfile_aes.Random", salt):
        yield


def _smclud(folder: Path) -> Path:
    from tests.faults import token_sources

    source, table = token_sources.liver_lesions(folder, Tokens("mutations"), patients=6)
    table.rename(folder / "patients.csv")
    return source.rename(folder / "in")


def _deeplesion(folder: Path) -> Path:
    from tests.client import test_importers_deeplesion as made

    made.make(folder / "in", made.several(4))
    return folder / "in"


def _folder(folder: Path) -> Path:
    from tests.faults import token_sources

    return token_sources.class_folder(folder, Tokens("mutations"), patients=6).rename(folder / "in")


def _csv(folder: Path) -> Path:
    from tests.faults import token_sources

    table, mapping = token_sources.mapped_table(folder, Tokens("mutations"), patients=6)
    mapping.rename(folder / "map.toml")
    table.parent.rename(folder / "in")
    return (folder / "in" / table.name).rename(folder / "in" / "table.csv")


_SITE = ImportOptions(site="s")

FIXTURES: Mapping[str, Fixture] = {
    "lymphus": Fixture("lymphus", _lymphus),
    "lymphus-folder": Fixture("lymphus", _lymphus_folder),
    "busbra": Fixture("busbra", _busbra),
    "dicom": Fixture("dicom", _dicom, _SITE),
    "dicom-zip": Fixture("dicom", _dicom_zip, _SITE),
    "behsof": Fixture("behsof", _behsof),
    "behsof-aes": Fixture("behsof", _behsof_aes, ImportOptions(password_file="password")),
    "smclud": Fixture("smclud", _smclud, ImportOptions(patients="patients.csv")),
    "deeplesion": Fixture("deeplesion", _deeplesion, ImportOptions(sites=2)),
    "folder": Fixture("folder", _folder, ImportOptions(site="s", pattern=r"^[^/]+/(?P<patient>[^/]+)/")),
    "csv": Fixture("csv", _csv, ImportOptions(site="s", map="map.toml")),
}

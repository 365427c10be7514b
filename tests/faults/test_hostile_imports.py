"""Sources made to do harm, beyond what the formats' own tests hold: bombs, odd files and names, a disk that is full."""

from __future__ import annotations

import io
import os
import re
import resource
import struct
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.importers import import_site
from client.site import load_site
from common.config import ImportOptions
from common.errors import BadInput, RunFailed
from tests.client import dicom_files as made
from tests.client.test_importers_busbra import make
from tests.client.test_importers_lymphus import IMAGE, MASK, TABLE, Members, as_folder, as_zip, center, encode

SITE = ImportOptions(site="s")


@contextmanager
def bounded(mib: int) -> Iterator[None]:
    """The process may take no more than this beyond what it has; what needs more gets MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + (mib << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(format: str, source: Path, says: str, *, mib: int = 300) -> None:
    """The import fails in one line that says this, within some memory, and leaves nothing."""
    out = source.parent / "around/out"
    out.parent.mkdir(exist_ok=True)
    with bounded(mib), pytest.raises(BadInput, match=says) as caught:
        import_site(format, source, out, options=SITE if format == "dicom" else ImportOptions())
    assert "\n" not in str(caught.value)
    assert "MemoryError" not in str(caught.value)
    assert os.listdir(out.parent) == []


def dicom_folder(path: Path) -> Path:
    for name, patient in (("a/x", "P1"), ("b/y", "P2")):
        (path / name).parent.mkdir(parents=True)
        (path / name).write_bytes(made.written(made.picture(made.screen(1), PatientID=patient)))
    return path


def source_of(format: str, path: Path) -> Path:
    match format:
        case "lymphus":
            return as_folder(path, center(benign=2, malignant=2)) / "Center 1"
        case "busbra":
            make(path, 3)
            return path
        case _:
            return dicom_folder(path)


def zipped(folder: Path, path: Path, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
        for name, content in more.items():
            archive.writestr(name, content)
    return path


FORMATS = ("lymphus", "busbra", "dicom")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["../up", "/etc/up", "a/../../up", "C:/up", "a\\..\\up"])
def test_names_that_lead_out_of_a_zip(tmp_path: Path, format: str, name: str) -> None:
    source = zipped(source_of(format, tmp_path / "in"), tmp_path / "Center-1.zip", **{name: b"x"})
    refused(format, source, r"member \d+: its name leads out of the archive; do not trust this file")
    assert not (tmp_path / "up").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_links_and_pipes_in_a_folder(tmp_path: Path, format: str) -> None:
    source = source_of(format, tmp_path / "in")
    victim = next(path for path in sorted(source.rglob("*")) if path.is_file() and "Lesion" not in path.name)
    victim.unlink()
    os.symlink("/dev/zero", victim)
    refused(format, source, r"member \d+: a link that leads out of the folder; copy the file")
    victim.unlink()
    os.mkfifo(victim)  # reading one would wait for ever
    refused(format, source, r"member \d+: no ordinary file")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, data: bytes = b"", *more: bytes) -> bytes:
    """A gray PNG of any size that it may claim."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(mib: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mib)) + packer.flush()


def tiff(width: int, height: int) -> bytes:
    """A 1-bit TIFF of any size that it may claim, of a single strip."""
    tags = [(256, width), (257, height), (258, 1), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 64)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + struct.pack("<H", len(tags)) + entries + bytes(4)


def bmp(width: int, height: int) -> bytes:
    header = bytearray(encode(Image.new("L", (4, 4)), "BMP"))
    header[18:26] = struct.pack("<ii", width, height)
    return bytes(header)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lambda: png(50_000, 50_000, zeros(400)), "more than 67108864 pixels|at most 16384 a side"),
        (lambda: png(50_000, 40), "50000×40 pixels; at most 16384 a side"),
        (lambda: png(16_000, 4_000, zeros(1)), "truncated or damaged PNG"),
        (lambda: png(40, 40, b"", chunk(b"zTXt", b"Comment\0\0" + zeros(600))), "damaged PNG"),
        (lambda: b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR", "not a PNG|damaged PNG"),
    ],
)
def test_png_bombs(tmp_path: Path, content: Callable[[], bytes], says: str) -> None:
    make(tmp_path / "in", 3)
    (tmp_path / "in/Images/bus_1001-l.png").write_bytes(content())
    refused("busbra", tmp_path / "in", rf"archive busbra, member \d+: .*({says})")


@pytest.mark.parametrize("size", [(50_000, 2), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (16_000, 4_000)])
@pytest.mark.parametrize(("victim", "builder"), [(IMAGE, bmp), (MASK, tiff)])
def test_bmp_and_tiff_bombs(
    tmp_path: Path, size: tuple[int, int], victim: str, builder: Callable[[int, int], bytes]
) -> None:
    members = center(benign=2, malignant=2)
    members[victim] = builder(*size)
    source = as_zip(tmp_path / "Center-1.zip", members)
    refused("lymphus", source, r"member \d+: (\d+×\d+ pixels|more than \d+ pixels|not a|truncated or damaged)")


def test_a_zip_that_unpacks_to_much(tmp_path: Path) -> None:
    """300 MiB of zeros in one member, by its true size, and by one that the directory makes small."""
    make(tmp_path / "in", 3)
    source = zipped(tmp_path / "in", tmp_path / "x.zip", **{"Images/bomb.png": bytes(300 << 20)})
    refused("busbra", source, r"member \d+: unpacks to more than 256 MiB; do not trust this file", mib=100)
    content = source.read_bytes()
    source.write_bytes(content.replace(struct.pack("<I", 300 << 20), struct.pack("<I", 1000)))
    with bounded(100):  # no row names it, so that it is not read
        import_site("busbra", source, tmp_path / "around/out")


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_picture(tmp_path: Path, format: str) -> None:
    source = source_of(format, tmp_path / "in")
    wanted = {"lymphus": "*Image.bmp", "busbra": "bus_*.png", "dicom": "x"}[format]
    victim = next(source.rglob(wanted))
    victim.write_bytes(victim.read_bytes()[:-1000])
    refused(format, source, r"member \d+: (truncated or damaged|its picture is damaged)")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "PPM"])
def test_a_mislabelled_picture(tmp_path: Path, kind: str) -> None:
    members = center(benign=2, malignant=2)
    with Image.open(io.BytesIO(members[IMAGE])) as picture:
        members[IMAGE] = encode(picture, kind)
    refused("lymphus", as_zip(tmp_path / "Center-1.zip", members), r"member \d+: not a BMP file, or damaged")


def sheet(table: bytes, change: Callable[[bytes], bytes], **more: bytes) -> bytes:
    """The Excel file with its sheet's XML changed, and further parts."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(table)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == "xl/worksheets/sheet1.xml" else content)
        for name, content in more.items():
            new.writestr(name, content)
    return packed.getvalue()


def million_rows(xml: bytes) -> bytes:
    start = xml.count(b"<row ") + 1
    rows = b"".join(b'<row r="%d"><c r="A%d" s="0"/></row>' % (n, n) for n in range(start, 1_000_000))
    return xml.replace(b"</sheetData>", rows + b"</sheetData>")


def far_row(xml: bytes) -> bytes:
    return xml.replace(b"</sheetData>", b'<row r="999999999"><c r="A999999999"><v>1</v></c></row></sheetData>')


def test_a_million_blank_rows(tmp_path: Path) -> None:
    """They cost some seconds and no memory to speak of, and change nothing."""
    members = center(benign=2, malignant=2)
    as_zip(tmp_path / "plain/Center-1.zip", members)
    (plain,) = import_site("lymphus", tmp_path / "plain/Center-1.zip", tmp_path / "out")
    members[TABLE] = sheet(members[TABLE], million_rows)
    source = as_zip(tmp_path / "Center-1.zip", members)
    began = time.process_time()
    with bounded(150):
        (summary,) = import_site("lymphus", source, tmp_path / "blank")
    assert time.process_time() - began < 60
    assert load_site(summary.folder).data_sha256 == load_site(plain.folder).data_sha256


def test_rows_beyond_the_stated_extent_are_read(tmp_path: Path) -> None:
    members = center(benign=2, malignant=2)
    members[TABLE] = sheet(members[TABLE], lambda xml: re.sub(rb"<dimension [^>]*>", b'<dimension ref="A1:R2"/>', xml))
    (summary,) = import_site("lymphus", as_zip(tmp_path / "Center-1.zip", members), tmp_path / "out")
    assert None not in load_site(summary.folder).covariates["maximum_diameter_mm"]


LAUGHS = b"".join(
    [
        b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">',
        *(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12)),
        b"]><worksheet><sheetData><row><c><v>&a11;</v></c></row></sheetData></worksheet>",
    ]
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (far_row, "more than 1048576 rows; no sheet has as many"),
        (lambda _: LAUGHS, "not an Excel file, or damaged"),
        (lambda xml: xml.replace(b"<v>1</v>", b"<f>1+1</f>", 1), "Image name is no whole number"),
        (lambda xml: xml.replace(b"<v>1</v>", b"<v>1e400</v>", 1), "Image name is no whole number|damaged"),
    ],
)
def test_hostile_sheets(tmp_path: Path, change: Callable[[bytes], bytes], says: str) -> None:
    members = center(benign=2, malignant=2)
    members[TABLE] = sheet(members[TABLE], change)
    refused("lymphus", as_zip(tmp_path / "Center-1.zip", members), says)


def test_texts_that_unpack_to_much(tmp_path: Path) -> None:
    members = center(benign=2, malignant=2)
    texts = b"<sst>" + b"<si><t>x</t></si>" * (65 << 16) + b"</sst>"
    members[TABLE] = sheet(members[TABLE], lambda xml: xml, **{"xl/sharedStrings.xml": texts})
    refused("lymphus", as_zip(tmp_path / "Center-1.zip", members), "texts of more than 64 MiB; do not trust this file")


@pytest.mark.parametrize(
    "name", ["é名\u202etxt.gpj", "e\u0301", "line\nbreak", '"quote",', "=1+1", "x" * 200, b"\xff\xfe"]
)
def test_odd_names_are_kept_in_private_alone(tmp_path: Path, name: str | bytes) -> None:
    source = dicom_folder(tmp_path / "in")
    odd = os.fsdecode(name)
    (source / "a/x").rename(source / "a" / odd)
    (summary,) = import_site("dicom", source, tmp_path / "out", options=SITE)
    assert load_site(summary.folder).images
    assert not any(
        os.fsencode(odd) in path.read_bytes() for path in summary.folder.rglob("*.*") if path.parent.name != "private"
    )


def test_names_that_differ_by_case_alone(tmp_path: Path) -> None:
    make(tmp_path / "in", 3)
    (tmp_path / "in/Images/BUS_1001-L.png").write_bytes((tmp_path / "in/Images/bus_1002-l.png").read_bytes())
    refused("busbra", tmp_path / "in", r"member \d+: bears the name of member \d+ but for case")
    source = dicom_folder(tmp_path / "classes")
    (source / "b").rename(source / "A")
    refused("dicom", source, "two classes differ only in upper and lower case")


def tiny_disk(folder: Path, kib: int, inodes: int) -> bool:
    """Mount a file system of that size; False where this machine forbids it."""
    folder.mkdir()
    options = f"size={kib}k,nr_inodes={inodes}"
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def larger(members: Members) -> Members:
    """Pictures of noise, of some 40 KiB each."""
    for name in members:
        if name.endswith(("Image.bmp", "Mask.tif")):
            noise = np.random.default_rng(len(name)).integers(0, 256, (200, 200), dtype=np.uint8)
            kind = "BMP" if name.endswith("bmp") else "TIFF"
            members[name] = encode(Image.fromarray(noise if kind == "BMP" else noise > 128), kind)
    return members


@pytest.mark.parametrize(("kib", "inodes"), [(4, 100), (60, 100), (140, 100), (4096, 4), (4096, 13), (4096, 18)])
def test_a_full_disk(tmp_path: Path, kib: int, inodes: int) -> None:
    """Really full, of bytes or of files, at the first picture, in the middle, at the tables; then there is space."""
    source = as_zip(tmp_path / "Center-1.zip", larger(center(benign=2, malignant=2)))
    disk = tmp_path / "disk"
    if not tiny_disk(disk, kib, inodes):
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(RunFailed, match=r"No space left on device.*; (free space|check permissions)"):
            import_site("lymphus", source, disk / "out")
        assert not [path for path in disk.rglob("*") if path.name != ".pseudonym-key" and path != disk / "out"]
        subprocess.run(["mount", "-o", "remount,size=4096k,nr_inodes=200", str(disk)], check=True)
        (summary,) = import_site("lymphus", source, disk / "out")
        assert len(load_site(summary.folder)) == 4
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """What stands for a full disk where nothing can be mounted: the system refuses in the middle of a file."""
    source = as_zip(tmp_path / "Center-1.zip", larger(center(benign=2, malignant=2)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # Python ignores the signal, so that write() fails
    try:
        with pytest.raises(RunFailed, match=r"cannot write \(File too large\); free space"):
            import_site("lymphus", source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()


def test_a_member_without_a_name_is_one_line(tmp_path: Path) -> None:
    """The ten thousand damaged sources found it: `ZipInfo.is_dir` fails on an empty name."""
    import zipfile

    from client.importers import import_site

    source = tmp_path / "Center-1.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("x", b"1")
    content = source.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    nameless = bytearray(content[: at + 46] + content[at + 47 :])
    nameless[at + 28 : at + 30] = b"\0\0"
    end = bytes(nameless).rindex(b"PK\x05\x06")
    size = int.from_bytes(nameless[end + 12 : end + 16], "little") - 1
    nameless[end + 12 : end + 16] = size.to_bytes(4, "little")
    source.write_bytes(bytes(nameless))
    with pytest.raises(BadInput, match="archive center-1"):
        import_site("lymphus", source, tmp_path / "out")


def test_a_table_of_labels_without_a_row_is_one_line(tmp_path: Path) -> None:
    from client.importers import import_site
    from common.config import ImportOptions
    from tests.client import dicom_files as made

    folder = tmp_path / "in" / "a"
    folder.mkdir(parents=True)
    (folder / "x.dcm").write_bytes(made.written(made.picture(made.screen(1))))
    (tmp_path / "in" / "labels.csv").write_text("file,label\n")
    with pytest.raises(BadInput, match="the table has no row"):
        import_site("dicom", tmp_path / "in", tmp_path / "out", options=ImportOptions(site="s"))

"""Ultrasound DICOM: pixels of every kind, text outside the tissue, labels, and what must never leave a header."""

from __future__ import annotations

import csv
import logging
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_windowing, convert_color_space, pixel_array
from pydicom.uid import UID

from client.importers import import_site
from client.importers.archive import MAX_MEMBER_BYTES
from client.importers.case import ImportSummary
from client.importers.dicom_decoder import Decoder
from client.importers.dicom_file import ultrasound
from client.importers.dicom_pixels import _windowed
from client.site import Site, load_site
from common.config import ImportOptions
from common.errors import BadInput
from tests.client import dicom_files as made
from tests.client.dicom_files import picture, region, screen, tissue, written

ROOT = Path(__file__).resolve().parents[2]
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


def gray() -> tuple[Dataset, np.ndarray]:
    return picture(screen(1)), tissue(screen(1))


def inverted() -> tuple[Dataset, np.ndarray]:
    return picture(255 - screen(1), photometric="MONOCHROME1"), tissue(screen(1))


def windowed() -> tuple[Dataset, np.ndarray]:
    values = screen(1).astype(np.uint16) * 16
    dataset = picture(values, BitsStored=12, HighBit=11, WindowCenter="2000", WindowWidth=["1000", "5"])
    return dataset, np.clip((tissue(values) - 1999.5) / 999 + 0.5, 0, 1) * 255


def sixteen_bits() -> tuple[Dataset, np.ndarray]:
    values = screen(1).astype(np.uint16) * 100
    inside = tissue(values).astype(float)
    return picture(values), (inside - inside.min()) / np.ptp(inside) * 255


def rgb() -> tuple[Dataset, np.ndarray]:
    values = screen(1, channels=3)
    return picture(values, photometric="RGB"), luma(tissue(values))


def planes() -> tuple[Dataset, np.ndarray]:
    values = screen(1, channels=3)
    return picture(
        values, photometric="RGB", PlanarConfiguration=1, PixelData=np.moveaxis(values, -1, 0).tobytes()
    ), luma(tissue(values))


def ybr() -> tuple[Dataset, np.ndarray]:
    values = screen(1, channels=3)
    return picture(convert_color_space(values, "RGB", "YBR_FULL"), photometric="YBR_FULL"), luma(tissue(values))


def ybr_subsampled() -> tuple[Dataset, np.ndarray]:
    values = np.repeat(screen(1)[..., None], 3, axis=-1)
    values[:, 1::2] = values[:, ::2]
    dataset = picture(values, photometric="YBR_FULL_422", PixelData=made.ybr_422(values))
    return dataset, luma(tissue(values))


def palette() -> tuple[Dataset, np.ndarray]:
    dataset, colours = made.palette(1)
    return dataset, luma(colours(tissue(screen(1))))


def run_lengths() -> tuple[Dataset, np.ndarray]:
    dataset, expected = rgb()
    return made.rle(dataset), expected


def jpeg() -> tuple[Dataset, np.ndarray]:
    smooth = np.repeat(np.linspace(20, 200, 60, dtype=np.uint8)[None], 40, axis=0)
    stream = made.by_pillow(smooth, "JPEG", quality=100)
    return made.encapsulated(picture(smooth), made.JPEG, [stream]), tissue(smooth)


def jpeg_colours() -> tuple[Dataset, np.ndarray]:
    smooth = np.repeat(np.linspace([20, 60, 90], [200, 100, 0], 60).astype(np.uint8)[None], 40, axis=0)
    stream = made.by_pillow(smooth, "JPEG", quality=100, subsampling="4:2:2")
    dataset = picture(smooth, photometric="YBR_FULL_422")
    return made.encapsulated(dataset, made.JPEG, [stream]), luma(tissue(smooth))


def jpeg_lossless() -> tuple[Dataset, np.ndarray]:
    stream = made.jpeg_lossless(screen(1))
    return made.encapsulated(picture(screen(1)), made.JPEG_LOSSLESS, [stream]), tissue(screen(1))


def jpeg_2000() -> tuple[Dataset, np.ndarray]:
    stream = made.by_pillow(screen(1), "JPEG2000", no_jp2=True)
    return made.encapsulated(picture(screen(1)), made.JPEG_2000, [stream]), tissue(screen(1))


def deflated() -> tuple[Dataset, np.ndarray]:
    dataset, expected = gray()
    dataset.file_meta.TransferSyntaxUID = UID(made.DEFLATED)
    return dataset, expected


KINDS = {
    made_by.__name__: made_by
    for made_by in (
        gray, inverted, windowed, sixteen_bits, rgb, planes, ybr, ybr_subsampled, palette, run_lengths, jpeg,
        jpeg_colours, jpeg_lossless, jpeg_2000, deflated,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One picture of every kind, in one import."""
    files: dict[str, Dataset | bytes] = {f"a/{name}": make()[0] for name, make in KINDS.items()}
    return imported(tmp_path_factory.mktemp("kinds"), {**files, "b/x.dcm": other()})[0]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_every_kind_arrive_and_text_does_not(every_kind: Site, kind: str) -> None:
    expected = KINDS[kind]()[1]
    values = stored(every_kind, sorted(KINDS).index(kind))
    assert values.shape == expected.shape == (26, 40)
    tolerance = {"jpeg": 4, "jpeg_colours": 4, "ybr": 2, "ybr_subsampled": 2}.get(kind, 1)
    assert np.abs(values - expected).max() <= tolerance


PLAIN = {
    "gray": lambda: (picture(screen(1)), tissue(screen(1))),
    "twelve-bits": windowed,
    "colours": rgb,
}
LOSSLESS = {
    "JPEG lossless": "1.2.840.10008.1.2.4.57",
    "JPEG lossless, first order": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG-LS, near": "1.2.840.10008.1.2.4.81",
    "JPEG 2000, lossless": "1.2.840.10008.1.2.4.90",
    "JPEG 2000": "1.2.840.10008.1.2.4.91",
    "RLE": "1.2.840.10008.1.2.5",
}


def test_every_lossless_compression_gives_the_raw_pixels(tmp_path: Path) -> None:
    """Of gray, of 12 bits through a window, and of colours; gdcm's encoders lose nothing in any of these syntaxes."""
    names = [f"{syntax} of {plain}" for syntax in LOSSLESS for plain in PLAIN]
    files: dict[str, Dataset | bytes] = {}
    for number, name in enumerate(names):
        syntax, _, plain = name.rpartition(" of ")
        packed = made.by_gdcm(PLAIN[plain]()[0], LOSSLESS[syntax])
        assert packed.file_meta.TransferSyntaxUID == LOSSLESS[syntax]
        assert len(packed.PixelData) < 2 * PLAIN[plain]()[0].Rows * 60 * 3
        files[f"a/{number:02d}"] = packed
    site, _ = imported(tmp_path, {**files, "b/x.dcm": other()})
    for row, name in enumerate(names):
        expected = PLAIN[name.rpartition(" of ")[2]]()[1]
        assert np.abs(stored(site, row) - expected).max() <= 1, name


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_jls_lossy_line", "SC_rgb_jls_lossy_sample", "SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_dcmtk", "SC_rgb_gdcm_KY"],
)
def test_compressed_files_of_other_makers(tmp_path: Path, name: str) -> None:
    """One picture that comes with pydicom, packed by several programs, lossy too; run lengths in pydicom's hands are the oracle."""
    packed, raw = (pydicom.dcmread(pydicom.data.get_testdata_file(f"{file}.dcm")) for file in (name, "SC_rgb_rle"))
    packed.Modality, packed.PatientID, packed.BurnedInAnnotation = "US", "P1", "NO"
    site, _ = imported(tmp_path, {"a/x": packed, "b/y": other()})
    assert np.abs(stored(site, 0) - luma(pixel_array(raw))).max() <= 6


def test_no_pixel_outside_the_region_survives(tmp_path: Path) -> None:
    """Text is 255 and tissue at most 249: whatever is 255 in the site folder was text."""
    cine = np.stack([screen(seed) for seed in range(7)])
    colours = screen(3, channels=3)
    site, _ = imported(
        tmp_path,
        {
            "benign/one": picture(screen(1)),
            "benign/loop": picture(cine, frames=7),
            "benign/rle": made.rle(picture(screen(2))),
            "malignant/colours": picture(colours, photometric="RGB"),
            "malignant/palette": made.palette(4)[0],
        },
    )
    assert len(site) == 1 + 5 + 3
    assert all(stored(site, row).max() < made.TEXT for row in range(len(site)))
    assert (screen(1) == made.TEXT).sum() > 1000


def test_several_regions(tmp_path: Path) -> None:
    """The largest tissue region in 2D counts; Doppler traces do not, and what leaves the frame is cut."""
    beyond = region((20, 10, 500, 500))
    small, trace, doppler = region((0, 0, 9, 9)), region((0, 0, 59, 39), form=3), region((0, 0, 59, 39), kind=2)
    site, _ = imported(
        tmp_path,
        {"a/x": picture(screen(1), SequenceOfUltrasoundRegions=[trace, small, beyond, doppler]), "b/y": other()},
    )
    assert np.array_equal(stored(site, 0), screen(1)[10:, 20:])


def test_a_loop_gives_five_frames_with_the_middle_one(tmp_path: Path) -> None:
    cine = np.stack([screen(seed) for seed in range(21)])
    site, summary = imported(
        tmp_path,
        {"a/x": picture(cine, frames=21), "a/short": picture(cine[:3], frames=3, PatientID="P2"), "b/y": other()},
    )
    first = [row for row in range(len(site)) if site.patients[row] == 1]
    for row, frame in zip(first, [2, 6, 10, 14, 18], strict=True):
        assert np.array_equal(stored(site, row), tissue(cine[frame]))
    assert (summary.images, summary.patients, len(first)) == (9, 3, 5)
    assert reasons(site) == ["16 of its 21 frames; 5 are taken"]


def test_frames_of_a_compressed_loop(tmp_path: Path) -> None:
    cine = np.stack([screen(seed) for seed in range(3)])
    streams = [made.jpeg_lossless(frame) for frame in cine]
    lossless = made.encapsulated(picture(cine, frames=3), made.JPEG_LOSSLESS, streams)
    site, _ = imported(tmp_path, {"a/x": lossless, "b/x": made.rle(picture(cine, frames=3))})
    for row in range(6):
        assert np.array_equal(stored(site, row), tissue(cine[row % 3]))


def test_covariates_and_device(tmp_path: Path) -> None:
    site, _ = imported(
        tmp_path,
        {
            "a/1": picture(screen(1), PatientAge="045Y", PatientSex="F"),
            "a/2": picture(screen(2), PatientAge="006M", PatientSex="M", PatientID="P2"),
            "a/3": picture(screen(3), PatientAge="old", PatientSex="secret", PatientID="P3"),
            "b/4": other(SequenceOfUltrasoundRegions=[region(cm=0.02)], Manufacturer="Doe of Acme"),
        },
    )
    assert site.covariates["age"] == ("45", "0.5", None, None)
    assert site.covariates["sex"] == ("F", "M", None, None)
    assert site.covariates["spacing_mm"] == ("0.125", "0.125", "0.125", "0.2")
    assert site.devices == ("Acme Scan 7", "Acme Scan 7", "Acme Scan 7", None)


def film() -> Dataset:
    return made.encapsulated(picture(screen(1)), "1.2.840.10008.1.2.4.102", [b"xx"])


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    no_text = {"SequenceOfUltrasoundRegions": None}
    site, summary = imported(
        tmp_path,
        {
            "a/good": picture(screen(1)),
            "a/clean": picture(screen(2), BurnedInAnnotation="NO", **no_text),
            "a/ct": picture(screen(1), Modality="CT"),
            "a/nobody": picture(screen(1), PatientID=None),
            "a/blank": picture(screen(1), PatientID=" "),
            "a/no regions": picture(screen(1), **no_text),
            "a/only doppler": picture(screen(1), SequenceOfUltrasoundRegions=[region(form=3)]),
            "a/whole": picture(
                screen(1), SequenceOfUltrasoundRegions=[region((0, 0, 59, 39))], BurnedInAnnotation="YES"
            ),
            "a/volume": picture(screen(1), SOPClassUID="1.2.840.10008.5.1.4.1.1.6.2"),
            "a/film": film(),
            "a/young": written(film()).replace(b".10008.1.2.4.102", b".10008.1.2.4.112"),
            "a/own": written(film()).replace(b".10008.1.2.4.102", b".113619.5.4.1990"),
            "a/deep": made.encapsulated(picture(screen(1).astype(np.uint16)), "1.2.840.10008.1.2.4.51", [b"xx"]),
            "a/huge": picture(screen(1), Rows=16000, Columns=16000),
            "a/report.pdf": b"%PDF",
            "a/.hidden": b"",
            "loose": other(),
            "b/other": other(),
        },
    )  # fmt: skip
    assert (summary.images, summary.skipped) == (3, 15)
    assert np.array_equal(stored(site, 0), screen(2))
    found = " | ".join(reasons(site))
    for said, count in {
        "not ultrasound": 1, "no PatientID": 2, "no 2D tissue region": 2, "region is the whole picture": 1, "3D volume": 1,
        "syntax, MPEG-4 AVC/H.264 High Profile / Level 4.1, is not read": 1, "syntax, 1.2.840.10008.1.2.4.112, is not": 1,
        "syntax, which the standard does not know, is not read": 1, "JPEG Extended (Process 2 and 4), is read up to 8": 1,
        "pixels in a frame": 1, "not a DICOM file": 1, "hidden": 1, "in no class folder": 1,
    }.items():  # fmt: skip
        assert found.count(said) == count, said


def test_a_file_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    """As a hole on disk it takes no room, in a zip hardly any."""
    files = {"a/x": picture(screen(1)), "b/y": other()}
    source = folder(tmp_path / "in", files)
    with (source / "a/loop").open("wb") as file:
        file.write(written(picture(screen(2), PatientID="P2")))
        file.truncate(MAX_MEMBER_BYTES + 1)
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(source.rglob("?/*")):
            archive.write(path, path.relative_to(source))
    for name, place in (("folder", source), ("zip", tmp_path / "in.zip")):
        (summary,) = import_site("dicom", place, tmp_path / name, options=OPTIONS)
        assert (summary.images, summary.patients, summary.skipped) == (2, 2, 1)
        assert reasons(load_site(summary.folder)) == ["larger than 256 MiB; export fewer frames"]


def test_split_folders_and_a_zip_with_a_folder_around(tmp_path: Path) -> None:
    files = {
        f"export/{side}/{label}/{n}.dcm": picture(screen(n), PatientID=f"{side}{label}{n}")
        for side in ("train", "val", "test")
        for label in ("a", "b")
        for n in range(2)
    }
    site, _ = imported(tmp_path, files)
    assert [sum(side == name for side in site.splits) for name in ("train", "val", "test")] == [4, 4, 4]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    import_site("dicom", tmp_path / "x.zip", tmp_path / "zipped", options=OPTIONS)
    assert load_site(tmp_path / "zipped/our-clinic").data_sha256 == site.data_sha256


@pytest.mark.parametrize("key", ["sop_instance_uid", "file", "patient_id"])
def test_labels_from_a_table(tmp_path: Path, key: str) -> None:
    files = {f"study{n}/IM{n}": picture(screen(n), PatientID=f"P{n}") for n in range(5)}
    names = {
        "sop_instance_uid": [str(file.SOPInstanceUID) for file in files.values()],
        "file": list(files),
        "patient_id": [f"P{n}" for n in range(5)],
    }[key]
    lines = [f"{key},label", *(f"{name},{'xy'[n % 2]}" for n, name in enumerate(names[:4]))]
    site, _ = imported(tmp_path, {**files, "labels.csv": "\n".join(lines).encode()})
    assert [site.task.classes[label] for label in site.labels] == ["x", "y", "x", "y"]
    assert reasons(site) == ["no row of labels.csv names it"]


def twice(label: str) -> dict[str, Dataset | bytes]:
    same = written(picture(screen(1)))
    return {"a/1": same, f"{label}/2": same, "b/3": other()}


def test_the_same_picture_twice(tmp_path: Path) -> None:
    site, _ = imported(tmp_path, twice("a"))
    assert reasons(site) == ["the picture of member 1 once more"]
    with pytest.raises(BadInput, match=r"member 2: the picture of member 1 under another label"):
        import_site("dicom", folder(tmp_path / "other", twice("b")), tmp_path / "out2", options=OPTIONS)


def cut(content: bytes) -> bytes:
    return content[: len(content) - 1000]


def bomb() -> bytes:
    """A deflated data set of 300 MiB in 300 KiB, after an ordinary file meta group."""
    import zlib

    dataset = deflated()[0]
    content = written(dataset)
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    return content[:start] + b"".join(packer.compress(bytes(2**20)) for _ in range(300)) + packer.flush()


def jpeg_of_another_size() -> Dataset:
    stream = made.by_pillow(np.zeros((2000, 2000), dtype=np.uint8), "JPEG")
    return made.encapsulated(picture(screen(1)), made.JPEG, [stream])


def run_length_bomb() -> Dataset:
    dataset = made.rle(picture(screen(1)))
    header = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56)
    return made.encapsulated(dataset, str(dataset.file_meta.TransferSyntaxUID), [header + b"\x81\x00" * 200_000])


def broken_lossless() -> Dataset:
    stream = bytearray(made.jpeg_lossless(screen(1)))
    stream[10:20] = bytes([255] * 10)
    stream[60:] = b"\x00"
    return made.encapsulated(picture(screen(1)), made.JPEG_LOSSLESS, [bytes(stream)])


def odd_header() -> bytes:
    return written(picture(screen(1), SequenceOfUltrasoundRegions=None, NumberOfFrames=1)).replace(
        b"\x28\x00\x08\x00IS\x02\x001 ", b"\x28\x00\x08\x00IS\x02\x00x "
    )


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (lambda: cut(written(picture(screen(1)))), r"member 1: its picture is damaged \(\w+\); export the file again"),
        (bomb, r"member 1: unpacks to more than 256 MiB; do not trust this file"),
        (jpeg_of_another_size, r"member 1: its picture is damaged \(ValueError\)"),
        (run_length_bomb, r"member 1: its picture is damaged \(ValueError\)"),
        (broken_lossless, r"member 1: its picture is damaged \(\w+\)"),
        (odd_header, r"member 1: damaged DICOM header \(\w+\)"),
        (lambda: picture(screen(1), PatientID="a"), r"its folders are patients, not classes"),
        (lambda: picture(screen(1), PatientName="A"), r"its folders are patients, not classes"),
        (lambda: picture(screen(1), Modality="CT"), r"pictures of fewer than 2 classes; a task needs 2 to 100"),
    ],
)
def test_harm_is_one_line_and_nothing_is_written(
    tmp_path: Path, file: Callable[[], Dataset | bytes], says: str
) -> None:
    source = folder(tmp_path / "in", {"a/x": file(), "b/y": other()})
    with pytest.raises(BadInput, match=says) as caught:
        import_site("dicom", source, tmp_path / "out", options=OPTIONS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_options_that_cannot_be(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", {"a/x": picture(screen(1)), "b/y": other()})
    for options, says in (
        (ImportOptions(), "needs the site's id; give --site"),
        (ImportOptions(site="../up"), "is no id"),
        (ImportOptions(site="s", task="lump:c"), "'c' is no class"),
        (ImportOptions(site="s", pattern="x"), "takes no --pattern"),
    ):
        with pytest.raises(BadInput, match=says):
            import_site("dicom", source, tmp_path / "out", options=options)
    import_site("dicom", source, tmp_path / "out", options=ImportOptions(site="s", task="lump:a"))
    task = load_site(tmp_path / "out/s").task
    assert (task.name, task.classes, task.positive) == ("lump", ("a", "b"), "a")


def test_folders_of_patients_are_no_classes(tmp_path: Path) -> None:
    files = {f"{name}/x": picture(screen(n), PatientID=f"P{n}") for n, name in enumerate("vwxyz")}
    with pytest.raises(BadInput, match="its folders are patients, not classes"):
        import_site("dicom", folder(tmp_path / "in", files), tmp_path / "out", options=OPTIONS)


TOKENS = {
    name: f"T{number:02d}qzkxvwjp"
    for number, name in enumerate(
        ("PatientName", "PatientID", "StudyDescription", "InstitutionName", "AccessionNumber", "ReferringPhysicianName",
         "PatientAddress", "StudyID", "DeviceSerialNumber", "StationName", "ImageComments", "OtherPatientIDs")
    )
}  # fmt: skip


def test_no_token_leaves_a_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Tokens stand in every tag that names somebody, in file names and private tags; one file is damaged."""
    dataset = picture(screen(1), **{**TOKENS, "BurnedInAnnotation": "YES"})
    dataset.private_block(0x0011, TOKENS["StudyID"], create=True).add_new(1, "LO", TOKENS["ImageComments"])
    dataset.add_new(0x00101010, "AS", "T99Y")  # an age that pydicom warns about
    files: dict[str, Dataset | bytes] = {"a/T50qzkxvwjp/T51qzkxvwjp.dcm": dataset, "b/y": other()}
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        site, _ = imported(tmp_path, files)
        broken = folder(tmp_path / "broken", files) / "a/T50qzkxvwjp/T51qzkxvwjp.dcm"
        broken.write_bytes(cut(broken.read_bytes()))
        with pytest.raises(BadInput) as caught:
            import_site("dicom", tmp_path / "broken", tmp_path / "out2", options=OPTIONS)
    said = [str(caught.value), repr(caught.value.__cause__), caplog.text, *map(str, warned), *capfd.readouterr()]
    assert not any("qzkxvwjp" in text for text in said)
    names = (site.folder / "private/names.csv").read_text(encoding="utf-8")
    assert TOKENS["PatientID"] in names
    assert "a/T50qzkxvwjp/T51qzkxvwjp.dcm" in names
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKENS["PatientName"].encode() not in content
            assert "private" in path.parts or b"qzkxvwjp" not in content, path.name


@settings(max_examples=40, deadline=None)
@given(
    centre=st.integers(-200, 4000),
    width=st.integers(1, 4000),
    slope=st.sampled_from([0.5, 1, 2]),
    seed=st.integers(0, 99),
)
@example(centre=11, width=1, slope=0.5, seed=0)
def test_the_window_is_pydicoms(centre: int, width: int, slope: float, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 4096, (9, 11)).astype(np.uint16)
    dataset = picture(values, BitsStored=12, HighBit=11, WindowCenter=centre, WindowWidth=width, RescaleSlope=slope)
    dataset.RescaleIntercept = 0
    oracle = apply_windowing(values * slope, dataset) / (4095 * slope) * 255
    assert np.abs(_windowed(values, dataset) - oracle).max() <= 0.51


def test_a_decoder_that_ends_is_started_again() -> None:
    expected = screen(1)
    single = made.encapsulated(picture(expected), made.JPEG_LOSSLESS, [made.jpeg_lossless(expected)])
    with closing(Decoder()) as decoder:
        assert np.array_equal(decoder.decoded(single), expected)
        assert decoder._child is not None
        decoder._child.kill()
        with pytest.raises(ValueError, match="the decoder ended"):
            decoder.decoded(single)
        assert np.array_equal(decoder.decoded(single), expected)


def test_a_decoder_that_hangs_is_ended() -> None:
    program = """
import itertools
from client.importers import dicom_decoder
dicom_decoder._SECONDS = 0.2
dicom_decoder._answer = lambda content: all(itertools.repeat(True))
dicom_decoder.main()
"""
    asked = (1).to_bytes(8, "big") + b"x"
    done = subprocess.run([sys.executable, "-c", program], input=asked, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGPROF, b"")


@pytest.mark.parametrize("name", ["palette_color", "ybr_color", "rgb_color", "jpeg2k"])
def test_real_files_of_machines(tmp_path: Path, name: str) -> None:
    """Ultrasound that comes with pydicom: what two of its own converters make of it is the oracle."""
    dataset = pydicom.dcmread(pydicom.examples.get_path(name))
    if "SequenceOfUltrasoundRegions" not in dataset:
        dataset.BurnedInAnnotation = "NO"
    dataset.PatientID = dataset.get("PatientID") or "P1"
    files: dict[str, Dataset | bytes] = {"a/x": other(), "b/y": written(dataset)}
    site, _ = imported(tmp_path, files)
    frames = int(dataset.get("NumberOfFrames", 1))
    middle = 3 if frames > 1 else 1
    colours = pixel_array(dataset, index=frames // 2)
    if name == "palette_color":
        colours = apply_color_lut(colours, dataset) / 257
    box = ultrasound(files["b/y"], where="y").region
    if box is not None:
        colours = colours[box.y : box.y + box.height, box.x : box.x + box.width]
    assert np.abs(stored(site, middle) - luma(colours)).max() <= 1
    assert np.ptp(stored(site, middle)) > 100

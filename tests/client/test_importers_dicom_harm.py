"""Ultrasound DICOM that does harm: damaged and swollen files, decoders that fail,
and what must never leave a header.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.importers import import_site
from client.importers.dicom_decoder import Decoder
from common.errors import BadInput
from tests.client import dicom_files as made
from tests.client.dicom_files import picture, screen, written
from tests.client.dicom_imports import OPTIONS, cut, folder, imported, other
from tests.client.dicom_kinds import deflated

ROOT = Path(__file__).resolve().parents[2]


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

"""One DICOM file: what its header says about an ultrasound picture, or why it is left out.

Only the tags named here are read. What a header holds stands in no error: pydicom's own messages quote values, so
they end here. The part of a picture that is kept is the largest 2D tissue region that the machine declares (Sequence of
Ultrasound Regions, DICOM PS3.3 C.8.5.5): names and dates are burned in outside of it.
"""

from __future__ import annotations

__all__ = ["MAX_FRAME_PIXELS", "Found", "LeftOut", "parsed", "silent", "ultrasound"]

import io
import logging
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from client.box import Box
from client.importers.archive import MAX_MEMBER_BYTES
from client.pictures import MAX_SIDE
from common.errors import BadInput

MAX_FRAME_PIXELS = 2**23
"""Most pixels of a frame; ultrasound screens have 1 to 3 million."""
MAX_FRAMES = 100_000
_MAX_READS = 500_000
"""Most read calls on one file: an element takes one or two, so this bounds what a header of many can cost."""
_LEAST_SIDE = 8
"""Shortest side of a region, in pixels."""

_HEADER = (
    "SOPClassUID", "SOPInstanceUID", "Modality", "Manufacturer", "ManufacturerModelName", "PatientName", "PatientID",
    "PatientAge", "PatientSex", "SequenceOfUltrasoundRegions", "BurnedInAnnotation",
)  # fmt: skip
_PICTURE = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter", "WindowWidth", "RescaleSlope",
    "RescaleIntercept", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip

_SYNTAXES = frozenset(
    "1.2.840.10008.1.2" + end
    for end in (
        "", ".1", ".1.99", ".2", ".5",  # uncompressed, deflated, big endian, RLE
        ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91",  # JPEG, JPEG-LS, JPEG 2000
    )
)  # fmt: skip
_TWELVE_BITS = "1.2.840.10008.1.2.4.51"
"""JPEG extended, whose decoders here stop at 8 bits."""
_GRAY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
_CENTIMETRES = 3
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


class LeftOut(Exception):
    """This file is no picture for the site; the message says why, without a value from its header."""


@dataclass(frozen=True)
class Found:
    """What the header of a usable file says.

    `patient` is the original id and `name` the patient's name: both are only compared, and only the id reaches
    private/. `uid` names the picture, empty where it does not say. `region` is what is kept of each frame, None for all
    of it.
    """

    patient: str
    name: str
    uid: str
    frames: int
    region: Box | None
    device: str | None
    covariates: Mapping[str, str]


class _Counted(io.BytesIO):
    """Bytes that can be read a limited number of times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise ValueError("too many elements")
        return super().read(size)


@contextmanager
def silent() -> Iterator[None]:
    """Keep pydicom's warnings and log lines, which quote values, from everyone."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def parsed(content: bytes, *, where: str, pixels: bool) -> Dataset:
    """The tags that are used; those of the picture only with `pixels`. Raises LeftOut, and BadInput where damaged."""
    if content[128:132] != b"DICM":
        raise LeftOut("not a DICOM file")
    try:
        with silent():
            plain = _inflated(content, where=where)
            tags = [*_HEADER, *(_PICTURE if pixels else _PICTURE[:10])]
            dataset = pydicom.dcmread(_Counted(plain), stop_before_pixels=not pixels, specific_tags=list(tags))
    except (BadInput, LeftOut):
        raise
    except Exception as error:  # the trust boundary: pydicom raises nearly anything on a damaged file, with values
        raise BadInput(f"{where}: damaged DICOM ({type(error).__name__}); export the file again") from None
    return dataset


def _inflated(content: bytes, *, where: str) -> bytes:
    """The file with its data set inflated, where its transfer syntax is the deflated one."""
    stream = _Counted(content)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax not in _SYNTAXES:
        raise LeftOut(f"its transfer syntax, {_known(syntax)}, is not read; export it uncompressed or as JPEG")
    if syntax != DeflatedExplicitVRLittleEndian:
        return content
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[stream.tell() :], MAX_MEMBER_BYTES + 1)
    if len(inflated) > MAX_MEMBER_BYTES:
        raise BadInput(f"{where}: unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB; do not trust this file")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain = pydicom.filebase.DicomBytesIO()
    plain.write(content[:132])
    write_file_meta_info(plain, FileMetaDataset(meta), enforce_standard=False)
    plain.write(inflated)
    return bytes(plain.getvalue())


def _known(syntax: str) -> str:
    """A transfer syntax by its name, or its number where the standard is young; another's number may name somebody."""
    uid = UID(syntax)
    if uid.is_private or not re.fullmatch(r"1\.2\.840\.10008\.1\.2(\.\d{1,3}){1,3}", syntax):
        return "which the standard does not know"
    return uid.name if uid.is_transfer_syntax else syntax


def ultrasound(content: bytes, *, where: str) -> Found:
    """Read a header. Raises LeftOut where the file is no picture that can be used, BadInput where it is damaged."""
    dataset = parsed(content, where=where, pixels=False)
    try:
        with silent():
            return _found(dataset)
    except LeftOut:
        raise
    except Exception as error:  # values are parsed on first sight
        raise BadInput(f"{where}: damaged DICOM header ({type(error).__name__}); export the file again") from None


def _found(dataset: Dataset) -> Found:
    if _text(dataset, "Modality") != "US":
        raise LeftOut("not ultrasound (Modality is not US)")
    if _text(dataset, "SOPClassUID") == _VOLUME:
        raise LeftOut("a 3D volume, not a picture; export its slices")
    patient = _text(dataset, "PatientID")
    if not patient:
        raise LeftOut("no PatientID, so nobody can tell whose picture it is")
    frames = _checked_frames(dataset)
    region, covariates = _region(dataset)
    name = _text(dataset, "PatientName")
    return Found(
        patient=patient,
        name=name,
        uid=_text(dataset, "SOPInstanceUID"),
        frames=frames,
        region=region,
        device=_device(dataset, patient, name),
        covariates={"age": _age(dataset), "sex": _sex(dataset), **covariates},
    )


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else re.sub(r"[\x00-\x1f\x7f]+", " ", str(value)).strip()


def _number(dataset: Dataset, keyword: str, default: int = 0) -> int:
    value = dataset.get(keyword)
    return default if value is None or value == "" else int(value)


def _checked_frames(dataset: Dataset) -> int:
    """The number of frames, once the picture is one that can be decoded. Raises LeftOut."""
    rows, columns, frames = (_number(dataset, name, 1) for name in ("Rows", "Columns", "NumberOfFrames"))
    if "Rows" not in dataset or "Columns" not in dataset or min(rows, columns, frames) < 1:
        raise LeftOut("it holds no picture")
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_FRAME_PIXELS or frames > MAX_FRAMES:
        raise LeftOut(f"more than {MAX_FRAME_PIXELS} pixels in a frame, or more than {MAX_FRAMES} frames")
    form, samples = _text(dataset, "PhotometricInterpretation"), _number(dataset, "SamplesPerPixel", 1)
    if (form, samples) not in [(name, 1) for name in _GRAY] + [(name, 3) for name in _COLOUR]:
        raise LeftOut("its kind of colours (PhotometricInterpretation) is not read; export it as RGB or gray")
    if _number(dataset, "BitsAllocated") not in (8, 16):
        raise LeftOut("neither 8 nor 16 bits a sample; export it with 8 or 16")
    if dataset.file_meta.TransferSyntaxUID == _TWELVE_BITS and _number(dataset, "BitsAllocated") != 8:
        raise LeftOut(f"its transfer syntax, {_known(_TWELVE_BITS)}, is read up to 8 bits only; export it uncompressed")
    return frames


def _region(dataset: Dataset) -> tuple[Box | None, dict[str, str]]:
    """What is kept of a frame, and the pixel spacing there where the machine gives it. Raises LeftOut."""
    size = (int(dataset.Columns), int(dataset.Rows))
    clean = _text(dataset, "BurnedInAnnotation") == "NO"
    tissue = [item for item in dataset.get("SequenceOfUltrasoundRegions") or () if _is_tissue(item)]
    boxes = [(box, item) for item in tissue if (box := _box(item, size)) is not None]
    if not boxes:
        if clean:
            return None, {"spacing_mm": ""}
        raise LeftOut(
            "no 2D tissue region is declared, so nobody can tell where text is burned in; crop it and set "
            "BurnedInAnnotation to NO"
        )
    box, item = max(boxes, key=lambda found: found[0].width * found[0].height)
    if box == (0, 0, *size) and _text(dataset, "BurnedInAnnotation") == "YES":
        raise LeftOut("text is burned in and the region is the whole picture; crop it and set BurnedInAnnotation to NO")
    return box, {"spacing_mm": _spacing(item)}


def _is_tissue(item: Dataset) -> bool:
    return _number(item, "RegionSpatialFormat") == 1 and _number(item, "RegionDataType") == 1


def _box(item: Dataset, size: tuple[int, int]) -> Box | None:
    """A region's rectangle, both corners included, as far as it lies in the frame."""
    left, top = (max(_number(item, name), 0) for name in ("RegionLocationMinX0", "RegionLocationMinY0"))
    right = min(_number(item, "RegionLocationMaxX1") + 1, size[0])
    bottom = min(_number(item, "RegionLocationMaxY1") + 1, size[1])
    box = Box(left, top, right - left, bottom - top)
    return box if min(box.width, box.height) >= _LEAST_SIDE else None


def _spacing(item: Dataset) -> str:
    """Millimetres per pixel where the region counts in centimetres, alike to 1 % in both directions; else empty."""
    if any(_number(item, f"PhysicalUnits{axis}Direction") != _CENTIMETRES for axis in "XY"):
        return ""
    across, down = (abs(float(item.get(f"PhysicalDelta{axis}") or 0)) * 10 for axis in "XY")
    return f"{across:.6g}" if 0 < across < 100 and abs(across - down) <= 0.01 * across else ""


def _age(dataset: Dataset) -> str:
    """PatientAge in years, such as 0.5 for `006M`; empty where it is absent or spelled otherwise."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", _text(dataset, "PatientAge"))
    return f"{round(int(match[1]) * _YEARS[match[2]], 2):g}" if match else ""


def _sex(dataset: Dataset) -> str:
    sex = _text(dataset, "PatientSex").upper()
    return sex if sex in ("F", "M", "O") else ""


def _device(dataset: Dataset, patient: str, name: str) -> str | None:
    """Maker and model; None where they are absent, odd, or hold a word of the patient's name or id."""
    parts = [_text(dataset, "Manufacturer"), _text(dataset, "ManufacturerModelName")]
    device = " ".join(part for part in parts if part)
    private = {*_words([patient, name]), patient.casefold()}
    if not re.fullmatch(r"[\w .,+/()&-]{1,64}", device) or private & _words(parts):
        return None
    return device


def _words(texts: Sequence[Any]) -> set[str]:
    """Words of three characters or more, folded."""
    return {word for text in texts for word in re.split(r"[\W_]+", str(text).casefold()) if len(word) >= 3}

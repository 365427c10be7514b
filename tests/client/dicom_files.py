"""Ultrasound DICOM made by pydicom: a screen with text around the tissue, as a machine stores it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

US, US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
JPEG, JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = (f"1.2.840.10008.1.2.4.{end}" for end in ("50", "70", "80", "90"))
DEFLATED = "1.2.840.10008.1.2.1.99"
SCREEN = (40, 60)
"""Rows and columns of a screen."""
REGION = (10, 8, 49, 33)
"""First column and row of the tissue, last column and row."""
TEXT = 255
"""The value of burned-in text; the tissue never has it."""


def screen(seed: int, *, channels: int = 1, high: int = 250) -> np.ndarray:
    """Tissue of values 5 to `high` in the region, text around it: (rows, columns) or (rows, columns, 3), uint8."""
    shape = SCREEN if channels == 1 else (*SCREEN, channels)
    values = np.full(shape, TEXT, dtype=np.uint8)
    left, top, right, bottom = REGION
    inside = values[top : bottom + 1, left : right + 1]
    inside[...] = np.random.default_rng(seed).integers(5, high, inside.shape)
    return values


def tissue(values: np.ndarray) -> np.ndarray:
    left, top, right, bottom = REGION
    return values[top : bottom + 1, left : right + 1]


def region(corners: Sequence[int] = REGION, *, kind: int = 1, form: int = 1, cm: float = 0.0125) -> Dataset:
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = form, kind, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = corners
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = cm, -cm
    return item


def picture(values: np.ndarray, *, photometric: str = "MONOCHROME2", frames: int = 0, **tags: Any) -> Dataset:
    """A data set of one picture, or of `frames` pictures along the first axis of `values`."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = US_MULTI_FRAME if frames else US
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "US"
    dataset.PatientID, dataset.PatientName = "P1", "Doe^Jane"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Acme", "Scan 7"
    dataset.SequenceOfUltrasoundRegions = [region()]
    one = values[0] if frames else values
    dataset.Rows, dataset.Columns = one.shape[:2]
    dataset.SamplesPerPixel = 3 if one.ndim == 3 else 1
    if one.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    if frames:
        dataset.NumberOfFrames = frames
    dataset.PixelData = values.tobytes()
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def written(dataset: Dataset) -> bytes:
    """The file's bytes."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", US)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    file = io.BytesIO()
    dataset["PixelData"].VR = "OB" if dataset.file_meta.TransferSyntaxUID.is_compressed else "OW"
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def encapsulated(dataset: Dataset, syntax: str, streams: Sequence[bytes]) -> Dataset:
    """The data set with its frames as these compressed streams."""
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.PixelData = encapsulate(list(streams))
    return dataset


def rle(dataset: Dataset) -> Dataset:
    """Compressed by pydicom's own encoder."""
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return dataset


def by_pillow(values: np.ndarray, kind: str, **options: Any) -> bytes:
    """A JPEG or JPEG 2000 stream of one picture."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


def by_gdcm(dataset: Dataset, syntax: str) -> Dataset:
    """Compressed by gdcm's encoders: JPEG lossless, JPEG-LS, JPEG 2000."""
    import gdcm

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "plain").write_bytes(written(dataset))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(f"{place}/plain")
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(f"{place}/packed")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return pydicom.dcmread(f"{place}/packed")


def palette(seed: int) -> tuple[Dataset, Callable[[np.ndarray], np.ndarray]]:
    """A picture of 8-bit indices with a 16-bit table, and what turns indices into colours (…, 3), uint8."""
    tables = np.random.default_rng(seed + 1).integers(0, 256, (3, 256))
    tables[:, TEXT] = 255
    tables[:, :TEXT] = np.minimum(tables[:, :TEXT], 240)
    colours = {
        f"{name}PaletteColorLookupTable{part}": value
        for name, table in zip(("Red", "Green", "Blue"), tables, strict=True)
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", (257 * table).astype("<u2").tobytes()))
    }
    dataset = picture(screen(seed), photometric="PALETTE COLOR", **colours)
    return dataset, lambda indices: np.moveaxis(tables[:, indices], 0, -1).astype(np.uint8)


def ybr_422(values: np.ndarray) -> bytes:
    """RGB values as native YBR_FULL_422: two lumas, then one pair of chromas,
    for each two pixels (PS3.3 C.7.6.3.1.2).
    """
    ybr = convert_color_space(values, "RGB", "YBR_FULL")
    pairs = np.empty((*values.shape[:1], values.shape[1] // 2, 4), dtype=np.uint8)
    pairs[..., 0], pairs[..., 1] = ybr[:, ::2, 0], ybr[:, 1::2, 0]
    pairs[..., 2:] = ybr[:, ::2, 1:]
    return pairs.tobytes()


def jpeg_lossless(values: np.ndarray) -> bytes:
    """Gray values as JPEG lossless, process 14 with selection value 1 (ITU-T T.81 annex H): a plain encoder.

    One Huffman table gives each of the 9 categories of difference a code of 4 bits, its own number.
    """
    height, width = values.shape
    table = bytes([0xFF, 0xC4, 0, 19 + 9, 0, 0, 0, 0, 9, *[0] * 12, *range(9)])
    frame = bytes([0xFF, 0xC3, 0, 11, 8, *height.to_bytes(2, "big"), *width.to_bytes(2, "big"), 1, 1, 0x11, 0])
    scan = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 0, 0])
    samples = values.astype(int)
    bits = ""
    for row in range(height):
        for column in range(width):
            left = samples[row, column - 1] if column else samples[row - 1, column] if row else 128
            difference = int(samples[row, column] - left)
            size = abs(difference).bit_length()
            value = difference if difference > 0 else difference + (1 << size) - 1
            bits += f"{size:04b}" + (f"{value:0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + table + frame + scan + data + b"\xff\xd9"

"""A frame of a DICOM file as gray values: decoded, cut to its region, windowed.

JPEG (baseline) and RLE are decoded here, the other compressions by the decoder's own process (`dicom_decoder`), since
their libraries end or hang on damaged streams. Sizes are compared with the header before anything is decoded.
"""

from __future__ import annotations

__all__ = ["gray_frame"]

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import RLELossless

from client.box import Box
from client.importers.dicom_decoder import Decoder
from client.importers.dicom_file import silent
from common.errors import BadInput

_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the JPEG markers that give a picture's size (ITU-T T.81 and T.87)."""
_LUMA = np.array([299, 587, 114], dtype=np.float32) / 1000


def gray_frame(
    dataset: Dataset, index: int, *, region: Box | None, decoder: Decoder, where: str
) -> npt.NDArray[np.uint8]:
    """Frame `index`, from 0, cut to `region`, as gray values (height, width). Raises BadInput where it is damaged."""
    try:
        with silent():
            pixels = _decoded(dataset, index, decoder)
            if region is not None:
                x, y, width, height = region
                pixels = pixels[y : y + height, x : x + width]
            return _gray(pixels, dataset)
    except Exception as error:  # the trust boundary: decoders raise nearly anything on a damaged stream
        kind = type(error).__name__
        raise BadInput(f"{where}: its picture is damaged ({kind}); export the file again") from None


def _decoded(dataset: Dataset, index: int, decoder: Decoder) -> npt.NDArray[Any]:
    """Samples as they are stored, (rows, columns) or (rows, columns, 3); of colours as RGB."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return np.asarray(pixel_array(dataset, index=index))
    frames = int(dataset.get("NumberOfFrames") or 1)
    single = _one_frame(dataset, get_frame(dataset.PixelData, index, number_of_frames=frames))
    _check_stream(single)
    if syntax == RLELossless:
        return np.asarray(pixel_array(single, index=0))
    if syntax in _JPEG:
        return np.asarray(pixel_array(single, index=0, decoding_plugin="pillow"))
    return decoder.decoded(single)


def _one_frame(dataset: Dataset, stream: bytes) -> Dataset:
    """The same picture with one frame alone, unwrapped in `encapsulated`."""
    from pydicom.encaps import encapsulate

    single = Dataset()
    single.file_meta = dataset.file_meta
    names = ("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "Rows", "Columns")
    for name in (*names, "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
        if name in dataset:
            setattr(single, name, dataset[name].value)
    single.PixelData = encapsulate([stream])
    single["PixelData"].VR = "OB"
    return single


def _check_stream(single: Dataset) -> None:
    """Raise ValueError where a compressed frame would unpack to another size than the header's."""
    stream = get_frame(single.PixelData, 0, number_of_frames=1)
    size = (int(single.Columns), int(single.Rows))
    syntax = str(single.file_meta.TransferSyntaxUID)
    if syntax == RLELossless:
        samples = int(single.SamplesPerPixel) * int(single.BitsAllocated) // 8
        if _rle_bytes(stream[64:]) > 2 * size[0] * size[1] * samples + 4096:
            raise ValueError("unpacks to too much")
    elif (_jpeg_2000_size(stream) if syntax in _JPEG_2000 else _jpeg_size(stream)) != size:
        raise ValueError("another size")


def _rle_bytes(stream: bytes) -> int:
    """What a run-length stream (DICOM PS3.5 Annex G) unpacks to, in bytes."""
    place = total = 0
    while place < len(stream):
        code = stream[place]
        if code < 128:
            place, total = place + code + 2, total + code + 1
        elif code > 128:
            place, total = place + 2, total + 257 - code
        else:
            place += 1
    return total


def _jpeg_size(stream: bytes) -> tuple[int, int]:
    """Width and height that a JPEG stream gives; every size in it must be the same. Raises ValueError, IndexError."""
    place, found = 2, None
    while stream[place] == 0xFF:
        kind = stream[place + 1]
        if kind == 0xFF:
            place += 1
            continue
        if kind in _SIZES:
            height, width = (int.from_bytes(stream[place + at : place + at + 2], "big") for at in (5, 7))
            if found not in (None, (width, height)):
                raise ValueError("two sizes")
            found = (width, height)
        if kind == 0xDA:
            break
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    if found is None:
        raise ValueError("no size")
    return found


def _jpeg_2000_size(stream: bytes) -> tuple[int, int]:
    """Width and height that a JPEG 2000 codestream gives, also inside a JP2 file. Raises ValueError."""
    start = stream.index(b"\xff\x4f\xff\x51")
    right, bottom, left, top = (
        int.from_bytes(stream[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)
    )  # fmt: skip
    return right - left, bottom - top


def _gray(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Samples as 8-bit gray: colours by luma (ITU-R 601), gray through its window."""
    form = str(dataset.PhotometricInterpretation)
    if form == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        return _luma(pixels, bits=8 * pixels.dtype.itemsize)
    if pixels.ndim == 3:
        return _luma(pixels, bits=int(dataset.BitsStored))
    values = _windowed(pixels, dataset)
    return 255 - values if form == "MONOCHROME1" else values


def _luma(pixels: npt.NDArray[Any], *, bits: int) -> npt.NDArray[np.uint8]:
    gray: npt.NDArray[np.float32] = pixels[..., :3].astype(np.float32) @ _LUMA * (255 / (2**bits - 1))
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


def _windowed(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Through the file's first window (DICOM PS3.3 C.11.2.1.2.1).

    Without one, 8-bit values stay as they are, and others are spread from the least to the greatest in the picture.
    """
    slope, intercept = _first(dataset, "RescaleSlope"), _first(dataset, "RescaleIntercept")
    centre, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if (centre is None or width is None or width < 1) and pixels.dtype == np.uint8:
        return pixels
    values: npt.NDArray[np.float32] = pixels.astype(np.float32) * (1.0 if slope is None else slope) + (intercept or 0.0)
    if centre is not None and width is not None and width >= 1:
        share: npt.NDArray[np.float32] = (values - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
        share[values <= centre - width / 2] = 0
    else:
        low, high = float(values.min()), float(values.max())
        share = (values - low) / max(high - low, 1e-6)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _first(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    number = float(value if isinstance(value, int | float | str) else value[0])
    if not np.isfinite(number):
        raise ValueError("not finite")
    return number

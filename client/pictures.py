"""Image files at the door: bytes of unknown origin become gray pictures and masks, or BadInput.

Everything that PIL may raise on a hostile or broken file ends here as one line that names the caller's `where`, never a
file name. Pictures are written back as PNG without any metadata.
"""

from __future__ import annotations

__all__ = [
    "HOUNSFIELD_OFFSET",
    "MAX_PIXELS",
    "MAX_SIDE",
    "mask_box",
    "open_gray",
    "open_hounsfield",
    "open_mask",
    "open_windowed",
    "png_bytes",
]

import io
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from client.box import Box
from common.errors import BadInput

MAX_SIDE = 16_384
"""Longest side of a picture, in pixels."""
MAX_PIXELS = 64 * 2**20
"""Most pixels of a picture; below PIL's own limit, so that this check speaks first."""
HOUNSFIELD_OFFSET = 32_768
"""What a 16-bit CT slice adds to Hounsfield units, so that they are stored without a sign."""


def open_gray(content: bytes, *, where: str, formats: Sequence[str] = ("PNG",)) -> Image.Image:
    """Decode one picture to 8-bit gray (mode L); colour becomes luma (ITU-R 601).

    `formats` are PIL's names of what the file may be; `where` is how the file is named in an error. Raises BadInput.
    """
    picture = _decode(content, where=where, formats=formats)
    if picture.mode.startswith(("I", "F")):
        raise BadInput(f"{where}: {picture.mode} pixels where 8-bit gray is expected; convert the image")
    return picture if picture.mode == "L" else picture.convert("L")


def open_hounsfield(content: bytes, *, where: str, formats: Sequence[str] = ("PNG",)) -> npt.NDArray[np.int32]:
    """Decode a 16-bit CT slice to Hounsfield units (H, W): the stored value minus 32768. Raises BadInput."""
    picture = _decode(content, where=where, formats=formats)
    if not picture.mode.startswith("I"):
        raise BadInput(f"{where}: {picture.mode} pixels where 16-bit gray is expected (HU + {HOUNSFIELD_OFFSET})")
    return np.asarray(picture).astype(np.int32) - HOUNSFIELD_OFFSET


def open_windowed(
    content: bytes, window: tuple[float, float], *, where: str, formats: Sequence[str] = ("PNG",)
) -> Image.Image:
    """A 16-bit CT slice as 8-bit gray (mode L): black at the window's low end and below, white at its high end and
    above.

    Between them gray is linear in Hounsfield units and rounded to the nearest. Raises BadInput.
    """
    low, high = window
    units = open_hounsfield(content, where=where, formats=formats)
    gray = np.floor(255 * np.clip((units - low) / (high - low), 0, 1) + 0.5)
    return Image.fromarray(gray.astype(np.uint8))


def open_mask(content: bytes, *, where: str, formats: Sequence[str] = ("PNG",)) -> Image.Image:
    """Decode one mask to 1 bit (mode 1): set where the file is brighter than half of its own maximum.

    Raises BadInput, also for a mask in which no pixel is set.
    """
    gray = open_gray(content, where=where, formats=formats)
    _, high = gray.getextrema()
    if high == 0:
        raise BadInput(f"{where}: the mask is empty; it must outline the lesion")
    return gray.point(lambda value: 255 * (2 * value > high), mode="1")


def _decode(content: bytes, *, where: str, formats: Sequence[str]) -> Image.Image:
    named = " or ".join(formats)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=tuple(formats))
            _check_size(picture.size, where=where)
            picture.load()
    except BadInput:
        raise
    except UnidentifiedImageError:
        raise BadInput(f"{where}: not a {named} file, or damaged; get the data again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(f"{where}: more than {MAX_PIXELS} pixels; no ultrasound image is that large") from None
    except Exception as error:  # the trust boundary: PIL's decoders raise nearly anything on a damaged file
        raise BadInput(f"{where}: truncated or damaged {named} ({type(error).__name__}); get the data again") from None
    return picture


def _check_size(size: tuple[int, int], *, where: str) -> None:
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadInput(f"{where}: {width}×{height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS} in all are read")


def mask_box(mask: Image.Image) -> Box:
    """The bounding rectangle of a mask's set pixels. Raises ValueError on an empty mask (`open_mask` gives none)."""
    bounds = mask.getbbox()
    if bounds is None:
        raise ValueError("an empty mask has no bounding rectangle")
    left, top, right, bottom = bounds
    return Box(left, top, right - left, bottom - top)


def png_bytes(picture: Image.Image) -> bytes:
    """Encode a picture as PNG: pixels alone, no text, time, colour profile or EXIF."""
    bare = Image.new(picture.mode, picture.size)
    bare.paste(picture)
    file = io.BytesIO()
    bare.save(file, format="PNG", compress_level=4)  # as small as 6 on ultrasound, in half the time
    return file.getvalue()

"""Pictures of every kind that ultrasound comes in, each with the gray values that should be stored."""

from __future__ import annotations

__all__ = ["KINDS", "deflated", "rgb", "windowed"]

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import UID

from tests.client import dicom_files as made
from tests.client.dicom_files import picture, screen, tissue
from tests.client.dicom_imports import luma


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

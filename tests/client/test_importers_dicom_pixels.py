"""Ultrasound DICOM: pixels of every kind and compression arrive, and text outside the tissue does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_windowing, pixel_array

from client.importers.dicom_file import ultrasound
from client.importers.dicom_pixels import _windowed
from client.site import Site
from tests.client import dicom_files as made
from tests.client.dicom_files import picture, region, screen, tissue, written
from tests.client.dicom_imports import imported, luma, other, stored
from tests.client.dicom_kinds import KINDS, rgb, windowed


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
    """One picture that comes with pydicom, packed by several programs, lossy too;
    run lengths in pydicom's hands are the oracle.
    """
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


def test_frames_of_a_compressed_loop(tmp_path: Path) -> None:
    cine = np.stack([screen(seed) for seed in range(3)])
    streams = [made.jpeg_lossless(frame) for frame in cine]
    lossless = made.encapsulated(picture(cine, frames=3), made.JPEG_LOSSLESS, streams)
    site, _ = imported(tmp_path, {"a/x": lossless, "b/x": made.rle(picture(cine, frames=3))})
    for row in range(6):
        assert np.array_equal(stored(site, row), tissue(cine[row % 3]))


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

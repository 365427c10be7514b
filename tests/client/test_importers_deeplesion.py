"""DeepLesion: a hand-made copy of its layout, and the real excerpt where it is at hand."""

from __future__ import annotations

import csv
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.cache import load_crops
from client.importers import import_site, site_ids
from client.importers.artificial import cut
from client.importers.case import Case, Collection
from client.importers.deeplesion import TASK, TYPES
from client.importers.named_file import NamedFile
from client.manifest import load_manifest
from client.pictures import open_hounsfield, open_windowed
from client.site import SPLITS, load_site
from common.config import Crop, ImportOptions
from common.errors import BadInput

REAL = Path(__file__).parents[3] / "shared/data/deeplesion"
needs_deeplesion = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/deeplesion is absent")

HEADER = [
    *("File_name", "Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Measurement_coordinates"),
    *("Bounding_boxes", "Lesion_diameters_Pixel_", "Normalized_lesion_location", "Coarse_lesion_type"),
    *("Possibly_noisy", "Slice_range", "Spacing_mm_px_", "Image_size", "DICOM_windows", "Patient_gender"),
    *("Patient_age", "Train_Val_Test"),
]
SIZE = (40, 30)

Rows = list[dict[str, str]]


def row(patient: int, slice_: int, *, kind: int = 4, side: int = 3, **values: str) -> dict[str, str]:
    """A row as the official table writes it."""
    usual = {
        "File_name": f"{patient:06d}_01_01_{slice_:03d}.png",
        "Patient_index": str(patient),
        "Study_index": "1",
        "Series_ID": "1",
        "Key_slice_index": str(slice_),
        "Measurement_coordinates": "12, 13, 20, 18, 14, 17, 17, 12",
        "Bounding_boxes": "7.25, 7.5, 25.5, 22.25",
        "Lesion_diameters_Pixel_": "9.5, 4.25",
        "Normalized_lesion_location": "0.4, 0.3, 0.4",
        "Coarse_lesion_type": str(kind),
        "Possibly_noisy": "0",
        "Slice_range": "1, 20",
        "Spacing_mm_px_": "0.8, 0.8, 5",
        "Image_size": f"{SIZE[0]}, {SIZE[1]}",
        "DICOM_windows": "-175, 275",
        "Patient_gender": "F",
        "Patient_age": "62.0",
        "Train_Val_Test": str(side),
    }
    return usual | values


def units(number: int) -> np.ndarray:
    """A slice in Hounsfield units."""
    return np.random.default_rng(number).integers(-1024, 1500, SIZE[::-1])


def make(folder: Path, rows: Rows, *, without: tuple[int, ...] = ()) -> Rows:
    """The table, and each row's slice except of the places in `without`; equal names share a slice."""
    for place, values in enumerate(rows):
        stem, last = values["File_name"].rsplit("_", 1)
        path = folder / "Images_png" / stem / last
        if place not in without and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((units(place) + 32768).astype(np.uint16)).save(path)
    with (folder / "DL_info.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def several(patients: int = 24, *, types: int = 8) -> Rows:
    """Two rows of each patient; the first half validates, the rest tests; types and spacings vary."""
    return [
        row(
            patient,
            slice_,
            kind=1 + patient % types,
            side=2 if patient <= patients // 2 else 3,
            **{
                "Spacing_mm_px_": f"{0.5 + 0.01 * (patient * 7 % patients)}, {0.5 + 0.01 * (patient * 7 % patients)}, 5"
            },
        )
        for patient in range(1, patients + 1)
        for slice_ in (3, 9)
    ]


def skipped(folder: Path) -> list[tuple[str, str]]:
    with (folder / "private/skipped.csv").open(encoding="utf-8", newline="") as file:
        return [(line["where"], line["reason"]) for line in csv.DictReader(file)]


def test_rows_become_cases_with_their_own_window(tmp_path: Path) -> None:
    rows = make(
        tmp_path / "in",
        [
            row(1, 5, kind=4, side=1),
            row(2, 6, kind=5, side=2, **{"DICOM_windows": "-1500, 500", "Patient_gender": "M", "Patient_age": "NaN"}),
            row(3, 7, kind=7, side=3, **{"Bounding_boxes": "-3.5, 20.1, 41.5, 33"}),
            row(3, 7, kind=8, side=3, **{"DICOM_windows": "-160, 240", "Spacing_mm_px_": "0.5, 0.5, 1"}),
        ],
    )
    (summary,) = import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    site = load_site(summary.folder)
    assert (site.id, site.task, site.artificial) == ("deeplesion", TASK, False)
    assert [site.task.classes[label] for label in site.labels] == ["liver", "lung", "soft tissue", "pelvis"]
    assert site.splits == ("train", "val", "test", "test")
    assert list(site.patients) == [0, 1, 2, 2]
    assert site.boxes == ((7, 7, 19, 16), (7, 7, 19, 16), (0, 20, 40, 10), (7, 7, 19, 16))
    assert site.spacings == (0.8, 0.8, 0.8, 0.5)
    assert site.covariates["age"] == ("62.0", None, "62.0", "62.0")
    assert site.covariates["sex"] == ("F", "M", "F", "F")
    assert [float(v or 0) for v in site.covariates["long_diameter_mm"]] == pytest.approx([7.6, 7.6, 7.6, 4.75])
    assert [float(v or 0) for v in site.covariates["short_diameter_px"]] == [4.25] * 4
    for place, values in enumerate(rows):
        low, high = (float(part) for part in values["DICOM_windows"].split(","))
        with Image.open(site.folder / site.images[place]) as picture:
            assert np.array_equal(np.asarray(picture), slow_window(units(min(place, 2)), low, high))
    assert summary.notes == ()


def slow_window(slice_: np.ndarray, low: float, high: float) -> np.ndarray:
    """The definition, pixel by pixel: 0 at `low` and below, 255 at `high` and above, linear and rounded between."""
    gray = np.zeros(slice_.shape, dtype=np.uint8)
    for y in range(slice_.shape[0]):
        for x in range(slice_.shape[1]):
            share = (int(slice_[y, x]) - low) / (high - low)
            gray[y, x] = int(255 * min(max(share, 0.0), 1.0) + 0.5)
    return gray


@settings(max_examples=40, deadline=None)
@given(low=st.integers(-2000, 2000), width=st.floats(0.5, 4000), seed=st.integers(0, 99))
def test_a_window_is_its_definition(low: int, width: float, seed: int) -> None:
    slice_ = np.random.default_rng(seed).integers(-32768, 32768, (3, 5))
    content = png16(slice_ + 32768)
    gray = np.asarray(open_windowed(content, (low, low + width), where="a slice"))
    assert np.array_equal(gray, slow_window(slice_, low, low + width))
    assert np.array_equal(open_hounsfield(content, where="a slice"), slice_)


def png16(values: np.ndarray) -> bytes:
    """A 16-bit gray PNG by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    raw = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    make(
        tmp_path / "in",
        [
            row(1, 1, kind=-1, side=1),
            row(2, 1, kind=2, side=2),
            row(3, 1, kind=2, side=2, **{"Possibly_noisy": "1"}),
            row(4, 1, kind=3, side=3),
            row(5, 1, kind=3, side=3),
            row(6, 1, kind=3, **{"Spacing_mm_px_": "0.5, 0.9, 5"}),
            row(7, 1, kind=3, **{"Bounding_boxes": "50, 2, 60, 9"}),
        ],
        without=(3,),
    )
    (summary,) = import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    assert skipped(summary.folder) == [
        ("DL_info.csv, table row 2", "no type (-1), so no label"),
        ("DL_info.csv, table row 4", "possibly noisy"),
        ("DL_info.csv, table row 5", "no image of this slice"),
        ("DL_info.csv, table row 7", "its pixels are not square"),
        ("DL_info.csv, table row 8", "its box lies outside the slice"),
    ]
    assert (summary.images, summary.skipped) == (2, 5)
    assert summary.notes[0] == "1 of 1 rows of the official train side have no type, so no label"


def test_without_labelled_train_rows_the_val_patients_are_drawn(tmp_path: Path) -> None:
    make(tmp_path / "in", [row(99, 1, kind=-1, side=1), *several(types=2)])
    drawn = {}
    for seed in (0, 1):
        (summary,) = import_site("deeplesion", tmp_path / "in", tmp_path / f"out-{seed}", split_seed=seed)
        site = load_site(summary.folder)
        assert "drawn to train (75 %) and val (25 %)" in summary.notes[1]
        drawn[seed] = site.splits
        by_patient = [{site.splits[n] for n in np.flatnonzero(site.patients == code)} for code in range(24)]
        assert all(len(sides) == 1 for sides in by_patient)
        assert all(sides == {"test"} for sides in by_patient[12:]), "the official test patients stay test"
        assert summary.split_patients == {"train": 9, "val": 3, "test": 12}
    assert drawn[0] != drawn[1]


def test_an_official_train_side_with_labels_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "in", [row(n, 1, kind=1 + n % 2, side=1 + n % 3) for n in range(9)])
    (summary,) = import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    assert load_site(summary.folder).splits == ("train", "val", "test") * 3


@pytest.mark.parametrize("by", [None, "patient", "spacing", "dirichlet"])
def test_artificial_sites_share_out_whole_patients(tmp_path: Path, by: str | None) -> None:
    make(tmp_path / "in", several())
    options = ImportOptions(sites=3, by=by)  # type: ignore[arg-type]
    assert site_ids("deeplesion", tmp_path / "in", options=options) == [f"deeplesion-{n}" for n in (1, 2, 3)]
    summaries = import_site("deeplesion", tmp_path / "in", tmp_path / "out", options=options)
    sites = [load_site(summary.folder) for summary in summaries]
    assert [site.artificial for site in sites] == [True] * 3
    assert [load_manifest(site.folder).artificial for site in sites] == [True] * 3
    assert sum(len(site) for site in sites) == 48
    names = [set(site.pseudonyms) for site in sites]
    assert all(names)
    assert len(set.union(*names)) == sum(len(own) for own in names) == 24
    assert all(s.notes[0].startswith(f"artificial: cut from one center by {by or 'patient'}") for s in summaries)
    if by in (None, "patient"):
        assert [len(own) for own in names] == [8, 8, 8]
        assert all(summary.split_patients["test"] == 4 for summary in summaries)
    if by == "spacing":
        for finer, coarser in pairwise(sites):
            assert max(s or 0 for s in finer.spacings) <= min(s or 0 for s in coarser.spacings)


def collection(labels: list[int]) -> Collection:
    file = NamedFile(Path(), Path("x"), "x")  # type: ignore[arg-type]
    cases = [
        Case(file, None, f"p{n}", TYPES[label], f"table row {n}", split="test", covariates={"spacing_mm": "1"})
        for n, label in enumerate(labels)
    ]
    return Collection("deeplesion", TASK, "deeplesion", tuple(cases), {})


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 7), min_size=6, max_size=60),
    sites=st.integers(2, 6),
    by=st.sampled_from(["patient", "spacing", "dirichlet"]),
    seed=st.integers(0, 3),
)
def test_no_artificial_site_is_empty_and_nobody_is_lost(labels: list[int], sites: int, by: str, seed: int) -> None:
    parts = cut(collection(labels), sites, by=by, seed=seed)  # type: ignore[arg-type]
    dealt = Counter(case.patient for part in parts for case in part.cases)
    assert dealt == Counter(f"p{n}" for n in range(len(labels)))
    assert all(part.cases for part in parts)
    again = cut(collection(labels), sites, by=by, seed=seed)  # type: ignore[arg-type]
    assert [part.cases for part in again] == [part.cases for part in parts]


def test_dirichlet_skews_labels_more_than_chance() -> None:
    """Spread of the sites' class shares, against dealing at random."""

    def spread(by: str) -> float:
        found = []
        for seed in range(5):
            for part in cut(collection([n % 8 for n in range(400)]), 4, by=by, seed=seed):  # type: ignore[arg-type]
                counts = Counter(case.label for case in part.cases)
                found.append(np.std([counts[name] / len(part.cases) for name in TYPES]))
        return float(np.mean(found))

    assert spread("dirichlet") > 2.5 * spread("patient")


def test_the_seed_moves_artificial_sites() -> None:
    first = [case.where for case in cut(collection([n % 8 for n in range(40)]), 3, by="patient", seed=0)[0].cases]
    other = [case.where for case in cut(collection([n % 8 for n in range(40)]), 3, by="patient", seed=1)[0].cases]
    assert first != other


def test_a_zip_is_read_too(tmp_path: Path) -> None:
    make(tmp_path / "in/DeepLesion", several(6))
    with zipfile.ZipFile(tmp_path / "DeepLesion.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    import_site("deeplesion", tmp_path / "in/DeepLesion", tmp_path / "out")
    import_site("deeplesion", tmp_path / "DeepLesion.zip", tmp_path / "zipped")
    hashes = [load_site(tmp_path / name / "deeplesion").data_sha256 for name in ("out", "zipped")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"File_name": "../../etc/passwd_1.png"}, "table row 3: File_name is not"),
        ({"File_name": "/etc/passwd_1.png"}, "table row 3: File_name is not"),
        ({"File_name": "..\\x_1.png"}, "table row 3: File_name is not"),
        ({"Coarse_lesion_type": "9"}, "table row 3: Coarse_lesion_type is none of"),
        ({"Coarse_lesion_type": "=1+1"}, "table row 3: Coarse_lesion_type is none of"),
        ({"Train_Val_Test": "4"}, "table row 3: Train_Val_Test is none of"),
        ({"Patient_index": ""}, "table row 3: Patient_index is empty"),
        ({"Possibly_noisy": ""}, "table row 3: Possibly_noisy is neither"),
        ({"DICOM_windows": "275, -175"}, "table row 3: DICOM_windows is not low, high"),
        ({"DICOM_windows": "nan, 3"}, "table row 3: DICOM_windows is not 2 numbers"),
        ({"Bounding_boxes": "1, 2, 3"}, "table row 3: Bounding_boxes is not 4 numbers"),
        ({"Spacing_mm_px_": "0, 0, 1"}, "table row 3: Spacing_mm_px_ is not 3 positive numbers"),
        ({"Image_size": "512, 512", "Bounding_boxes": "1, 2, 500, 500"}, "table row 3: the box leaves the image"),
        ({"Train_Val_Test": "2"}, "table row 3: a patient on two sides"),
    ],
)
def test_a_wrong_row_is_named_by_number(tmp_path: Path, values: dict[str, str], says: str) -> None:
    rows = make(tmp_path / "in", [row(1, 1), row(1, 2), row(2, 1, side=1), row(3, 1, side=2)])
    rows[1].update(values)
    rewrite(tmp_path / "in", rows)
    with pytest.raises(BadInput, match=says) as caught:
        import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    assert "000001" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def rewrite(folder: Path, rows: Rows) -> None:
    with (folder / "DL_info.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)


def as_eight_bit(path: Path) -> None:
    Image.new("L", SIZE).save(path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def as_jpeg(path: Path) -> None:
    Image.new("L", SIZE).save(path, format="JPEG")


def linked_out(path: Path) -> None:
    path.rename(path.parents[3] / "outside.png")
    path.symlink_to(path.parents[3] / "outside.png")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (as_eight_bit, "row 2: L pixels where 16-bit gray is expected"),
        (truncated, "row 2: truncated or damaged PNG"),
        (as_jpeg, "row 2: not a PNG file"),
        (linked_out, "row 2: a link that leads out"),
    ],
)
def test_a_wrong_slice_is_named_by_its_row(tmp_path: Path, harm: Callable[[Path], None], says: str) -> None:
    make(tmp_path / "in", [row(1, 1), row(2, 1)])
    harm(tmp_path / "in/Images_png/000001_01_01/001.png")
    with pytest.raises(BadInput, match=says) as caught:
        import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    assert "001.png" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (ImportOptions(task="lesion-typ"), r"deeplesion knows lesion-type only \(did you mean"),
        (ImportOptions(by="spacing"), "give --sites N with it"),
        (ImportOptions(sites=1), "one site is the whole center"),
        (ImportOptions(sites=3), "3 sites of 2 patients"),
        (ImportOptions(site="a"), "the format deeplesion takes no --site; it takes task, sites, by"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: ImportOptions, says: str) -> None:
    make(tmp_path / "in", [row(1, 1), row(2, 1)])
    with pytest.raises(BadInput, match=says):
        import_site("deeplesion", tmp_path / "in", tmp_path / "out", options=options)


def test_no_table_no_slices(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no such file or folder; give the folder that holds DL_info\.csv"):
        import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(BadInput, match=r"no DL_info\.csv in it"):
        import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    make(tmp_path / "in", [row(1, 1)], without=(0,))
    with pytest.raises(BadInput, match="none of 1 rows has its slice"):
        import_site("deeplesion", tmp_path / "in", tmp_path / "out")


def test_nothing_that_links_back_leaves_private(tmp_path: Path) -> None:
    """Ids, names and folders are tokens that occur nowhere else; none may stand outside private/."""
    tokens = [f"{word}{'x' * (12 - len(word))}" for word in ("Zorba", "Quark", "Wombat", "Yodel")]
    rows = [
        row(n, n, side=2 + n // 2, **{"File_name": f"{token}_{token.lower()}_01_0{n}.png", "Patient_index": token})
        for n, token in enumerate(tokens)
    ]
    make(tmp_path / "in", rows)
    (summary,) = import_site("deeplesion", tmp_path / "in", tmp_path / "out")
    assert (summary.images, summary.patients) == (4, 4)
    load_crops(load_site(summary.folder), Crop(size=16, margin_mm=10))
    linked = (summary.folder / "private/names.csv").read_bytes()
    assert all(token.encode() in linked for token in tokens)
    for path in (tmp_path / "out").rglob("*"):
        assert not any(token.lower() in str(path).lower() for token in tokens)
        if path.is_file() and "private" not in path.parts:
            content = path.read_bytes().lower()
            assert not any(token.lower().encode() in content for token in tokens), path.name


@needs_deeplesion
def test_the_real_excerpt(tmp_path: Path) -> None:
    with (REAL / "DL_info.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    there = [n for n, values in enumerate(rows) if slice_of(values).is_file()]
    (summary,) = import_site("deeplesion", REAL, tmp_path / "out")
    site = load_site(summary.folder)
    assert (len(rows), len(there), summary.images, summary.skipped) == (1349, 14, 14, 1335)
    assert summary.patients == len({rows[n]["Patient_index"] for n in there}) == 7
    left_out = skipped(summary.folder)
    assert [where for where, _ in left_out] == [
        f"DL_info.csv, table row {n + 2}" for n in range(len(rows)) if n not in there
    ]
    assert {reason for _, reason in left_out} == {"no image of this slice"}
    assert summary.notes[0] == "936 of 936 rows of the official train side have no type, so no label"
    for place, n in enumerate(there):
        values = rows[n]
        assert site.task.classes[site.labels[place]] == TYPES[int(values["Coarse_lesion_type"]) - 1]
        official = SPLITS[int(values["Train_Val_Test"]) - 1]
        assert site.splits[place] == official if official == "test" else site.splits[place] in ("train", "val")
        left, top, right, bottom = (float(part) for part in values["Bounding_boxes"].split(","))
        x, y, width, height = site.boxes[place] or (0, 0, 0, 0)
        assert x <= left < x + 1
        assert y <= top < y + 1
        assert x + width - 1 < right <= x + width
        assert y + height - 1 < bottom <= y + height
    crops = load_crops(site, Crop(size=64, margin_mm=10))
    assert crops.shape == (14, 64, 64)
    assert all(crop.std() > 5 for crop in crops)


def slice_of(values: dict[str, str]) -> Path:
    stem, last = values["File_name"].rsplit("_", 1)
    return REAL / "Images_png" / stem / last


@needs_deeplesion
def test_the_stored_value_of_a_real_pixel_is_its_hu_and_32768() -> None:
    """Read by hand from the PNG's bytes: the first pixel, beyond the scanner's circle, holds 29744, so −3024 HU."""
    content = (REAL / "Images_png/000001_01_01/109.png").read_bytes()
    stored = unfiltered(content, lines=110)
    units_ = open_hounsfield(content, where="a real slice")
    assert np.array_equal(units_[:110], stored - 32768)
    assert (stored[0, 0], units_[0, 0]) == (29744, -3024)
    inside = units_[95:107, 231:236]
    assert -200 < inside.mean() < 200, "a mediastinal lesion is soft tissue"


def unfiltered(content: bytes, *, lines: int) -> np.ndarray:
    """The first lines of a 16-bit gray PNG (W3C PNG, clause 9), (lines, W)."""
    at, data, width = 8, b"", 0
    while at < len(content):
        (length,), kind = struct.unpack(">I", content[at : at + 4]), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + length]
        width = struct.unpack(">I", body[:4])[0] if kind == b"IHDR" else width
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    raw, stride = zlib.decompress(data), 2 * width
    above, found = [0] * stride, []
    for number in range(lines):
        start = number * (stride + 1)
        filter_, line = raw[start], list(raw[start + 1 : start + 1 + stride])
        for i in range(stride):
            a, b, c = (line[i - 2] if i > 1 else 0), above[i], (above[i - 2] if i > 1 else 0)
            line[i] = (line[i] + (0, a, b, (a + b) // 2, paeth(a, b, c))[filter_]) % 256
        found.append(np.array(line, dtype=np.uint8).view(">u2").astype(int))
        above = line
    return np.stack(found)


def paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    return min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]

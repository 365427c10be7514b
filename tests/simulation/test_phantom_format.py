"""The phantom on disk, read with zipfile, PIL and openpyxl alone, against the description of the real archives."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image

from common.errors import BadInput
from simulation.phantom import write_phantom

HEADERS = [
    "Image name",
    "Group",
    "Maximum diameter",
    "Minimum diameter",
    "Aspect ratio",
    "Hypoechoic",
    "Hyperechoic",
    "Isoechoic",
    "Homogeneity",
    "Prominent Echogenicty (For Heterogeneous nodes)",
    "Loss of fatty hilum/thinning of hilum",
    "Centrality",
    "Microcalcifications",
    "Necrosis",
    "Margin1",
    "Margin2",
    "Internal component",
    "Intranodal cystic lesion",
]
MEMBER = re.compile(r"Center (\d+)/(Benign|Malignant)/(\d+) (Benign|Malignant) (Image\.bmp|Mask\.tif|Lesion\.bmp)")
SIZES = {1: ((248, 226), (570, 570)), 2: ((290, 290), (826, 724))}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two archives at the size of the real ones."""
    out = tmp_path_factory.mktemp("phantom") / "full"
    write_phantom(out, preset="lymphus", seed=7)
    return out


def opened(archive: zipfile.ZipFile, name: str) -> Image.Image:
    return Image.open(io.BytesIO(archive.read(name)))


def table(archive: zipfile.ZipFile) -> list[tuple[object, ...]]:
    (name,) = [name for name in archive.namelist() if name.endswith(".xlsx")]
    sheet = load_workbook(io.BytesIO(archive.read(name))).active
    assert sheet is not None
    return list(sheet.iter_rows(values_only=True))


@pytest.mark.parametrize(("center", "benign", "malignant"), [(1, 99, 81), (2, 76, 82)])
def test_an_archive_has_the_members_and_counts_of_the_real_one(
    full: Path, center: int, benign: int, malignant: int
) -> None:
    with zipfile.ZipFile(full / f"Center-{center}.zip") as archive:
        names = archive.namelist()
    parts = [MEMBER.fullmatch(name) for name in names if not name.endswith(".xlsx")]
    assert all(part and int(part[1]) == center and part[2] == part[4] for part in parts)
    assert len(names) == len(set(names)) == 3 * (benign + malignant) + 1
    for group, count in (("Benign", benign), ("Malignant", malignant)):
        for end in ("Image.bmp", "Mask.tif", "Lesion.bmp"):
            numbers = sorted(int(part[3]) for part in parts if part and part[2] == group and part[5] == end)
            assert numbers == list(range(1, count + 1))


@pytest.mark.parametrize("center", [1, 2])
def test_lesion_is_image_times_mask_exactly(full: Path, center: int) -> None:
    low, high = SIZES[center]
    sizes = []
    with zipfile.ZipFile(full / f"Center-{center}.zip") as archive:
        for stem in [name[: -len("Image.bmp")] for name in archive.namelist() if name.endswith("Image.bmp")]:
            image, mask = opened(archive, f"{stem}Image.bmp"), opened(archive, f"{stem}Mask.tif")
            lesion = opened(archive, f"{stem}Lesion.bmp")
            assert (image.format, mask.format, lesion.format) == ("BMP", "TIFF", "BMP")
            assert (image.mode, mask.mode, lesion.mode) == ("L", "1", "L")
            inside = np.asarray(mask)
            assert 0.01 < inside.mean() < 0.7
            assert np.array_equal(np.asarray(lesion), np.asarray(image) * inside)
            assert low[0] <= image.width <= high[0]
            assert low[1] <= image.height <= high[1]
            sizes.append(image.size)
    assert np.allclose(np.mean(sizes, axis=0), (407, 406) if center == 1 else (468, 455), atol=35)


@pytest.mark.parametrize(("center", "benign", "malignant"), [(1, 99, 81), (2, 76, 82)])
def test_the_table_joins_with_the_pictures(full: Path, center: int, benign: int, malignant: int) -> None:
    with zipfile.ZipFile(full / f"Center-{center}.zip") as archive:
        header, *rows = table(archive)
    assert [str(cell).strip() for cell in header] == HEADERS
    blank = [number for number, row in enumerate(rows) if all(cell is None for cell in row)]
    assert blank[0] == benign, "a blank row stands between the groups"
    assert blank[-1] == len(rows) - 1 > benign + malignant, "and some after them"
    filled = [row for number, row in enumerate(rows) if number not in blank]
    keys = {(row[1], row[0]) for row in filled}
    assert keys == {("Benign", k + 1) for k in range(benign)} | {("Malignant", k + 1) for k in range(malignant)}
    for row in filled:
        assert isinstance(row[0], int)
        assert row[2] >= row[3] > 0
        assert row[4] == pytest.approx(row[3] / row[2], abs=0.006)
        assert row[5] + row[6] + row[7] == 1
        assert (row[9] is None) == (row[8] == "Homogeneous")


def test_truth_has_a_row_for_each_case_and_agrees_with_the_table(full: Path) -> None:
    with (full / "truth.csv").open(newline="") as file:
        truth = {(int(row["center"]), row["group"], int(row["number"])): row for row in csv.DictReader(file)}
    assert len(truth) == 99 + 81 + 76 + 82
    for center in (1, 2):
        with zipfile.ZipFile(full / f"Center-{center}.zip") as archive:
            for row in table(archive)[1:]:
                if row[0] is not None:
                    known = truth[center, str(row[1]), int(str(row[0]))]
                    assert float(known["max_mm"]) == row[2]
                    assert int(known["hilum_lost"]) == row[10]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, preset="lymphus", seed=seed, patients=3, extra_centers=1)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert set(a) == {"Center-1.zip", "Center-2.zip", "Center-3.zip", "truth.csv"}
    assert all(a[name] != c[name] for name in a)


def test_further_centers_and_fewer_patients(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_phantom(
        tmp_path / "out",
        preset="lymphus",
        seed=0,
        extra_centers=3,
        patients=9,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(done, 45) for done in range(1, 46)]
    for center in range(1, 6):
        with zipfile.ZipFile(tmp_path / "out" / f"Center-{center}.zip") as archive:
            images = [name for name in archive.namelist() if name.endswith("Image.bmp")]
            assert len(images) == 9
            assert all(name.startswith(f"Center {center}/") for name in images)
            assert 4 <= sum("Benign/" in name for name in images) <= 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "lymphs"}, "did you mean lymphus"),
        ({"shift": -1.0}, "shift"),
        ({"shift": float("nan")}, "shift"),
        ({"visibility": 7.0}, "visibility"),
        ({"extra_centers": -1}, "extra centers"),
        ({"patients": 1}, "patients"),
    ],
)
def test_what_cannot_be_drawn_is_said_and_nothing_is_written(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    asked: dict[str, object] = {"preset": "lymphus", "seed": 0, "patients": 2, **change}
    with pytest.raises(BadInput, match=said):
        write_phantom(tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="not an empty folder"):
        write_phantom(tmp_path, preset="lymphus", seed=0, patients=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_kill_half_way_leaves_no_folder(tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "out", preset="lymphus", seed=0, patients=2, progress=stop)
    assert list(tmp_path.iterdir()) == []

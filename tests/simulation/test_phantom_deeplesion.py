"""DeepLesion's phantom on disk, read with PIL and csv alone, against the description and the real table."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from common.errors import BadInput
from simulation.phantom import write_phantom
from simulation.phantom.ct import COMMON_SCANNER, SCANNERS, blend_scanner
from simulation.phantom.ct_anatomy import Body, draw_section
from simulation.phantom.ct_lesions import add_lesion
from simulation.phantom.ct_studies import draw_slices
from simulation.phantom.deeplesion import COLUMNS

REAL = Path(__file__).resolve().parents[2] / "../shared/data/deeplesion/DL_info.csv"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, some 44 slices."""
    out = tmp_path_factory.mktemp("deeplesion") / "out"
    write_phantom(out, preset="deeplesion", seed=2, patients=6)
    return out


def table(folder: Path, name: str = "DL_info.csv") -> list[dict[str, str]]:
    return list(csv.DictReader((folder / name).open(newline="")))


def numbers(text: str) -> list[float]:
    return [float(value) for value in text.split(",")]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_slices_lesions_and_splits_are_in_the_real_proportions() -> None:
    slices = draw_slices(seed=0, shift=1.0, patients=None)
    assert sum(key.on_disk for key in slices) == 2000
    assert len(slices) - 2000 == 20
    assert sum(len(key.types) for key in slices) / len(slices) == pytest.approx(32735 / 32120, abs=5e-4)
    split = {key.study.patient: key.study.split for key in slices}
    assert len(split) == 276
    assert Counter(split.values()) == {1: 193, 2: 42, 3: 41}
    assert all(split[key.study.patient] == key.study.split for key in slices)
    names = Counter((key.series, key.index) for key in slices)
    assert max(names.values()) == 1
    assert {kind for key in slices for kind in key.types} == set(range(1, 9))
    assert 1 <= sum(any(key.noisy) for key in slices) <= 20


def test_the_header_is_the_real_one() -> None:
    if not REAL.exists():
        pytest.skip("no real DL_info.csv beside the repository")
    with REAL.open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


def test_rows_agree_with_themselves_and_with_the_pictures(small: Path) -> None:
    rows, known = table(small), table(small, "truth.csv")
    on_disk = {path.relative_to(small / "Images_png").as_posix() for path in small.rglob("*.png")}
    named = set()
    for row, true in zip(rows, known, strict=True):
        place = f"{row['File_name'][:12]}/{row['File_name'][13:]}"
        indices = [int(row[name]) for name in ("Patient_index", "Study_index", "Series_ID", "Key_slice_index")]
        assert row["File_name"] == "{:06d}_{:02d}_{:02d}_{:03d}.png".format(*indices)
        assert (place in on_disk) == (true["on_disk"] == "1")
        named.add(place)
        wanted = "-1" if row["Train_Val_Test"] == "1" else true["lesion_type"]
        assert row["Coarse_lesion_type"] == wanted
        points = np.array(numbers(row["Measurement_coordinates"])).reshape(4, 2)
        box = [*points.min(axis=0) - 5, *points.max(axis=0) + 5]
        assert numbers(row["Bounding_boxes"]) == pytest.approx(np.clip(box, 0, 511), abs=2e-3)
        lengths = [float(np.hypot(*(points[i] - points[i + 1]))) for i in (0, 2)]
        assert numbers(row["Lesion_diameters_Pixel_"]) == pytest.approx(sorted(lengths, reverse=True), abs=0.01)
        assert all(0 <= value <= 1 for value in numbers(row["Normalized_lesion_location"]))
        first, last = numbers(row["Slice_range"])
        assert first <= int(row["Key_slice_index"]) <= last
    assert on_disk < named
    assert sum(true["on_disk"] == "0" for true in known) >= 1
    assert any(row["Possibly_noisy"] == "1" for row in rows)


def test_pictures_are_hounsfield_units_with_an_offset(small: Path) -> None:
    for path in list(small.rglob("*.png"))[:12]:
        with Image.open(path) as image:
            assert image.mode == "I;16"
            assert image.size == (512, 512)
            hu = np.asarray(image).astype(int) - 32768
        assert hu.min() in {-1024, -2048, -3024}
        assert np.median(hu[hu > -300]) == pytest.approx(20, abs=130)
        assert hu.max() > 300, "bone"


@pytest.mark.parametrize(("organ", "section", "want"), [("lung", "hilum", -845), ("liver", "liver", 58)])
def test_organs_have_their_attenuation(organ: str, section: str, want: float) -> None:
    rng = np.random.default_rng(0)
    drawn = draw_section(rng, section, Body(340, 230, 20, 0.0), spacing_mm=0.8, table=True)  # type: ignore[arg-type]
    place = drawn.organs[organ][0]
    row, column = (round(value / 0.8 + 256) for value in (place.row, place.column))
    assert np.median(drawn.canvas.hu[row - 25 : row + 25, column - 25 : column + 25]) == pytest.approx(want, abs=60)


def test_at_visibility_zero_a_liver_lesion_has_no_contrast_and_at_one_it_mostly_has() -> None:
    def contrast(clear: float) -> list[float]:
        found = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            drawn = draw_section(rng, "liver", Body(340, 230, 20, 1.0), spacing_mm=0.8, table=False)
            found.append(108 - add_lesion(rng, drawn, 4, clear=clear).hu)
        return found

    seen, hidden = contrast(1.0), contrast(0.0)
    assert abs(np.mean(hidden)) < 6
    assert 0.6 < roc_auc_score([1] * 40 + [0] * 40, [*seen, *hidden]) < 0.98


def test_scanners_are_one_at_shift_zero_and_differ_at_one() -> None:
    assert {blend_scanner(own, shift=0.0) for own in SCANNERS} == {COMMON_SCANNER}
    assert [blend_scanner(own, shift=1.0) for own in SCANNERS] == list(SCANNERS)


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, preset="deeplesion", seed=seed, patients=3)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


@pytest.mark.parametrize(
    ("change", "said"), [({"extra_centers": 1}, "no room for extra centers"), ({"patients": 2}, "at least 3")]
)
def test_what_the_format_cannot_say_is_refused(tmp_path: Path, change: dict[str, int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        write_phantom(tmp_path / "out", preset="deeplesion", seed=0, **change)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

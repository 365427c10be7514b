"""SMC-LUD's phantom on disk, read with PIL and openpyxl alone, against the description of the data set."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image
from sklearn.metrics import roc_auc_score

from common.errors import BadInput
from simulation.phantom import write_phantom
from simulation.phantom.smclud_patients import draw_patients

SPLITS = ("train", "val", "test")
CLASSES = ("HCC", "Hemangioma")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty patients."""
    out = tmp_path_factory.mktemp("smclud") / "out"
    write_phantom(out, preset="smclud", seed=3, patients=30)
    return out


def truth(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "truth.csv").open(newline="")))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("seed", [0, 5])
def test_patients_and_pictures_are_as_many_as_in_the_data_set(seed: int) -> None:
    people = draw_patients(seed=seed, patients=None)
    assert Counter(person.group for person in people) == {"HCC": 600, "Hemangioma": 421}
    images: Counter[str] = Counter()
    clean: Counter[str] = Counter()
    for person in people:
        assert person.clean + person.caliper > 0
        images[person.group] += person.clean + person.caliper
        images[person.split] += person.clean + person.caliper
        clean[person.split] += person.clean
    assert images == {"HCC": 2716, "Hemangioma": 2669, "train": 3769, "val": 1076, "test": 540}
    assert clean == {"train": 1858, "val": 530, "test": 268}
    assert sum(person.clean > 0 for person in people) == 744
    assert len({person.identifier for person in people}) == 1021


def test_three_folders_hold_the_same_pictures(small: Path) -> None:
    found = digests(small)
    rows = truth(small)
    pictures = [path for path in found if path.endswith(".png")]
    wanted = []
    for row in rows:
        name, group, split = row["name"], row["group"], row["split"]
        homes = [f"original_data/{group}/{name}", f"split_for_train/{split}/{group}/{name}"]
        if row["caliper"] == "0":
            homes.append(f"clean_ver_for_train/{split}_clean/{group}/{name}")
        wanted += homes
        assert len({found[home] for home in homes}) == 1
        assert name.startswith(f"{row['patient']}_")
    assert sorted(wanted) == sorted(pictures)
    with Image.open(small / pictures[0]) as image:
        assert (image.format, image.mode) == ("PNG", "L")
    split_of: dict[str, set[str]] = {}
    for row in rows:
        split_of.setdefault(row["patient"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in split_of.values())
    for split in SPLITS:
        for group in CLASSES:
            assert any(f"split_for_train/{split}/{group}/" in path for path in pictures)
            assert any(f"clean_ver_for_train/{split}_clean/{group}/" in path for path in pictures)


def test_the_table_has_a_row_for_each_patient(small: Path) -> None:
    (path,) = small.glob("*.xlsx")
    sheet = load_workbook(path).active
    assert sheet is not None
    header, *rows = sheet.iter_rows(values_only=True)
    assert header == ("Patient", "Diagnosis", "Age", "Sex", "Height", "Weight", "Tumor size", "pT stage")
    group = {row["patient"]: row["group"] for row in truth(small)}
    assert {row[0]: row[1] for row in rows} == group
    for row in rows:
        assert (row[6] is not None) == (row[7] is not None) == (row[1] == "HCC")


def test_calipers_give_the_label_away_where_there_are_any(small: Path) -> None:
    rows = truth(small)
    for caliper, low, high in (("1", 0.75, 1.0), ("0", 0.499, 0.501)):
        chosen = [row for row in rows if row["caliper"] == caliper]
        white = [(picture(small, row) >= 228)[80:].sum() for row in chosen] if caliper == "1" else [
            int(row["dotted"]) + int(row["second_diameter"]) for row in chosen
        ]  # fmt: skip
        assert low <= roc_auc_score([row["group"] == "HCC" for row in chosen], white) <= high


def picture(folder: Path, row: dict[str, str]) -> np.ndarray:
    return np.asarray(Image.open(folder / "original_data" / row["group"] / row["name"]))


def test_the_lesion_tells_the_class_but_not_for_certain(small: Path) -> None:
    contrast, carcinoma = [], []
    for row in truth(small):
        if row["caliper"] == "1":
            continue
        gray = picture(small, row).astype(float)
        y, x = np.ogrid[: gray.shape[0], : gray.shape[1]]
        away = np.hypot(y - float(row["row"]), x - float(row["column"])) / float(row["radius_px"])
        contrast.append(gray[away < 0.6].mean() - gray[(away > 1.25) & (away < 1.7) & (gray > 0)].mean())
        carcinoma.append(row["group"] == "HCC")
    assert 0.6 < roc_auc_score(np.logical_not(carcinoma), contrast) < 0.98


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, preset="smclud", seed=seed, patients=12)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


@pytest.mark.parametrize(
    ("change", "said"), [({"extra_centers": 2}, "no room for extra centers"), ({"patients": 11}, "at least 12")]
)
def test_what_the_format_cannot_say_is_refused(tmp_path: Path, change: dict[str, int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        write_phantom(tmp_path / "out", preset="smclud", seed=0, **change)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

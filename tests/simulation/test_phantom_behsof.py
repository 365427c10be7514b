"""BEHSOF's phantom on disk, read with PIL and csv alone, against the description of the data set."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from common.errors import BadInput
from common.randomness import derive
from simulation.phantom import write_phantom
from simulation.phantom.behsof import COLUMNS, SECTOR, demo_table, liver_look, liver_picture
from simulation.phantom.behsof_people import Person, draw_people
from simulation.phantom.sector import ABDOMINAL

IDENTIFIER = re.compile(r"^(TAL|BEH)(\d{2})(\d)(\d)(\d)$")
NAMED = {
    "Patient ID",
    "sex",
    "Age",
    "AST (SGOT)",
    "ALT (SGPT)",
    "Platelets",
    "GGT",
    "Cholestrol",
    "CAP score",
    "E score",
    "Steatosis stage",
    "Fibroscan S",
    "Fibroscan F",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people of each center."""
    out = tmp_path_factory.mktemp("behsof") / "out"
    write_phantom(out, preset="behsof", seed=4, patients=5)
    return out


@pytest.fixture(scope="module")
def everybody() -> list[Person]:
    """The people at full size; no picture is drawn."""
    return draw_people(seed=0, shift=1.0, patients=None)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(content.decode().splitlines()))


def truth(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "truth.csv").open(newline="")))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_people_grades_and_pictures_are_as_many_as_in_the_data_set(seed: int) -> None:
    people = draw_people(seed=seed, shift=1.0, patients=None)
    assert Counter(person.site for person in people) == {"TAL": 18, "BEH": 95}
    assert Counter(person.steatosis for person in people) == {0: 12, 1: 57, 2: 36, 3: 8}
    assert Counter(person.fibrosis for person in people) == {0: 24, 1: 78, 2: 11}
    assert sum(person.images for person in people) == 1513
    assert min(person.images for person in people) > 1
    assert len({person.identifier for person in people}) == 113


def test_ids_carry_the_labels_and_a_few_disagree_with_the_table(everybody: list[Person]) -> None:
    wrong = 0
    for person in everybody:
        parts = IDENTIFIER.match(person.identifier)
        assert parts
        assert (parts[1], int(parts[2])) == (person.site, person.number)
        said = tuple(int(digit) for digit in parts.groups()[2:])
        wrong += said != (person.steatosis, person.cap_steatosis, person.fibrosis)
        assert all(digit <= limit for digit, limit in zip(said, (3, 3, 4), strict=True))
    assert wrong == sum(person.id_disagrees for person in everybody) == 4


def test_blood_and_elastography_rise_with_the_grades(everybody: list[Person]) -> None:
    def mean(value: str, grade: str, level: int) -> float:
        members = [person for person in everybody if min(getattr(person, grade), 2) == level]
        values = [person.blood[value] if value in person.blood else getattr(person, value) for person in members]
        return float(np.mean([float(number) for number in values if number is not None]))

    for value, grade in (("ALT (SGPT)", "steatosis"), ("cap", "steatosis"), ("stiffness", "fibrosis")):
        low, middle, high = (mean(value, grade, level) for level in range(3))
        assert low < middle < high, value
    assert all(person.cap_steatosis == sum(person.cap >= step for step in (238, 260, 290)) for person in everybody)


def test_the_table_has_the_named_columns_odd_ids_and_an_empty_last_row(everybody: list[Person]) -> None:
    content = demo_table(everybody, rng=derive(0, "test"))
    rows = table(content)
    assert set(COLUMNS) >= NAMED
    assert list(rows[0]) == list(COLUMNS)
    assert not any(rows[-1].values())
    spelt = [row["Patient ID"] for row in rows[:-1]]
    assert sum(text.startswith("\\Data\\") for text in spelt) > 10
    assert sum(text != text.strip() for text in spelt) > 5
    by_id = {text.strip().split("\\")[-1]: row for text, row in zip(spelt, rows, strict=False)}
    assert set(by_id) == {person.identifier for person in everybody}
    for person in everybody:
        row = by_id[person.identifier]
        grades = row["Steatosis stage"], row["Fibroscan S"], row["Fibroscan F"]
        assert grades == (str(person.steatosis), str(person.cap_steatosis), str(person.fibrosis))


def test_pictures_lie_where_the_data_set_has_them(small: Path) -> None:
    people = {row["Patient ID"].strip().split("\\")[-1] for row in table((small / "Demo_data.csv").read_bytes())} - {""}
    paths = [path.relative_to(small).as_posix() for path in small.rglob("*.jpg")]
    assert {path.split("/")[1] for path in paths} == people
    for path in paths:
        at_tal = "TAL" in path
        tal, beh = r"TAL\d{5}/\d\d_\d\d_\d{4}_\d\d_\d\d_\d\d/Image\.jpg", r"BEH\d{5}/Image\d+\.jpg"
        pattern = f"image_Data/{tal if at_tal else beh}"
        assert re.fullmatch(pattern, path)
        with Image.open(small / path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            gray = np.asarray(image.convert("L"))
        assert 20 < gray[gray > 0].mean() < 200
    assert sorted(paths) == sorted(row["path"] for row in truth(small))


def test_the_far_field_darkens_with_fat_but_does_not_give_the_grade_away(everybody: list[Person]) -> None:
    scores, severe = [], []
    for person in everybody:
        rng = derive(0, "far field", person.site, person.number)
        gray, _ = liver_picture(rng, liver_look(rng, person, visibility=0.75), ABDOMINAL, SECTOR)
        middle = gray[:, int(0.4 * gray.shape[1]) : int(0.6 * gray.shape[1])].astype(float)
        near, far = (middle[int(a * len(middle)) : int(b * len(middle))].mean() for a, b in ((0.22, 0.38), (0.7, 0.85)))
        scores.append(near - far)
        severe.append(person.steatosis >= 2)
    assert 0.6 < roc_auc_score(severe, scores) < 0.98


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_phantom(tmp_path / name, preset="behsof", seed=seed, patients=2)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a["Demo_data.csv"] != c["Demo_data.csv"]
    assert not set(a.values()) & set(c.values())


def test_at_shift_zero_centers_have_one_machine_and_one_frame(tmp_path: Path) -> None:
    sizes = {}
    for shift in (0.0, 1.0):
        write_phantom(tmp_path / str(shift), preset="behsof", seed=1, shift=shift, patients=2)
        rows = truth(tmp_path / str(shift))
        sizes[shift] = {row["site"]: (row["height"], row["width"]) for row in rows}
    assert sizes[0.0]["TAL"] == sizes[0.0]["BEH"]
    assert sizes[1.0]["TAL"] != sizes[1.0]["BEH"]


@pytest.mark.parametrize(
    ("change", "said"), [({"extra_centers": 1}, "no room for extra centers"), ({"patients": 100}, "at most 99")]
)
def test_what_the_format_cannot_say_is_refused(tmp_path: Path, change: dict[str, int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        write_phantom(tmp_path / "out", preset="behsof", seed=0, **change)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

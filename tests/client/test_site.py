"""The site folder's door: what it lets in, and the one line it says about what it does not."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from handmade import SITE_TOML, edit_cases, write_site

from client.manifest import Manifest, Policy, load_manifest, manifest_text
from client.site import load_site, require_task
from common.errors import BadInput
from common.parsing import parse
from common.tasks import Task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_site(tmp_path / "hand-made")


def test_a_site_is_what_its_table_says(folder: Path) -> None:
    site = load_site(folder)
    rows = list(csv.DictReader((folder / "cases.csv").open(encoding="utf-8")))
    names: list[str] = []
    for number, row in enumerate(rows):
        if row["patient"] not in names:
            names.append(row["patient"])
        assert site.images[number] == row["image"]
        assert site.masks[number] == row["mask"]
        assert str(site.boxes[number]) == row["box"]
        assert site.task.classes[site.labels[number]] == row["label"]
        assert site.positive[number] == (row["label"] == "malignant")
        assert site.patients[number] == names.index(row["patient"])
        assert site.splits[number] == row["split"]
        assert site.devices[number] == (row["device"] or None)
        assert site.covariates["age"][number] == (row["age"] or None)
    assert site.pseudonyms == tuple(names)
    assert len(site) == len(rows) == 10
    assert (site.id, site.role, site.nominal_patients, site.split_seed) == ("hand-made", "train", 10, 0)
    assert (site.policy.privacy_unit, site.policy.code) == ("patient", "installed")


def test_sides_partition_the_images(folder: Path) -> None:
    site = load_site(folder)
    sides = [site.rows("train"), site.rows("val"), site.rows("test")]
    assert sorted(np.concatenate(sides)) == list(site.rows()) == list(range(10))
    assert list(site.rows("test", "train")) == sorted([*sides[0], *sides[2]])
    with pytest.raises(ValueError, match="no such side"):
        site.rows("tset")


def test_at_a_held_out_site_every_patient_is_test(folder: Path) -> None:
    for site in (load_site(folder, role="held-out"), _with_toml(folder, SITE_TOML.replace('"train"', '"held-out"'))):
        assert list(site.rows("test")) == list(range(10))
        assert list(site.rows("val", "test")) == list(range(10))
        assert len(site.rows("train", "val")) == 0


def _with_toml(folder: Path, text: str):  # type: ignore[no-untyped-def]
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return load_site(folder)


def test_arrays_cannot_be_written(folder: Path) -> None:
    site = load_site(folder)
    for array in (site.labels, site.positive, site.patients):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_data_hash_follows_data_and_not_pseudonyms(folder: Path) -> None:
    before = load_site(folder).data_sha256
    for row in (2, 3):
        edit_cases(folder, row, patient="p-renamed")
    assert load_site(folder).data_sha256 == before
    edit_cases(folder, 2, box="1 1 5 5")
    assert load_site(folder).data_sha256 != before


@pytest.mark.parametrize(
    ("row", "values", "says"),
    [
        (3, {"split": "val"}, r"row 3: a patient on two sides of the split \(val here, train in row 2\)"),
        (4, {"label": "cyst"}, r"row 4: label 'cyst' is no class of the task lump \(benign, malignant\)"),
        (4, {"label": "Malignant"}, r"did you mean malignant\?"),
        (5, {"split": "dev"}, "row 5: split 'dev' is none of train, val, test"),
        (6, {"mask": "masks/absent.png"}, "row 6: its mask is missing"),
        (6, {"image": "images/absent.png"}, "row 6: its image is missing"),
        (6, {"image": "images"}, "row 6: its image is missing"),
        (6, {"image": ""}, "row 6: no image is named"),
        (6, {"image": "../outside.png"}, "row 6: the image lies outside"),
        (6, {"image": "/etc/passwd"}, "row 6: the image lies outside"),
        (6, {"mask": "images/../../outside.png"}, "row 6: the mask lies outside"),
        (6, {"image": "x" * 5000}, "row 6"),
        (7, {"box": "1 2 3"}, "row 7: box must be"),
        (7, {"box": "1 2 0 4"}, "row 7: box must be"),
        (7, {"image_sha256": "abc"}, "row 7: image_sha256 is no SHA-256"),
        (8, {"patient": " "}, "row 8: no patient"),
    ],
)
def test_a_wrong_row_is_named_by_number(folder: Path, row: int, values: dict[str, str], says: str) -> None:
    edit_cases(folder, row, **values)
    with pytest.raises(BadInput, match=says) as caught:
        load_site(folder)
    assert "\n" not in str(caught.value)
    assert "p-00" not in str(caught.value)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "images/000003.png", tmp_path / "outside.png")
    (folder / "images/000003.png").unlink()
    os.symlink(tmp_path / "outside.png", folder / "images/000003.png")
    with pytest.raises(BadInput, match="row 5: the image lies outside"):
        load_site(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('role = "train"', 'role = "training"', r"site.toml: role: .*'train' or 'held-out'"),
        ('role = "train"', 'rôle = "train"', "not valid TOML"),
        ('role = "train"', 'roles = "train"', r"roles: unexpected key \(did you mean role\?\)"),
        ('positive = "malignant"', 'positive = "cancer"', "'cancer' is not one of"),
        ('positive = "malignant"', "", "task.positive: this key is missing"),
        ("[task]", "[policy]\nepsilon = 3\n[task]", r"policy.epsilon: unexpected key \(did you mean epsilon_cap\?\)"),
        ('id = "hand-made"', 'id = "../up"', "site.toml: id"),
        ("[task]", '[covariates]\nweight = "number"\n[task]', "covariate 'weight' of site.toml is no column"),
        ("[task]", '[covariates]\nlabel = "number"\n[task]', "row 2: label is no number"),
    ],
)
def test_a_wrong_manifest_is_named_by_key(folder: Path, old: str, new: str, says: str) -> None:
    assert old in SITE_TOML
    (folder / "site.toml").write_text(SITE_TOML.replace(old, new), encoding="utf-8")
    with pytest.raises(BadInput, match=says):
        load_site(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "column image is missing"),
        (b"image,mask\n", "column box is missing"),
        (b"\xff\xfe\x00", "cannot be read as CSV in UTF-8"),
        (b'image,mask\n"a', "column box is missing"),
    ],
)
def test_a_table_of_another_kind(folder: Path, content: bytes, says: str) -> None:
    (folder / "cases.csv").write_bytes(content)
    with pytest.raises(BadInput, match=says):
        load_site(folder)


def test_rows_of_another_length_and_no_rows(folder: Path) -> None:
    lines = (folder / "cases.csv").read_text(encoding="utf-8").splitlines()
    for broken in (lines[2] + ",1", lines[2].rsplit(",", 1)[0]):
        (folder / "cases.csv").write_text("\n".join([*lines[:2], broken]), encoding="utf-8")
        with pytest.raises(BadInput, match="row 3: not 10 values"):
            load_site(folder)
    (folder / "cases.csv").write_text(lines[0], encoding="utf-8")
    with pytest.raises(BadInput, match="lists no case"):
        load_site(folder)


def test_no_site_folder(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BadInput, match="no site folder"):
        load_site(tmp_path)
    (folder / "cases.csv").unlink()
    with pytest.raises(BadInput, match=r"cases.csv is missing"):
        load_site(folder)


def test_a_table_saved_by_a_spreadsheet_is_read(folder: Path) -> None:
    before = load_site(folder).data_sha256
    content = (folder / "cases.csv").read_bytes()
    (folder / "cases.csv").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert load_site(folder).data_sha256 == before


def test_another_task_is_said_in_one_line(folder: Path) -> None:
    site = load_site(folder)
    require_task(site, Task("lump", ("benign", "malignant"), "malignant"))
    for other in (Task("lump", ("malignant", "benign"), "malignant"), Task("grade", ("s0", "s1", "s2"), "s2")):
        with pytest.raises(BadInput, match=r"site hand-made: its task is lump with classes benign, malignant"):
            require_task(site, other)


def test_the_manifest_survives_writing(tmp_path: Path, folder: Path) -> None:
    manifest = load_manifest(folder)
    (tmp_path / "site.toml").write_text(manifest_text(manifest), encoding="utf-8")
    assert load_manifest(tmp_path) == manifest


def test_the_example_is_a_manifest() -> None:
    import tomllib

    example = Path(__file__).parents[2] / "configs/sites/example.toml"
    manifest = parse(Manifest, tomllib.loads(example.read_text(encoding="utf-8")), where="example")
    assert manifest.policy == Policy()

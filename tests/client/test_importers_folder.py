"""Class folders: hand-made ones, as a folder and as a zip, and hostile ones."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.importers import import_site, site_ids
from client.importers.case import ImportSummary
from client.site import Site, load_site
from common.config import ImportOptions
from common.errors import BadInput

OURS = ImportOptions(site="ours")


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (20, 24), dtype=np.uint8)


def make(folder: Path, names: list[str]) -> list[str]:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    return names


def two_classes(folder: Path, *, each: int = 6) -> list[str]:
    return make(folder, [f"{name}/P{n // 2:02}_{n}.png" for name in ("cyst", "lump") for n in range(each)])


def only(source: Path, out: Path, options: ImportOptions = OURS) -> tuple[Site, ImportSummary]:
    (summary,) = import_site("folder", source, out, options=options)
    return load_site(summary.folder), summary


def left_out(summary: ImportSummary) -> list[tuple[str, str]]:
    with (summary.folder / "private/skipped.csv").open(encoding="utf-8", newline="") as file:
        return [(row["where"], row["reason"]) for row in csv.DictReader(file)]


def test_folders_are_classes(tmp_path: Path) -> None:
    names = two_classes(tmp_path / "in")
    site, summary = only(tmp_path / "in", tmp_path / "out")
    assert (site.id, site.task.name, site.task.classes, site.task.positive) == (
        "ours",
        "class",
        ("cyst", "lump"),
        "lump",
    )
    assert [site.task.classes[label] for label in site.labels] == [name.split("/")[0] for name in names]
    assert (summary.images, summary.patients, summary.skipped) == (12, 12, 0)
    assert "no --pattern: each image counts as a patient of its own" in summary.notes[0]
    for number in range(12):
        with Image.open(site.folder / site.images[number]) as stored:
            assert np.array_equal(np.asarray(stored), picture(number))


def test_a_pattern_finds_the_patient(tmp_path: Path) -> None:
    two_classes(tmp_path / "in")
    make(tmp_path / "in", ["cyst/nobody.png"])
    options = ImportOptions(site="ours", pattern=r"^(?P<patient>\w+/P\d\d)_", task="tumour:cyst")
    site, summary = only(tmp_path / "in", tmp_path / "out", options)
    assert list(site.patients) == [n // 2 for n in range(12)]
    assert (site.task.name, site.task.positive) == ("tumour", "cyst")
    assert (summary.patients, summary.notes) == (6, ())
    assert left_out(summary) == [("source, member 7", "the pattern finds no patient in its path")]


def test_an_official_split_is_kept(tmp_path: Path) -> None:
    sides = ("train", "Validation", "test")
    names = make(tmp_path / "in", [f"{side}/{kind}/{n}.png" for side in sides for kind in "ab" for n in range(2)])
    site, summary = only(tmp_path / "in", tmp_path / "out")
    assert len(names) == 12
    # sorted as a folder lists them: Validation before test before train
    assert site.splits == ("val",) * 4 + ("test",) * 4 + ("train",) * 4
    assert [site.task.classes[label] for label in site.labels] == ["a", "a", "b", "b"] * 3
    assert summary.splits == {"train": 4, "val": 4, "test": 4}


def test_without_val_folders_train_patients_are_drawn(tmp_path: Path) -> None:
    make(tmp_path / "in", [f"{side}/{kind}/{n}.png" for side in ("train", "test") for kind in "ab" for n in range(8)])
    site, summary = only(tmp_path / "in", tmp_path / "out")
    assert summary.splits == {"train": 12, "val": 4, "test": 16}
    assert site.splits[:16] == ("test",) * 16
    assert "the official split gives no val case" in summary.notes[0]


def test_every_kind_of_picture_and_deeper_folders(tmp_path: Path) -> None:
    make(tmp_path / "in", ["a/x.png", "a/deep/er/x.BMP", "a/x.tif", "b/x.jpg", "b/日本/ä.jpeg", "b/X.png"])
    (tmp_path / "in/a/report.pdf").write_bytes(b"%PDF")
    (tmp_path / "in/.hidden").mkdir()
    make(tmp_path / "in", ["top.png", ".hidden/x.png"])
    site, summary = only(tmp_path / "in", tmp_path / "out")
    assert (len(site), summary.classes) == (6, {"a": 3, "b": 3})
    assert sorted(reason for _, reason in left_out(summary)) == [
        "a hidden file",
        "in no class folder",
        "no image (png, jpg, bmp or tif)",
    ]


def test_a_zip_is_read_too(tmp_path: Path) -> None:
    two_classes(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    first, _ = only(tmp_path / "in", tmp_path / "out")
    second, _ = only(tmp_path / "in.zip", tmp_path / "zipped")
    assert first.data_sha256 == second.data_sha256
    assert site_ids("folder", tmp_path / "in.zip", options=OURS) == ["ours"]


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["a/1.png", "A/2.png", "b/3.png"], OURS, "two class folders differ only in upper and lower case"),
        (["a/1.png"], OURS, "1 class folders; a task needs 2 to 100"),
        (["1.png", "2.png"], OURS, "no image in any class folder"),
        ([f"{n}/1.png" for n in range(101)], OURS, "101 class folders; a task needs 2 to 100"),
        (["train/a/1.png", "b/2.png"], OURS, r"train, val or test stand beside class folders \(source, member 1\)"),
        (["train/1.png", "test/2.png"], OURS, "0 class folders"),
        (["a/1.png", "b/2.png"], ImportOptions(), "the format folder needs the site's id; give --site"),
        (["a/1.png", "b/2.png"], ImportOptions(site="Ours"), "'Ours' is no id"),
        (["a/1.png", "b/2.png"], ImportOptions(site="ours", task="t:c"), "--task: 'c' is no class folder"),
        (["a/1.png", "b/2.png"], ImportOptions(site="ours", pattern="("), "--pattern: no regular expression"),
        (["a/1.png", "b/2.png"], ImportOptions(site="ours", pattern="a"), "no group called patient"),
        (["a/1.png", "b/2.png"], ImportOptions(site="ours", pattern="(?P<patient>P)"), "finds no patient in any of 2"),
        (["a/1.png", "b/2.png"], ImportOptions(site="ours", by="spacing"), "the format folder takes no --by"),
    ],
)
def test_what_is_refused(tmp_path: Path, names: list[str], options: ImportOptions, says: str) -> None:
    make(tmp_path / "in", names)
    with pytest.raises(BadInput, match=says) as caught:
        only(tmp_path / "in", tmp_path / "out", options)
    assert "\n" not in str(caught.value)
    assert not any(name in str(caught.value) for name in names)
    assert not (tmp_path / "out").exists()


def test_a_patient_on_two_sides_is_an_error(tmp_path: Path) -> None:
    make(
        tmp_path / "in", [f"{side}/{kind}/P{n}.png" for side in ("train", "val", "test") for kind in "ab" for n in "12"]
    )
    options = ImportOptions(site="ours", pattern=r"(?P<patient>P\d)")
    with pytest.raises(BadInput, match="source, member 5: a patient on two sides of the split"):
        only(tmp_path / "in", tmp_path / "out", options)


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a\\..\\1.png", "C:/a/1.png"])
def test_a_zip_whose_names_lead_out(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a/0.png", b"")
        archive.writestr(name, b"")
    with pytest.raises(BadInput, match="source, member 2: its name leads out"):
        only(tmp_path / "in.zip", tmp_path / "out")


def test_a_damaged_picture_is_named_by_number(tmp_path: Path) -> None:
    two_classes(tmp_path / "in")
    (tmp_path / "in/cyst/P01_2.png").write_bytes(b"GIF89a no picture")
    with pytest.raises(BadInput, match="source, member 3: not a PNG or JPEG or BMP or TIFF file") as caught:
        only(tmp_path / "in", tmp_path / "out")
    assert "P01" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_nothing_that_links_back_leaves_private(tmp_path: Path) -> None:
    make(tmp_path / "in", [f"{kind}/Wombatzzzz{n}/Quarkyyyyy{n}{kind}.png" for kind in "ab" for n in range(4)])
    options = ImportOptions(site="ours", pattern=r"(?P<patient>Wombat\w+)/")
    _, summary = only(tmp_path / "in", tmp_path / "out", options)
    assert summary.patients == 4
    assert b"Wombatzzzz3" in (summary.folder / "private/names.csv").read_bytes()
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and "private" not in path.parts:
            assert not any(token in path.read_bytes().lower() for token in (b"wombat", b"quark")), path.name

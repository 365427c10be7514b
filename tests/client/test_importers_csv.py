"""Any table with a map: hand-made tables of several hospitals' habits, and a long one in little memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.__main__ import main
from client.cache import load_crops
from client.importers import site_ids
from client.manifest import load_manifest
from client.site import load_site
from common.config import Crop, ImportOptions
from tests.client.csv_tables import (
    PLAIN,
    SIZE,
    left_out,
    make_images,
    only,
    picture,
    plain_rows,
    take,
    write_table,
)
from tests.client.long_tables import peak_growth


def test_a_plain_table(tmp_path: Path) -> None:
    rows = plain_rows()
    make_images(tmp_path / "in", [row["file"] for row in rows])
    site, summary = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN)
    assert (site.id, site.task.name, site.task.classes, site.task.positive) == (
        *("ours", "diagnosis"),
        *(("cyst", "lipoma"), "lipoma"),
    )
    assert [site.task.classes[label] for label in site.labels] == [row["diagnosis"] for row in rows]
    assert list(site.patients) == [n // 2 for n in range(10)]
    assert site.boxes == site.masks == (None,) * 10
    assert (summary.images, summary.patients, summary.skipped, summary.notes) == (10, 5, 0, ())
    for n in range(10):
        with Image.open(site.folder / site.images[n]) as stored:
            assert np.array_equal(np.asarray(stored), picture(n))


def test_every_key_of_the_map(tmp_path: Path) -> None:
    """A table as a German spreadsheet saves it: semicolons, decimal commas, latin-1, blank rows."""
    rows = [
        {
            "Bild": f"Bilder\\Größe {n}.png",
            "Maske": f"Masken/{n}.png" if n != 3 else "",
            "x": "2", "y": "3.0", "b": "10", "h": "8",
            "Fall": f"Müller {n}",
            "Befund": "BM"[n % 2],
            "Klinik": ("Klinik Süd", "Charité 2")[n % 2],
            "Seite": ("Training", "VAL", "test")[n // 2],
            "Gerät": "Aplio ü" if n else "",
            "Alter": f"{50 + n},5",
            "raucht": ("yes", "no")[n % 2],
            "spacing_mm": "0,25",
        }
        for n in range(6)
    ]  # fmt: skip
    names = [row["Bild"].replace("\\", "/") for row in rows]
    make_images(tmp_path / "in", names)
    (tmp_path / "in/Masken").mkdir()
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[4:9, 5:11] = True
    for n in range(6):
        Image.fromarray(mask).save(tmp_path / f"in/Masken/{n}.png")
    table = write_table(tmp_path / "in", rows, delimiter=";", encoding="latin-1")
    lines = table.read_bytes().split(b"\r\n")
    table.write_bytes(b"\r\n".join([lines[0], b"", *lines[1:4], b";;;;;;;;;;;;;", *lines[4:]]))
    told = {
        "image": "Bild", "mask": "Maske", "box": ["x", "y", "b", "h"], "patient": "Fall", "positive": "benign",
        "label": {"column": "Befund", "classes": {"M": "malignant", "B": "benign"}}, "site": "Klinik", "split": "Seite",
        "device": "Gerät", "covariates": {"Alter": "number", "raucht": "yes-no", "spacing_mm": "number"},
        "delimiter": ";", "decimal": ",", "encoding": "latin-1",
    }  # fmt: skip
    summaries = take(table, tmp_path / "out", told, task="lump")
    assert [summary.site for summary in summaries] == ["klinik-sud", "charite-2"]
    for place, summary in enumerate(summaries):
        site = load_site(summary.folder)
        own = rows[place::2]
        assert (site.task.name, site.task.classes, site.task.positive) == ("lump", ("malignant", "benign"), "benign")
        assert [site.task.classes[label] for label in site.labels] == [["benign", "malignant"][place]] * 3
        assert site.boxes == ((2, 3, 10, 8),) * 3
        assert [m is None for m in site.masks] == [row["Maske"] == "" for row in own]
        assert site.splits == ("train", "val", "test")
        assert site.devices == tuple(row["Gerät"] or None for row in own)
        assert site.covariates["Alter"] == tuple(row["Alter"].replace(",", ".") for row in own)
        assert site.covariates["raucht"] == tuple(row["raucht"] for row in own)
        assert site.spacings == (0.25,) * 3
        assert load_crops(site, Crop(size=16, margin_mm=1.5)).shape == (3, 16, 16)


def test_kinds_of_covariates_are_found_out(tmp_path: Path) -> None:
    rows = plain_rows(4)
    for n, row in enumerate(rows):
        row |= {"age": str(60 + n) if n else "", "smokes": "01"[n % 2], "side": ("left", "3")[n % 2], "none": ""}
    make_images(tmp_path / "in", [row["file"] for row in rows])
    told = PLAIN | {"covariates": ["age", "smokes", "side", "none"]}
    site, _ = only(write_table(tmp_path / "in", rows), tmp_path / "out", told)
    kinds = load_manifest(site.folder).covariates
    assert kinds == {"age": "number", "smokes": "yes-no", "side": "category", "none": "category"}
    assert site.covariates["age"] == (None, "61.0", "62.0", "63.0")
    assert site.covariates["smokes"] == ("no", "yes", "no", "yes")
    assert site.covariates["none"] == (None,) * 4


@pytest.mark.parametrize("cell", ["2 3 10 8", "[2, 3, 10, 8]", "2;3;10;8", "(2,3,10,8)", "2.0 3.0 10.0 8.0"])
def test_a_box_in_one_column(tmp_path: Path, cell: str) -> None:
    rows = [row | {"roi": cell if n else ""} for n, row in enumerate(plain_rows(4))]
    make_images(tmp_path / "in", [row["file"] for row in rows])
    site, _ = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN | {"box": "roi"})
    assert site.boxes == (None, *[(2, 3, 10, 8)] * 3)


def test_several_boxes_of_an_image_are_several_cases(tmp_path: Path) -> None:
    row = plain_rows(4)
    rows = [{**row[0], "roi": "1 1 4 4"}, {**row[0], "roi": "9 9 5 5"}, {**row[0], "roi": "1 1 4 4"}]
    rows.append({**row[2], "roi": "1 1 4 4"})
    rows.append({**row[2], "roi": "1 1 4 4", "diagnosis": "lipoma"})
    make_images(tmp_path / "in", [row["file"] for row in rows])
    site, summary = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN | {"box": "roi"})
    assert site.boxes == ((1, 1, 4, 4), (9, 9, 5, 5), (1, 1, 4, 4))
    assert left_out(summary) == [
        ("table row 4", "names the image and box of table row 2 again"),
        ("table row 6", "names the image and box of table row 5 again, and says something else of it"),
    ]
    assert summary.notes == ("1 rows name an image again and contradict its first row, which was taken",)


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    rows = [row | {"mask": ""} for row in plain_rows(8)]
    make_images(tmp_path / "in", [row["file"] for row in rows])
    rows[1]["file"], rows[2]["file"], rows[3]["file"] = "pictures", "", "x" * 4000 + ".png"
    rows[4]["diagnosis"], rows[5]["mask"] = "", "masks/none.png"
    _, summary = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN | {"mask": "mask"})
    assert left_out(summary) == [
        ("table row 3", "no such image"),
        ("table row 4", "no such image"),
        ("table row 5", "no such image"),
        ("table row 6", "no label"),
        ("table row 7", "no such mask"),
    ]
    assert (summary.images, summary.skipped) == (3, 5)


def test_a_table_without_patients_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = plain_rows()
    make_images(tmp_path / "in", [row["file"] for row in rows])
    table = write_table(tmp_path / "in", rows)
    (tmp_path / "map.toml").write_text('image = "file"\nlabel = "diagnosis"\n')
    words = ["import", "csv", str(table), "--out", str(tmp_path / "out"), "--map", str(tmp_path / "map.toml")]
    assert main([*words, "--site", "ours"]) == 0
    line, note = capsys.readouterr().out.splitlines()
    assert "10 patients, 10 images" in line
    assert note.startswith("  note: no patient column in the map")
    assert "per image" in note


def test_an_official_split_without_val_is_completed(tmp_path: Path) -> None:
    rows = [row | {"part": "test" if n < 8 else "train"} for n, row in enumerate(plain_rows(40))]
    make_images(tmp_path / "in", [row["file"] for row in rows])
    site, summary = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN | {"split": "part"})
    assert site.splits[:8] == ("test",) * 8
    assert summary.split_patients == {"train": 12, "val": 4, "test": 4}
    assert "the official split gives no val case" in summary.notes[0]


def test_names_that_clash_or_are_stored_in_another_form(tmp_path: Path) -> None:
    """`ä` is one sign in the table and two on the disk; names that differ in case are different files."""
    rows = plain_rows(4)
    for row, name in zip(rows, ["\u00e4.png", "A.png", "a.png", "日本.png"], strict=True):
        row["file"] = name
    make_images(tmp_path / "in", ["a\u0308.png", "A.png", "a.png", "日本.png"])
    site, summary = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN)
    assert (len(site), summary.skipped) == (4, 0)
    assert len(set(site.image_sha256)) == 4


def test_nothing_that_links_back_leaves_private(tmp_path: Path) -> None:
    rows = plain_rows(8)
    for n, row in enumerate(rows):
        row |= {"file": f"Zorbaxxxxx{n}/Quarkyyyyy{n}.png", "pid": f"Wombatzzzz{n}"}
    make_images(tmp_path / "in", [row["file"] for row in rows])
    rows.append({**rows[0], "file": "Yodelwwwww.png"})
    site, summary = only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN)
    load_crops(site, Crop(size=16, region="frame"))
    assert b"Wombatzzzz3" in (summary.folder / "private/names.csv").read_bytes()
    tokens = ("zorba", "quark", "wombat", "yodel")
    for path in (tmp_path / "out").rglob("*"):
        assert not any(token in str(path).lower() for token in tokens)
        if path.is_file() and "private" not in path.parts:
            assert not any(token.encode() in path.read_bytes().lower() for token in tokens), path.name


def test_ids_without_opening_a_picture(tmp_path: Path) -> None:
    rows = [row | {"clinic": "ABC"[n // 2 % 3]} for n, row in enumerate(plain_rows(6))]
    make_images(tmp_path / "in", [row["file"] for row in rows])
    for row in rows:
        (tmp_path / "in" / row["file"]).write_bytes(b"no picture")
    table = write_table(tmp_path / "in", rows)
    (tmp_path / "map.toml").write_text('image = "file"\nlabel = "diagnosis"\npatient = "pid"\nsite = "clinic"\n')
    assert site_ids("csv", table, options=ImportOptions(map=str(tmp_path / "map.toml"))) == ["a", "b", "c"]


@pytest.mark.parametrize("others", ["absent", "again"])
def test_memory_does_not_follow_the_rows(others: str) -> None:
    """At 38,000 rows more; tests/prove has 990,000 and 200 MiB, of which this is the share."""
    assert peak_growth(few=2_000, many=40_000, others=others) <= 8

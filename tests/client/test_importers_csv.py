"""Any table with a map: hand-made tables of several hospitals' habits, hostile ones, and a long one in little memory."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image

from client.__main__ import main
from client.cache import load_crops
from client.importers import import_site, site_ids
from client.importers.case import ImportSummary
from client.manifest import load_manifest
from client.site import Site, load_site
from common.config import Crop, ImportOptions
from common.errors import BadInput
from tests.client.long_tables import peak_growth

SIZE = (30, 20)
PLAIN: dict[str, Any] = {"image": "file", "label": "diagnosis", "patient": "pid"}

Table = list[dict[str, str]]


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, SIZE[::-1], dtype=np.uint8)


def make_images(folder: Path, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)


def write_table(folder: Path, rows: Table, *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "export.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def plain_rows(count: int = 10) -> Table:
    return [
        {"file": f"pictures/{n}.png", "diagnosis": ("lipoma", "cyst")[n // 2 % 2], "pid": f"K-{n // 2}"}
        for n in range(count)
    ]


def take(table: Path, out: Path, told: dict[str, Any], **options: Any) -> list[ImportSummary]:
    """Import the table with the map `told`; the site is called `ours` where the map names no column of sites."""
    path = table.parent / "map.toml"
    path.write_text(tomli_w.dumps(told), encoding="utf-8")
    site = {} if "site" in told else {"site": "ours"}
    return import_site("csv", table, out, options=ImportOptions(map=str(path), **(site | options)))


def only(table: Path, out: Path, told: dict[str, Any], **options: Any) -> tuple[Site, ImportSummary]:
    (summary,) = take(table, out, told, **options)
    return load_site(summary.folder), summary


def left_out(summary: ImportSummary) -> list[tuple[str, str]]:
    with (summary.folder / "private/skipped.csv").open(encoding="utf-8", newline="") as file:
        return [(row["where"], row["reason"]) for row in csv.DictReader(file)]


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


OUTSIDE = [
    "../secret.png",
    "/etc/passwd",
    "pictures/../../secret.png",
    "C:\\secret.png",
    "\\\\host\\x.png",
    "..\\s.png",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("column", ["file", "mask"])
def test_a_name_that_leads_out_is_refused_by_row(tmp_path: Path, name: str, column: str) -> None:
    rows = [row | {"mask": ""} for row in plain_rows(4)]
    make_images(tmp_path / "in", [row["file"] for row in rows])
    make_images(tmp_path, ["secret.png"])
    rows[2][column] = name
    with pytest.raises(BadInput, match=r"^table row 4: this name leads out of the table's folder") as caught:
        only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN | {"mask": "mask"})
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_link_that_leads_out_is_refused_by_row(tmp_path: Path) -> None:
    rows = plain_rows(4)
    make_images(tmp_path / "in", [row["file"] for row in rows])
    make_images(tmp_path, ["secret.png"])
    (tmp_path / "in/pictures/1.png").unlink()
    os.symlink(tmp_path / "secret.png", tmp_path / "in/pictures/1.png")
    with pytest.raises(BadInput, match=r"^table row 3: a link that leads out"):
        only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN)


CLASSES = {"label": {"column": "diagnosis", "classes": {"lipoma": "benign", "cyst": "other"}}}


@pytest.mark.parametrize(
    ("row", "values", "told", "says"),
    [
        (1, {"diagnosis": "Sarkom Meier"}, CLASSES, "table row 3: its label is none that the map knows"),
        (1, {"pid": ""}, {}, "table row 3: no patient"),
        (1, {"pid": "=HYPERLINK(1)"}, {}, "table row 3: the cell under 'pid' is a formula"),
        (1, {"diagnosis": "@SUM(A1)"}, {}, "table row 3: the cell under 'diagnosis' is a formula"),
        (1, {"pid": "+cmd|' /C calc'!A0"}, {}, "table row 3: the cell under 'pid' is a formula"),
        (1, {"roi": "1 2 3"}, {"box": "roi"}, "table row 3: the box is not x, y, w, h"),
        (1, {"roi": "1.5 2 3 4"}, {"box": "roi"}, "table row 3: the box is not x, y, w, h"),
        (1, {"roi": "-1 2 3 4"}, {"box": "roi"}, "table row 3: the box is not x, y, w, h"),
        (1, {"roi": "1 2 0 4"}, {"box": "roi"}, "table row 3: the box is not x, y, w, h"),
        (1, {"roi": "1 2 300 4"}, {"box": "roi"}, "table row 3: the box leaves the image"),
        (1, {"age": "6,5"}, {"covariates": {"age": "number"}}, "table row 3: 'age' is no number with decimal = '.'"),
        (1, {"age": "=1+1"}, {"covariates": {"age": "number"}}, "table row 3: the cell under 'age' is a formula"),
        (1, {"age": "maybe"}, {"covariates": {"age": "yes-no"}}, "the column 'age' is no yes-no"),
        (1, {"part": "dev2"}, {"split": "part"}, "table row 3: the split is none of train, val, test"),
        (1, {"part": ""}, {"split": "part"}, "table row 3: no official split, which other images have"),
        (1, {"part": "test"}, {"split": "part"}, "table row 3: a patient on two sides"),
        (1, {"clinic": "???"}, {"site": "clinic"}, "table row 3: the site has no name"),
        (1, {"clinic": "B"}, {"site": "clinic"}, r"table row 3: a patient at two sites \(a in table row 2, b here\)"),
        (2, {"clinic": "a"}, {"site": "clinic"}, "table row 4: its site and an earlier one would both be called a"),
        (1, {"diagnosis": ""}, {"positive": "Meier"}, "map: positive: 'Meier' is the class of no image"),
    ],
)
def test_a_wrong_row_is_named_by_number(
    tmp_path: Path, row: int, values: dict[str, str], told: dict[str, Any], says: str
) -> None:
    rows = [r | {"roi": "", "age": "", "part": "train", "clinic": "A"} for r in plain_rows(6)]
    make_images(tmp_path / "in", [r["file"] for r in rows])
    rows[row].update(values)
    with pytest.raises(BadInput, match=says) as caught:
        take(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN | told)
    said = str(caught.value)
    assert "\n" not in said
    assert not any(secret in said for secret in ("K-0", "K-1", "Sarkom", ".png"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told", "says"),
    [
        ("file;diagnosis;pid\na;b;c\n", {}, r"column 'file' is missing; .*a single cell, so look at the delimiter"),
        ("file,diagnosis,pid\na,b,ü\n", {}, r"not utf-8-sig text soon after row 0; say its encoding"),
        ("file,diagnosis,pid\na,b,c\n", {"delimiter": ";"}, "column 'file' is missing"),
        ("file,diagnosis\na,b\n", {}, "column 'pid' is missing; it needs file, diagnosis, pid"),
        ("file,diagnosis,pid,pid\na,b,c,d\n", {}, "two columns are called 'pid'"),
        ('file,diagnosis,pid\na,b,"c\n', {}, "cannot be read as CSV after row 0"),
        ("", {}, "the table is empty"),
        ("\n\n,,\n", {}, "the table is empty"),
        ("file,diagnosis,pid\n", {}, "none of 0 rows names an image"),
        ("file,diagnosis,pid\n" + "x" * 2**21 + ",b,c\n", {}, "a line of more than 1048576 characters"),
    ],
)
def test_a_table_of_another_kind(tmp_path: Path, content: str, told: dict[str, Any], says: str) -> None:
    (tmp_path / "export.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(BadInput, match=says):
        take(tmp_path / "export.csv", tmp_path / "out", PLAIN | told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"pacient": "pid"}, r"map.toml: pacient: unexpected key \(did you mean patient\?\)"),
        ({"image": None}, "map.toml: image: this key is missing"),
        ({"label": None}, "map.toml: label: this key is missing"),
        ({"label": {"column": "diagnosis", "classes": {"a": "b"}}}, "map.toml: label"),
        ({"box": ["x", "y"]}, "map.toml: box"),
        ({"delimiter": "::"}, "map.toml: delimiter"),
        ({"delimiter": '"'}, "map.toml: .*delimiter: a quote"),
        ({"decimal": ";"}, "map.toml: decimal: .*'.' or ','"),
        ({"encoding": "klingon"}, "map.toml: .*encoding: no encoding of text"),
        ({"encoding": "hex"}, "map.toml: .*encoding: no encoding of text"),
        ({"covariates": {"age": "integer"}}, "map.toml: covariates"),
        ({"covariates": ["label"]}, "label is a column of cases.csv with a meaning of its own"),
    ],
)
def test_a_wrong_map_is_named_by_key(tmp_path: Path, told: dict[str, Any], says: str) -> None:
    table = write_table(tmp_path / "in", plain_rows(2))
    whole = {key: value for key, value in (PLAIN | told).items() if value is not None}
    with pytest.raises(BadInput, match=says) as caught:
        take(table, tmp_path / "out", whole)
    assert "\n" not in str(caught.value)


def test_options_that_cannot_be(tmp_path: Path) -> None:
    table = write_table(tmp_path / "in", plain_rows(2))
    (tmp_path / "map.toml").write_text('image = "file"\nlabel = "diagnosis"\n')
    (tmp_path / "torn.toml").write_text("image = ")
    given = str(tmp_path / "map.toml")
    for options, says in (
        (ImportOptions(site="ours"), "needs a map of its columns; give --map"),
        (ImportOptions(site="ours", map=str(tmp_path / "none.toml")), "no such file; --map names"),
        (ImportOptions(site="ours", map=str(tmp_path / "torn.toml")), "not valid TOML"),
        (ImportOptions(map=given), "the format csv needs the site's id"),
        (ImportOptions(map=given, site="../up"), "'../up' is no id"),
        (ImportOptions(map=given, site="ours", sites=3), "the format csv takes no --sites"),
    ):
        with pytest.raises(BadInput, match=says):
            import_site("csv", table, tmp_path / "out", options=options)
    with pytest.raises(BadInput, match="the map names a column of sites; leave --site out"):
        take(table, tmp_path / "out", PLAIN | {"site": "pid"}, site="ours")
    with pytest.raises(BadInput, match="no such file; give the CSV table"):
        import_site("csv", tmp_path, tmp_path / "out", options=ImportOptions(map=given, site="ours"))
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_no_label(tmp_path: Path) -> None:
    """Naming the patient's column by mistake must not write patients into site.toml."""
    rows = [{"file": f"{n}.png", "diagnosis": "x", "pid": f"K-{n}"} for n in range(120)]
    make_images(tmp_path / "in", [row["file"] for row in rows])
    table = write_table(tmp_path / "in", rows)
    with pytest.raises(BadInput, match="'pid' gives 120 different labels"):
        only(table, tmp_path / "out", PLAIN | {"label": "pid"})
    with pytest.raises(BadInput, match="'diagnosis' gives 1 different labels"):
        only(table, tmp_path / "out", PLAIN)


def test_a_damaged_image_ends_the_import_by_row(tmp_path: Path) -> None:
    rows = plain_rows(4)
    make_images(tmp_path / "in", [row["file"] for row in rows])
    (tmp_path / "in/pictures/2.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(BadInput, match=r"^table row 4: ") as caught:
        only(write_table(tmp_path / "in", rows), tmp_path / "out", PLAIN)
    assert "2.png" not in str(caught.value)
    assert not (tmp_path / "out").exists()


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

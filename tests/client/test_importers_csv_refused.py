"""Tables and maps that are refused: names that lead out, wrong rows, other kinds of tables, wrong keys."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from client.importers import import_site
from common.config import ImportOptions
from common.errors import BadInput
from tests.client.csv_tables import (
    PLAIN,
    make_images,
    only,
    plain_rows,
    take,
    write_table,
)

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

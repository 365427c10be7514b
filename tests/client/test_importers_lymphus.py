"""LymphUs archives made by hand, from the description of the data set alone, with PIL and openpyxl."""

from __future__ import annotations

import csv
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from client.importers import import_site, site_ids
from client.site import Site, load_site
from common.errors import BadInput

HEADERS = [
    " Image name",
    "Group ",
    "Maximum diameter",
    "Minimum diameter",
    "Aspect ratio",
    "Hypoechoic",
    "Hyperechoic",
    "Isoechoic",
    "Homogeneity",
    "Prominent Echogenicty (For Heterogeneous nodes)",
    "Loss of fatty hilum/thinning of hilum ",
    "Centrality",
    "Microcalcifications",
    "Necrosis",
    "Margin1",
    "Margin2",
    "Internal component",
    "Intranodal cystic lesion",
]
SPELLINGS: dict[str, tuple[object, object]] = {
    "digits": (0, 1),
    "answers": ("No", "Yes "),
    "words": ("absent", "Present"),
}
BOOLEAN_COLUMNS = (5, 6, 7, 10, 12, 13, 17)

Members = dict[str, bytes]


def encode(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its mask: an ellipse."""
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(50, 70)), int(rng.integers(50, 70))
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows - 25) / 14) ** 2 + ((columns - 24) / (8 + seed % 9)) ** 2 <= 1
    return rng.integers(0, 256, (height, width), dtype=np.uint8), mask


def features(k: int, malignant: bool) -> list[bool]:
    return [bool((k >> bit) & 1) ^ (malignant and bit == 3) for bit in range(7)]


def table(benign: int, malignant: int, spelling: str) -> bytes:
    no, yes = SPELLINGS[spelling]
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADERS)
    for group, count in (("Benign", benign), ("Malignant", malignant)):
        for k in range(1, count + 1):
            line: list[object] = [k, group, 10 + k / 4, 5.5, round(5.5 / (10 + k / 4), 2)] + [None] * 13
            for column, value in zip(BOOLEAN_COLUMNS, features(k, group == "Malignant"), strict=True):
                line[column] = yes if value else no
            line[8] = "Homogeneous" if k % 2 else "Heterogeneous "
            line[11] = k % 3
            line[14], line[15], line[16] = "Regular", "Well-defined", ["solid", "Mixed", None][k % 3]
            sheet.append(line)
        for _ in range(3):
            sheet.append([None] * len(HEADERS))
            sheet.append([" "])
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def center(number: int = 1, *, benign: int = 11, malignant: int = 9, spelling: str = "digits") -> Members:
    """The files of a center by name."""
    members: Members = {}
    for group, count in (("Malignant", malignant), ("Benign", benign)):
        for k in range(count, 0, -1):
            gray, mask = pictures(1000 * number + 100 * (group == "Malignant") + k)
            stem = f"Center {number}/{group}/{k} {group} "
            members[stem + "Image.bmp"] = encode(Image.fromarray(gray), "BMP")
            members[stem + "Mask.tif"] = encode(Image.fromarray(mask), "TIFF")
            members[stem + "Lesion.bmp"] = encode(Image.fromarray(gray * mask), "BMP")
    members[f"Center {number}/Some table 2026.xlsx"] = table(benign, malignant, spelling)
    return members


def as_zip(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def as_folder(path: Path, members: Members) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def imported(source: Path, parent: Path, site: str = "center-1") -> Site:
    import_site("lymphus", source, parent)
    return load_site(parent / site)


def told(site: Site) -> list[object]:
    """All of a site but its folder and its patients' names."""
    return [site.data_sha256, site.images, site.boxes, site.splits, dict(site.covariates), site.devices]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_case_arrives_as_it_was_made(tmp_path: Path, spelling: str) -> None:
    source = as_zip(tmp_path / "Center-1.zip", center(spelling=spelling))
    heard: list[tuple[int, int]] = []
    (summary,) = import_site("lymphus", source, tmp_path / "out", progress=lambda *step: heard.append(step))
    assert heard[-1] == (20, 20)
    assert (summary.site, summary.images, summary.patients, summary.skipped) == ("center-1", 20, 20, 0)
    assert summary.classes == {"benign": 11, "malignant": 9}
    assert summary.folder == tmp_path / "out/center-1"
    site = load_site(summary.folder)
    assert (site.task.name, site.task.classes, site.task.positive) == (
        "lymph-node-malignancy",
        ("benign", "malignant"),
        "malignant",
    )
    assert set(site.devices) == {"Samsung RS80"}
    order = [("Benign", k) for k in range(1, 12)] + [("Malignant", k) for k in range(1, 10)]
    for row, (group, k) in enumerate(order):
        gray, mask = pictures(1000 + 100 * (group == "Malignant") + k)
        assert site.task.classes[site.labels[row]] == group.lower()
        assert np.array_equal(np.asarray(Image.open(site.folder / site.images[row])), gray)
        assert np.array_equal(np.asarray(Image.open(site.folder / str(site.masks[row]))), mask)
        box = site.boxes[row]
        assert box is not None
        rows, columns = np.nonzero(mask)
        assert tuple(box) == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        cell = {name: values[row] for name, values in site.covariates.items()}
        assert float(str(cell["maximum_diameter_mm"])) == 10 + k / 4
        assert float(str(cell["minimum_diameter_mm"])) == 5.5
        names = ("hypoechoic", "hyperechoic", "isoechoic", "loss_of_fatty_hilum", "microcalcifications", "necrosis")
        for name, value in zip((*names, "intranodal_cystic_lesion"), features(k, group == "Malignant"), strict=True):
            assert cell[name] == ("yes" if value else "no")
        assert cell["homogeneity"] == ("Homogeneous" if k % 2 else "Heterogeneous")
        assert cell["centrality"] == str(k % 3)
        assert cell["internal_component"] == ["solid", "Mixed", None][k % 3]
        assert cell["prominent_echogenicity"] is None


def test_zip_folder_hyphen_and_space_are_one(tmp_path: Path) -> None:
    members = center(2, benign=6, malignant=5)
    inner = {name.removeprefix("Center 2/"): content for name, content in members.items()}
    sources = [
        as_zip(tmp_path / "a/Center-2.zip", members),
        as_zip(tmp_path / "b/Center 2.zip", dict(reversed(members.items()))),
        as_zip(tmp_path / "c/download.zip", members),
        as_folder(tmp_path / "d", members),
        as_folder(tmp_path / "e", members) / "Center 2",
        as_folder(tmp_path / "f/Center-2", members),
        as_zip(tmp_path / "g/Center-2.zip", inner),
        as_zip(tmp_path / "h/Center-2.zip", members).parent,
    ]
    sites = [imported(source, tmp_path / f"out{n}", "center-2") for n, source in enumerate(sources)]
    assert all(told(site) == told(sites[0]) for site in sites)
    assert set(sites[0].devices) == {"AixPlorer Ultimate"}


def test_several_centers_at_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        as_zip(tmp_path / f"in/Center-{number}.zip", center(number, benign=4, malignant=3))
    assert site_ids("lymphus", tmp_path / "in") == ["center-1", "center-2", "center-3"]
    summaries = import_site("lymphus", tmp_path / "in", tmp_path / "out")
    assert [summary.site for summary in summaries] == ["center-1", "center-2", "center-3"]
    assert set(load_site(tmp_path / "out/center-3").devices) == {None}


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    members = center(benign=5, malignant=4)
    del members["Center 1/Benign/2 Benign Image.bmp"]
    members["Center 1/Thumbs.db"] = b"x"
    members["__MACOSX/Center 1/._x"] = b"x"
    (summary,) = import_site("lymphus", as_zip(tmp_path / "Center-1.zip", members), tmp_path / "out")
    assert (summary.images, summary.skipped) == (8, 4)
    skipped = list(csv.DictReader((summary.folder / "private/skipped.csv").open(encoding="utf-8")))
    assert sorted(row["reason"] for row in skipped) == [
        "a hidden file",
        "a mask without its image",
        "no image of this node",
        "not a file of LymphUs",
    ]
    assert {row["where"].split(", ")[0] for row in skipped} == {"archive center-1"}


def test_a_node_without_a_row_keeps_its_image(tmp_path: Path) -> None:
    members = center(benign=5, malignant=4)
    members["Center 1/Some table 2026.xlsx"] = table(5, 3, "digits")
    site = imported(as_zip(tmp_path / "Center-1.zip", members), tmp_path / "out")
    assert len(site) == 9
    assert site.covariates["necrosis"][-1] is None
    assert "covariates" in (site.folder / "private/skipped.csv").read_text(encoding="utf-8")


def test_a_new_key_renames_patients_and_moves_none(tmp_path: Path) -> None:
    source = as_zip(tmp_path / "Center-1.zip", center())
    sites = [imported(source, tmp_path / name) for name in ("one", "two")]
    assert told(sites[0]) == told(sites[1])
    assert not set(sites[0].pseudonyms) & set(sites[1].pseudonyms)
    for parent in (tmp_path / "one", tmp_path / "two"):
        assert stat.S_IMODE((parent / ".pseudonym-key").stat().st_mode) == 0o600
        assert stat.S_IMODE((parent / "center-1/private").stat().st_mode) == 0o700
        assert not list(parent.glob("center-1/**/*key*"))


def test_the_split_is_60_20_20_in_each_class(tmp_path: Path) -> None:
    source = as_zip(tmp_path / "Center-1.zip", center(benign=23, malignant=17))
    site = imported(source, tmp_path / "out")
    for label, count in ((0, 23), (1, 17)):
        for side, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            assert abs((site.labels[site.rows(side)] == label).sum() - share * count) < 1
    import_site("lymphus", source, tmp_path / "other", split_seed=1)
    assert load_site(tmp_path / "other/center-1").splits != site.splits


def test_no_original_name_leaves_private(tmp_path: Path) -> None:
    """The key, the table's name, folders and members' names are looked for in every byte outside private/."""
    source = as_zip(tmp_path / "Center-1.zip", center(benign=3, malignant=3))
    site = imported(source, tmp_path / "out")
    traces = [b"Image.bmp", b"Mask.tif", b"Benign/", b"Malignant", b"Center 1", b"Some table", b".zip", b"benign 1"]
    for path in (tmp_path / "out").rglob("*"):
        assert not any(trace in str(path.relative_to(tmp_path)).encode() for trace in traces)
        if path.is_file() and "private" not in path.parts:
            assert not any(trace in path.read_bytes() for trace in traces), path.name
    names = list(csv.DictReader((site.folder / "private/names.csv").open(encoding="utf-8")))
    assert names[0]["original_image"] == "Center 1/Benign/1 Benign Image.bmp"
    assert [row["patient"] for row in names] == [site.pseudonyms[code] for code in site.patients]


def drop(name: str) -> Callable[[Members], None]:
    return lambda members: members.pop(name) and None


def put(name: str, content: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: content})


IMAGE, MASK = "Center 1/Benign/2 Benign Image.bmp", "Center 1/Benign/2 Benign Mask.tif"
TABLE = "Center 1/Some table 2026.xlsx"
GRAY, ELLIPSE = pictures(1002)


def cut(members: Members) -> None:
    members[IMAGE] = members[IMAGE][: len(members[IMAGE]) // 2]


def without_column(members: Members) -> None:
    book = openpyxl.load_workbook(io.BytesIO(members[TABLE]))
    sheet = book.active
    assert sheet is not None
    sheet.delete_cols(14)
    file = io.BytesIO()
    book.save(file)
    members[TABLE] = file.getvalue()


def cell(place: str, value: object) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        book = openpyxl.load_workbook(io.BytesIO(members[TABLE]))
        sheet = book.active
        assert sheet is not None
        sheet[place] = value
        file = io.BytesIO()
        book.save(file)
        members[TABLE] = file.getvalue()

    return change


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(drop(MASK), r"archive center-1, member \d+: this image has no mask", id="missing mask"),
        pytest.param(cut, r"member \d+: truncated or damaged BMP", id="truncated BMP"),
        pytest.param(put(IMAGE, encode(Image.fromarray(GRAY), "PNG")), r"member \d+: not a BMP", id="mislabelled"),
        pytest.param(put(IMAGE, b"BM"), r"member \d+: (not a BMP|truncated)", id="two bytes"),
        pytest.param(put(IMAGE, b""), r"member \d+: not a BMP", id="empty file"),
        pytest.param(put(MASK, b"II*\0" + b"\xff" * 60), r"member \d+: (not a TIFF|truncated)", id="damaged TIFF"),
        pytest.param(put(MASK, encode(Image.fromarray(ELLIPSE[:-3]), "TIFF")), "they must be alike", id="sizes"),
        pytest.param(put(MASK, encode(Image.new("1", (60, 60)), "TIFF")), "the mask is empty", id="empty mask"),
        pytest.param(drop(TABLE), r"archive center-1: 0 tables \(.xlsx\)", id="no table"),
        pytest.param(put("Center 1/more.xlsx", b"x"), r"2 tables \(.xlsx\)", id="two tables"),
        pytest.param(put(TABLE, b"PK no"), r"member \d+: not an Excel file", id="no Excel"),
        pytest.param(without_column, "column 'Necrosis' is missing", id="column"),
        pytest.param(cell("B3", "Unknown"), "table row 3: Group is none of", id="group"),
        pytest.param(cell("A3", "two"), "table row 3: Image name is no whole number", id="name"),
        pytest.param(cell("A3", 1), "table row 3: the same node as row 2", id="twice"),
        pytest.param(cell("C3", "long"), "table row 3, Maximum diameter: expected a number", id="diameter"),
        pytest.param(put("Center 2/Benign/9 Benign Image.bmp", b""), r"holds the centers \[1, 2\]", id="two centers"),
        pytest.param(put("Center 1/Benign/9 Malignant Image.bmp", b""), "different classes", id="class"),
        pytest.param(put("Center 1/Benign/02 Benign Image.bmp", b""), "the same image as member", id="same node"),
        pytest.param(put("../up.bmp", b"x"), r"member \d+: its name leads out of the archive", id="traversal"),
        pytest.param(put("/etc/passwd", b"x"), r"member \d+: its name leads out of the archive", id="absolute"),
        pytest.param(put("C:/x", b"x"), r"member \d+: its name leads out of the archive", id="drive"),
        pytest.param(put("a\\..\\..\\x", b"x"), r"leads out of the archive", id="backslash"),
        pytest.param(put(IMAGE.upper(), b"x"), "bears the name of an earlier member", id="case clash"),
    ],
)
def test_harm_is_one_line_and_nothing_is_written(tmp_path: Path, harm: Callable[[Members], None], says: str) -> None:
    members = center(benign=4, malignant=3)
    harm(members)
    source = as_zip(tmp_path / "Center-1.zip", members)
    with pytest.raises(BadInput, match=says) as caught:
        import_site("lymphus", source, tmp_path / "out")
    message = str(caught.value)
    assert "\n" not in message
    assert "Image.bmp" not in message.replace("Benign Image.bmp`", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("members", [{}, {"readme.txt": b"x"}, {"Center 1/Benign/1.png": b"x"}])
def test_a_zip_that_is_not_lymphus(tmp_path: Path, members: Members) -> None:
    for source in (as_zip(tmp_path / "x.zip", members), as_zip(tmp_path / "Center-1.zip", members)):
        with pytest.raises(BadInput, match=rf"not LymphUs: none of its {len(members)} files fits; expected `Center N/"):
            import_site("lymphus", source, tmp_path / "out")


def test_no_zip_at_all(tmp_path: Path) -> None:
    (tmp_path / "Center-1.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(BadInput, match="archive center-1: not a zip file"):
        import_site("lymphus", tmp_path / "Center-1.zip", tmp_path / "out")
    with pytest.raises(BadInput, match="no such file or folder"):
        import_site("lymphus", tmp_path / "absent.zip", tmp_path / "out")
    with pytest.raises(BadInput, match=r"unknown format 'lymfus' \(did you mean lymphus\?\)"):
        import_site("lymfus", tmp_path / "Center-1.zip", tmp_path / "out")


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    source = as_zip(tmp_path / "Center-1.zip", center(benign=2, malignant=2))
    link = zipfile.ZipInfo("Center 1/Benign/8 Benign Image.bmp")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadInput, match="a symbolic link"):
        import_site("lymphus", source, tmp_path / "out")


def test_a_link_out_of_a_folder(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", center(benign=2, malignant=2))
    (tmp_path / "secret").write_bytes(b"x")
    os.symlink(tmp_path / "secret", source / "Center 1/Benign/8 Benign Image.bmp")
    with pytest.raises(BadInput, match="a link that leads out"):
        import_site("lymphus", source, tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.importers.archive.MAX_MEMBER_BYTES", 1 << 20)
    source = as_zip(tmp_path / "Center-1.zip", {**center(benign=2, malignant=2), "Center 1/zeros": bytes(2 << 20)})
    with pytest.raises(BadInput, match=r"member 14: unpacks to more than 1 MiB"):
        import_site("lymphus", source, tmp_path / "out")


@pytest.mark.parametrize("size", [(50_000, 2), (50_000, 50_000)])
def test_a_picture_that_is_too_large(tmp_path: Path, size: tuple[int, int]) -> None:
    members = center(benign=2, malignant=2)
    header = bytearray(encode(Image.new("L", (4, 4)), "BMP"))
    header[18:26] = size[0].to_bytes(4, "little") + size[1].to_bytes(4, "little")
    members[IMAGE] = bytes(header)
    source = as_zip(tmp_path / "Center-1.zip", members)
    with pytest.raises(BadInput, match=r"member \d+: (50000×2 pixels|more than \d+ pixels)"):
        import_site("lymphus", source, tmp_path / "out")


def test_a_damaged_member_is_named_by_number(tmp_path: Path) -> None:
    source = as_zip(tmp_path / "Center-1.zip", center(benign=2, malignant=2))
    content = bytearray(source.read_bytes())
    content[200:220] = bytes(20)
    source.write_bytes(content)
    with pytest.raises(BadInput, match=r"archive center-1, member 1: cannot be read \(\w+\)"):
        import_site("lymphus", source, tmp_path / "out")


def test_a_site_that_is_there_is_not_touched(tmp_path: Path) -> None:
    first = imported(as_zip(tmp_path / "Center-1.zip", center(benign=4, malignant=3)), tmp_path / "out")
    for number in (1, 2):
        as_zip(tmp_path / f"in/Center-{number}.zip", center(number, benign=2, malignant=2))
    with pytest.raises(BadInput, match=r"center-1: is there already; remove it or choose another --out"):
        import_site("lymphus", tmp_path / "in", tmp_path / "out")
    assert told(load_site(first.folder)) == told(first)
    assert not (tmp_path / "out/center-2").exists()
    with pytest.raises(BadInput, match="is a site folder itself"):
        import_site("lymphus", tmp_path / "in", first.folder)


def test_many_blank_rows_and_formulas(tmp_path: Path) -> None:
    members = center(benign=4, malignant=3)
    cell("A50000", " ")(members)
    cell("F2", "=1+1")(members)
    site = imported(as_zip(tmp_path / "Center-1.zip", members), tmp_path / "out")
    assert site.covariates["hypoechoic"][0] is None


def test_the_phantom_round_trip(tmp_path: Path) -> None:
    write = pytest.importorskip("simulation.phantom.write")
    write.write_phantom(tmp_path / "phantom", preset="lymphus", seed=5, extra_centers=1, patients=8)
    truth = list(csv.DictReader((tmp_path / "phantom/truth.csv").open(encoding="utf-8")))
    summaries = import_site("lymphus", tmp_path / "phantom", tmp_path / "out")
    assert sum(summary.images for summary in summaries) == len(truth) == 24
    for summary in summaries:
        site = load_site(summary.folder)
        expected = [row for row in truth if f"center-{row['center']}" == site.id]
        expected.sort(key=lambda row: (row["group"], int(row["number"])))
        for row, case in enumerate(expected):
            cell_of = {name: values[row] for name, values in site.covariates.items()}
            assert site.task.classes[site.labels[row]] == case["group"].lower()
            assert float(str(cell_of["maximum_diameter_mm"])) == pytest.approx(float(case["max_mm"]), rel=1e-5)
            assert float(str(cell_of["minimum_diameter_mm"])) == pytest.approx(float(case["min_mm"]), rel=1e-5)
            for name, spelled in (("hilum_lost", "loss_of_fatty_hilum"), ("necrosis", "necrosis")):
                assert cell_of[spelled] == ("no", "yes")[int(case[name])]
            with Image.open(site.folder / site.images[row]) as image:
                assert image.size == (int(case["width"]), int(case["height"]))

"""BUS-BRA: a hand-made copy of its layout, and the real images where they are at hand."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from client.importers import import_site, site_ids
from client.site import Site, load_site
from common.errors import BadInput, RunFailed

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared/data/busbra"
needs_busbra = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/busbra is absent")

HEADER = "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"
DEVICES = ("GE Logiq 5 @10-12MHz", "Toshiba Aplio 300 @12-14 MHz", "U-Systems @10-14MHz")

Rows = list[dict[str, str]]


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (40 + number, 50), dtype=np.uint8)


def make(folder: Path, patients: int = 12) -> Rows:
    """Two sides of each patient; every file carries text that must not survive."""
    (folder / "Images").mkdir(parents=True)
    (folder / "Masks").mkdir()
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Dr. Nameless of Hospital X")
    rows = []
    for number in range(2 * patients):
        name = f"{1000 + number // 2}-{'lr'[number % 2]}"
        gray = picture(number)
        mask = np.zeros(gray.shape, dtype=bool)
        mask[5:25, 10 : 20 + number % 7] = True
        Image.fromarray(gray).save(folder / f"Images/bus_{name}.png", pnginfo=text)
        Image.fromarray(mask).save(folder / f"Masks/mask_{name}.png", pnginfo=text)
        rows.append(
            {
                "ID": f"bus_{name}",
                "Case": str(1000 + number // 2),
                "Histology": "cyst",
                "Pathology": ("benign", "malignant")[number // 2 % 2],
                "BIRADS": "3",
                "Device": DEVICES[number // 2 % 3],
                "Width": "50",
                "Height": str(gray.shape[0]),
                "Side": ("left", "right")[number % 2],
                "BBOX": f"[11,6,{9 + number % 7},19]",
            }
        )
    write_table(folder, rows)
    return rows


def write_table(folder: Path, rows: Rows) -> None:
    with (folder / "bus_data.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER.split(","))
        writer.writeheader()
        writer.writerows(rows)


def test_each_device_is_a_site(tmp_path: Path) -> None:
    rows = make(tmp_path / "in")
    summaries = import_site("busbra", tmp_path / "in", tmp_path / "out")
    assert [summary.site for summary in summaries] == ["ge-logiq-5", "toshiba-aplio-300", "u-systems"]
    assert [(summary.images, summary.patients, summary.skipped) for summary in summaries] == [(8, 4, 0)] * 3
    for summary, device in zip(summaries, DEVICES, strict=True):
        site = load_site(summary.folder)
        own = [(number, row) for number, row in enumerate(rows) if row["Device"] == device]
        for place, (number, row) in enumerate(own):
            with (
                Image.open(site.folder / site.images[place]) as image,
                Image.open(site.folder / str(site.masks[place])) as mask,
            ):
                assert np.array_equal(np.asarray(image), picture(number))
                left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
                assert site.boxes[place] == (left, top, right - left, bottom - top)
                assert not image.info
            assert site.task.classes[site.labels[place]] == row["Pathology"]
            assert site.devices[place] == device
            assert [site.covariates[name][place] for name in ("histology", "birads", "side")] == [
                row["Histology"],
                row["BIRADS"],
                row["Side"],
            ]
            assert site.patients[place] == place // 2
    traces = [b"bus_1", b"mask_1", b"Nameless", *(row["Case"].encode() + b"," for row in rows)]
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and "private" not in path.parts:
            assert not any(trace in path.read_bytes() for trace in traces), path.name


def test_the_official_zip_is_read_too(tmp_path: Path) -> None:
    make(tmp_path / "in/BUSBRA")
    (tmp_path / "in/BUSBRA/5-fold-cv.csv").write_text("x")
    with zipfile.ZipFile(tmp_path / "BUSBRA.zip", "w") as archive:
        for path in (tmp_path / "in").rglob("*"):
            archive.write(path, path.relative_to(tmp_path / "in"))
    import_site("busbra", tmp_path / "in", tmp_path / "out")
    import_site("busbra", tmp_path / "BUSBRA.zip", tmp_path / "zipped")
    for site in ("ge-logiq-5", "toshiba-aplio-300", "u-systems"):
        assert load_site(tmp_path / "out" / site).data_sha256 == load_site(tmp_path / "zipped" / site).data_sha256


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    make(tmp_path / "in")
    (tmp_path / "in/Images/bus_1003-l.png").rename(tmp_path / "in/Images/bus_9999-l.png")
    (first, *_) = import_site("busbra", tmp_path / "in", tmp_path / "out")
    assert (first.site, first.images, first.skipped) == ("ge-logiq-5", 7, 2)
    skipped = list(csv.DictReader((first.folder / "private/skipped.csv").open(encoding="utf-8")))
    assert [row["reason"] for row in skipped] == ["no image of this ID", "no row of the table names it"]
    assert skipped[0]["where"].endswith("table row 8")


@pytest.mark.parametrize(
    ("row", "values", "says"),
    [
        (
            2,
            {"Pathology": "malign"},
            r"table row 4: Pathology is neither benign nor malignant \(did you mean",
        ),
        (2, {"Case": ""}, "table row 4: Case, the patient, is empty"),
        (2, {"Device": "@7MHz"}, "table row 4: Device names no machine"),
        (2, {"BBOX": "11,6,9,19"}, r"table row 4: BBOX is not \[x,y,w,h\]"),
        (2, {"BBOX": "[0,6,9,19]"}, r"table row 4: BBOX is not"),
        (2, {"BBOX": "[11,6,90,19]"}, r"table row 4: the box leaves the image"),
        (
            2,
            {"Case": "1000"},
            r"table row 4: a patient at two sites \(ge-logiq-5 at .*table row 2, toshiba-",
        ),
    ],
)
def test_a_wrong_row_is_named_by_number(tmp_path: Path, row: int, values: dict[str, str], says: str) -> None:
    rows = make(tmp_path / "in")
    rows[row].update(values)
    write_table(tmp_path / "in", rows)
    with pytest.raises(BadInput, match=says) as caught:
        import_site("busbra", tmp_path / "in", tmp_path / "out")
    assert "bus_" not in str(caught.value).replace("bus_data.csv", "")
    assert not (tmp_path / "out").exists()


def test_a_missing_mask_and_no_images(tmp_path: Path) -> None:
    make(tmp_path / "in")
    (tmp_path / "in/Masks/mask_1002-r.png").unlink()
    with pytest.raises(BadInput, match=r"member \d+, table row 7: its mask is missing"):
        import_site("busbra", tmp_path / "in", tmp_path / "out")
    for path in (tmp_path / "in/Images").iterdir():
        path.unlink()
    with pytest.raises(BadInput, match="no image of the table is there"):
        import_site("busbra", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/bus_data.csv").unlink()
    with pytest.raises(BadInput, match=r"0 files bus_data.csv where one is expected"):
        import_site("busbra", tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("key", ["", "short", "zz" * 32])
def test_a_key_that_is_none(tmp_path: Path, key: str) -> None:
    make(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    path = tmp_path / "out/.pseudonym-key"
    path.write_text(key)
    path.chmod(0o600)
    with pytest.raises(BadInput, match="not a pseudonym key"):
        import_site("busbra", tmp_path / "in", tmp_path / "out")
    path.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        import_site("busbra", tmp_path / "in", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [".pseudonym-key"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    make(tmp_path / "in", 3)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is no folder"):
        import_site("busbra", tmp_path / "in", tmp_path / "file")
    with pytest.raises(RunFailed, match="cannot write"):
        import_site("busbra", tmp_path / "in", tmp_path / "file/below")


def same_pictures(one: Path, other: Path) -> bool:
    """The same files with the same bytes below both, pictures and hashes alike."""
    names = [sorted(path.relative_to(root) for path in root.rglob("*.png")) for root in (one, other)]
    return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])


SLOW_IMPORT = """
import sys, time
from pathlib import Path
from client.importers import import_site

def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.2)

import_site("busbra", Path(sys.argv[1]), Path(sys.argv[2]), progress=slowly)
"""


def test_a_killed_import_leaves_no_site_and_can_be_repeated(tmp_path: Path) -> None:
    make(tmp_path / "in")
    command = [sys.executable, "-c", SLOW_IMPORT, str(tmp_path / "in"), str(tmp_path / "out")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.startswith(".importing-")
    assert not list(left.rglob("site.toml"))
    before = {path: path.stat().st_mtime_ns for path in left.rglob("*.png")}
    assert before, "one case was stored before the kill"
    changed = sorted(before)[0]
    changed.write_bytes(changed.read_bytes()[:-1])
    journal = next(left.rglob("journal.jsonl"))
    journal.write_text(journal.read_text() + '["000002.png", "torn')
    time.sleep(0.02)
    import_site("busbra", tmp_path / "in", tmp_path / "out")
    assert not left.exists()
    kept = [
        path.stat().st_mtime_ns == moment
        for path, moment in (
            (tmp_path / "out" / path.relative_to(left), moment) for path, moment in before.items() if path != changed
        )
    ]
    fresh = tmp_path / "fresh"
    import_site("busbra", tmp_path / "in", fresh)
    assert same_pictures(tmp_path / "out", fresh), "the torn picture was made again"
    assert sum(kept) >= len(before) - 2, "what was whole was not made again"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".pseudonym-key",
        "ge-logiq-5",
        "toshiba-aplio-300",
        "u-systems",
    ]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Site]:
    parent = tmp_path_factory.mktemp("busbra")
    return {summary.site: load_site(summary.folder) for summary in import_site("busbra", REAL, parent)}


@needs_busbra
@pytest.mark.parametrize(
    ("site", "benign", "malignant", "patients"),
    [("ge-logiq-5", 96, 62, 94), ("ge-logiq-7", 125, 86, 116), ("toshiba-aplio-300", 71, 68, 72)],
)
def test_real_counts(real: dict[str, Site], site: str, benign: int, malignant: int, patients: int) -> None:
    assert sorted(real) == sorted(site_ids("busbra", REAL)) == ["ge-logiq-5", "ge-logiq-7", "toshiba-aplio-300"]
    own = real[site]
    assert (int((~own.positive).sum()), int(own.positive.sum())) == (benign, malignant)
    assert len(own.pseudonyms) == patients
    sides = [{int(code) for code in own.patients[own.rows(side)]} for side in ("train", "val", "test")]
    assert sum(len(side) for side in sides) == patients
    for side, share in zip(sides, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(side) - share * patients) < 1


@needs_busbra
def test_real_boxes_are_the_masks_rectangles_and_pixels_are_kept(real: dict[str, Site]) -> None:
    rows = list(csv.DictReader((REAL / "bus_data.csv").open(encoding="utf-8")))
    for site in real.values():
        own = [row for row in rows if row["Device"] == site.devices[0]]
        for place, row in enumerate(own):
            with Image.open(site.folder / str(site.masks[place])) as mask:
                left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
            assert site.boxes[place] == (left, top, right - left, bottom - top)
            x, y, *_ = json.loads(row["BBOX"])
            assert (left, top) == (x - 1, y - 1)
        for place in range(0, len(own), 10):
            with (
                Image.open(REAL / "Images" / f"{own[place]['ID']}.png") as before,
                Image.open(site.folder / site.images[place]) as after,
            ):
                assert np.array_equal(np.asarray(before), np.asarray(after))
                assert not after.info
            content = (site.folder / site.images[place]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == site.image_sha256[place]

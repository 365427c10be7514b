"""A small site folder written by hand, by none of the code under test, for the tests of what reads site folders."""

from __future__ import annotations

__all__ = ["edit_cases", "write_site"]

import csv
import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

SITE_TOML = """\
id = "hand-made"
nominal_patients = 10
role = "train"
[task]
name = "lump"
classes = ["benign", "malignant"]
positive = "malignant"
"""
COLUMNS = ("image", "mask", "box", "patient", "label", "split", "device", "image_sha256", "mask_sha256", "age")


def write_site(folder: Path, *, images: int = 10, seed: int = 0, boxes: bool = True, toml: str = SITE_TOML) -> Path:
    """`images` pictures, two of a patient; odd patients are malignant, three in five patients train."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rows = []
    for number in range(images):
        patient = number // 2
        width, height = int(rng.integers(40, 70)), int(rng.integers(40, 70))
        x, y = int(rng.integers(0, 15)), int(rng.integers(0, 15))
        w, h = int(rng.integers(5, 25)), int(rng.integers(5, 25))
        mask = np.zeros((height, width), dtype=bool)
        mask[y : y + h, x : x + w] = True
        name = f"{number:06d}.png"
        gray = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        rows.append(
            {
                "image": f"images/{name}",
                "mask": f"masks/{name}",
                "box": f"{x} {y} {w} {h}" if boxes else "",
                "patient": f"p-{patient:016x}",
                "label": ("benign", "malignant")[patient % 2],
                "split": ("train", "train", "train", "val", "test")[patient % 5],
                "device": "" if patient == 0 else "scanner",
                "image_sha256": _save(folder / "images" / name, gray),
                "mask_sha256": _save(folder / "masks" / name, Image.fromarray(mask)),
                "age": "" if number == 0 else str(30 + number),
            }
        )
    (folder / "site.toml").write_text(toml, encoding="utf-8")
    _write(folder, rows)
    return folder


def _save(path: Path, picture: Image.Image) -> str:
    picture.save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(folder: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "cases.csv").write_text(text.getvalue(), encoding="utf-8")


def edit_cases(folder: Path, row: int, **values: str) -> None:
    """Change some values of a row of cases.csv, counted as a spreadsheet does: 2 is the first case."""
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row - 2].update(values)
    _write(folder, rows)

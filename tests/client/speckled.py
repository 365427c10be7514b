"""Speckle pictures and sites of them, for the tests of the check: by none of the code under test."""

from __future__ import annotations

__all__ = ["SPECKLED_TOML", "replace_image", "speckle", "write_speckled"]

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from tests.client.handmade import COLUMNS

SPECKLED_TOML = """\
id = "speckled"
nominal_patients = 50
[task]
name = "lump"
classes = ["benign", "malignant"]
positive = "malignant"
"""


def speckle(seed: int, width: int = 150, height: int = 130) -> np.ndarray:
    """Log-compressed Rayleigh speckle with a dark ellipse and some bright layers, (height, width) uint8."""
    rng = np.random.default_rng(seed)
    real, imaginary = (gaussian_filter(rng.standard_normal((height, width)), (0.8, 1.6)) for _ in range(2))
    rows, columns = np.mgrid[:height, :width]
    tissue = np.exp(1.2 * gaussian_filter(rng.standard_normal((height, width)), (5, 18)) * 9)
    y, x, a, b = rng.uniform(40, 90), rng.uniform(40, 110), rng.uniform(12, 25), rng.uniform(15, 35)
    tissue[((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1] *= 0.15
    decibel = 20 * np.log10(np.hypot(real, imaginary) * tissue + 1e-4)
    return np.clip(150 + 3.5 * (decibel - np.median(decibel)), 0, 255).astype(np.uint8)


def write_speckled(folder: Path, *, patients: int = 20, toml: str = SPECKLED_TOML, prefix: str = "p-") -> Path:
    """One image of a patient, with mask, private/ and the key: nothing about it is wrong."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "private").mkdir(mode=0o700)
    key = folder.parent / ".pseudonym-key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    mask = np.zeros((130, 150), dtype=bool)
    mask[40:80, 50:100] = True
    rows = []
    for number in range(patients):
        rows.append(
            {
                "image": f"images/{number:06d}.png",
                "mask": f"masks/{number:06d}.png",
                "box": "50 40 50 40",
                "patient": f"{prefix}{number:04d}",
                "label": ("benign", "malignant")[number % 2],
                "split": ("train", "train", "train", "train", "train", "train", "val", "val", "test", "test")[
                    number % 10
                ],
                "device": "scanner",
                "image_sha256": _saved(folder / f"images/{number:06d}.png", speckle(number)),
                "mask_sha256": _saved(folder / f"masks/{number:06d}.png", mask),
                "age": str(30 + number),
            }
        )
    (folder / "site.toml").write_text(toml, encoding="utf-8")
    with (folder / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for path in (folder / "site.toml", folder / "cases.csv"):
        os.chmod(path, 0o644)
    return folder


def replace_image(folder: Path, row: int, gray: np.ndarray, *, kind: str = "image") -> dict[str, str]:
    """Put another picture in a row's place (2 is the first case); the values that cases.csv must have then."""
    return {f"{kind}_sha256": _saved(folder / f"{kind}s/{row - 2:06d}.png", gray)}


def _saved(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()

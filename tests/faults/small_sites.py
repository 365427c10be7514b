"""Three tiny site folders and an experiment over them, written by none of the code under test."""

from __future__ import annotations

__all__ = ["CLIENT", "SERVER", "experiment", "write_site", "write_sites"]

import csv
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from common.config import Experiment
from common.parsing import parse

SERVER = [sys.executable, "-m", "server"]
CLIENT = [sys.executable, "-m", "client"]

_TOML = """\
id = "{site}"
nominal_patients = 12
[task]
name = "lump"
classes = ["benign", "malignant"]
positive = "malignant"
[policy]
smallest_group = 1
"""
_COLUMNS = ("image", "mask", "box", "patient", "label", "split", "device", "image_sha256", "mask_sha256")
_SIDES = ("train", "train", "train", "train", "val", "val", "test", "test")


def write_sites(parent: Path, names: tuple[str, ...], *, images: int = 16) -> list[Path]:
    """One folder for each name: `images` pictures of as many patients, malignant ones brighter in the middle."""
    return [write_site(parent / name, name, seed=seed, images=images) for seed, name in enumerate(names)]


def write_site(folder: Path, name: str, *, seed: int, images: int, per_patient: int = 1) -> Path:
    """One site folder whose pictures are drawn by `seed`;
    `per_patient` neighbouring ones of a class share a patient.
    """
    rng = np.random.default_rng(seed)
    for part in ("images", "private"):
        (folder / part).mkdir(parents=True, mode=0o700)
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        for number in range(images):
            malignant = number % 2
            patient = number if per_patient == 1 else 2 * (number // (2 * per_patient)) + malignant
            pixels = rng.integers(0, 160, (40, 40))
            pixels[12:28, 12:28] += 80 * malignant
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, format="PNG")
            path = f"images/{number:06d}.png"
            (folder / path).write_bytes(buffer.getvalue())
            writer.writerow(
                {
                    "image": path,
                    "box": "10 10 20 20",
                    "patient": f"p-{seed:04x}-{patient:08x}",
                    "label": ("benign", "malignant")[malignant],
                    "split": _SIDES[patient // 2 % len(_SIDES)],
                    "image_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
                }
            )
    (folder / "site.toml").write_text(_TOML.format(site=name), encoding="utf-8")
    return folder


def experiment(names: tuple[str, ...], *, rounds: int = 2, gather: float = 90.0, reply: float = 90.0) -> Experiment:
    """A small model on these sites, by id, as a deployment has it;
    one thread, so that every engine gives the same bits.
    """
    table = {
        "name": "tiny",
        "task": {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"},
        "sites": [{"id": name, "role": "train"} for name in names],
        "threads": 1,
        "crop": {"size": 32},
        "model": {"backbone": "small"},
        "training": {"rounds": rounds, "steps": 6 * rounds, "batch_size": 4},
        "evaluation": {"every": rounds},
        "deadlines": {"gather": gather, "reply": reply},
    }
    return parse(Experiment, table, where="test")

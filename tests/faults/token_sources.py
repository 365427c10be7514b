"""Sources of data in which every name, folder and identifier of a patient is a token that occurs nowhere else."""

from __future__ import annotations

__all__ = ["Tokens", "class_folder", "dicom_folder", "fatty_livers", "liver_lesions", "mapped_table"]

import csv
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("benign", "malignant")


@dataclass
class Tokens:
    """Hands out twelve characters at a time and remembers them all."""

    seed: str
    given: list[str] = field(default_factory=list)

    def new(self) -> str:
        digest = hashlib.sha256(f"{self.seed} {len(self.given)}".encode()).hexdigest().upper()
        self.given.append("Q" + digest[:11])
        return self.given[-1]

    def in_(self, content: bytes) -> list[str]:
        """The tokens that `content` holds, in any case."""
        folded = content.upper()
        return [token for token in self.given if token.encode() in folded]


def _picture(number: int, label: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 160, (40, 40))
    pixels[12:28, 12:28] += 80 * label
    return Image.fromarray(pixels.astype(np.uint8))


def class_folder(parent: Path, tokens: Tokens, *, patients: int = 20) -> Path:
    """`SOURCE/<class>/<patient>/<file>.png`, two images of a patient."""
    source = parent / tokens.new()
    for number in range(patients):
        folder = source / CLASSES[number % 2] / tokens.new()
        folder.mkdir(parents=True)
        for _ in range(2):
            _picture(number, number % 2).save(folder / f"{tokens.new()}.png")
    return source


def mapped_table(parent: Path, tokens: Tokens, *, patients: int = 20) -> tuple[Path, Path]:
    """A table whose images lie in folders beside it, and its map."""
    source = parent / tokens.new()
    source.mkdir(parents=True)
    with (source / f"{tokens.new()}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "who", "what", "where"])
        for number in range(patients):
            name, patient = f"{tokens.new()}/{tokens.new()}.png", tokens.new()
            (source / name).parent.mkdir()
            _picture(100 + number, number % 2).save(source / name)
            writer.writerow([name, patient, CLASSES[number % 2], "10 10 20 20"])
        table = Path(file.name)
    mapping = source / "map.toml"
    mapping.write_text('image = "file"\npatient = "who"\nlabel = "what"\npositive = "malignant"\nbox = "where"\n')
    return table, mapping


def dicom_folder(parent: Path, tokens: Tokens, *, patients: int = 20) -> Path:
    """Class folders of DICOM files whose headers hold tokens wherever a header names someone or something."""
    from tests.client import dicom_files as made

    source = parent / tokens.new()
    for number in range(patients):
        tags = {
            name: tokens.new()
            for name in ("PatientID", "PatientName", "StudyDescription", "InstitutionName", "AccessionNumber")
        }
        dataset = made.picture(made.screen(number, high=120 + 120 * (number % 2)), **tags)
        path = source / CLASSES[number % 2] / f"{tokens.new()}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made.written(dataset))
    return source


def liver_lesions(parent: Path, tokens: Tokens, *, patients: int = 12) -> tuple[Path, Path]:
    """SMC-LUD's clean folders with flat names, and a patient table."""
    source = parent / tokens.new()
    rows = []
    for number in range(patients):
        side, label = ("train", "val", "test")[number // 2 % 3], number % 2
        folder = source / "clean_ver_for_train" / f"{side}_clean" / ("Hemangioma", "HCC")[label]
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{tokens.new()}.png"
        _picture(200 + number, label).save(folder / name)
        rows.append([name, tokens.new(), 50 + number])
    table = source.parent / f"{tokens.new()}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "patient", "age"], *rows])
    return source, table


def fatty_livers(parent: Path, tokens: Tokens) -> Path:
    """BEHSOF: ids that bear labels, tokens as names of files and of acquisitions."""
    source = parent / tokens.new()
    rows = []
    for number in range(24):
        site, grade = ("TAL", "BEH")[number // 12], number % 4
        patient = f"{site}{number % 12 + 1:02d}{grade}{grade}{number % 3}"
        tokens.given.append(patient)
        folder = source / "image_Data" / patient
        folder = folder / tokens.new() if site == "TAL" else folder
        folder.mkdir(parents=True)
        for _ in range(2):
            _picture(300 + number, grade // 2).save(folder / f"Image{tokens.new()}.jpg")
        rows.append([f"\\Data\\{patient}", "F", 40 + number, 210 + 30 * grade, grade, grade, number % 3])
    header = ["Patient ID", "sex", "Age", "CAP score", "Steatosis stage", "Fibroscan S", "Fibroscan F"]
    with (source / "Demo_data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return source

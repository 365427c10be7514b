"""A site folder, parsed once and checked: everything after this line may trust it.

<site-id>/
├── site.toml    what the site is (client/manifest.py)
├── cases.csv    one row per image; `patient` is a keyed pseudonym
├── images/      gray PNG, numbered in source order
├── masks/       1-bit PNG of the same name
├── peers/       other hospitals' public keys, where the site wants them (client/peers.py)
├── private/     0700: what links back
└── state/       what the site remembers: cache, ledger
"""

from __future__ import annotations

__all__ = [
    "COLUMNS",
    "SPACING",
    "SPLITS",
    "Site",
    "is_number",
    "is_within",
    "load_site",
    "read_table",
    "require_declared",
    "require_spacing",
    "require_task",
]

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from client.box import Box
from client.manifest import CovariateKind, Manifest, Policy, Role, load_manifest
from common.config import Crop
from common.errors import BadInput, suggest
from common.tasks import Task

COLUMNS = ("image", "mask", "box", "patient", "label", "split", "device", "image_sha256", "mask_sha256")
"""The columns of cases.csv before the covariates."""
SPACING = "spacing_mm"
"""The covariate that, where a site has it, says how many millimetres lie between neighbouring pixels."""
SPLITS = ("train", "val", "test")

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Site:
    """N images of P patients at one site. Sequences run over images in the order of cases.csv; arrays are read-only.

    `images` and `masks` are paths relative to `folder`; a mask, a box, a device or a covariate that is absent is None.
    `labels` (N,) are indices in `task.classes`, `positive` (N,) says which are `task.positive`. `patients` (N,) are
    codes 0..P-1 in order of first appearance, `pseudonyms` (P,) their names. `splits` are what cases.csv says; `rows`
    heeds the role too. `nominal_declared`: a person chose `nominal_patients`. `artificial` sites were cut from one
    center. `kinds` and `levels`: how declared covariates are read, and which names of values may leave the site, None
    where nobody said (`client.manifest`). `spacings` are mm per pixel, None where unknown. `data_sha256` names the
    data: files, boxes, spacings, labels, splits and who belongs together, but no pseudonym, so that a new key leaves it
    alone.
    """

    folder: Path
    id: str
    task: Task
    role: Role
    nominal_patients: int
    split_seed: int
    artificial: bool
    policy: Policy
    images: tuple[str, ...]
    masks: tuple[str | None, ...]
    boxes: tuple[Box | None, ...]
    image_sha256: tuple[str, ...]
    mask_sha256: tuple[str | None, ...]
    labels: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]
    pseudonyms: tuple[str, ...]
    splits: tuple[str, ...]
    devices: tuple[str | None, ...]
    covariates: Mapping[str, tuple[str | None, ...]]
    spacings: tuple[float | None, ...]
    data_sha256: str
    nominal_declared: bool = True
    kinds: Mapping[str, CovariateKind] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def state(self) -> Path:
        """Where this site keeps what it must remember."""
        return self.folder / "state"

    def rows(self, *splits: str) -> npt.NDArray[np.int64]:
        """Indices of the images on these sides, ascending; without a side, of all. At a held-out site all are test."""
        if unknown := set(splits) - set(SPLITS):
            raise ValueError(f"no such side: {sorted(unknown)}")
        if not splits or (self.role == "held-out" and "test" in splits):
            return np.arange(len(self), dtype=np.int64)
        if self.role == "held-out":
            return np.empty(0, dtype=np.int64)
        return np.array([row for row, side in enumerate(self.splits) if side in splits], dtype=np.int64)


def load_site(folder: Path, *, role: Role | None = None) -> Site:
    """Parse and check a site folder; `role` overrules the folder's own.

    Checked: the manifest's keys, cases.csv's columns, that every file is there and inside the folder, that labels are
    classes, sides are train, val or test, and no patient is on two of them. Rows are named as a spreadsheet counts
    them: the header is row 1. Raises BadInput.
    """
    manifest = load_manifest(folder)
    where = f"site {manifest.id}: cases.csv"
    rows = read_table(folder / "cases.csv", where=where)
    _check_files(folder, rows, where=where)
    _check_sides(rows, where=where)
    _check_numbers(manifest, rows, where=where)
    return _assemble(folder, manifest, rows, role=role or manifest.role, where=where)


def require_task(site: Site, task: Task) -> None:
    """Raise BadInput where the site's labels answer another question than `task`."""
    if site.task != task:
        raise BadInput(
            f"site {site.id}: its task is {_spell(site.task)}, the experiment's is {_spell(task)}; "
            "correct [task] in the experiment, or leave this site out"
        )


def require_declared(site: Site) -> None:
    """Raise BadInput where `nominal_patients` follows from the true count, so that it may not leave a private site."""
    if not site.nominal_declared:
        raise BadInput(
            f"site {site.id}: nominal_patients was rounded from its true count, which privacy must not let out; in its "
            "site.toml choose a number that may be published, and set nominal_declared = true"
        )


def require_spacing(site: Site, crop: Crop) -> None:
    """Raise BadInput where the crop's margin is in millimetres and an image of the site has no spacing."""
    if crop.region == "lesion" and crop.margin_mm is not None and None in site.spacings:
        row = site.spacings.index(None) + 2
        raise BadInput(
            f"site {site.id}: cases.csv row {row}: no {SPACING}, which crop.margin_mm needs; add it, or use crop.margin"
        )


def _spell(task: Task) -> str:
    return f"{task.name} with classes {', '.join(task.classes)} (positive: {task.positive})"


def read_table(path: Path, *, where: str) -> list[dict[str, str]]:
    """The rows of cases.csv, values stripped. Raises BadInput where columns are missing or a row has another length."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or ()
            if missing := [name for name in COLUMNS if name not in columns]:
                raise BadInput(f"{where}: column {missing[0]} is missing; it needs {', '.join(COLUMNS)}")
            if len(set(columns)) < len(columns):
                raise BadInput(f"{where}: two columns bear the same name; rename one")
            rows = list(reader)
    except FileNotFoundError:
        raise BadInput(f"{where} is missing; import the site again") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{where}: cannot be read as CSV in UTF-8 ({type(error).__name__}); save it so") from None
    if not rows:
        raise BadInput(f"{where} lists no case; import the site again")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise BadInput(f"{where} row {number}: not {len(columns)} values, as the header has; correct the row")
    return [{name: value.strip() for name, value in row.items()} for row in rows]


def _check_files(folder: Path, rows: Iterable[Mapping[str, str]], *, where: str) -> None:
    root = folder.resolve()
    for number, row in enumerate(rows, start=2):
        for kind in ("image", "mask"):
            name = row[kind]
            if not name and kind == "mask":
                continue
            if not name:
                raise BadInput(f"{where} row {number}: no image is named; correct the row")
            if not is_within(root, name):
                raise BadInput(f"{where} row {number}: the {kind} lies outside the site folder; import the site again")
            if not os.path.isfile(folder / name):  # False, not an error, for a name that no file can have
                raise BadInput(f"{where} row {number}: its {kind} is missing; restore it or import the site again")
            if not _SHA256.fullmatch(row[f"{kind}_sha256"]):
                raise BadInput(f"{where} row {number}: {kind}_sha256 is no SHA-256; import the site again")


def is_within(root: Path, name: str) -> bool:
    """Whether `name`, as cases.csv has it, is a relative path that stays inside the resolved folder `root`."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return False
    try:
        return (root / name).resolve().is_relative_to(root)
    except OSError:  # a name too long, a loop of links
        return False


def _check_sides(rows: Iterable[Mapping[str, str]], *, where: str) -> None:
    sides: dict[str, tuple[str, int]] = {}
    for number, row in enumerate(rows, start=2):
        if row["split"] not in SPLITS:
            raise BadInput(f"{where} row {number}: split {row['split']!r} is none of {', '.join(SPLITS)}")
        if not row["patient"]:
            raise BadInput(f"{where} row {number}: no patient is named; every image belongs to one")
        side, first = sides.setdefault(row["patient"], (row["split"], number))
        if side != row["split"]:
            raise BadInput(
                f"{where} row {number}: a patient on two sides of the split ({row['split']} here, "
                f"{side} in row {first}); put all images of a patient on one side"
            )


def _check_numbers(manifest: Manifest, rows: Iterable[Mapping[str, str]], *, where: str) -> None:
    """Covariates that the manifest declares exist, and those it calls numbers are numbers or empty."""
    for number, row in enumerate(rows, start=2):
        for name, kind in manifest.covariates.items():
            if name not in row:
                raise BadInput(f"{where}: the covariate {name!r} of site.toml is no column; correct one of the two")
            if kind == "number" and row[name] and not is_number(row[name]):
                raise BadInput(f"{where} row {number}: {name} is no number; correct it or leave it empty")
        if (spacing := row.get(SPACING)) and not (is_number(spacing) and float(spacing) > 0):
            raise BadInput(f"{where} row {number}: {SPACING} is no positive number; correct it or leave it empty")


def is_number(text: str) -> bool:
    """Whether a covariate's text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _assemble(folder: Path, manifest: Manifest, rows: list[dict[str, str]], *, role: Role, where: str) -> Site:
    boxes = tuple(_box(row["box"], where=f"{where} row {number}") for number, row in enumerate(rows, start=2))
    labels = _labels(rows, manifest.task, where=where)
    codes: dict[str, int] = {}
    patients = np.array([codes.setdefault(row["patient"], len(codes)) for row in rows], dtype=np.int64)
    positive = labels == manifest.task.positive_index
    for array in (labels, patients, positive):
        array.setflags(write=False)
    columns = {name: tuple(row[name] or None for row in rows) for name in rows[0]}
    return Site(
        folder=folder,
        id=manifest.id,
        task=manifest.task,
        role=role,
        nominal_patients=manifest.nominal_patients,
        split_seed=manifest.split_seed,
        artificial=manifest.artificial,
        policy=manifest.policy,
        images=tuple(row["image"] for row in rows),
        masks=columns["mask"],
        boxes=boxes,
        image_sha256=tuple(row["image_sha256"] for row in rows),
        mask_sha256=columns["mask_sha256"],
        labels=labels,
        positive=positive,
        patients=patients,
        pseudonyms=tuple(codes),
        splits=tuple(row["split"] for row in rows),
        devices=columns["device"],
        covariates=MappingProxyType({name: columns[name] for name in columns if name not in COLUMNS}),
        spacings=tuple(float(row[SPACING]) if row.get(SPACING) else None for row in rows),
        data_sha256=_data_sha256(manifest, rows, patients),
        nominal_declared=manifest.nominal_declared,
        kinds=MappingProxyType(dict(manifest.covariates)),
        levels=None if manifest.levels is None else MappingProxyType(dict(manifest.levels)),
    )


def _labels(rows: Iterable[Mapping[str, str]], task: Task, *, where: str) -> npt.NDArray[np.int64]:
    index = {name: code for code, name in enumerate(task.classes)}
    labels = []
    for number, row in enumerate(rows, start=2):
        if row["label"] not in index:
            raise BadInput(
                f"{where} row {number}: label {row['label']!r} is no class of the task {task.name} "
                f"({', '.join(task.classes)}){suggest(row['label'], task.classes)}"
            )
        labels.append(index[row["label"]])
    return np.array(labels, dtype=np.int64)


def _box(text: str, *, where: str) -> Box | None:
    try:
        return Box.parse(text) if text else None
    except ValueError:
        raise BadInput(f"{where}: box must be `x y w h` in whole pixels, or empty; correct it") from None


def _data_sha256(manifest: Manifest, rows: Sequence[Mapping[str, str]], patients: npt.NDArray[np.int64]) -> str:
    told = [name for name in (*COLUMNS, SPACING) if name in rows[0] and name not in ("image", "mask", "patient")]
    content = [[int(code), *(row[name] for name in told)] for code, row in zip(patients, rows, strict=True)]
    return hashlib.sha256(json.dumps([manifest.id, content]).encode()).hexdigest()

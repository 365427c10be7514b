"""LymphUs: cervical lymph nodes, benign or malignant, one archive for each center (Data in Brief 66:112694, 2026).

Members are `Center N/(Benign|Malignant)/<k> (Benign|Malignant) (Image.bmp|Mask.tif|Lesion.bmp)`; one .xlsx holds
sixteen features per node, joined on (Group, Image name). `Lesion` is image × mask and is not read.
"""

from __future__ import annotations

__all__ = ["FEATURES", "TASK", "lymphus"]

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from client.importers.archive import Archive, Member, open_archive
from client.importers.case import Case, Collection, Skipped
from client.importers.table import Row, as_number, excel_rows, typed_columns
from client.manifest import CovariateKind
from common.errors import BadInput
from common.tasks import Task

TASK = Task("lymph-node-malignancy", ("benign", "malignant"), "malignant")

FEATURES: Mapping[str, str] = {
    "Maximum diameter": "maximum_diameter_mm",
    "Minimum diameter": "minimum_diameter_mm",
    "Aspect ratio": "aspect_ratio",
    "Hypoechoic": "hypoechoic",
    "Hyperechoic": "hyperechoic",
    "Isoechoic": "isoechoic",
    "Homogeneity": "homogeneity",
    "Prominent Echogenicty (For Heterogeneous nodes)": "prominent_echogenicity",
    "Loss of fatty hilum/thinning of hilum": "loss_of_fatty_hilum",
    "Centrality": "centrality",
    "Microcalcifications": "microcalcifications",
    "Necrosis": "necrosis",
    "Margin1": "margin1",
    "Margin2": "margin2",
    "Internal component": "internal_component",
    "Intranodal cystic lesion": "intranodal_cystic_lesion",
}
"""The table's headers (the misspelling is theirs) and what the columns are called in cases.csv."""

_NUMBERS = ("Maximum diameter", "Minimum diameter", "Aspect ratio")
_DEVICES = {1: "Samsung RS80", 2: "AixPlorer Ultimate"}
_GROUPS = {"benign": "benign", "reactive": "benign", "malignant": "malignant", "metastatic": "malignant"}
_EXPECTED = "expected `Center N/Benign/1 Benign Image.bmp`, `… Mask.tif` and so on"

_CENTER = re.compile(r"center[ _-]?(\d{1,3})", re.IGNORECASE)
_FILE = re.compile(r"(\d{1,6}) (Benign|Malignant) (Image\.bmp|Mask\.tiff?|Lesion\.bmp)", re.IGNORECASE)

_Place = tuple[str, int]
"""A node of a center: class and number."""


class _Parts(NamedTuple):
    """A center's archive, sorted: members by what they are and by node, and the table's rows by node."""

    images: dict[_Place, Member]
    masks: dict[_Place, Member]
    rows: dict[_Place, Row]
    skipped: list[Skipped]


@contextmanager
def lymphus(source: Path, *, password_file: str | None = None) -> Iterator[list[Collection]]:
    """The centers in `source`, by number: a zip, an extracted folder, or a folder that holds several of either.

    Archives stay open inside the context. Raises BadInput.
    """
    with ExitStack() as stack:
        found: dict[int, Collection] = {}
        for place, path in enumerate(_archives(source), start=1):
            opened = open_archive(path, label=_label(path, place), password_file=password_file)
            archive = stack.enter_context(opened)
            number = _center_number(archive, path)
            if number in found:
                raise BadInput(f"{archive.label}: center {number} is there twice; leave one archive or folder of it")
            found[number] = _collect(archive, number)
        yield [found[number] for number in sorted(found)]


def _archives(source: Path) -> list[Path]:
    """The zips and folders, one for each center, that `source` is or holds."""
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give Center-1.zip or a folder that holds it")
    if not source.is_dir():
        return [source]
    inside = sorted(path for path in source.iterdir() if _CENTER.match(path.name))
    archives = [path for path in inside if path.is_dir() or path.suffix.lower() == ".zip"]
    return archives or [source]


def _label(path: Path, place: int) -> str:
    """How errors name an archive: by its center where the name says it, else by its place."""
    match = _CENTER.match(path.name)
    return f"archive center-{int(match[1])}" if match else f"archive {place}"


def _center_number(archive: Archive, path: Path) -> int:
    """The center that the folders inside name, else the archive's own name."""
    inside = {int(m[1]) for member in archive.paths for part in member.parts[:-1] if (m := _CENTER.fullmatch(part))}
    named = _CENTER.match(path.name)
    if len(inside) > 1:
        raise BadInput(f"{archive.label}: holds the centers {sorted(inside)}; give one archive or folder for each")
    numbers = inside or ({int(named[1])} if named else set())
    if not numbers or not any(_place(member) for member in archive.paths):
        raise BadInput(f"{archive.label}: not LymphUs: none of its {len(archive.paths)} files fits; {_EXPECTED}")
    number = numbers.pop()
    if named and int(named[1]) != number:
        raise BadInput(f"{archive.label}: its name says center {named[1]}, its folders say {number}; correct the name")
    return number


def _place(path: Path | object) -> tuple[_Place, str] | None:
    """The node and the kind of file (image, mask, lesion) that a member's path spells, else None."""
    parts = str(path).split("/")
    match = _FILE.fullmatch(parts[-1])
    if match is None or len(parts) < 2 or parts[-2].lower() not in ("benign", "malignant"):
        return None
    return (match[2].lower(), int(match[1])), match[3].split(".")[0].lower()


def _collect(archive: Archive, number: int) -> Collection:
    parts = _sort(archive)
    typed, kinds = _features(parts.rows, archive.label)
    cases = tuple(_case(number, place, parts, typed.get(place, {})) for place in sorted(parts.images))
    return Collection(
        site=f"center-{number}",
        task=TASK,
        namespace="lymphus",
        cases=cases,
        covariates=kinds,
        skipped=(*parts.skipped, *_unmatched(parts, archive.label)),
        image_formats=("BMP",),
        mask_formats=("TIFF",),
    )


def _sort(archive: Archive) -> _Parts:
    parts = _Parts({}, {}, {}, [])
    tables = []
    for member in archive.members():
        name = member.path.name
        if member.hidden:
            parts.skipped.append(Skipped(member.where, "a hidden file"))
        elif name.lower().endswith(".xlsx"):
            tables.append(member)
        elif (spelled := _place(member.path)) is None:
            parts.skipped.append(Skipped(member.where, "not a file of LymphUs"))
        else:
            _file(parts, member, *spelled)
    if len(tables) != 1:
        raise BadInput(f"{archive.label}: {len(tables)} tables (.xlsx) where one is expected; get the archive again")
    parts.rows.update(_table_rows(tables[0]))
    return parts


def _file(parts: _Parts, member: Member, place: _Place, kind: str) -> None:
    if member.path.parent.name.lower() != place[0]:
        raise BadInput(f"{member.where}: its name and its folder say different classes; correct one")
    if kind == "lesion":
        return
    chosen = parts.images if kind == "image" else parts.masks
    if place in chosen:
        raise BadInput(f"{member.where}: the same {kind} as member {chosen[place].number}; leave one of them")
    chosen[place] = member


def _table_rows(table: Member) -> dict[_Place, Row]:
    rows: dict[_Place, Row] = {}
    for row in excel_rows(table.read(), where=table.where, columns=("Image name", "Group", *FEATURES)):
        where = f"{table.where}, table row {row.number}"
        group = _GROUPS.get(row.values["Group"].lower())
        if group is None:
            raise BadInput(f"{where}: Group is none of {', '.join(_GROUPS)}; correct the table")
        if not re.fullmatch(r"\d{1,6}", row.values["Image name"]):
            raise BadInput(f"{where}: Image name is no whole number; correct the table")
        place = (group, int(row.values["Image name"]))
        if place in rows:
            raise BadInput(f"{where}: the same node as row {rows[place].number}; leave one of them")
        rows[place] = row
    return rows


def _features(rows: Mapping[_Place, Row], label: str) -> tuple[dict[_Place, dict[str, str]], dict[str, CovariateKind]]:
    """The sixteen features of each node under their names in cases.csv, and their kinds."""
    words = [header for header in FEATURES if header not in _NUMBERS]
    typed, kinds = typed_columns([row.values for row in rows.values()], words)
    for row, values in zip(rows.values(), typed, strict=True):
        for header in _NUMBERS:
            values[header] = as_number(row.values[header], where=f"{label}, table row {row.number}, {header}")
    named = [{name: values[header] for header, name in FEATURES.items()} for values in typed]
    all_kinds: dict[str, CovariateKind] = {
        name: "number" if header in _NUMBERS else kinds[header] for header, name in FEATURES.items()
    }
    return dict(zip(rows, named, strict=True)), all_kinds


def _case(number: int, place: _Place, parts: _Parts, features: dict[str, str]) -> Case:
    image = parts.images[place]
    if place not in parts.masks:
        raise BadInput(f"{image.where}: this image has no mask; get the archive again, or take the image out of it")
    label, k = place
    return Case(
        image=image,
        mask=parts.masks[place],
        patient=f"center {number}, {label} {k}",
        label=label,
        where=image.where,
        device=_DEVICES.get(number),
        covariates=features,
    )


def _unmatched(parts: _Parts, label: str) -> Iterable[Skipped]:
    for place, row in parts.rows.items():
        if place not in parts.images:
            yield Skipped(f"{label}, table row {row.number}", "no image of this node")
    for place, member in parts.masks.items():
        if place not in parts.images:
            yield Skipped(member.where, "a mask without its image")
    for place, member in parts.images.items():
        if place not in parts.rows:
            yield Skipped(f"{member.where}: its covariates", "no row of the table is about this node")

"""Collections become site folders: whole, under a hidden name, and renamed together at the end."""

from __future__ import annotations

__all__ = ["Progress", "write_sites"]

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from client.box import Box
from client.importers.case import Case, Collection, File, ImportSummary
from client.importers.journal import JOURNAL, Journal, Stored
from client.importers.splits import sides_of
from client.level_names import DEVICE, declarable
from client.manifest import Manifest, manifest_text
from client.pictures import mask_box, open_gray, open_mask, open_windowed, png_bytes
from client.pseudonyms import pseudonym, site_key
from client.site import COLUMNS, SPLITS
from client.staging import continued
from common.errors import BadInput, RunFailed
from common.files import sha256_bytes

Progress = Callable[[int, int], None]
"""Hears `(done, total)` of the images of all sites."""


def write_sites(
    collections: Sequence[Collection],
    parent: Path,
    *,
    split_seed: int,
    nominal_patients: int | None = None,
    progress: Progress | None = None,
) -> list[ImportSummary]:
    """Write `parent/<site-id>/` for each collection, all or none; a killed import goes on from the pictures it stored.

    `nominal_patients` is declared for each site; without it the true number is rounded and stands there as a proposal.

    Raises BadInput where a site is there already or a picture cannot be used, RunFailed where the disk refuses.
    """
    _check_targets(collections, parent)
    done, total = 0, sum(len(collection.cases) for collection in collections)

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    try:
        with continued(parent, name=f".importing-{_key(collections)}") as work:
            sides = [sides_of(collection, split_seed=split_seed) for collection in collections]
            stored = [_store_all(collection, work / collection.site, advance) for collection in collections]
            key = site_key(parent)  # made only now that nothing can be wrong with the source any more
            summaries = [
                _write_tables(
                    *parts, work / parts[0].site, key, split_seed=split_seed, nominal_patients=nominal_patients
                )
                for parts in zip(collections, stored, sides, strict=True)
            ]
            for collection in collections:
                (work / collection.site / JOURNAL).unlink()
            for collection in collections:
                os.rename(work / collection.site, parent / collection.site)
    except OSError as error:
        raise RunFailed(f"{parent}: cannot write ({error.strerror}); free space or check permissions") from None
    return [replace(summary, folder=parent / summary.site) for summary in summaries]


def _check_targets(collections: Sequence[Collection], parent: Path) -> None:
    if (parent / "site.toml").exists():
        raise BadInput(f"{parent}: is a site folder itself; give the folder that is to hold the sites")
    if parent.exists() and not parent.is_dir():
        raise BadInput(f"{parent}: is no folder; give the folder that is to hold the sites")
    for collection in collections:
        if (parent / collection.site).exists():
            raise BadInput(f"{parent}/{collection.site}: is there already; remove it or choose another --out")


def _key(collections: Sequence[Collection]) -> str:
    """Names the folder in which these sites grow; pictures in it are believed by their own checksums."""
    return sha256_bytes("\n".join(f"{c.namespace} {c.site}" for c in collections).encode())[:12]


def _store_all(collection: Collection, folder: Path, advance: Callable[[], None]) -> list[Stored]:
    """Fill `images/` and `masks/`, numbered in source order; what an earlier import stored is kept."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    stored = []
    with Journal(folder) as journal:
        for number, case in enumerate(collection.cases, start=1):
            stored.append(_store(collection, case, folder, f"{number:06d}.png", journal))
            advance()
    _remove_strays(folder, stored)
    return stored


def _remove_strays(folder: Path, stored: Sequence[Stored]) -> None:
    """An earlier import may have stored more pictures than there are now."""
    kept = {name for each in stored for name in (each.image, each.mask)}
    for path in (*(folder / "images").iterdir(), *(folder / "masks").iterdir()):
        if path.relative_to(folder).as_posix() not in kept:
            path.unlink()


def _write_tables(
    collection: Collection,
    stored: Sequence[Stored],
    sides: Mapping[str, str],
    folder: Path,
    key: bytes,
    *,
    split_seed: int,
    nominal_patients: int | None,
) -> ImportSummary:
    """Write the rest of a site folder; site.toml comes last, so that nothing before it looks like a site."""
    _remove_tables(folder)
    names = {patient: pseudonym(key, collection.namespace, patient) for patient in sides}
    rows = [
        _row(case, kept, names[case.patient], sides[case.patient], collection)
        for case, kept in zip(collection.cases, stored, strict=True)
    ]
    _write_private(collection, folder / "private", stored, names)
    _write_table(folder / "cases.csv", (*COLUMNS, *collection.covariates), rows)
    manifest = _manifest(collection, nominal_patients, len(sides), split_seed=split_seed)
    _write(folder / "site.toml", manifest_text(manifest).encode())
    return replace(_summary(collection, folder, sides), levels=manifest.levels or {})


def _remove_tables(folder: Path) -> None:
    """An import that was killed here left tables behind."""
    for name in ("site.toml", "cases.csv"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "private", ignore_errors=True)


def _store(collection: Collection, case: Case, folder: Path, name: str, journal: Journal) -> Stored:
    """Decode a case's image and mask, check that they fit, and write both as bare PNG."""
    source = [case.image.read(), *([case.mask.read()] if case.mask else []), _said(case)]
    if (earlier := journal.found(name, source)) is not None:
        return earlier
    image = _gray(source[0], case, collection)
    stored = Stored(f"images/{name}", _write_picture(folder / "images" / name, image), "", "", case.box)
    if case.mask is not None:
        mask = open_mask(source[1], where=case.mask.where, formats=collection.mask_formats)
        if mask.size != image.size:
            raise BadInput(
                f"{case.mask.where}: mask of {mask.size} and image of {image.size} pixels; they must be alike"
            )
        mask_sha256 = _write_picture(folder / "masks" / name, mask)
        stored = stored._replace(mask=f"masks/{name}", mask_sha256=mask_sha256, box=case.box or mask_box(mask))
    _check_box(case, stored.box, image)
    journal.add(name, source, stored)
    return stored


def _said(case: Case) -> bytes:
    """What the table says about a picture and the stored one follows."""
    return f"{case.box} {case.window}".encode()


def _gray(content: bytes, case: Case, collection: Collection) -> Image.Image:
    where, formats = case.image.where, collection.image_formats
    if case.window is None:
        return open_gray(content, where=where, formats=formats)
    return open_windowed(content, case.window, where=where, formats=formats)


def _check_box(case: Case, box: Box | None, image: Image.Image) -> None:
    if box is not None and not box.inside(image.size):
        raise BadInput(f"{case.where}: the box leaves the image of {image.size} pixels; correct it")


def _write_picture(path: Path, picture: Image.Image) -> str:
    content = png_bytes(picture)
    path.write_bytes(content)
    return sha256_bytes(content)


def _row(case: Case, stored: Stored, patient: str, side: str, collection: Collection) -> list[str]:
    box = "" if stored.box is None else str(stored.box)
    hashes = [stored.image_sha256, stored.mask_sha256]
    known = [stored.image, stored.mask, box, patient, case.label, side, case.device or "", *hashes]
    return [*known, *(case.covariates.get(name, "") for name in collection.covariates)]


def _write_private(collection: Collection, folder: Path, stored: Sequence[Stored], names: Mapping[str, str]) -> None:
    """names.csv: what each file and patient was called; skipped.csv: what was left out, and why;
    remarks.csv: the rest.
    """
    folder.mkdir(mode=0o700)
    links = (
        [kept.image, names[case.patient], case.patient, case.where, str(case.image.path), _path(case.mask)]
        for case, kept in zip(collection.cases, stored, strict=True)
    )
    header = ("image", "patient", "original_patient", "where", "original_image", "original_mask")
    _write_table(folder / "names.csv", header, links, mode=0o600)
    left_out = ([item.where, item.reason] for item in collection.skipped)
    _write_table(folder / "skipped.csv", ("where", "reason"), left_out, mode=0o600)
    if collection.remarks:
        remarks = ([item.where, item.reason] for item in collection.remarks)
        _write_table(folder / "remarks.csv", ("where", "remark"), remarks, mode=0o600)


def _path(file: File | None) -> str:
    return "" if file is None else str(file.path)


def _write_table(path: Path, header: Iterable[str], rows: Iterable[Sequence[str]], *, mode: int = 0o644) -> None:
    """Write a CSV row by row: what was left out may be a million rows."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(opened, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _manifest(collection: Collection, nominal_patients: int | None, patients: int, *, split_seed: int) -> Manifest:
    return Manifest(
        id=collection.site,
        task=collection.task,
        role=collection.role,
        purpose=collection.purpose,
        nominal_patients=nominal_patients or max(10, 10 * round(patients / 10)),
        nominal_declared=nominal_patients is not None,
        split_seed=split_seed,
        artificial=collection.artificial,
        covariates=dict(collection.covariates),
        levels=declarable(_named_values(collection), [case.patient for case in collection.cases]),
    )


def _named_values(collection: Collection) -> dict[str, list[str | None]]:
    """The devices, and the columns of categories, over images."""
    named = [name for name, kind in collection.covariates.items() if kind == "category"]
    columns = {name: [case.covariates.get(name) for case in collection.cases] for name in named}
    return {DEVICE: [case.device for case in collection.cases], **columns}


def _summary(collection: Collection, folder: Path, sides: Mapping[str, str]) -> ImportSummary:
    classes = Counter(case.label for case in collection.cases)
    images = Counter(sides[case.patient] for case in collection.cases)
    patients = Counter(sides.values())
    return ImportSummary(
        site=collection.site,
        folder=folder,
        images=len(collection.cases),
        patients=len(sides),
        classes={name: classes[name] for name in collection.task.classes},
        splits={side: images[side] for side in SPLITS},
        split_patients={side: patients[side] for side in SPLITS},
        skipped=len(collection.skipped),
        notes=collection.notes,
    )

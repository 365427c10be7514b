"""Class folders: `SOURCE/<class>/…/<image>`, or `SOURCE/(train|val|test)/<class>/…/<image>`, as a folder or a zip.

The classes are the folders' names, in sorted order; the last is the positive one unless `--task NAME:POSITIVE` says
otherwise. The patient is what the group `patient` of `--pattern` finds in an image's path inside SOURCE.
"""

from __future__ import annotations

__all__ = ["class_folders"]

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client.importers.archive import Archive, Member, open_archive
from client.importers.case import Case, Collection, Skipped
from client.importers.site_ids import given_site_id
from client.importers.splits import completed_split
from common.config import ImportOptions
from common.errors import BadInput, suggest
from common.tasks import Task

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MAX_CLASSES = 100
_NO_PATTERN = (
    "no --pattern: each image counts as a patient of its own, so splits and intervals are per image, and too good "
    "where a patient has several images"
)


@contextmanager
def class_folders(source: Path, options: ImportOptions) -> Iterator[list[Collection]]:
    """The one site of the images in `source`. Raises BadInput."""
    site = given_site_id(options.site, format="folder")
    pattern = _pattern(options.pattern)
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give the folder that holds one folder for each class")
    with open_archive(source, label="source", password_file=options.password_file) as archive:
        yield [_collection(site, archive, pattern, options.task)]


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"--pattern: no regular expression ({error}); such as '(?P<patient>P[0-9]+)_'") from None
    if "patient" not in pattern.groupindex:
        raise BadInput("--pattern: it has no group called patient; such as '(?P<patient>P[0-9]+)_'")
    return pattern


def _collection(site: str, archive: Archive, pattern: re.Pattern[str] | None, task: str | None) -> Collection:
    images, skipped = _images(archive)
    split = _has_split(images, archive.label)
    cases, classes = [], set()
    for member in images:
        side, inside = (
            (_SIDES[member.path.parts[0].lower()], member.path.parts[1:]) if split else (None, member.path.parts)
        )
        if len(inside) < 2:
            skipped.append(Skipped(member.where, "in no class folder"))
            continue
        classes.add(inside[0])
        patient = _patient(member, pattern)
        if patient is None:
            skipped.append(Skipped(member.where, "the pattern finds no patient in its path"))
            continue
        cases.append(Case(member, None, patient, inside[0], member.where, split=side))
    asked = _task(sorted(classes), task, archive.label)
    if not cases:
        raise BadInput(f"--pattern: finds no patient in any of {len(images)} paths; it is searched inside SOURCE")
    completed, notes = completed_split(cases)
    return Collection(
        site=site,
        task=asked,
        namespace="folder",
        cases=tuple(completed),
        covariates={},
        skipped=tuple(skipped),
        image_formats=_FORMATS,
        notes=(*notes, *([_NO_PATTERN] if pattern is None else [])),
    )


def _images(archive: Archive) -> tuple[list[Member], list[Skipped]]:
    images, skipped = [], []
    for member in archive.members():
        if any(part.startswith((".", "__MACOSX")) for part in member.path.parts):
            skipped.append(Skipped(member.where, "a hidden file"))
        elif member.path.suffix.lower() not in _ENDINGS:
            skipped.append(Skipped(member.where, "no image (png, jpg, bmp or tif)"))
        elif len(member.path.parts) < 2:
            skipped.append(Skipped(member.where, "in no class folder"))
        else:
            images.append(member)
    if not images:
        raise BadInput(
            f"{archive.label}: no image in any class folder; expected SOURCE/<class>/<image>.png and the like"
        )
    return images, skipped


def _has_split(images: Sequence[Member], label: str) -> bool:
    """Whether the top folders are the sides of a split; all of them must be, or none."""
    others = [member for member in images if member.path.parts[0].lower() not in _SIDES]
    if others and len(others) < len(images):
        raise BadInput(
            f"{label}: folders train, val or test stand beside class folders ({others[0].where}); put every class "
            "folder inside one of them, or none"
        )
    return not others


def _patient(member: Member, pattern: re.Pattern[str] | None) -> str | None:
    """The original id: what the pattern finds in the path, or the path itself; None where the pattern finds nothing."""
    if pattern is None:
        return str(member.path)
    found = pattern.search(str(member.path))
    return (found["patient"] or None) if found else None


def _task(classes: Sequence[str], text: str | None, label: str) -> Task:
    folded: dict[str, str] = {}
    for name in classes:
        if folded.setdefault(name.casefold(), name) != name:
            raise BadInput(f"{label}: two class folders differ only in upper and lower case; put their images together")
    if not 2 <= len(classes) <= _MAX_CLASSES:
        raise BadInput(f"{label}: {len(classes)} class folders; a task needs 2 to {_MAX_CLASSES}, each with images")
    name, _, positive = (text or "class").partition(":")
    if positive and positive not in classes:
        raise BadInput(f"--task: {positive!r} is no class folder{suggest(positive, classes)}")
    return Task(name or "class", tuple(classes), positive or classes[-1])

"""SMC-LUD: liver ultrasound, hepatocellular carcinoma or hemangioma (Sci Data 13:649, 2026).

`clean_ver_for_train/{train,val,test}_clean/{HCC,Hemangioma}/<images>` are free of calipers and become the site
`smc-clean`, on their official sides. Images of `original_data/` and `split_for_train/{train,val,test}/…` that are not
among them become `smc-caliper`, a held-out site: calipers give the label away, so a model trained on Clean is evaluated
there to see whether it takes the shortcut, and no model ever trains there. That test is called `caliper-shortcut`, and
site.toml says so as the site's `purpose`.

The same image in two folders is recognised by class and file name, else by its content. Patients come from a table of
the user's, from a pattern, or (without either) each image is a patient of its own. Tumour size and pT stage are known
for HCC only, so they give the label away: they are covariates to describe cases by, not inputs. There are neither masks
nor boxes: train with `crop.region = "frame"`.
"""

from __future__ import annotations

__all__ = ["SHORTCUT_TEST", "TASK", "smclud"]

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from client.importers.archive import Archive, Member, open_archive
from client.importers.case import Case, Collection, Skipped
from client.importers.smclud_patients import Patients, patients_of
from common.errors import BadInput
from common.files import sha256_bytes
from common.tasks import Task

TASK = Task("liver-lesion-malignancy", ("hemangioma", "hcc"), "hcc")
SHORTCUT_TEST = "caliper-shortcut"
"""The purpose of smc-caliper: a model trained on Clean is evaluated on images with calipers."""

_TREES = ("original_data", "split_for_train", "clean_ver_for_train")
_SIDE = re.compile(r"(train|val|valid|validation|test)(?:_clean)?", re.IGNORECASE)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_EXPECTED = "expected clean_ver_for_train/{train,val,test}_clean/{HCC,Hemangioma}/<images>"


class _Image(NamedTuple):
    """An image: its file, its class, and its official side where its folders name one."""

    member: Member
    label: str
    side: str | None

    @property
    def name(self) -> tuple[str, str]:
        return self.label, unicodedata.normalize("NFC", self.member.path.name).casefold()


@dataclass(frozen=True, eq=False)
class _Tree:
    """The images of one of the three folders, and which of them is the same as an image of another folder.

    A name that a class has twice in the folder says nothing. Content is read where lengths agree, and once: `hashes`
    are the SHA-256 of what was read of the archive, by member number.
    """

    images: Sequence[_Image]
    hashes: dict[int, str]
    _names: dict[tuple[str, str], list[_Image]] = field(init=False, default_factory=dict)
    _sizes: dict[tuple[str, int], list[_Image]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for image in self.images:
            self._names.setdefault(image.name, []).append(image)
            self._sizes.setdefault((image.label, image.member.size), []).append(image)

    def twin(self, image: _Image) -> _Image | None:
        """The image of this tree that is `image`, by name, else by content."""
        named = self._names.get(image.name, [])
        if len(named) == 1:
            return named[0]
        alike = self._sizes.get((image.label, image.member.size), [])
        return next((other for other in alike if self._hash(other) == self._hash(image)), None)

    def _hash(self, image: _Image) -> str:
        number = image.member.number
        if number not in self.hashes:
            self.hashes[number] = sha256_bytes(image.member.read())
        return self.hashes[number]


@contextmanager
def smclud(
    source: Path, *, patients: str | None = None, pattern: str | None = None, password_file: str | None = None
) -> Iterator[list[Collection]]:
    """The sites smc-clean and, where there are such images, smc-caliper. Raises BadInput.

    `patients` is the path of a table (CSV or Excel), `pattern` a regular expression with a group `patient`.
    """
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give the zip or folder that holds clean_ver_for_train")
    known = patients_of(patients, pattern)
    with open_archive(source, label="archive smclud", password_file=password_file) as archive:
        yield _collections(archive, known)


def _collections(archive: Archive, patients: Patients) -> list[Collection]:
    trees, skipped = _sort(archive)
    hashes: dict[int, str] = {}
    clean, split = _Tree(trees["clean_ver_for_train"], hashes), _Tree(trees["split_for_train"], hashes)
    if not clean.images:
        raise BadInput(f"{archive.label}: none of its {len(archive.paths)} files fits; {_EXPECTED}")
    pool = _pool(trees["original_data"], split)
    twins = [_clean_twin(image, clean, split) for image in pool]
    caliper = [image for image, twin in zip(pool, twins, strict=True) if twin is None]
    unlike = sum(
        twin is not None and twin.member.size != image.member.size for image, twin in zip(pool, twins, strict=True)
    )
    clean_cases = _cases(clean.images, patients, skipped)
    if not clean_cases:
        raise BadInput(
            f"{archive.label}: none of its {len(clean.images)} clean images has a patient; {patients.expected}"
        )
    caliper_cases = _cases(_sided(caliper, clean_cases, patients), patients, skipped)
    skipped += patients.left_over()
    collections = [_collection("smc-clean", clean_cases, patients, skipped, patients.notes(clean_cases))]
    if caliper_cases:
        notes = (*patients.notes(caliper_cases), *_caliper_notes(caliper_cases, clean_cases, caliper, unlike=unlike))
        collections.append(_collection("smc-caliper", caliper_cases, patients, [], notes))
    return collections


def _collection(
    site: str, cases: Sequence[Case], patients: Patients, skipped: Sequence[Skipped], notes: tuple[str, ...]
) -> Collection:
    held_out = site == "smc-caliper"
    return Collection(
        site=site,
        task=TASK,
        namespace="smclud",
        cases=tuple(cases),
        covariates=patients.kinds,
        skipped=tuple(skipped),
        image_formats=_FORMATS,
        role="held-out" if held_out else "train",
        purpose=SHORTCUT_TEST if held_out else None,
        notes=(*notes, 'neither masks nor boxes: train with crop.region = "frame"'),
        remarks=() if held_out else patients.remarks,
    )


def _sort(archive: Archive) -> tuple[dict[str, list[_Image]], list[Skipped]]:
    """The images of each tree, in the order of their paths, and what is none."""
    trees: dict[str, list[_Image]] = {tree: [] for tree in _TREES}
    skipped = []
    for member in sorted(archive.members(), key=lambda member: str(member.path)):
        folders = [part.casefold() for part in member.path.parts[:-1]]
        tree = next((part for part in folders if part in _TREES), None)
        if member.hidden:
            skipped.append(Skipped(member.where, "a hidden file"))
        elif tree is None or member.path.suffix.lower() not in _SUFFIXES:
            skipped.append(Skipped(member.where, "not an image of SMC-LUD"))
        elif isinstance(image := _image(member, tree, folders[folders.index(tree) + 1 :]), str):
            skipped.append(Skipped(member.where, image))
        else:
            trees[tree].append(image)
    return trees, skipped


def _image(member: Member, tree: str, folders: Sequence[str]) -> _Image | str:
    """What the folders below the tree say about an image, or why they do not say enough."""
    classes = {folder for folder in folders if folder in TASK.classes}
    if len(classes) != 1:
        return "its folders name no class" if not classes else "its folders name two classes"
    sides = {match[1].lower() for folder in folders if (match := _SIDE.fullmatch(folder))}
    if tree != "original_data" and len(sides) != 1:
        return "its folders name no side of the split" if not sides else "its folders name two sides of the split"
    side = sides.pop() if tree != "original_data" else None
    return _Image(member, classes.pop(), "val" if side and side.startswith("val") else side)


def _pool(originals: Iterable[_Image], split: _Tree) -> list[_Image]:
    """The images of original_data, on their side where split_for_train has them,
    and what is in split_for_train alone.
    """
    pool, seen = [], set()
    for image in originals:
        twin = split.twin(image)
        pool.append(image if twin is None else image._replace(side=twin.side))
        if twin is not None:
            seen.add(twin.member.number)
    return pool + [image for image in split.images if image.member.number not in seen]


def _clean_twin(image: _Image, clean: _Tree, split: _Tree) -> _Image | None:
    """The image of Clean that is `image`, also under the name that split_for_train knows it by."""
    if (found := clean.twin(image)) is not None:
        return found
    known = split.twin(image)
    return None if known is None else clean.twin(known)


def _sided(images: Sequence[_Image], clean: Sequence[Case], patients: Patients) -> list[_Image]:
    """Images that no split names go where their patient is, else to test: a held-out site tests on all it has."""
    sides = {case.patient: case.split for case in clean}
    sides |= {patient: image.side for image in images if image.side and (patient := patients.of(image.member))}
    return [
        image if image.side else image._replace(side=sides.get(patients.of(image.member) or "") or "test")
        for image in images
    ]


def _cases(images: Iterable[_Image], patients: Patients, skipped: list[Skipped]) -> list[Case]:
    cases = []
    for image in images:
        patient = patients.of(image.member)
        if patient is None:
            skipped.append(Skipped(image.member.where, patients.why_none))
            continue
        cases.append(
            Case(
                image=image.member,
                mask=None,
                patient=patient,
                label=image.label,
                where=image.member.where,
                split=image.side,
                covariates=patients.covariates(image.member),
            )
        )
    return cases


def _caliper_notes(
    caliper: Sequence[Case], clean: Sequence[Case], images: Sequence[_Image], *, unlike: int
) -> Iterator[str]:
    yield f"held out, never trained on: the test {SHORTCUT_TEST} evaluates a model of smc-clean here"
    mine = {case.patient for case in caliper}
    if both := mine & {case.patient for case in clean if case.split != "test"}:
        yield (
            f"{len(both)} of {len(mine)} patients also have images on the train or val side of smc-clean: "
            "here a model may know the patient as well as the calipers"
        )
    if lost := sum(image.side is None for image in images):
        yield f"{lost} images are in no official split: they are on the side of their patient, else on test"
    if unlike:
        yield (
            f"{unlike} images bear the class and name of a clean image but are other files: "
            "they were taken for the same image and left out"
        )

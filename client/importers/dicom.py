"""Ultrasound DICOM as a hospital exports it: class folders, or a labels.csv, as a folder or a zip.

`SOURCE/<class>/…/<file>` or `SOURCE/(train|val|test)/<class>/…/<file>`; or `SOURCE/labels.csv` with the column `label`,
one of `sop_instance_uid`, `file` (the path beside labels.csv) and `patient_id`, and `split` where there is one. Files
are known by their content, whatever they are called. Of a file with several frames at most 5 are taken, evenly spaced,
the middle one among them: neighbours in a loop show the same, and a long loop must not outweigh the other patients.
"""

from __future__ import annotations

__all__ = ["FRAMES_TAKEN", "dicom"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydicom.dataset import Dataset

from client.importers.archive import MAX_MEMBER_BYTES, Archive, Member, open_archive
from client.importers.case import Case, Collection, Skipped
from client.importers.dicom_decoder import Decoder
from client.importers.dicom_file import Found, LeftOut, parsed, ultrasound
from client.importers.dicom_pixels import gray_frame
from client.importers.site_ids import given_site_id
from client.importers.table import csv_rows
from client.manifest import CovariateKind
from common.config import ImportOptions
from common.errors import BadInput, suggest
from common.tasks import Task

FRAMES_TAKEN = 5
"""Most frames of one file that become images."""

_COVARIATES: Mapping[str, CovariateKind] = {"age": "number", "sex": "category", "spacing_mm": "number"}
_TABLE = "labels.csv"
_KEYS = ("sop_instance_uid", "file", "patient_id")
_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MAX_CLASSES = 100
_MANY = 5
"""From so many class folders on, one patient in each looks like folders of patients."""


class _Label(NamedTuple):
    """What a folder or a row says of a file."""

    name: str
    split: str | None


_Labeller = Callable[[Member, Found], _Label]
"""Gives a file's label. Raises LeftOut where it has none."""


@contextmanager
def dicom(source: Path, options: ImportOptions) -> Iterator[list[Collection]]:
    """The one site of the ultrasound files in `source`. Raises BadInput."""
    site = given_site_id(options.site, format="dicom")
    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; give the folder that holds one folder for each class")
    with (
        open_archive(source, label="source", password_file=options.password_file, any_size=True) as archive,
        closing(_Pictures()) as pictures,
    ):
        yield [_collection(site, archive, options.task, pictures)]


@dataclass
class _Pictures:
    """The file that was read last, so that its frames share one reading; and the decoder's process."""

    decoder: Decoder = field(default_factory=Decoder)
    _last: tuple[Member, Dataset] | None = None

    def dataset(self, member: Member) -> Dataset:
        """The file, with its picture still compressed. Raises BadInput."""
        if self._last is None or self._last[0] is not member:
            self._last = None
            try:
                self._last = (member, parsed(member.read(), where=member.where, pixels=True))
            except LeftOut as left:
                raise BadInput(f"{member.where}: {left}") from None
        return self._last[1]

    def close(self) -> None:
        """End the decoder's process."""
        self._last = None
        self.decoder.close()


@dataclass(frozen=True)
class _Frame(Member):
    """One frame of a file, read as a gray picture (PGM). `index` counts from 0."""

    file: Member
    found: Found
    index: int
    pictures: _Pictures

    @property
    def where(self) -> str:
        """How an error or private/ names this frame."""
        return self.file.where + (f", frame {self.index + 1}" if self.found.frames > 1 else "")

    def read(self) -> bytes:
        """The frame, decoded and cut to its region. Raises BadInput where it is damaged."""
        dataset, region = self.pictures.dataset(self.file), self.found.region
        gray = gray_frame(dataset, self.index, region=region, decoder=self.pictures.decoder, where=self.where)
        height, width = gray.shape
        return b"P5 %d %d 255\n" % (width, height) + gray.tobytes()


def _collection(site: str, archive: Archive, task: str | None, pictures: _Pictures) -> Collection:
    files, skipped = _headers(archive)
    tables = [member for member in archive.members() if _is_table(member)]
    labeller = _by_table(tables) if tables else _by_folder([member for member, _ in files], archive.label)
    cases: list[Case] = []
    labels: dict[str, _Label] = {}
    first: dict[str, Member] = {}
    for member, found in files:
        try:
            label = labeller(member, found)
            _check_once(member, found, label, first, labels)
        except LeftOut as left:
            skipped.append(Skipped(member.where, str(left)))
            continue
        cases += _cases(member, found, label, pictures)
        if (others := found.frames - FRAMES_TAKEN) > 0:
            skipped.append(Skipped(member.where, f"{others} of its {found.frames} frames; {FRAMES_TAKEN} are taken"))
    _check_folders_are_classes(cases, archive.label, by_table=bool(tables))
    return Collection(
        site=site,
        task=_task(sorted({case.label for case in cases}), task, archive.label),
        namespace="dicom",
        cases=tuple(cases),
        covariates=_COVARIATES,
        skipped=tuple(skipped),
        image_formats=("PPM",),
    )


def _headers(archive: Archive) -> tuple[list[tuple[Member, Found]], list[Skipped]]:
    """The usable files with what their headers say, and the others. Raises BadInput where a file is damaged."""
    files, skipped = [], []
    for member in archive.members():
        if any(part.startswith((".", "__MACOSX")) for part in member.path.parts):
            skipped.append(Skipped(member.where, "a hidden file"))
            continue
        if _is_table(member):
            continue
        if member.size > MAX_MEMBER_BYTES:
            skipped.append(Skipped(member.where, f"larger than {MAX_MEMBER_BYTES >> 20} MiB; export fewer frames"))
            continue
        try:
            files.append((member, ultrasound(member.read(), where=member.where)))
        except LeftOut as left:
            skipped.append(Skipped(member.where, str(left)))
    if not files:
        reasons = f"; {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise BadInput(f"{archive.label}: no ultrasound picture among its {len(archive.paths)} files{reasons}")
    return files, skipped


def _is_table(member: Member) -> bool:
    return member.path.name.lower() == _TABLE


def _by_folder(files: Sequence[Member], label: str) -> _Labeller:
    """Labels from class folders, below what all files have in common."""
    root = _common_root([member.path for member in files])
    sided = [member for member in files if len(inside := _inside(member, root)) > 1 and inside[0].lower() in _SIDES]
    if sided and len(sided) < len(files):
        stray = next(member for member in files if member not in sided)
        raise BadInput(
            f"{label}: folders train, val or test stand beside other files ({stray.where}); put every class folder "
            "inside one of them, or none"
        )

    def labeller(member: Member, _found: Found) -> _Label:
        inside = _inside(member, root)
        side, inside = (_SIDES[inside[0].lower()], inside[1:]) if sided else (None, inside)
        if len(inside) < 2:
            raise LeftOut("in no class folder")
        return _Label(inside[0], side)

    return labeller


def _inside(member: Member, root: int) -> tuple[str, ...]:
    return member.path.parts[root:]


def _common_root(paths: Sequence[PurePosixPath]) -> int:
    """How many folders all paths share, such as the one that a zip wraps; the sides of a split are not counted."""
    low, high = (chosen(path.parts[:-1] for path in paths) for chosen in (min, max))
    shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))]
    return next((depth for depth, part in enumerate(shared) if part.lower() in _SIDES), len(shared))


def _by_table(tables: Sequence[Member]) -> _Labeller:
    """Labels from labels.csv."""
    if len(tables) > 1:
        raise BadInput(f"{tables[1].where}: a second {_TABLE}; leave one of them")
    (table,) = tables
    rows: dict[str, _Label] = {}
    key = ""
    for row in csv_rows(table.read(), where=table.where, columns=("label",)):
        where = f"{table.where}, table row {row.number}"
        key = key or _key(row.values, table.where)
        told = _Label(row.values["label"], row.values.get("split") or None)
        name = row.values.get(key, "").replace("\\", "/")
        if not name or not told.name:
            raise BadInput(f"{where}: {key} or label is empty; correct the table")
        if rows.setdefault(name, told) != told:
            raise BadInput(f"{where}: an earlier row says something else of the same {key}; leave one of them")
    if not rows:
        raise BadInput(f"{table.where}: the table has no row; write one for each file")
    folder = table.path.parent

    def labeller(member: Member, found: Found) -> _Label:
        beside = str(member.path.relative_to(folder)) if member.path.is_relative_to(folder) else ""
        name = {"sop_instance_uid": found.uid, "file": beside, "patient_id": found.patient}[key]
        if name.replace("\\", "/") not in rows:
            raise LeftOut(f"no row of {_TABLE} names it")
        return rows[name.replace("\\", "/")]

    return labeller


def _key(values: Mapping[str, str], where: str) -> str:
    """The column that says which file a row is about."""
    there = [name for name in _KEYS if name in values]
    if len(there) != 1:
        raise BadInput(f"{where}: {len(there)} of the columns {', '.join(_KEYS)} where one is expected; leave one")
    return there[0]


def _check_once(
    member: Member, found: Found, label: _Label, first: dict[str, Member], labels: dict[str, _Label]
) -> None:
    """Raise LeftOut where the same picture was there before, BadInput where it bore another label."""
    if not found.uid:
        return
    if found.uid not in first:
        first[found.uid], labels[found.uid] = member, label
        return
    if labels[found.uid] != label:
        raise BadInput(
            f"{member.where}: the picture of member {first[found.uid].number} under another label; leave one of them"
        )
    raise LeftOut(f"the picture of member {first[found.uid].number} once more")


def _cases(member: Member, found: Found, label: _Label, pictures: _Pictures) -> list[Case]:
    """The frames that are taken of a file: all where they are few, else the middles of equal parts."""
    taken = min(found.frames, FRAMES_TAKEN)
    frames = [
        _Frame(
            member.archive,
            member.number,
            member.path,
            member,
            found,
            (2 * k + 1) * found.frames // (2 * taken),
            pictures,
        )
        for k in range(taken)
    ]
    return [
        Case(
            image=frame,
            mask=None,
            patient=found.patient,
            label=label.name,
            where=frame.where,
            split=label.split,
            device=found.device,
            covariates=found.covariates,
        )
        for frame in frames
    ]


def _check_folders_are_classes(cases: Sequence[Case], label: str, *, by_table: bool) -> None:
    """Raise BadInput where class folders look like folders of patients: their names would become public."""
    patients: dict[str, set[str]] = {}
    private: set[str] = set()
    for case in cases:
        patients.setdefault(case.label, set()).add(case.patient)
        assert isinstance(case.image, _Frame)
        private |= {_folded(case.patient), _folded(case.image.found.name)} - {""}
    alone = len(patients) >= _MANY and all(len(own) == 1 for own in patients.values())
    if not by_table and (alone or private & {_folded(name) for name in patients}):
        raise BadInput(f"{label}: its folders are patients, not classes; expected SOURCE/<class>/…, or a {_TABLE}")


def _folded(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _task(classes: Sequence[str], text: str | None, label: str) -> Task:
    """The classes in sorted order; the last is positive unless `text` says otherwise (`NAME:POSITIVE`)."""
    if not 2 <= len(classes) <= _MAX_CLASSES:
        some = len(classes) if len(classes) > 1 else "fewer than 2"
        raise BadInput(
            f"{label}: usable pictures of {some} classes; a task needs 2 to {_MAX_CLASSES}, as SOURCE/<class>/… or in "
            f"{_TABLE}"
        )
    if odd := [name for name in classes if not name.isprintable() or len(name) > 64]:
        raise BadInput(f"{label}: class {classes.index(odd[0]) + 1} has a name of odd characters; give it a plain one")
    folded: dict[str, str] = {}
    for name in classes:
        if folded.setdefault(name.casefold(), name) != name:
            raise BadInput(f"{label}: two classes differ only in upper and lower case; put their pictures together")
    name, _, positive = (text or "class").partition(":")
    if positive and positive not in classes:
        raise BadInput(f"--task: {positive!r} is no class{suggest(positive, classes)}")
    return Task(name or "class", tuple(classes), positive or classes[-1])

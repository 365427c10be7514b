"""What an importer finds out before any picture is read, and what an import reports."""

from __future__ import annotations

__all__ = ["Case", "Collection", "File", "ImportSummary", "LeftOut", "Skipped"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from client.box import Box
from client.manifest import CovariateKind, Role
from common.tasks import Task


class File(Protocol):
    """A file of a source: its path inside (never to be shown), how errors name it, and its content."""

    @property
    def path(self) -> PurePosixPath: ...

    @property
    def where(self) -> str: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class Case:
    """One image, as its source names it. `patient` is the original id: only the site's private/ may hold it.

    `split` is the official side, or `splits.DEVELOPMENT`, None where there is none. `where` names the case in errors,
    by number. A covariate that is absent is left out. `window` is the lowest and the highest Hounsfield unit to be
    shown, of a 16-bit CT slice; None where the image is gray already.
    """

    image: File
    mask: File | None
    patient: str
    label: str
    where: str
    box: Box | None = None
    split: str | None = None
    device: str | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Skipped:
    """A row or file that was left out, or is remarkable: where it stands (by number), and why."""

    where: str
    reason: str


class LeftOut(Protocol):
    """All that was left out of a site, in memory (a tuple) or spooled to disk."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Skipped]: ...


@dataclass(frozen=True)
class Collection:
    """The cases of one site to be, in source order.

    `namespace` keeps apart patients of different data sets that bear the same id. `image_formats` and `mask_formats`
    are PIL's names of what the files may be. `artificial`: cut from one center for an experiment. `purpose` is what a
    held-out site is for, where it has a name. `notes` are sentences that whoever imports must read; `remarks` say by
    row what else was noticed, and go to private/remarks.csv.
    """

    site: str
    task: Task
    namespace: str
    cases: tuple[Case, ...]
    covariates: Mapping[str, CovariateKind]
    skipped: LeftOut = ()
    image_formats: tuple[str, ...] = ("PNG",)
    mask_formats: tuple[str, ...] = ("PNG",)
    role: Role = "train"
    purpose: str | None = None
    artificial: bool = False
    notes: tuple[str, ...] = ()
    remarks: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class ImportSummary:
    """What was taken: `classes` and `splits` count images, `split_patients` patients, `skipped` what was left out.

    `notes` are sentences that whoever imports must read; `levels` the names, by column, that `site.toml` now lets out
    as names of groups of patients.
    """

    site: str
    folder: Path
    images: int
    patients: int
    classes: Mapping[str, int]
    splits: Mapping[str, int]
    split_patients: Mapping[str, int]
    skipped: int
    notes: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

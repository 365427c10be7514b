"""What an importer finds out before any picture is read, and what an import reports."""

from __future__ import annotations

__all__ = ["Case", "Collection", "ImportSummary", "Skipped"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from client.box import Box
from client.importers.archive import Member
from client.manifest import CovariateKind, Role
from common.tasks import Task


@dataclass(frozen=True)
class Case:
    """One image, as its source names it. `patient` is the original id: only the site's private/ may hold it.

    `split` is the official side, None where there is none. `where` names the case in errors, by number. A covariate
    that is absent is left out.
    """

    image: Member
    mask: Member | None
    patient: str
    label: str
    where: str
    box: Box | None = None
    split: str | None = None
    device: str | None = None
    covariates: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A row or file that was left out, or is remarkable: where it stands (by number), and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The cases of one site to be, in source order.

    `namespace` keeps apart patients of different data sets that bear the same id. `image_formats` and `mask_formats`
    are PIL's names of what the files may be. `purpose` is what a held-out site is for, where it has a name. `notes` are
    sentences for whoever imports; `remarks` say by row what else was noticed, and go to private/remarks.csv.
    """

    site: str
    task: Task
    namespace: str
    cases: tuple[Case, ...]
    covariates: Mapping[str, CovariateKind]
    skipped: tuple[Skipped, ...] = ()
    image_formats: tuple[str, ...] = ("PNG",)
    mask_formats: tuple[str, ...] = ("PNG",)
    role: Role = "train"
    purpose: str | None = None
    notes: tuple[str, ...] = ()
    remarks: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class ImportSummary:
    """What was taken: `classes` and `splits` count images, `split_patients` patients, `skipped` what was left out.

    `notes` are sentences about the data that whoever imports must know.
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

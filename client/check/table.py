"""cases.csv read with patience: what `load_site` stops at becomes a finding here, and the rest is still looked at."""

from __future__ import annotations

__all__ = ["Cases", "check_loading", "check_table", "read_cases"]

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from client.box import Box
from client.check.finding import Finding, found
from client.manifest import Manifest, load_manifest
from client.site import SPLITS, is_number, load_site, read_table
from common.errors import BadInput

_SCARCE = 5
"""Patients of a class on a side below which numbers about it say little."""


@dataclass(frozen=True, eq=False)
class Cases:
    """The rows of cases.csv; sequences run over them. What a row says wrongly or not at all is None.

    `labels` are indices of the task's classes, `patients` codes in order of first appearance. `sides` heed the role: at
    a held-out site all are test.
    """

    folder: Path
    manifest: Manifest
    rows: tuple[Mapping[str, str], ...]
    labels: tuple[int | None, ...]
    sides: tuple[str | None, ...]
    patients: tuple[int | None, ...]
    boxes: tuple[Box | None, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def used_sides(self) -> tuple[str, ...]:
        """The sides of the split that this site's role has."""
        return ("test",) if self.manifest.role == "held-out" else SPLITS

    def device(self, case: int) -> str:
        """The device, or the empty string."""
        return self.rows[case]["device"]

    def patients_of(self, cases: Iterator[int] | list[int]) -> set[int]:
        """The patients that these cases belong to."""
        return {patient for case in cases if (patient := self.patients[case]) is not None}


def read_cases(folder: Path) -> Cases:
    """Read a site's tables. Raises BadInput where there is no site, or no table to speak of."""
    manifest = load_manifest(folder)
    rows = read_table(folder / "cases.csv", where=f"site {manifest.id}: cases.csv")
    index = {name: code for code, name in enumerate(manifest.task.classes)}
    codes: dict[str, int] = {}
    held_out = manifest.role == "held-out"
    return Cases(
        folder=folder,
        manifest=manifest,
        rows=tuple(rows),
        labels=tuple(index.get(row["label"]) for row in rows),
        sides=tuple("test" if held_out else row["split"] if row["split"] in SPLITS else None for row in rows),
        patients=tuple(codes.setdefault(row["patient"], len(codes)) if row["patient"] else None for row in rows),
        boxes=tuple(_box(row["box"]) for row in rows),
    )


def _box(text: str) -> Box | None:
    try:
        return Box.parse(text) if text else None
    except ValueError:
        return None


def check_table(cases: Cases) -> list[Finding]:
    """Labels, splits, patients, boxes' spelling and covariates."""
    every = range(len(cases))
    rows = cases.rows
    return [
        *found("label", (case for case in every if cases.labels[case] is None)),
        *found("split", (case for case in every if rows[case]["split"] not in SPLITS)),
        *found("patient-missing", (case for case in every if cases.patients[case] is None)),
        *found("box-unread", (case for case in every if rows[case]["box"] and cases.boxes[case] is None)),
        *found("no-region", (case for case in every if not rows[case]["box"] and not rows[case]["mask"])),
        *_patients(cases),
        *_classes(cases),
        *_covariates(cases),
    ]


def check_loading(cases: Cases, findings: list[Finding]) -> list[Finding]:
    """What `load_site` still refuses after all else was found in order."""
    if any(finding.level == "error" for finding in findings):
        return []
    try:
        load_site(cases.folder)
    except BadInput as error:
        return [Finding("site", str(error))]
    return []


def _patients(cases: Cases) -> list[Finding]:
    """A patient's rows must agree on the split, whatever the role; they may differ in the label."""
    together: dict[int, list[int]] = defaultdict(list)
    for case, patient in enumerate(cases.patients):
        if patient is not None:
            together[patient].append(case)
    torn = [tuple(group) for group in together.values() if len({cases.rows[case]["split"] for case in group}) > 1]
    mixed = [tuple(group) for group in together.values() if len({cases.labels[case] for case in group}) > 1]
    return [
        *([Finding("patient-two-sides", _patients_said(len(torn)), tuple(torn))] if torn else []),
        *([Finding("patient-two-labels", _patients_said(len(mixed)), tuple(mixed))] if mixed else []),
    ]


def _patients_said(number: int) -> str:
    return "1 patient" if number == 1 else f"{number} patients"


def _classes(cases: Cases) -> list[Finding]:
    """Every class should have patients on every side."""
    missing, scarce = [], []
    for code, name in enumerate(cases.manifest.task.classes):
        for side in cases.used_sides:
            there = [case for case in range(len(cases)) if (cases.labels[case], cases.sides[case]) == (code, side)]
            number = len(cases.patients_of(there))
            if not number:
                missing.append(f"{name} in {side}")
            elif number < _SCARCE:
                scarce.append(f"{name} in {side} ({number})")
    return [
        *([Finding("class-missing", ", ".join(missing))] if missing else []),
        *([Finding("class-scarce", ", ".join(scarce))] if scarce else []),
    ]


def _covariates(cases: Cases) -> Iterator[Finding]:
    for name, kind in cases.manifest.covariates.items():
        if name not in cases.rows[0]:
            yield Finding("covariate", f"{name!r} is no column of cases.csv")
        elif kind == "number":
            texts = [row[name] for row in cases.rows]
            wrong = [case for case, text in enumerate(texts) if text and not is_number(text)]
            yield from found("covariate", wrong, f"{name} is no number")

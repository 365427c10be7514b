"""The summary that may leave the site: what was found, counts with small ones hidden, and the spread of groups.

It holds no pseudonym, file name, row number or device name, and no count that a reader could turn into a number about
fewer patients than the policy's smallest group. It is counts all the same, not differential privacy: who sends it
decides.
"""

from __future__ import annotations

__all__ = ["SUPPRESSED", "summary"]

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from client.check.burned_in import class_shares
from client.check.finding import LEVELS, TOPICS, Finding
from client.check.images import Examined
from client.check.spread import spreads
from client.check.suppression import ALL, Cell, cells_over, hidden_cells
from client.check.table import Cases

SUPPRESSED = "suppressed"
"""Stands where a number is not told; zero is 0, and what does not exist is not there."""

_SEVERAL, _NONE = "several", "none"
_VIEWS = ((True, True, False), (True, False, True), (True, False, False), (False, True, False), (False, False, True))
_WITHOUT_DEVICES = ((True, True, False), (True, False, False), (False, True, False))
_TOTAL = (False, False, False)
_UNCOUNTED = ("calipers", "calipers-tell-class")
"""Topics whose patients stand in a table of their own."""
_UNTOLD = ("nominal-exact", "nominal-differs", "nominal-proposed")
"""Topics that would say how nominal_patients, told below, stands to a total that may be hidden."""


def summary(cases: Cases, examined: Sequence[Examined], findings: Sequence[Finding]) -> dict[str, Any]:
    """The summary as JSON values."""
    manifest = cases.manifest
    smallest = manifest.policy.smallest_group
    patients, images = _counts(cases)
    devices = {cell[2] for cell in patients}
    views = (*(_VIEWS if len(devices) > 1 else _WITHOUT_DEVICES), _TOTAL)
    hidden = hidden_cells((patients, images), views, smallest=smallest)
    told, pictures = cells_over(patients, views), cells_over(images, views)
    total = None if (ALL, ALL, ALL) in hidden else told[(ALL, ALL, ALL)]
    findings = [finding for finding in findings if finding.topic not in _UNTOLD]
    return {
        "site": manifest.id,
        "task": manifest.task.name,
        "role": manifest.role,
        "nominal_patients": manifest.nominal_patients if manifest.nominal_declared else SUPPRESSED,
        "policy": {
            "privacy_unit": manifest.policy.privacy_unit,
            "epsilon_cap": manifest.policy.epsilon_cap,
            "smallest_group": smallest,
        },
        "levels": {level: len({f.topic for f in findings if f.level == level}) for level in LEVELS},
        "findings": _findings(cases, findings, total, smallest),
        "counts": [
            {
                "class": cell[0],
                "split": cell[1],
                "device": cell[2],
                "patients": SUPPRESSED if cell in hidden else told[cell],
                "images": SUPPRESSED if cell in hidden else pictures[cell],
            }
            for cell in told
        ],
        "calipers": _calipers(cases, examined, told, hidden, smallest),
        "spread": _spread(cases, examined, told, hidden),
    }


def _counts(cases: Cases) -> tuple[dict[Cell, int], dict[Cell, int]]:
    """Patients, and their images, by the patient's class, split and device: `several` where its images disagree.

    Devices are numbered in order of first appearance, since their names are the hospital's own words.
    """
    numbers: dict[str, str] = {}
    members: dict[int, list[int]] = {}
    for case, patient in enumerate(cases.patients):
        if patient is not None:
            members.setdefault(patient, []).append(case)
    patients: Counter[Cell] = Counter()
    images: Counter[Cell] = Counter()
    for group in members.values():
        for case in group:
            if name := cases.device(case):
                numbers.setdefault(name, f"device {len(numbers) + 1}")
        cell = (
            _only([None if (code := cases.labels[c]) is None else cases.manifest.task.classes[code] for c in group]),
            _only([cases.sides[c] for c in group]),
            _only([numbers.get(cases.device(c)) for c in group]),
        )
        patients[cell] += 1
        images[cell] += len(group)
    for name in cases.manifest.task.classes:  # a class without a patient is told as zero
        for side in cases.used_sides:
            patients.setdefault((name, side, next(iter(patients), ("", "", _NONE))[2]), 0)
    return dict(patients), {empty: images[empty] for empty in patients}


def _only(values: Sequence[str | None]) -> str:
    known = set(values)
    return (known.pop() or _NONE) if len(known) == 1 else _SEVERAL


def _findings(
    cases: Cases, findings: Sequence[Finding], total: int | None, smallest: int
) -> list[dict[str, str | int | None]]:
    """Each topic once, with the number of patients it is about, where it is about any."""
    made = []
    for topic in dict.fromkeys(finding.topic for finding in findings):
        about = [case for finding in findings if finding.topic == topic for case in finding.cases]
        entry: dict[str, str | int | None] = {"topic": topic, "level": TOPICS[topic].level, "what": TOPICS[topic].title}
        if about and topic not in _UNCOUNTED:
            entry["patients"] = _share(len(cases.patients_of(about)), total, smallest)
        made.append(entry)
    return made


def _share(part: int, whole: int | None, smallest: int) -> int | str:
    """A part of a known whole; suppressed where it, or what it leaves of the whole, is small."""
    if whole is None or 0 < part < smallest or 0 < whole - part < smallest:
        return SUPPRESSED
    return part


def _calipers(
    cases: Cases, examined: Sequence[Examined], told: Mapping[Cell, int], hidden: set[Cell], smallest: int
) -> list[dict[str, str | int]]:
    """Patients of each class whose images are under suspicion."""
    made: list[dict[str, str | int]] = []
    for share in class_shares(cases, examined):
        cell = (share.name, ALL, ALL)
        whole = None if cell in hidden or told.get(cell) != share.patients else share.patients
        made.append({"class": share.name, "patients": _share(share.suspicious_patients, whole, smallest)})
    return made


def _spread(
    cases: Cases, examined: Sequence[Examined], told: Mapping[Cell, int], hidden: set[Cell]
) -> list[dict[str, Any]]:
    """Quartiles, in whole pixels and gray levels, of the groups whose size is told."""
    made = []
    for spread in spreads(cases, examined):
        if spread.kind not in ("all", "class"):
            continue
        cell = (ALL if spread.kind == "all" else spread.name, ALL, ALL)
        open_ = cell not in hidden and told.get(cell, 0) > 0
        quartiles = [round(value) for value in spread.quantiles[1:4]]
        made.append({"measure": spread.measure, "class": cell[0], "quartiles": quartiles if open_ else SUPPRESSED})
    return made

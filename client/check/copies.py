"""Pictures that are there twice: byte for byte, pixel for pixel, or nearly; within a patient, between patients, across
splits.

Across splits is the serious one: a model is tested on what it was trained on.
"""

from __future__ import annotations

__all__ = ["Alike", "check_copies"]

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from client.check.finding import Finding
from client.check.images import Examined
from client.check.perceptual import ALIKE, close_pairs, likeness
from client.check.table import Cases

_RELATIONS = ("across-splits", "between-patients", "within-patient")
_MOST_PAIRS = 20_000
"""Pairs of near copies that are listed; more would say nothing new."""

Group = tuple[int, ...]


class Alike(NamedTuple):
    """Two cases, and how alike their pictures are, in [0, 1]; 1 is pixel for pixel."""

    one: int
    other: int
    likeness: float


def check_copies(cases: Cases, examined: Sequence[Examined]) -> tuple[list[Finding], list[Alike]]:
    """Findings about copies, the gravest first, and pairs to look at in the same order."""
    exact = _exact(examined)
    near = _near(examined)
    findings = [
        *_related(cases, "copies", exact, detail=lambda groups: _exact_said(cases, groups)),
        *_two_labels(cases, exact),
        *_related(cases, "alike", [(pair.one, pair.other) for pair in near], detail=_near_said),
    ]
    pairs = [Alike(group[0], other, 1.0) for group in exact for other in group[1:]] + near
    order = {relation: place for place, relation in enumerate(_RELATIONS)}
    return findings, sorted(pairs, key=lambda p: (order[_relation(cases, (p.one, p.other))], -p.likeness, p.one))


def _exact(examined: Sequence[Examined]) -> list[Group]:
    """Cases with the same pixels."""
    groups: dict[str, list[int]] = defaultdict(list)
    for case, seen in enumerate(examined):
        if seen.comparable and seen.pixels is not None:
            groups[seen.pixels].append(case)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _near(examined: Sequence[Examined]) -> list[Alike]:
    """Pairs of different pictures that look the same; of exact copies only the first is compared."""
    first: dict[str, int] = {}
    for case, seen in enumerate(examined):
        if seen.comparable and seen.pixels is not None:
            first.setdefault(seen.pixels, case)
    chosen = list(first.values())
    prints = [print_ for case in chosen if (print_ := examined[case].fingerprint) is not None]
    hashes = np.array([print_.hash for print_ in prints], dtype=np.uint64)
    near: list[Alike] = []
    for i, j in _rows(hashes):
        alike = likeness(prints[i].miniature, prints[j].miniature)
        if alike >= ALIKE:
            near.append(Alike(chosen[i], chosen[j], alike))
            if len(near) == _MOST_PAIRS:
                break
    return sorted(near)


def _rows(hashes: npt.NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    for block in close_pairs(hashes):
        yield from ((int(i), int(j)) for i, j in block)


def _relation(cases: Cases, group: Group) -> str:
    sides = {side for case in group if (side := cases.sides[case]) is not None}
    if len(sides) > 1:
        return "across-splits"
    return "between-patients" if len({cases.patients[case] for case in group}) > 1 else "within-patient"


def _related(
    cases: Cases, kind: str, groups: Sequence[Group], *, detail: Callable[[Sequence[Group]], str]
) -> list[Finding]:
    found: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        found[_relation(cases, group)].append(group)
    return [
        Finding(f"{kind}-{relation}", detail(found[relation]), tuple(found[relation]))
        for relation in _RELATIONS
        if found[relation]
    ]


def _two_labels(cases: Cases, groups: Sequence[Group]) -> list[Finding]:
    torn = tuple(group for group in groups if len({cases.labels[case] for case in group}) > 1)
    return [Finding("copies-two-labels", f"{len(torn)} {_pictures(len(torn))}", torn)] if torn else []


def _exact_said(cases: Cases, groups: Sequence[Group]) -> str:
    same = sum(len({cases.rows[case]["image_sha256"] for case in group}) == 1 for group in groups)
    return f"{len(groups)} {_pictures(len(groups))} ({same} byte for byte)"


def _near_said(groups: Sequence[Group]) -> str:
    return "1 pair" if len(groups) == 1 else f"{len(groups)} pairs"


def _pictures(number: int) -> str:
    return "picture" if number == 1 else "pictures"

"""Which images may have calipers burned in, and whether one class has more of them than the others."""

from __future__ import annotations

__all__ = ["ClassShare", "check_calipers", "class_shares", "suspicious"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.check.calipers import SUSPICIOUS
from client.check.finding import Finding
from client.check.images import Examined
from client.check.table import Cases

_APART, _CHANCE = 0.1, 0.01
"""Least difference of shares, and greatest p of Fisher's exact test, at which calipers give the label away."""


@dataclass(frozen=True)
class ClassShare:
    """How many images and patients of a class look as if calipers were burned in."""

    name: str
    images: int
    suspicious_images: int
    patients: int
    suspicious_patients: int


def suspicious(examined: Sequence[Examined]) -> list[int]:
    """The cases under suspicion, the most suspicious first."""
    cases = [case for case, seen in enumerate(examined) if seen.suspicion.score >= SUSPICIOUS]
    return sorted(cases, key=lambda case: (-examined[case].suspicion.score, case))


def class_shares(cases: Cases, examined: Sequence[Examined]) -> list[ClassShare]:
    """One entry for each class of the task."""
    doubted = set(suspicious(examined))
    shares = []
    for code, name in enumerate(cases.manifest.task.classes):
        members = [case for case in range(len(cases)) if cases.labels[case] == code]
        seen = [case for case in members if case in doubted]
        patients, seen_patients = cases.patients_of(members), cases.patients_of(seen)
        shares.append(ClassShare(name, len(members), len(seen), len(patients), len(seen_patients)))
    return shares


def check_calipers(cases: Cases, examined: Sequence[Examined]) -> list[Finding]:
    """Nothing where no image is under suspicion; a warning where a class has clearly more of them than the rest."""
    doubted = suspicious(examined)
    if not doubted:
        return []
    shares = class_shares(cases, examined)
    said = ", ".join(f"{share.name} {share.suspicious_images} of {share.images}" for share in shares)
    tells = any(_differs(share, shares) for share in shares)
    groups = tuple((case,) for case in sorted(doubted))
    return [Finding("calipers-tell-class" if tells else "calipers", said, groups)]


def _differs(share: ClassShare, shares: Sequence[ClassShare]) -> bool:
    """Whether patients of this class are under suspicion more often than those of the others (Fisher's exact test)."""
    from scipy.stats import fisher_exact

    rest = [other for other in shares if other is not share]
    inside = (share.suspicious_patients, share.patients - share.suspicious_patients)
    outside = (
        sum(other.suspicious_patients for other in rest),
        sum(other.patients - other.suspicious_patients for other in rest),
    )
    if not sum(inside) or not sum(outside):
        return False
    apart = inside[0] / sum(inside) - outside[0] / sum(outside)
    return apart >= _APART and float(fisher_exact(np.array([inside, outside])).pvalue) < _CHANCE

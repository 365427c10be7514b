"""Artificial sites: one center's patients dealt out for an experiment. They are no centers, and every report says so.

`patient`: at random, alike on each official side. `spacing`: by the spacing of pixels, from the finest quantile to the
coarsest. `dirichlet`: each class is shared out in proportions from a Dirichlet distribution of concentration .5, so
that labels are skewed (Hsu et al. 2019). A patient is always whole.
"""

from __future__ import annotations

__all__ = ["CONCENTRATION", "cut"]

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Literal

import numpy as np

from client.importers.case import Case, Collection
from client.site import SPACING
from common.errors import BadInput
from common.randomness import derive

CONCENTRATION = 0.5

_Groups = Sequence[Sequence[str]]


def cut(
    whole: Collection, sites: int, *, by: Literal["patient", "spacing", "dirichlet"], seed: int
) -> list[Collection]:
    """The collection as `<site>-1` to `<site>-N`, none of them empty. Raises BadInput where patients are too few.

    What was left out is listed at the first site. The draw depends on the order of patients, not on their names.
    """
    own: dict[str, list[Case]] = {}
    for case in whole.cases:
        own.setdefault(case.patient, []).append(case)
    if len(own) < sites:
        raise BadInput(f"--sites: {sites} sites of {len(own)} patients with a label and an image; ask for fewer")
    match by:
        case "patient":
            groups = _at_random(own, sites, derive(seed, "artificial", by))
        case "spacing":
            groups = _by_spacing(own, sites)
        case "dirichlet":
            groups = _label_skewed(own, sites, derive(seed, "artificial", by))
    homes = {patient: place for place, group in enumerate(groups) for patient in group}
    return [_site(whole, place, homes, by) for place in range(sites)]


def _site(whole: Collection, place: int, homes: dict[str, int], by: str) -> Collection:
    note = f"artificial: cut from one center by {by}, not a real center; every report says so"
    return replace(
        whole,
        site=f"{whole.site}-{place + 1}",
        cases=tuple(case for case in whole.cases if homes[case.patient] == place),
        skipped=whole.skipped if place == 0 else (),
        artificial=True,
        notes=(note, *(whole.notes if place == 0 else ())),
    )


def _at_random(own: dict[str, list[Case]], sites: int, rng: np.random.Generator) -> _Groups:
    groups: list[list[str]] = [[] for _ in range(sites)]
    dealt = 0
    for side in _strata({patient: cases[0].split for patient, cases in own.items()}):
        for patient in rng.permutation(np.array(side, dtype=object)):
            groups[dealt % sites].append(patient)
            dealt += 1
    return groups


def _by_spacing(own: dict[str, list[Case]], sites: int) -> _Groups:
    """Quantiles of each patient's median spacing; where spacings are equal, source order decides."""
    spacing = {patient: median(float(c.covariates[SPACING]) for c in cases) for patient, cases in own.items()}
    ordered = sorted(own, key=lambda patient: spacing[patient])
    ends = [round(len(ordered) * place / sites) for place in range(sites + 1)]
    return [ordered[start:end] for start, end in pairwise(ends)]


def _label_skewed(own: dict[str, list[Case]], sites: int, rng: np.random.Generator) -> _Groups:
    """Patients go with their commonest label. A site that got nobody takes one from the largest."""
    groups: list[list[str]] = [[] for _ in range(sites)]
    for stratum in _strata({p: Counter(case.label for case in cases).most_common(1)[0][0] for p, cases in own.items()}):
        shares = rng.dirichlet([CONCENTRATION] * sites)
        ends = np.round(np.cumsum(shares) * len(stratum)).astype(int)
        parts = np.split(rng.permutation(np.array(stratum, dtype=object)), ends[:-1])
        for group, part in zip(groups, parts, strict=True):
            group.extend(part)
    for group in groups:
        if not group:
            group.append(max(groups, key=len).pop())
    return groups


def _strata(kinds: dict[str, str | None]) -> list[list[str]]:
    """Patients by kind, in order of first appearance."""
    strata: dict[Hashable, list[str]] = {}
    for patient, kind in kinds.items():
        strata.setdefault(kind, []).append(patient)
    return list(strata.values())

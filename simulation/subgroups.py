"""How the federated models do in groups of a center's patients: by device, sex, size, whatever its table holds."""

from __future__ import annotations

__all__ = ["groups", "subgroup_rows"]

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.measures import measure_cases, permitted
from client.site import SPACING, Site, is_number
from server.results import Subgroup

if TYPE_CHECKING:
    from simulation.evidence import Cases, Judge

_MOST = 8
"""More different words than this are no groups."""
FEWEST = 5
"""Patients of a class below which a group's AUC, sensitivity or specificity says more of chance than of the model."""
OTHER = "other"
UNKNOWN = "unknown"


def subgroup_rows(cases: Cases, judge: Judge, site: str, threshold: float | None) -> list[Subgroup]:
    """Every group of the center that its policy lets out, for one judge; none where a covariate makes no two groups.

    What rests on a class of fewer than `FEWEST` patients, or than the policy lets out, is None, and so is the count.
    """
    here = cases.sites[site]
    tested = cases.tested(judge, site)
    found = []
    for covariate, values in _covariates(here).items():
        levels = groups(here, tested, values)
        people = {level: set(here.patients[rows].tolist()) for level, rows in levels.items()}
        for level, rows in levels.items():
            shared = any(people[level] & people[other] for other in levels if other != level)
            one = _measured(cases, judge, site, covariate, level, rows, threshold)
            found.append(replace(one, shares_patients=shared))
    return found


def _covariates(site: Site) -> dict[str, Sequence[str | None]]:
    rest = {name: values for name, values in sorted(site.covariates.items()) if name != SPACING}
    return {"device": site.devices, **rest}


def groups(site: Site, tested: NDArray[np.int64], values: Sequence[str | None]) -> dict[str, NDArray[np.int64]]:
    """The tested rows by level, in order of level; {} where there are not two groups of enough patients.

    Numbers are cut at their median, to two digits. A level of fewer patients than the site's `smallest_group` joins
    `other`; if `other` stays too small the next smallest level joins it, so that no group follows by subtraction.
    """
    levels = _levels([values[row] for row in tested])
    if not levels:
        return {}
    members: dict[str, list[int]] = {}
    for row, level in zip(tested.tolist(), levels, strict=True):
        members.setdefault(level, []).append(row)
    people = {level: set(site.patients[rows].tolist()) for level, rows in members.items()}
    sizes = Counter({level: len(patients) for level, patients in people.items()})
    least = site.policy.smallest_group
    joined = [level for level, size in sizes.items() if size < least]
    for level, _ in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if joined and len(set().union(*(people[name] for name in joined))) < least and level not in joined:
            joined.append(level)
    kept = {level: np.array(rows) for level, rows in sorted(members.items()) if level not in joined}
    if joined:
        kept[OTHER] = np.array(sorted(row for level in joined for row in members[level]))
    return kept if len(kept) > 1 else {}


def _levels(values: Sequence[str | None]) -> list[str] | None:
    """Each value's group; None where the values make none."""
    known = [value for value in values if value is not None]
    distinct = set(known)
    if len(distinct) > _MOST and all(is_number(value) for value in distinct):
        cut = float(f"{np.median([float(value) for value in known]):.2g}")
        names = (f"up to {cut:g}", f"above {cut:g}")
        return [UNKNOWN if value is None else names[float(value) > cut] for value in values]
    if not distinct or len(distinct) > _MOST:
        return None
    return [UNKNOWN if value is None else value for value in values]


def _measured(
    cases: Cases,
    judge: Judge,
    site: str,
    covariate: str,
    level: str,
    rows: NDArray[np.int64],
    threshold: float | None,
) -> Subgroup:
    here, index = cases.sites[site], cases.experiment.task.positive_index
    labels, scores = here.labels[rows], cases.scores(judge, site)[rows]
    patients = here.patients[rows]
    measured = measure_cases(labels, scores, patients, positive_index=index, threshold=threshold)
    least = max(here.policy.smallest_group, FEWEST)
    found = permitted(measured, labels, patients, positive_index=index, smallest=least)
    few = found.why == "suppressed"
    return Subgroup(
        arm=judge.arm,
        protocol=judge.protocol,
        seed=judge.seed,
        site=site,
        covariate=covariate,
        level=level,
        n_images=len(rows),
        n_patients=len(np.unique(patients)),
        n_positive=None if few else int((labels == index).sum()),
        auc=found.auc,
        auc_low=found.auc_low,
        auc_high=found.auc_high,
        sensitivity=found.sensitivity,
        specificity=found.specificity,
        why="few-of-a-class" if few else found.why,
    )

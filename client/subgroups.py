"""Groups of a site's patients: by device, sex, size, whatever its table holds; and what of their numbers may leave.

Within a covariate no group is smaller than the site's `smallest_group`. What leaves (`told_groups`) is about five
patients or more of each class, or as many as the policy asks, and what is kept back of one group does not follow from
the others and the whole.
"""

from __future__ import annotations

__all__ = ["FEWEST", "OTHER", "UNKNOWN", "Cases", "covariates_of", "groups", "measure_groups", "told_groups"]

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from client.level_names import DEVICE, MOST_LEVELS, may_be_named
from client.measures import measure_cases, permitted
from client.site import SPACING, Site, is_number
from common.detail_orders import Group
from common.groups import large_enough, sides_large_enough

FEWEST = 5
"""Patients of a class below which a group's AUC, sensitivity or specificity says more of chance than of the model."""
OTHER = "other"
UNKNOWN = "unknown"
_OF_CALIBRATION = ("separated", "constant")
"""Reasons that are about numbers which groups have not."""
_MOST_GROUPS = 60
"""Groups that one message holds, so that it stays small."""

Rows = NDArray[np.int64]
Enough = Callable[[Iterable[str]], bool]


@dataclass(frozen=True)
class Cases:
    """Scored cases of a site: `rows` (N,) among its images, scores (N, K) of them, the locked threshold or None."""

    site: Site
    rows: Rows
    scores: NDArray[np.float64]
    threshold: float | None

    @property
    def index(self) -> int:
        """The positive class."""
        return self.site.task.positive_index

    @property
    def least(self) -> int:
        """Patients of a class that numbers of a group need."""
        return max(self.site.policy.smallest_group, FEWEST)


def covariates_of(site: Site) -> dict[str, Sequence[str | None]]:
    """By name, the values over images that may make groups."""
    rest = {name: values for name, values in sorted(site.covariates.items()) if name != SPACING}
    return {DEVICE: site.devices, **rest}


def groups(
    site: Site, tested: Rows, values: Sequence[str | None], *, named: Callable[[str], bool] | None = None
) -> dict[str, Rows]:
    """The tested rows by level, in order of level; {} where there are not two groups of enough patients.

    Numbers are cut at their median, to two digits. A level of fewer patients than the site's `smallest_group`, or one
    that may not be `named`, joins `other`; if `other` stays too small the next smallest level joins it, so that no
    group follows by subtraction.
    """
    levels = _levels([values[row] for row in tested], named or (lambda _: True))
    if not levels:
        return {}
    members: dict[str, list[int]] = {}
    for row, level in zip(tested.tolist(), levels, strict=True):
        members.setdefault(level, []).append(row)
    people = {level: set(site.patients[rows].tolist()) for level, rows in members.items()}
    sizes = Counter({level: len(patients) for level, patients in people.items()})
    least = site.policy.smallest_group
    joined = [level for level, size in sizes.items() if size < least or level == OTHER]
    for level, _ in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if joined and len(set().union(*(people[name] for name in joined))) < least and level not in joined:
            joined.append(level)
    kept = {level: np.array(rows) for level, rows in sorted(members.items()) if level not in joined}
    if joined:
        kept[OTHER] = np.array(sorted(row for level in joined for row in members[level]))
    return kept if len(kept) > 1 else {}


def _levels(values: Sequence[str | None], named: Callable[[str], bool]) -> list[str] | None:
    """Each value's group; None where the values make none."""
    known = [value for value in values if value is not None]
    distinct = set(known)
    if len(distinct) > MOST_LEVELS and all(is_number(value) for value in distinct):
        cut = float(f"{np.median([float(value) for value in known]):.2g}")
        names = (f"up to {cut:g}", f"above {cut:g}")
        return [UNKNOWN if value is None else names[float(value) > cut] for value in values]
    if not distinct or len(distinct) > MOST_LEVELS:
        return None
    return [UNKNOWN if value is None else value if named(value) else OTHER for value in values]


def measure_groups(cases: Cases, covariate: str, levels: Mapping[str, Rows]) -> list[Group]:
    """The numbers of each group, `levels` by rows of the site. What rests on a class of fewer than `cases.least`
    patients is None, and so is the count.
    """
    people = {level: set(cases.site.patients[rows].tolist()) for level, rows in levels.items()}
    found = []
    for level, rows in levels.items():
        shared = any(people[level] & people[other] for other in levels if other != level)
        found.append(replace(_measured(cases, covariate, level, rows), shares_patients=shared))
    return found


def _measured(cases: Cases, covariate: str, level: str, rows: Rows) -> Group:
    labels, patients = cases.site.labels[rows], cases.site.patients[rows]
    scores = cases.scores[np.searchsorted(cases.rows, rows)]
    measured = measure_cases(labels, scores, patients, positive_index=cases.index, threshold=cases.threshold)
    found = permitted(measured, labels, patients, positive_index=cases.index, smallest=cases.least)
    few = found.why == "suppressed"
    return Group(
        covariate=covariate,
        level=level,
        n_images=len(rows),
        n_patients=len(np.unique(patients)),
        n_positive=None if few else int((labels == cases.index).sum()),
        auc=found.auc,
        auc_low=found.auc_low,
        auc_high=found.auc_high,
        sensitivity=found.sensitivity,
        specificity=found.specificity,
        why="few-of-a-class" if few else None if found.why in _OF_CALIBRATION else found.why,
    )


def told_groups(cases: Cases) -> tuple[Group, ...]:
    """The groups that may leave the site, of covariates that its manifest declares, and of its devices.

    A covariate is left out as a whole where one of its groups differs from one of another covariate, or from all, by a
    few patients alone. So are the last ones beyond 60 groups.
    """
    told: list[Group] = []
    before: list[Rows] = [cases.rows]
    for covariate, values in covariates_of(cases.site).items():
        kind, declared = cases.site.kinds.get(covariate), cases.site.levels.get(covariate, ())
        if covariate != DEVICE and kind is None:
            continue
        named = partial(may_be_named, kind=kind, declared=declared)
        levels = groups(cases.site, cases.rows, values, named=named)
        if any(_few_apart(cases, one, other) for one in levels.values() for other in before):
            continue
        if levels and len(told) + len(levels) <= _MOST_GROUPS:
            told += _without_remainders(cases, levels, measure_groups(cases, covariate, levels))
            before += levels.values()
    return tuple(told)


def _few_apart(cases: Cases, one: Rows, other: Rows) -> bool:
    """Whether one holds the other and a few patients' images more."""
    smaller, larger = sorted((one, other), key=len)
    left = np.setdiff1d(larger, smaller)
    inside = len(left) == len(larger) - len(smaller)
    return inside and not large_enough(cases.site.patients[left], cases.site.policy.smallest_group)


def _without_remainders(cases: Cases, levels: Mapping[str, Rows], measured: Sequence[Group]) -> list[Group]:
    """A covariate's groups without what follows about a few patients from the others and the whole.

    A group with too few patients of a class is hidden whole, and with it the next smallest ones, until together they
    have enough of each. Then so for sensitivity and for specificity alone: called positive, and not.
    """

    def classes(names: Iterable[str]) -> bool:
        rows = _rows(levels, names)
        labels, patients = cases.site.labels[rows], cases.site.patients[rows]
        return all(sides_large_enough(labels == k, patients, cases.least) for k in range(len(cases.site.task.classes)))

    few = {group.level for group in measured if not classes([group.level])}
    hidden = _enough_hidden(few, measured, classes)
    told = [_hidden(group, few) if group.level in hidden else group for group in measured]
    if cases.threshold is None:
        return told
    for name, flag in (("sensitivity", True), ("specificity", False)):
        decided = _decided(cases, levels, flag)
        small = {group.level for group in measured if group.level in hidden or not decided([group.level])}
        kept = _enough_hidden(small, measured, decided)
        told = [_without(group, name, small) if group.level in kept else group for group in told]
    return told


def _decided(cases: Cases, levels: Mapping[str, Rows], flag: bool) -> Enough:
    """Whether decisions about a class of some groups together are about enough patients on both sides."""
    called = np.zeros(len(cases.site.labels), dtype=np.bool_)
    called[cases.rows] = cases.scores[:, cases.index] >= (cases.threshold or 0.0)
    of_class = (cases.site.labels == cases.index) == flag

    def enough(names: Iterable[str]) -> bool:
        rows = _rows(levels, names)
        mine = rows[of_class[rows]]
        return sides_large_enough(called[mine], cases.site.patients[mine], cases.least)

    return enough


def _enough_hidden(hidden: Collection[str], measured: Sequence[Group], enough: Enough) -> set[str]:
    """`hidden` and the next smallest groups, until all of them together are enough; all, where they never are."""
    found = set(hidden)
    for group in sorted(measured, key=lambda one: (one.n_patients, one.level)):
        if not found or enough(found):
            break
        found.add(group.level)
    return found


def _hidden(group: Group, few: Collection[str]) -> Group:
    nothing = replace(group, n_positive=None, auc=None, auc_low=None, auc_high=None, sensitivity=None, specificity=None)
    return replace(nothing, why="few-of-a-class" if group.level in few else "complement")


def _without(group: Group, name: str, small: Collection[str]) -> Group:
    without = replace(group, sensitivity=None) if name == "sensitivity" else replace(group, specificity=None)
    if group.n_positive is None:
        return without
    return replace(without, why=group.why or ("small-cell" if group.level in small else "complement"))


def _rows(levels: Mapping[str, Rows], names: Iterable[str]) -> Rows:
    return np.concatenate([levels[name] for name in sorted(names)])

"""Groups of a site's patients: by device, sex, size, whatever its table holds; and what of their numbers may leave.

Within a covariate no group is smaller than the site's `smallest_group`. What leaves (`tell`) is about five patients or
more of each class, or as many as the policy asks; what is kept back of one group does not follow from the others and
the whole, and no sum or difference of told groups is about fewer (`client.joint_cells`).
"""

from __future__ import annotations

__all__ = ["FEWEST", "OTHER", "UNKNOWN", "Cases", "Told", "covariates_of", "groups", "measure_groups", "tell"]

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from client.joint_cells import Joint, Kind
from client.level_names import DEVICE, MOST_LEVELS, may_be_named
from client.measures import measure_cases, permitted
from client.site import SPACING, Site, is_number
from common.detail_orders import LONGEST, Group
from common.groups import sides_large_enough

FEWEST = 5
"""Patients of a class below which a group's AUC, sensitivity or specificity says more of chance than of the model."""
OTHER = "other"
UNKNOWN = "unknown"
_OF_CALIBRATION = ("separated", "constant")
"""Reasons that are about numbers which groups have not."""
_MOST_GROUPS = 60
_MOST_BYTES = 16 * 1024 - 256
"""Groups that one message holds, and bytes of JSON that they and what was left out take: below 16 KiB with all around
them.
"""

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


@dataclass(frozen=True)
class Told:
    """The groups that leave a site; `left_out`: by declared covariate that has none, why; `why` there is no group."""

    groups: tuple[Group, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    why: str | None = None


def covariates_of(site: Site) -> dict[str, Sequence[str | None]]:
    """By name, the values over images that may make groups: the devices, the covariates that `site.toml` declares in
    its order, the others by name.
    """
    names = [*(name for name in site.kinds if name in site.covariates), *sorted(site.covariates)]
    return {DEVICE: site.devices, **{name: site.covariates[name] for name in names if name != SPACING}}


def groups(
    site: Site,
    tested: Rows,
    values: Sequence[str | None],
    *,
    named: Callable[[str], bool] | None = None,
    numbers: bool = False,
) -> dict[str, Rows]:
    """The tested rows by level, in order of level; {} where there are not two groups of enough patients.

    Numbers are cut at their median, to two digits, where they are many, or are declared `numbers` of which one may not
    be `named`. A level of fewer patients than the site's `smallest_group`, or one
    that may not be `named`, joins `other`; if `other` stays too small the next smallest level joins it, so that no
    group follows by subtraction.
    """
    levels = _levels([values[row] for row in tested], named or (lambda _: True), numbers=numbers)
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


def _levels(values: Sequence[str | None], named: Callable[[str], bool], *, numbers: bool) -> list[str] | None:
    """Each value's group; None where the values make none."""
    known = [value for value in values if value is not None]
    distinct = set(known)
    many = len(distinct) > MOST_LEVELS or (numbers and not all(named(value) for value in distinct))
    if distinct and many and all(is_number(value) for value in distinct):
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


def tell(cases: Cases) -> Told:
    """The groups that may leave the site, of its devices and of covariates that its manifest declares, in its order.

    Without a table `[levels]` nobody has looked at names, and nothing is told. A covariate is left out as a whole where
    it has no two groups (`no-groups`), where something about a few patients would follow from its groups and those of
    the earlier ones (`overlap`), where its name is `too-long`, and where the message would become so (`too-many`).
    """
    if cases.site.levels is None:
        return Told(why="not-declared")
    told, joint = Told(), _whole(cases)
    for covariate, values in covariates_of(cases.site).items():
        kind = cases.site.kinds.get(covariate)
        if covariate != DEVICE and kind is None:
            continue
        named = partial(may_be_named, kind=kind, declared=cases.site.levels.get(covariate, ()))
        levels = groups(cases.site, cases.rows, values, named=named, numbers=kind == "number")
        if levels:
            told, joint = _with_covariate(told, joint, cases, covariate, levels)
        elif any(values):
            told = _left_out(told, covariate, "no-groups")
    return told if told.groups else replace(told, why="no-groups")


def _with_covariate(
    told: Told, joint: Joint, cases: Cases, covariate: str, levels: Mapping[str, Rows]
) -> tuple[Told, Joint]:
    """What is told with a covariate more, and the cells that follow; or with the reason why it is left out."""
    if len(covariate) > LONGEST:
        return _left_out(told, covariate, "too-long"), joint
    found = _without_remainders(cases, levels, measure_groups(cases, covariate, levels))
    cells = {kind: joint.beside(kind, _told_levels(cases, levels, found, kind)) for kind in joint.cells}
    if cells["sizes"] is None or cells["classes"] is None:
        return _left_out(told, covariate, "overlap"), joint
    kept = {kind: joint.cells[kind] if after is None else after for kind, after in cells.items()}
    for kind in (kind for kind, after in cells.items() if after is None):
        found = [_without(group, kind, "overlap") for group in found]
    more = replace(told, groups=(*told.groups, *found))
    if len(more.groups) > _MOST_GROUPS or _bytes(more) > _MOST_BYTES:
        return _left_out(told, covariate, "too-many"), joint
    return more, replace(joint, cells=kept)


def _left_out(told: Told, covariate: str, why: str) -> Told:
    """What is told with a covariate's reason, its name cut where it is too long; without where there is no room."""
    name = covariate if len(covariate) <= LONGEST else f"{covariate[: LONGEST - 1]}…"
    more = replace(told, left_out={**told.left_out, name: why})
    return more if _bytes(more) <= _MOST_BYTES else told


def _bytes(told: Told) -> int:
    """What leaves, as JSON in UTF-8."""
    return len(TypeAdapter(tuple[tuple[Group, ...], dict[str, str]]).dump_json((told.groups, dict(told.left_out))))


def _whole(cases: Cases) -> Joint:
    """The site's cases before any covariate is told, and what of them is counted."""
    labels, patients = cases.site.labels[cases.rows], cases.site.patients[cases.rows]
    sides: dict[Kind, Rows] = {"sizes": np.zeros_like(labels), "classes": labels}
    least: dict[Kind, int] = {"sizes": cases.site.policy.smallest_group, "classes": cases.least}
    if cases.threshold is not None:
        called = (cases.scores[:, cases.index] >= cases.threshold).astype(np.int64)
        sides["sensitivity"] = np.where(labels == cases.index, called, -1)
        sides["specificity"] = np.where(labels == cases.index, -1, called)
        least |= {"sensitivity": cases.least, "specificity": cases.least}
    return Joint.of(sides, patients, least=least)


def _told_levels(cases: Cases, levels: Mapping[str, Rows], measured: Sequence[Group], kind: Kind) -> Rows:
    """By case (N,) its group's number from 1, or 0 where the group's number of this kind is kept back."""
    found = np.zeros(len(cases.rows), dtype=np.int64)
    names: Mapping[Kind, str] = {"sizes": "n_images", "classes": "n_positive"}
    for number, group in enumerate(measured, start=1):
        if getattr(group, names.get(kind, kind)) is not None:
            found[np.searchsorted(cases.rows, levels[group.level])] = number
    return found


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
        whys = {level: "small-cell" if level in small else "complement" for level in kept}
        told = [_without(group, name, whys[group.level]) if group.level in kept else group for group in told]
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


def _without(group: Group, name: str, why: str) -> Group:
    without = replace(group, sensitivity=None) if name == "sensitivity" else replace(group, specificity=None)
    return without if group.n_positive is None else replace(without, why=group.why or why)


def _rows(levels: Mapping[str, Rows], names: Iterable[str]) -> Rows:
    return np.concatenate([levels[name] for name in sorted(names)])

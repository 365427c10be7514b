"""With more than two classes: each against the rest, by center, beside the mean over classes of the first table."""

from __future__ import annotations

__all__ = ["ClassRow", "class_names", "class_rows"]

from collections.abc import Sequence
from dataclasses import dataclass

from server.report.estimates import estimate, reason, worst_first
from server.report.numbers import DASH, decimal, interval, mean
from server.report.reading import ALL, LEAVE_ONE_OUT, Row, Run
from server.report.sentence import lead_arm
from server.report.tables import Cell, auc_cell


@dataclass(frozen=True)
class ClassRow:
    """An arm at a center (`whole`: all of them): the macro AUC, then each class's."""

    name: str
    whole: bool
    arm: str
    macro: Cell
    classes: tuple[Cell, ...]


def class_names(run: Run, protocol: str) -> list[str]:
    """The classes that the protocol's rows tell apart, in the task's order; [] with two classes."""
    return next((list(r.auc_by_class) for r in run.rows if r.protocol == protocol and r.auc_by_class), [])


def class_rows(run: Run, protocol: str) -> list[ClassRow]:
    """The leading arm at every center, the worst first, then every arm over all of them; [] with two classes."""
    names, lead = class_names(run, protocol), lead_arm(run)
    if not names or lead is None:
        return []
    wanted = [(site, lead) for site in worst_first(run, lead, protocol)]
    wanted += [(ALL, arm) for arm in run.arms(protocol)]
    made = []
    for site, arm in wanted:
        found = estimate(run, arm, protocol, site)
        rows = found.rows if found is not None else ()
        if not any(row.auc_by_class for row in rows):
            continue
        whole = "Mean of centers" if protocol == LEAVE_ONE_OUT else "All cases together"
        cells = tuple(_cell(rows, name) for name in names)
        made.append(ClassRow(whole if site == ALL else site, site == ALL, arm, auc_cell(found), cells))
    return made


def _cell(rows: Sequence[Row], name: str) -> Cell:
    """The class against the rest, mean over rows; its interval where all of them have one."""
    areas = [row.auc_by_class[name] for row in rows if row.auc_by_class and name in row.auc_by_class]
    there = [area for area in areas if area.auc is not None]
    if not there:
        return Cell(DASH, why=reason(next((area.why for area in areas if area.why), None)))
    bounded = all(area.low is not None and area.high is not None for area in there)
    small = interval(mean(a.low for a in there), mean(a.high for a in there)) if bounded else ""
    return Cell(decimal(mean(area.auc for area in there)), small=small)

"""Repair without labels, a center's unrepaired numbers first: cells that are ready to print."""

from __future__ import annotations

__all__ = ["KEYS", "RepairRow", "repair_rows"]

from dataclasses import dataclass
from itertools import groupby

from server.repairs import Repaired
from server.report.estimates import reason
from server.report.numbers import DASH, decimal, interval, precision_for, signed, span
from server.report.reading import Run
from server.report.tables import Cell, probability

KEYS = {
    "none": "unrepaired",
    "intensity": "intensity_repair",
    "amplitude": "amplitude_repair",
    "batch-statistics": "batch_repair",
    "prior": "prior_repair",
}
"""A repair's definition in the glossary."""


@dataclass(frozen=True)
class RepairRow:
    """One repair; `first` opens the center's block of `span` rows, `key` is its definition, `why` tells that there is
    none.

    `protocol` is said where centers of more than one are in the table.
    """

    site: str
    protocol: str
    first: bool
    span: int
    key: str
    why: str
    auc: Cell
    delta: Cell
    p: str
    brier: str
    slope: str
    intercept: str
    prior: Cell


def repair_rows(run: Run) -> list[RepairRow]:
    """By protocol and center in the order of the file, repairs in theirs."""
    known = [one for one in run.repairs if one.repair in KEYS]
    several = len({one.protocol for one in known}) > 1
    made: list[RepairRow] = []
    for (protocol, site), group in groupby(known, key=lambda one: (one.protocol, one.site)):
        rows = list(group)
        for number, one in enumerate(rows):
            made.append(_row(one, run, protocol if several else "", site, first=number == 0, span_rows=len(rows)))
    return made


def _row(one: Repaired, run: Run, protocol: str, site: str, *, first: bool, span_rows: int) -> RepairRow:
    return RepairRow(
        site,
        protocol,
        first,
        span_rows,
        KEYS[one.repair],
        reason(one.why) if one.auc is None and one.brier is None else "",
        _auc(one),
        Cell("") if one.repair == "none" else _delta(one),
        "" if one.repair == "none" else probability(one.p),
        decimal(one.brier, places=3),
        decimal(one.calibration_slope),
        decimal(one.calibration_intercept),
        _prior(one, run),
    )


def _auc(one: Repaired) -> Cell:
    if one.auc is None:
        return Cell(DASH, why=reason(one.why))
    return Cell(decimal(one.auc), small="" if one.auc_low is None else interval(one.auc_low, one.auc_high))


def _delta(one: Repaired) -> Cell:
    if one.delta_auc is None:
        return Cell(DASH, why=reason(one.why))
    if one.delta_low is None or one.delta_high is None:
        return Cell(signed(one.delta_auc, places=3))
    places = max(3, precision_for(one.delta_low, one.delta_high))
    reach = span(one.delta_low, one.delta_high, places=places)
    return Cell(signed(one.delta_auc, places=places), small=reach)


def _prior(one: Repaired, run: Run) -> Cell:
    """The positive class's implied share, and what the center's main row observed."""
    classes, positive = run.setting("task", "classes"), run.setting("task", "positive")
    if one.prior is None or not isinstance(classes, list) or positive not in classes:
        return Cell("")
    share = one.prior[classes.index(positive)] if len(one.prior) == len(classes) else None
    wanted = (one.arm, one.protocol, one.seed, one.site, one.trained_on)
    rows = (row for row in run.rows if (row.arm, row.protocol, row.seed, row.site, row.trained_on) == wanted)
    seen = next((row.observed / row.n_images for row in rows if row.observed is not None and row.n_images), None)
    return Cell(decimal(share), small="" if seen is None else f"observed {decimal(seen)}")

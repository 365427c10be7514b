"""What sums alone tell of all cases, beside the exact numbers where the run has those (a simulation does)."""

from __future__ import annotations

__all__ = ["SumsRow", "sums_decision", "sums_rows"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from server.report.decision import DecisionLine, decision_picture
from server.report.estimates import reason
from server.report.numbers import DASH, decimal, interval, mean
from server.report.reading import ALL, IN_FEDERATION, Row, Run
from server.report.tables import Cell, too_coarse


@dataclass(frozen=True)
class SumsRow:
    """One arm in-federation: AUC of all cases from sums and its largest error, the exact one,
    the mean of the sites'.
    """

    arm: str
    federated: Cell
    bound: str
    exact: Cell
    mean_of_sites: Cell
    left_out: str


def sums_rows(run: Run) -> list[SumsRow]:
    """Means over seeds (for local, over the centers' models too); [] where no row has a number from sums."""
    made = []
    for arm in run.arms(IN_FEDERATION):
        rows = [r for r in run.rows if (r.arm, r.protocol, r.site) == (arm, IN_FEDERATION, ALL)]
        if any(row.auc_federated is not None or row.suppressed for row in rows):
            left_out = sorted({site for row in rows for site in row.suppressed})
            bound = mean(row.auc_federated_bound for row in rows)
            told = _cell(rows, "auc_federated")
            if too_coarse(run, arm):
                told = Cell(told.shown, small="cells too coarse for an interval")
            made.append(
                SumsRow(
                    arm, told, decimal(bound, places=4), _exact(rows),
                    _cell(rows, "auc_mean_of_sites"), ", ".join(left_out),
                )
            )  # fmt: skip
    return made


def _exact(rows: Sequence[Row]) -> Cell:
    """The AUC from predictions; a deployed run has none, and what stands in its rows is the one from sums."""
    if any(row.from_sums for row in rows):
        return Cell(DASH, why="no prediction left a site")
    return _cell(rows, "auc")


def sums_decision(run: Run) -> Markup | None:
    """Decision curves of all test cases of the federation from score histograms, means over seeds; None without any.

    Without bands: they would need sums by patient at every threshold probability, which no training site sends.
    """
    lines, everybody = {}, np.zeros((0, 2))
    for arm in reversed(run.arms(IN_FEDERATION)):
        rows = [r for r in run.rows if (r.arm, r.protocol, r.site) == (arm, IN_FEDERATION, ALL) and r.net_benefit]
        if not rows or len({len(row.net_benefit) for row in rows}) > 1:
            continue
        values = [[(b.threshold, b.model or 0.0, b.everybody) for b in row.net_benefit] for row in rows]
        told = np.mean(values, axis=0)
        lines[arm] = DecisionLine([(float(t), float(b)) for t, b in told[:, :2]])
        everybody = told[:, [0, 2]]
    if not lines:
        return None
    points = [(float(t), float(b)) for t, b in everybody]
    odds = points[0][0] / (1 - points[0][0])
    share = (points[0][1] + odds) / (1 + odds)
    return decision_picture("Net benefit over all centers", lines, everybody=points, share=share)


def _cell(rows: Sequence[Row], name: str) -> Cell:
    there = [row for row in rows if getattr(row, name) is not None]
    if not there:
        return Cell(DASH, why=reason(next((row.why for row in rows if row.why), None)))
    bounds = [mean(getattr(row, f"{name}_{end}") for row in there) for end in ("low", "high")]
    small = interval(*bounds, places=3) if None not in bounds else ""
    return Cell(decimal(mean(getattr(row, name) for row in there), places=3), small=small)

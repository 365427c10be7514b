"""The table of the random-effects meta-analysis: the mean over centers, and where a new center would lie."""

from __future__ import annotations

__all__ = ["AcrossRow", "across_rows"]

from dataclasses import dataclass

from server.centers import Meta
from server.report.estimates import reason, why_not
from server.report.numbers import DASH, decimal, interval
from server.report.reading import Run
from server.report.tables import Cell

_AGREES = 0.5
"""A Hartung–Knapp interval whose squared error is below this share of the plain one is called narrow."""


@dataclass(frozen=True)
class AcrossRow:
    """One arm under one measure; `assumed` marks the row whose spread between centers is not estimated."""

    measure: str
    arm: str
    assumed: bool
    centers: str
    mean: Cell
    ahead: Cell
    tau: str
    i2: str
    notes: tuple[str, ...]


def across_rows(run: Run) -> list[AcrossRow]:
    """AUC arm by arm, each with its row under the assumed spread, then O/E."""
    made = []
    for measure in ("auc", "oe"):
        for arm in run.arms():
            found = run.across(arm, measure)
            if found is not None:
                made.append(_row(found))
                made += _assumed(found)
    return made


def _row(found: Meta) -> AcrossRow:
    mean = (
        Cell(decimal(found.estimate), small=_between(found.low, found.high))
        if found.estimate is not None
        else Cell(DASH, why=why_not(found))
    )
    ahead = (
        Cell(_between(found.prediction_low, found.prediction_high))
        if found.prediction_low is not None
        else Cell(DASH, why=why_not(found))
    )
    share = DASH if found.i2 is None else f"{100 * found.i2:.0f} %"
    return AcrossRow(
        found.measure, found.arm, False, str(found.k), mean, ahead, decimal(found.tau), share, _notes(found)
    )


def _notes(found: Meta) -> tuple[str, ...]:
    notes = [found.note] if found.note else []
    if found.hksj_factor is not None and found.hksj_factor < _AGREES:
        notes.append("the centers agree better than their own errors allow: the interval may be too narrow")
    notes += [f"{site} left out: {reason(why)}" for site, why in sorted(found.left_out.items())]
    return tuple(notes)


def _assumed(found: Meta) -> list[AcrossRow]:
    known = found.sensitivity
    if known is None:
        return []
    mean = Cell(decimal(known.estimate), small=interval(known.low, known.high))
    ahead = Cell(interval(known.prediction_low, known.prediction_high))
    note = f"τ {decimal(known.tau_auc, places=3)} on the AUC scale, as published for other models, not estimated here"
    return [AcrossRow("auc", found.arm, True, str(found.k), mean, ahead, decimal(known.tau), DASH, (note,))]


def _between(low: float | None, high: float | None) -> str:
    """An interval; an O/E beyond 100 is written as that."""
    if high is not None and high > 100:
        return f"{decimal(low)} to > 100"
    return interval(low, high)

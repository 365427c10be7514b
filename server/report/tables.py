"""The page's tables as rows of cells that are ready to print."""

from __future__ import annotations

__all__ = [
    "CalibrationRow",
    "Cell",
    "ContrastRow",
    "LeadRow",
    "MatrixRow",
    "MeasureRow",
    "auc_cell",
    "calibration_rows",
    "contrast_rows",
    "lead_rows",
    "matrix_rows",
    "measure_rows",
    "probability",
    "too_coarse",
]

from collections.abc import Iterable
from dataclasses import dataclass

from server.report.estimates import WHY, Estimate, estimate, reason, worst_first
from server.report.numbers import DASH, at_most, count, decimal, interval, mean, precision_for, signed, span
from server.report.reading import ALL, IN_FEDERATION, LEAVE_ONE_OUT, Row, Run
from server.report.sentence import lead_arm
from server.statistics import Contrast

_MEASURES = {
    "auc_patient": 2,
    "sensitivity": 2,
    "specificity": 2,
    "threshold": 3,
    "brier": 3,
    "ece": 3,
    "calibration_slope": 2,
    "calibration_intercept": 2,
}


@dataclass(frozen=True)
class Cell:
    """A number as text, a smaller line under it, why it is a dash, and the step (0 to 9) of its shade."""

    shown: str
    small: str = ""
    why: str = ""
    shade: int | None = None
    own: bool = False


@dataclass(frozen=True)
class LeadRow:
    """A center of the first table: `name`, whether it is the worst or the whole, sizes, and one AUC for each arm."""

    name: str
    worst: bool
    whole: bool
    held_out: bool
    patients: str
    images: str
    arms: tuple[Cell, ...]
    sensitivity: Cell
    specificity: Cell


def lead_rows(run: Run, protocol: str) -> list[LeadRow]:
    """Centers, the worst first, then their mean or all cases together."""
    lead = lead_arm(run)
    if lead is None:
        return []
    sites = worst_first(run, lead, protocol)
    return [
        _lead_row(run, lead, protocol, site, worst=i == 0 and len(sites) > 1) for i, site in enumerate([*sites, ALL])
    ]


def _lead_row(run: Run, lead: str, protocol: str, site: str, *, worst: bool) -> LeadRow:
    e = estimate(run, lead, protocol, site)
    rows = e.rows if e is not None else ()
    return LeadRow(
        site if site != ALL else "Mean of centers" if protocol == LEAVE_ONE_OUT else "All cases together",
        worst and e is not None and e.auc is not None,
        site == ALL,
        protocol == IN_FEDERATION and bool(rows) and all(row.held_out for row in rows) and site != ALL,
        count(mean(row.n_patients for row in rows)),
        count(mean(row.n_images for row in rows)),
        tuple(auc_cell(estimate(run, arm, protocol, site)) for arm in run.arms(protocol)),
        _cell(rows, "sensitivity"),
        _cell(rows, "specificity"),
    )


def auc_cell(e: Estimate | None) -> Cell:
    """AUC with its interval under it; a dash and why where there is none."""
    if e is None:
        return Cell(DASH, why="not in this run")
    if e.auc is None:
        return Cell(DASH, why=e.why or reason(None))
    told = [interval(e.low, e.high)] if e.low is not None else []
    told += [f"from sums, {at_most(e.bound)}"] if e.bound is not None else []
    if e.low is None:
        told += [WHY[row.why] for row in e.rows if row.why in ("coarse", "unplaced")][:1]
    return Cell(decimal(e.auc), small="; ".join(told))


def _cell(rows: tuple[Row, ...], name: str) -> Cell:
    value = mean(getattr(row, name) for row in rows)
    if value is None:
        why = next((row.why for row in rows if row.why), None)
        return Cell(DASH, why=reason(why) if rows else "not in this run")
    return Cell(decimal(value, places=_MEASURES[name]), small=_bounds(rows, name))


def _bounds(rows: tuple[Row, ...], name: str) -> str:
    """The interval of a measure that has one, mean of the rows' bounds; empty without."""
    low, high = (mean(getattr(row, f"{name}_{end}", None) for row in rows) for end in ("low", "high"))
    return "" if low is None or high is None else span(low, high)


@dataclass(frozen=True)
class MeasureRow:
    """All measures of an arm at a center; `first` opens the center's block of `span` rows."""

    name: str
    arm: str
    first: bool
    span: int
    auc: Cell
    cells: tuple[Cell, ...]


def measure_rows(run: Run, protocol: str) -> list[MeasureRow]:
    """Every center and arm with every measure, in the order of the first table."""
    made: list[MeasureRow] = []
    for site in [*worst_first(run, lead_arm(run) or "federated", protocol), ALL]:
        found = [e for arm in run.arms(protocol) if (e := estimate(run, arm, protocol, site)) is not None and e.rows]
        name = site if site != ALL else "Mean of centers" if protocol == LEAVE_ONE_OUT else "All cases together"
        for i, e in enumerate(found):
            cells = tuple(_cell(e.rows, measure) for measure in _MEASURES)
            made.append(MeasureRow(name, e.arm, i == 0, len(found), auc_cell(e), cells))
    return made


@dataclass(frozen=True)
class CalibrationRow:
    """The leading arm's calibration at a center: slope and intercept with their intervals, ECE, Brier score."""

    name: str
    slope: Cell
    intercept: Cell
    ece: Cell
    brier: Cell


def calibration_rows(run: Run, protocol: str) -> list[CalibrationRow]:
    """Every center, in the order of the first table, and all cases together where sums tell of them."""
    lead = lead_arm(run) or "federated"
    made = []
    for site in [*worst_first(run, lead, protocol), ALL]:
        e = estimate(run, lead, protocol, site)
        if e is not None and e.rows:
            name = site if site != ALL else "All cases together"
            cells = (
                _of_calibration(e.rows, measure)
                for measure in ("calibration_slope", "calibration_intercept", "ece", "brier")
            )
            made.append(CalibrationRow(name, *cells))
    return made


def _of_calibration(rows: tuple[Row, ...], name: str) -> Cell:
    """A dash's reason is the row's; of the calibration of all cases no interval is told."""
    cell = _cell(rows, name)
    bare = cell.shown != DASH and not cell.small and rows[0].site == ALL and name.startswith("calibration")
    return Cell(cell.shown, small="from sums, without interval") if bare else cell


@dataclass(frozen=True)
class ContrastRow:
    """A contrast in words and numbers; `verdict` of federated is better, worse, borderline, none or unknown.

    `sums`: the difference of the paired test from sums alone, and its interval and p, where the run has it; of two
    models that a deployment compared, which has nothing else of all cases, by how much it may be off. `why` a number is
    not there, where the run says it.
    """

    protocol: str
    name: str
    whole: bool
    against: str
    delta: str
    interval: str
    p: str
    verdict: str
    sums: tuple[str, str] | None = None
    why: str = ""


def contrast_rows(run: Run, protocol: str) -> list[ContrastRow]:
    """The protocol's contrasts as the run gives them, the whole first."""
    mine = [c for c in run.contrasts if c.protocol == protocol]
    ordered = sorted(mine, key=lambda c: (c.b != "pooled", c.b, c.site != ALL, c.site))
    return [_contrast_row(c, protocol, coarse=_coarse(run, c)) for c in ordered]


def _coarse(run: Run, c: Contrast) -> bool:
    """Whether the paired test from sums rests on cells too coarse for it; against local it is exact at every site."""
    return c.b != "local" and any(too_coarse(run, arm) for arm in (c.a, c.b))


def too_coarse(run: Run, arm: str) -> bool:
    """Whether the arm's AUC from sums has no interval because it would claim too much; older results still hold it."""
    rows = (row for row in run.rows if (row.arm, row.protocol, row.site) == (arm, IN_FEDERATION, ALL))
    return any(row.auc_federated_why == "coarse" or _claims_too_much(row) for row in rows)


def _claims_too_much(row: Row) -> bool:
    low, high, bound = row.auc_federated_low, row.auc_federated_high, row.auc_federated_bound
    return low is not None and high is not None and bound is not None and bound > (high - low) / 2


def _contrast_row(c: Contrast, protocol: str, *, coarse: bool) -> ContrastRow:
    whole = c.site == ALL
    name = c.site if not whole else "Mean of centers" if protocol == LEAVE_ONE_OUT else "All cases together"
    delta, bounds = _difference(c.delta_auc, c.low, c.high)
    sums = None
    if c.delta_federated is not None:
        shown, reach = _difference(c.delta_federated, c.low_federated, c.high_federated)
        sums = (DASH, "cells too coarse") if coarse else (shown, f"{reach}, p {probability(c.p_federated)}")
        if c.bound_federated is not None:
            sums = (shown, at_most(c.bound_federated))
    why = reason(c.why) if c.why else ""
    return ContrastRow(protocol, name, whole, c.b, delta, bounds, probability(c.p), _verdict(c), sums, why)


def _difference(delta: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    if low is None or high is None:
        return signed(delta), DASH
    places = precision_for(low, high)
    return signed(delta, places=places), span(low, high, places=places)


def probability(value: float | None) -> str:
    """A p: `.031`, `< .001`; a dash for None."""
    if value is None:
        return DASH
    return "< .001" if value < 0.001 else decimal(value, places=3)


def _verdict(c: Contrast) -> str:
    if c.delta_auc is None or c.low is None or c.high is None:
        return "unknown"
    if c.low <= 0 <= c.high:
        return "none"
    if c.p is not None and c.p >= 0.05:
        return "borderline"
    return "better" if c.delta_auc > 0 else "worse"


@dataclass(frozen=True)
class MatrixRow:
    """AUC of what was trained at `name`, tested at each center."""

    name: str
    arm: str
    cells: tuple[Cell, ...]


def matrix_rows(run: Run) -> list[MatrixRow]:
    """Local models by the center that trained them, then the arms that were trained without the tested center."""
    columns = run.sites(LEAVE_ONE_OUT) or run.sites()
    local = [row for row in run.rows if row.arm == "local" and row.site != ALL and len(row.trained_on) == 1]
    origins = sorted({row.trained_on[0] for row in local})
    made = [
        MatrixRow(origin, "local", tuple(_trained_at(local, origin, site) for site in columns)) for origin in origins
    ]
    for arm in run.arms(LEAVE_ONE_OUT):
        if arm != "local":
            cells = (estimate(run, arm, LEAVE_ONE_OUT, site) for site in columns)
            made.append(
                MatrixRow(f"{arm}, without the tested center", arm, tuple(_shaded(e.rows if e else ()) for e in cells))
            )
    return made


def _trained_at(local: Iterable[Row], origin: str, site: str) -> Cell:
    """The center's own test patients on the diagonal; elsewhere all patients, or the test patients alone."""
    mine = [row for row in local if row.trained_on == (origin,) and row.site == site]
    wanted = IN_FEDERATION if origin == site else LEAVE_ONE_OUT
    best = tuple(row for row in mine if row.protocol == wanted) or tuple(mine)
    return _shaded(best, own=origin == site)


def _shaded(rows: tuple[Row, ...], *, own: bool = False) -> Cell:
    value = mean(row.auc for row in rows)
    if value is None:
        why = reason(next((row.why for row in rows if row.why), None)) if rows else "not in this run"
        return Cell(DASH, why=why, own=own)
    return Cell(decimal(value), shade=min(9, max(0, int((value - 0.5) * 20))), own=own)

"""ROC, calibration and decision curves, a panel of each for every center."""

from __future__ import annotations

__all__ = ["CenterCurves", "center_curves", "curves_untold"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from common.page.drawing import Scale, element, group, join, line, marker, path, svg, text
from server.report.center_decision import center_decision
from server.report.decision import DecisionLine, decision_picture
from server.report.estimates import estimate, worst_first
from server.report.numbers import decimal, interval
from server.report.reading import Run
from server.report.scores import Cell, Curves, curves
from server.report.sentence import lead_arm

_SIZE = 240.0
_X = Scale(0.0, 1.0, 34.0, 234.0)
_Y = Scale(0.0, 1.0, 206.0, 6.0)


@dataclass(frozen=True)
class CenterCurves:
    """Pictures of one center; None where no predictions are in the run folder, and `absent` counts what is not.

    `decision` is that of the predictions, None for more than two classes; without predictions that which the center
    told, and `note` says how much of it stayed there, or why all of it.
    """

    site: str
    roc: Markup | None
    calibration: Markup | None
    decision: Markup | None
    absent: int
    note: str = ""


def center_curves(run: Run, protocol: str) -> list[CenterCurves]:
    """The protocol's centers, worst first."""
    lead = lead_arm(run) or "federated"
    return [_center(run, protocol, site, lead) for site in worst_first(run, lead, protocol)]


def _center(run: Run, protocol: str, site: str, lead: str) -> CenterCurves:
    found: dict[str, Curves] = {}
    absent = 0
    for arm in run.arms(protocol):
        e = estimate(run, arm, protocol, site)
        made, gone = curves(e.rows, run.folder) if e is not None else (Curves(), 0)
        absent += gone
        if made.models:
            found[arm] = made
    if not found:
        return _told_by_center(run, protocol, site, absent)
    ordered = sorted(found, key=lambda arm: arm == lead)
    lines = [_roc_line(run, arm, protocol, site, found[arm]) for arm in ordered]
    bars = [_reliability_line(arm, found[arm], dots=arm == lead) for arm in ordered]
    one, other = "1 − specificity", "sensitivity"
    return CenterCurves(
        site,
        svg(_frame(one, other), *lines, width=_SIZE, height=_SIZE, title=f"ROC curves at {site}", class_="square"),
        svg(
            _frame("predicted probability", "observed share"),
            *bars,
            width=_SIZE,
            height=_SIZE,
            title=f"Calibration at {site}",
            class_="square",
        ),
        _decision(site, {arm: found[arm] for arm in ordered}),
        absent,
    )


def curves_untold(centers: Sequence[CenterCurves]) -> list[tuple[str, str]]:
    """(why, centers) of those that told no decision curve and said why."""
    by_reason: dict[str, list[str]] = {}
    for center in centers:
        if center.decision is None and center.note:
            by_reason.setdefault(center.note, []).append(center.site)
    return [(why, ", ".join(sites)) for why, sites in sorted(by_reason.items())]


def _told_by_center(run: Run, protocol: str, site: str, absent: int) -> CenterCurves:
    """Without predictions: the decision curve that the center itself told, of every arm that has one."""
    told = {arm: e.rows for arm in run.arms(protocol) if (e := estimate(run, arm, protocol, site)) is not None}
    picture, note = center_decision(site, told)
    return CenterCurves(site, None, None, picture, absent, note)


def _frame(x_name: str, y_name: str) -> Markup:
    parts = [line(_X(0), _Y(0), _X(1), _Y(1), class_="chance")]
    for tick in (0.0, 0.5, 1.0):
        shown = decimal(tick, places=1) if 0 < tick < 1 else f"{tick:g}"
        parts += [
            line(_X(tick), _Y(0), _X(tick), _Y(1), class_="grid"),
            line(_X(0), _Y(tick), _X(1), _Y(tick), class_="grid"),
            text(_X(tick), _Y(0) + 15, shown, class_="tick", anchor="middle"),
            text(_X(0) - 6, _Y(tick) + 4, shown, class_="tick", anchor="end"),
        ]
    parts.append(text((_X(0) + _X(1)) / 2, _Y(0) + 31, x_name, class_="tick", anchor="middle"))
    middle = (_Y(0) + _Y(1)) / 2
    turned = element(
        "text",
        y_name,
        x=0.0,
        y=0.0,
        text_anchor="middle",
        class_="tick",
        transform=f"translate(11 {middle:g}) rotate(-90)",
    )
    return join([*parts, turned])


def _roc_line(run: Run, arm: str, protocol: str, site: str, found: Curves) -> Markup:
    e = estimate(run, arm, protocol, site)
    name = f"{arm}, AUC {decimal(e.auc)}" if e is not None else arm
    points = [(_X(x), _Y(y)) for x, y in found.mean_roc()]
    sensitivity, specificity = (e.value("sensitivity"), e.value("specificity")) if e is not None else (None, None)
    locked = (
        [marker(arm, _X(1 - specificity), _Y(sensitivity), size=4.2)]
        if sensitivity is not None and specificity is not None
        else []
    )
    if locked:
        name += f"; at the locked threshold sensitivity {decimal(sensitivity)}, specificity {decimal(specificity)}"
    return group(path(points, class_="curve"), *locked, class_=f"arm {arm}", title=name)


def _reliability_line(arm: str, found: Curves, *, dots: bool) -> Markup:
    """Cells joined by a line; the leading arm's are dots whose area grows with their cases, with their intervals."""
    cells = found.reliability()
    points = [(_X(cell.probability), _Y(cell.observed)) for cell in cells]
    most = max((cell.cases for cell in cells), default=1.0)
    shown = [_reliability_dot(arm, cell, most) for cell in cells] if dots else []
    return group(path(points, class_="curve"), *shown, class_=f"arm {arm}")


def _reliability_dot(arm: str, cell: Cell, most: float) -> Markup:
    x = _X(cell.probability)
    said = (
        f"{arm}, {cell.cases:.0f} cases: predicted {decimal(cell.probability)}, observed {decimal(cell.observed)} "
        f"({interval(cell.low, cell.high)})"
    )
    return group(
        element("title", said),
        line(x, _Y(cell.low), x, _Y(cell.high), class_="whisker thin"),
        element("circle", cx=x, cy=_Y(cell.observed), r=1.5 + 3.5 * (cell.cases / most) ** 0.5, class_="mark soft"),
        class_="cell",
    )


def _decision(site: str, found: Mapping[str, Curves]) -> Markup | None:
    """Net benefit by threshold probability, every arm with its band; None for more than two classes."""
    whole = next((made for made in found.values() if made.binary), None)
    if whole is None:
        return None
    lines = {arm: DecisionLine(made.decisions(), made.decision_band()) for arm, made in found.items() if made.binary}
    share = whole.share / whole.binary
    return decision_picture(f"Net benefit at {site}", lines, everybody=whole.all_positive(), share=share)

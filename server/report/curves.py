"""ROC and calibration curves, one pair of panels for each center."""

from __future__ import annotations

__all__ = ["CenterCurves", "center_curves"]

from dataclasses import dataclass

from markupsafe import Markup

from common.page.drawing import Scale, element, group, join, line, marker, path, svg, text
from server.report.estimates import estimate, worst_first
from server.report.numbers import decimal
from server.report.reading import Run
from server.report.scores import Curves, curves
from server.report.sentence import lead_arm

_SIZE = 240.0
_X = Scale(0.0, 1.0, 34.0, 234.0)
_Y = Scale(0.0, 1.0, 206.0, 6.0)


@dataclass(frozen=True)
class CenterCurves:
    """Two pictures of one center; None where no predictions are in the run folder, and `absent` counts what is not."""

    site: str
    roc: Markup | None
    calibration: Markup | None
    absent: int


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
        return CenterCurves(site, None, None, absent)
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
        absent,
    )


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
    return group(path(points, class_="curve"), *locked, class_=f"arm {arm}", title=name)


def _reliability_line(arm: str, found: Curves, *, dots: bool) -> Markup:
    """Cells joined by a line; the leading arm's cells are dots whose area grows with their number of cases."""
    cells = found.reliability()
    points = [(_X(p), _Y(share)) for p, share, _ in cells]
    most = max((n for _, _, n in cells), default=1.0)
    sized = [
        element("circle", element("title", f"{n:.0f} cases: predicted {decimal(p)}, observed {decimal(s)}"),
                cx=_X(p), cy=_Y(s), r=2.0 + 5.0 * (n / most) ** 0.5, class_="mark soft")
        for p, s, n in cells
    ]  # fmt: skip
    return group(path(points, class_="curve"), *(sized if dots else []), class_=f"arm {arm}")

"""Decision curves: net benefit by threshold probability, against calling every case positive, or none."""

from __future__ import annotations

__all__ = ["DecisionLine", "decision_picture"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from common.page.drawing import Scale, element, group, join, line, path, svg, text
from server.report.numbers import decimal, span

Points = Sequence[tuple[float, float]]

_SIZE = 240.0
_X = Scale(0.0, 1.0, 34.0, 234.0)
_SAID = (0.1, 0.2, 0.3, 0.5)
"""Threshold probabilities that the curve is read out at."""


@dataclass(frozen=True)
class DecisionLine:
    """An arm's curve, (threshold probability, net benefit), and its band, (threshold probability, lower,
    upper); [] without.

    `marked`: it is known at few thresholds, so each of them is marked; between them it is drawn straight.
    """

    points: Points
    band: Sequence[tuple[float, float, float]] = ()
    marked: bool = False

    def said(self, arm: str) -> str:
        """The curve in words."""
        bounds = {round(t, 2): f" ({span(low, high)})" for t, low, high in self.band}
        places = 2 if self.marked else 1
        shown = [
            f"{decimal(b)}{bounds.get(round(t, 2), '')} at {decimal(t, places=places)}"
            for t, b in self.points
            if self.marked or round(t, 2) in _SAID
        ]
        return f"{arm}, net benefit: {', '.join(shown)}"


def decision_picture(title: str, lines: Mapping[str, DecisionLine], *, everybody: Points, share: float) -> Markup:
    """Every arm's curve by name, the last on top; `everybody` calls all cases positive, `share` of which are."""
    share = max([share, 0.01, *(b for drawn in lines.values() for _, b in drawn.points)])
    step = next((s for s in (0.1, 0.2) if share / s <= 4), 0.2)
    top = step * math.ceil(share / step - 1e-6)
    y = Scale(-step / 2, top, 206.0, 6.0)
    marks = [round(step * i, 1) for i in range(round(top / step) + 1)]
    frame = [
        *(line(_X(0), y(t), _X(1), y(t), class_="grid" if t else "chance") for t in marks),
        *(text(_X(0) - 6, y(t) + 4, decimal(t, places=1) if t else "0", class_="tick", anchor="end") for t in marks),
        *(text(_X(t), 221, f"{t:g}"[-2:], class_="tick", anchor="middle") for t in (0.0, 0.5, 1.0)),
        text((_X(0) + _X(1)) / 2, 237, "threshold probability", class_="tick", anchor="middle"),
    ]
    middle = f"translate(11 {(y(0) + y(top)) / 2:g}) rotate(-90)"
    turned = element("text", "net benefit", x=0.0, y=0.0, text_anchor="middle", class_="tick", transform=middle)
    bands = [group(_band(drawn.band, y), class_=f"arm {arm}") for arm, drawn in lines.items() if drawn.band]
    every = join(path(part, class_="reference") for part in _within(everybody, y))
    curves = [
        group(
            *(path(part, class_="curve") for part in _within(drawn.points, y)),
            *(_dot(t, benefit, y) for t, benefit in drawn.points if drawn.marked and benefit >= y.low),
            class_=f"arm {arm}",
            title=drawn.said(arm),
        )
        for arm, drawn in lines.items()
    ]
    return svg(*frame, turned, *bands, every, *curves, width=_SIZE, height=_SIZE, title=title, class_="square")


def _dot(t: float, benefit: float, y: Scale) -> Markup:
    return element("circle", cx=_X(t), cy=y(benefit), r=2.6, class_="mark soft")


def _band(band: Sequence[tuple[float, float, float]], y: Scale) -> Markup:
    """The area between the bounds; what lies outside the frame is put on its edge."""
    upper = [(_X(t), y(high)) for t, _, high in band]
    lower = [(_X(t), y(low)) for t, low, _ in band]
    return path([*upper, *lower[::-1]], class_="band", closed=True)


def _within(points: Points, y: Scale) -> list[list[tuple[float, float]]]:
    """Drawn points of the pieces of a line that lie in the frame; where it leaves below, it is cut at the edge."""
    parts: list[list[tuple[float, float]]] = [[]]
    for (t, value), (before, last) in zip(points, [points[0], *points], strict=False):
        if (value >= y.low) != (last >= y.low):
            edge = before + (t - before) * (y.low - last) / (value - last)
            if value >= y.low:
                parts.append([])
            parts[-1].append((_X(edge), y(y.low)))
        if value >= y.low:
            parts[-1].append((_X(t), y(value)))
    return [part for part in parts if len(part) > 1]

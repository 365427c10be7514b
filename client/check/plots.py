"""The check's plots as inline SVG, in the report's own hand: boxes of spread, bars of shares."""

from __future__ import annotations

__all__ = ["share_bars", "spread_panel"]

from collections.abc import Sequence

from markupsafe import Markup

from client.check.burned_in import ClassShare
from client.check.spread import Spread
from common.page.drawing import Scale, element, group, line, svg, text, ticks

_WIDTH, _RIGHT = 360.0, 352.0
_ROW, _GAP, _HEAD = 30.0, 8.0, 4.0
_LETTERS = 46


def spread_panel(spreads: Sequence[Spread]) -> Markup:
    """One measure: for each group a line from 5 % to 95 %, a box from 25 % to 75 %, a bar at the median."""
    low = min(spread.quantiles[0] for spread in spreads)
    high = max(spread.quantiles[-1] for spread in spreads)
    room = max((high - low) * 0.04, 0.5)
    scale = Scale(low - room, high + room, 6, _RIGHT)
    parts, y, kind = [], _HEAD, ""
    for spread in spreads:
        y += _GAP if kind and spread.kind != kind else 0
        kind = spread.kind
        parts.append(_box(spread, scale, y))
        y += _ROW
    marks = ticks(scale.low, scale.high)
    grid = [line(scale(mark), 0, scale(mark), y, class_="grid") for mark in marks]
    names = [text(scale(mark), y + 14, f"{mark:g}", class_="tick", anchor="middle") for mark in marks]
    return svg(*grid, *names, *parts, width=_WIDTH, height=y + 20, title=f"{spreads[0].measure} by group")


def _box(spread: Spread, scale: Scale, y: float) -> Markup:
    q05, q25, q50, q75, q95 = (scale(value) for value in spread.quantiles)
    shown = spread.name or "device not named"
    name = shown if len(shown) <= _LETTERS else shown[: _LETTERS - 1] + "…"
    middle = y + 21
    numbers = ", ".join(f"{value:.0f}" for value in spread.quantiles)
    return group(
        text(6, y + 11, f"{name}, {spread.images}", class_="tick"),
        line(q05, middle, q95, middle, class_="whisker"),
        element("rect", x=q25, y=middle - 5, width=max(q75 - q25, 1), height=10, class_="mark soft"),
        line(q50, middle - 7, q50, middle + 7, class_="axis median"),
        class_="neutral",
        title=f"{shown}, {spread.images} images; 5, 25, 50, 75 and 95 %: {numbers}",
    )


def share_bars(shares: Sequence[ClassShare]) -> Markup:
    """The share of each class's images that are under suspicion."""
    scale = Scale(0.0, 1.0, 6, _RIGHT)
    parts, y = [], _HEAD
    for share in shares:
        part = share.suspicious_images / share.images if share.images else 0.0
        said = f"{share.name}, {share.suspicious_images} of {share.images}"
        parts.append(
            group(
                text(6, y + 11, said, class_="tick"),
                element("rect", x=scale(0), y=y + 16, width=scale(part) - scale(0), height=10, class_="mark soft"),
                class_="neutral",
                title=said,
            )
        )
        y += _ROW
    marks = (0.0, 0.25, 0.5, 0.75, 1.0)
    grid = [line(scale(mark), 0, scale(mark), y, class_="grid") for mark in marks]
    names = [text(scale(mark), y + 14, f"{mark:.0%}", class_="tick", anchor="middle") for mark in marks]
    return svg(*grid, *names, *parts, width=_WIDTH, height=y + 20, title="Share of images with suspected calipers")

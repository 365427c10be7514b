"""The forest plot: AUC with its interval for every center and arm, their mean, and what a new center may expect."""

from __future__ import annotations

__all__ = ["forest"]

import math

from markupsafe import Markup

from common.page.drawing import Scale, group, join, line, marker, path, svg, text, ticks
from server.centers import Meta
from server.report.estimates import Estimate, estimate, why_not, worst_first
from server.report.numbers import DASH, decimal, interval
from server.report.reading import ALL, LEAVE_ONE_OUT, Run
from server.report.sentence import lead_arm

_WIDTH, _LEFT, _RIGHT = 400.0, 22.0, 286.0
_HEAD, _ROW, _GAP = 20.0, 19.0, 8.0


def forest(run: Run, protocol: str) -> Markup:
    """One panel: centers from worst to best, the whole, then the meta-analysis;
    a light dot is one seed or local model.
    """
    lead = lead_arm(run) or "federated"
    sites = [*worst_first(run, lead, protocol), ALL]
    blocks = [
        (site, [e for arm in run.arms(protocol) if (e := estimate(run, arm, protocol, site)) is not None])
        for site in sites
    ]
    blocks = [(site, found) for site, found in blocks if found]
    scale = Scale(_lowest(blocks), 1.0, _LEFT, _RIGHT)
    parts, y = [], 6.0
    for site, found in blocks:
        parts.append(text(0, y + 13, _name(run, site, protocol), class_="label strong"))
        y += _HEAD
        for e in found:
            parts.append(_row(e, scale, y + _ROW / 2, where=_name(run, site, protocol)))
            y += _ROW
        y += _GAP
    for part, height in _meta_blocks(run, protocol, scale, y):
        parts.append(part)
        y += height
    frame = _frame(scale, y)
    return svg(frame, *parts, width=_WIDTH, height=y + 36, title=f"AUC by center and arm, {protocol}", class_="forest")


def _meta_blocks(run: Run, protocol: str, scale: Scale, y: float) -> list[tuple[Markup, float]]:
    """The random-effects mean of each arm as a diamond, then where a new center would lie; each with its height."""
    arms = run.arms(protocol) if protocol == LEAVE_ONE_OUT else ()
    found = [m for arm in arms if (m := run.across(arm, "auc")) is not None and m.estimate is not None]
    made: list[tuple[Markup, float]] = []
    for title, row in (("Random-effects mean", _diamond), ("A new center (prediction)", _ahead)):
        if found:
            made.append((text(0, y + 13, title, class_="label strong"), _HEAD))
            y += _HEAD
        for m in found:
            made.append((row(m, scale, y + _ROW / 2), _ROW))
            y += _ROW
        if found:
            made.append((Markup(), _GAP))
            y += _GAP
    return made


def _diamond(m: Meta, scale: Scale, y: float) -> Markup:
    assert m.estimate is not None
    assert m.low is not None
    assert m.high is not None
    tips = [(scale(m.low), y), (scale(m.estimate), y - 5.5), (scale(m.high), y), (scale(m.estimate), y + 5.5)]
    shown = f"{decimal(m.estimate)}  {interval(m.low, m.high)}"
    return group(
        path(tips, class_="diamond", closed=True),
        *_beyond(scale, m.low, y),
        marker(m.arm, 8, y, size=3.6),
        text(_RIGHT + 10, y + 4, shown, class_="number"),
        class_=f"arm {m.arm}",
        title=f"{m.arm}, random-effects mean of {m.k} centers: {shown}",
    )


def _ahead(m: Meta, scale: Scale, y: float) -> Markup:
    low, high = m.prediction_low, m.prediction_high
    key = marker(m.arm, 8, y, size=3.6)
    if low is None or high is None:
        none = text(_RIGHT + 10, y + 4, f"{DASH} {m.k} centers", class_="tick")
        return group(key, none, class_=f"arm {m.arm}", title=f"{m.arm}: {why_not(m)}")
    ends = [line(scale(end), y - 4, scale(end), y + 4, class_="whisker") for end in (low, high) if end >= scale.low]
    return group(
        line(scale(low), y, scale(high), y, class_="whisker prediction"),
        *ends,
        *_beyond(scale, low, y),
        key,
        text(_RIGHT + 10, y + 4, interval(low, high), class_="number"),
        class_=f"arm {m.arm}",
        title=f"{m.arm}, a new center: {interval(low, high)}{f' ({m.note})' if m.note else ''}",
    )


def _beyond(scale: Scale, low: float, y: float) -> list[Markup]:
    """An arrow at the left edge where the interval goes on."""
    x = scale.start
    return [path([(x - 6, y), (x, y - 4), (x, y + 4)], class_="mark", closed=True)] if low < scale.low else []


def _name(run: Run, site: str, protocol: str) -> str:
    if site != ALL:
        shown = site if len(site) <= 40 else site[:39] + "…"
        return f"{shown} (artificial)" if site in run.artificial else shown
    return "Mean of centers" if protocol == LEAVE_ONE_OUT else "All cases together"


def _lowest(blocks: list[tuple[str, list[Estimate]]]) -> float:
    seen = [v for _, found in blocks for e in found for v in (e.auc, e.low, *e.each) if v is not None]
    return max(0.0, min(0.5, math.floor(min(seen, default=0.5) * 10) / 10))


def _frame(scale: Scale, bottom: float) -> Markup:
    marks = ticks(scale.low, scale.high)
    grid = [line(scale(t), 2, scale(t), bottom, class_="grid") for t in marks if t != 0.5]
    grid.append(line(scale(0.5), 2, scale(0.5), bottom, class_="chance"))
    names = [text(scale(t), bottom + 14, decimal(t, places=1), class_="tick", anchor="middle") for t in marks]
    middle = (scale.start + scale.end) / 2
    return join([*grid, *names, text(middle, bottom + 30, "AUC (.5 is chance)", class_="tick", anchor="middle")])


def _row(e: Estimate, scale: Scale, y: float, *, where: str) -> Markup:
    if e.auc is None:
        return group(
            marker(e.arm, 8, y),
            text(_RIGHT + 8, y + 4, "– none", class_="tick"),
            class_=f"arm {e.arm}",
            title=f"{where}, {e.arm}: {e.why}",
        )
    shown = f"{decimal(e.auc)}  {interval(e.low, e.high)}" if e.low is not None else decimal(e.auc)
    several = len(e.each) > 1
    dots = [marker(e.arm, scale(value), y + 6.5, size=2.2, class_="seed") for value in e.each] if several else []
    whisker = (
        [line(scale(e.low), y, scale(e.high), y, class_="whisker")] if e.low is not None and e.high is not None else []
    )
    return group(
        *whisker,
        *dots,
        marker(e.arm, scale(e.auc), y),
        marker(e.arm, 8, y, size=3.6),
        text(_RIGHT + 10, y + 4, shown, class_="number"),
        class_=f"arm {e.arm}",
        title=f"{where}, {e.arm}: {shown}",
    )

"""What the shift looks like: gray levels and texture of the lesion crops, center by center."""

from __future__ import annotations

__all__ = ["descriptor_panels", "histogram_panels"]

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from common.page.drawing import Scale, element, group, join, line, path, svg, text, ticks
from server.report.numbers import decimal
from server.report.reading import Appearance, Run

_WIDTH, _HEIGHT = 320.0, 150.0
_Floats = NDArray[np.float64]


def histogram_panels(run: Run) -> list[tuple[Appearance, Markup]]:
    """One histogram for each center; the outline is the mean over centers, so that a shift is seen against it."""
    shares = {a.site: _share(a) for a in run.appearances if sum(a.histogram) > 0}
    if not shares:
        return []
    longest = max(len(share) for share in shares.values())
    every = [np.pad(share, (0, longest - len(share))) for share in shares.values()]
    middle = np.mean(every, axis=0)
    top = max(float(np.quantile(np.concatenate(every), 0.995)), float(middle.max())) * 1.05
    ordered = sorted((a for a in run.appearances if a.site in shares), key=lambda a: a.site)
    return [(a, _histogram(a.site, shares[a.site], middle, top)) for a in ordered]


def _share(a: Appearance) -> _Floats:
    counts = np.asarray(a.histogram, dtype=np.float64)
    share: _Floats = counts / counts.sum()
    return share


def _histogram(
    site: str,
    share: _Floats,
    middle: _Floats,
    top: float,
) -> Markup:
    x, y = Scale(0, 255, 8, _WIDTH - 8), Scale(0, top, _HEIGHT - 34, 8)
    width = 256 / len(share)
    outline = [(x((i + 0.5) * width), y(float(v))) for i, v in enumerate(share)]
    area = [(x(0), y(0)), *outline, (x(255), y(0))]
    mean_line = [(x((i + 0.5) * 256 / len(middle)), y(float(v))) for i, v in enumerate(middle)]
    names = [text(x(v), y(0) + 15, f"{v}", class_="tick", anchor="middle" if v else "start") for v in (0, 64, 128, 192)]
    names.append(text(x(255), y(0) + 15, "255", class_="tick", anchor="end"))
    return svg(
        path(area, class_="area", closed=True),
        path(mean_line, class_="reference"),
        line(x(0), y(0), x(255), y(0), class_="axis"),
        *names,
        text((x(0) + x(255)) / 2, y(0) + 30, "gray level", class_="tick", anchor="middle"),
        width=_WIDTH,
        height=_HEIGHT,
        title=f"Gray levels at {site}, with the mean of centers",
        class_="histogram",
    )


def descriptor_panels(run: Run) -> list[tuple[str, Markup]]:
    """One panel for each descriptor: a dot is a center's mean, the line one standard deviation either way."""
    names = sorted({name for a in run.appearances for name in a.descriptors})
    return [(name, _descriptor(name, run)) for name in names]


def _descriptor(name: str, run: Run) -> Markup:
    found = [
        (a.site, *a.descriptors[name]) for a in sorted(run.appearances, key=lambda a: a.site) if name in a.descriptors
    ]
    low, high = min(m - s for _, m, s in found), max(m + s for _, m, s in found)
    x = Scale(low, high, 122, _WIDTH - 44)
    marks = ticks(low, high, most=5)
    bottom = 8.0 + 20 * len(found)
    places = 0 if high - low >= 20 else 1 if high - low >= 2 else 2 if high - low >= 0.05 else 3
    frame = [
        join(
            [
                line(x(t), 4, x(t), bottom, class_="grid"),
                text(x(t), bottom + 13, decimal(t, places=places), class_="tick", anchor="middle"),
            ]
        )
        for t in marks
    ]
    rows = [_one(site, m, s, x, 18.0 + 20 * i, places) for i, (site, m, s) in enumerate(found)]
    return svg(*frame, *rows, width=_WIDTH, height=bottom + 20, title=f"{name} by center", class_="descriptor")


def _one(site: str, mean: float, spread: float, x: Scale, y: float, places: int) -> Markup:
    shown = site if len(site) <= 17 else site[:16] + "…"
    return group(
        text(0, y + 4, shown, class_="label"),
        line(x(mean - spread), y, x(mean + spread), y, class_="whisker"),
        element("circle", cx=x(mean), cy=y, r=4.0, class_="mark"),
        text(_WIDTH, y + 4, decimal(mean, places=max(places, 1)), class_="number", anchor="end"),
        class_="neutral",
        title=f"{site}: {decimal(mean, places=3)} ± {decimal(spread, places=3)}",
    )

"""Small SVG pieces: elements, scales, markers, axes. Colours come from the style sheet by class, never from here.

Coordinates are in user units of a viewBox about 360 wide, so that text keeps its size on a phone.
"""

from __future__ import annotations

__all__ = [
    "MARKERS",
    "Scale",
    "element",
    "group",
    "hover_texts",
    "join",
    "line",
    "marker",
    "path",
    "svg",
    "text",
    "ticks",
]

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_HOVER = re.compile(r"<g\b[^>]*><title>(.*?)</title>", re.DOTALL)
MARKERS = {"federated": "circle", "pooled": "square", "local": "triangle", "ensemble": "diamond"}


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """`<name a="…">children</name>`; a child that is no Markup is escaped; `_` in a key is `-`, `class_` is `class`."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    shown = "".join(f' {key}="{_plain(value)}"' for key, value in pairs)
    inner = join(children)
    return Markup(f"<{name}{shown}>{inner}</{name}>" if inner else f"<{name}{shown}/>")


def _plain(value: str | float) -> str:
    return str(escape(value)) if isinstance(value, str) else f"{round(value, 1):g}"


def join(parts: Iterable[str]) -> Markup:
    """Escape what is no Markup and put all together."""
    return Markup("").join(parts)


def svg(*children: str, width: float, height: float, title: str, class_: str = "") -> Markup:
    """A picture with a name for those who do not see it."""
    return element(
        "svg",
        element("title", title),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_=f"figure {class_}".strip(),
    )


def group(*children: str, class_: str, title: str | None = None) -> Markup:
    """Children of one class, with a hover text where `title` is given."""
    named = [element("title", title)] if title is not None else []
    return element("g", *named, *children, class_=class_)


def hover_texts(*pictures: str | None) -> list[Markup]:
    """The hover texts of the pictures' groups, in order, for a list beside them: a hover needs a mouse."""
    return [Markup(found) for picture in pictures if picture for found in _HOVER.findall(str(picture))]


def line(x1: float, y1: float, x2: float, y2: float, *, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, content: str, *, class_: str = "", anchor: str = "start") -> Markup:
    """Words at a point; `anchor` is start, middle or end."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_ or None)


def path(points: Sequence[tuple[float, float]], *, class_: str, closed: bool = False) -> Markup:
    """A polyline through `points`."""
    steps = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    return element("path", d=steps + ("Z" if closed else ""), class_=class_)


def marker(arm: str, x: float, y: float, *, size: float = 4.5, class_: str = "mark") -> Markup:
    """The arm's own shape, so that colour is never the only sign."""
    match MARKERS.get(arm, "circle"):
        case "square":
            s = size * 0.9
            return element("rect", x=x - s, y=y - s, width=2 * s, height=2 * s, class_=class_)
        case "triangle":
            s = size * 1.15
            return path([(x, y - s), (x + s, y + s * 0.8), (x - s, y + s * 0.8)], class_=class_, closed=True)
        case "diamond":
            s = size * 1.25
            return path([(x, y - s), (x + s, y), (x, y + s), (x - s, y)], class_=class_, closed=True)
        case _:
            return element("circle", cx=x, cy=y, r=size, class_=class_)


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [start, end]; what lies outside is put on the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """At most `most` round numbers in [low, high], spaced by 1, 2 or 5 times a power of ten."""
    reach = high - low
    if reach <= 0:
        return [low]
    size = 10.0 ** math.floor(math.log10(reach / most))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if reach / (size * factor) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]

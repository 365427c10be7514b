"""Learning curves: AUC by round, one panel for each protocol and center."""

from __future__ import annotations

__all__ = ["learning_panels"]

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from common.page.drawing import Scale, group, join, line, path, svg, text, ticks
from server.report.numbers import decimal, mean
from server.report.reading import ARMS, IN_FEDERATION, LEAVE_ONE_OUT, Evaluation, Run

_WIDTH, _HEIGHT = 320.0, 210.0
_HELD, _VAL, _TEST = "held out", "val", "test"
_Curve = dict[int, list[float]]


@dataclass(frozen=True)
class _Line:
    arm: str
    kind: str
    points: list[tuple[int, float]]


def learning_panels(run: Run) -> list[tuple[str, str, Markup]]:
    """(protocol, center, picture), only where a curve has two points or more."""
    gathered: dict[tuple[str, str], dict[tuple[str, str], _Curve]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for event in {(e.run, e.round, e.site, e.part): e for e in run.evaluations}.values():
        if event.auc is None:
            continue
        for panel, kind in _panels(event):
            gathered[panel][(event.run.split("/")[0], kind)][event.round].append(event.auc)
    order = sorted(gathered, key=lambda key: (key[0] != LEAVE_ONE_OUT, key))
    return [(*key, drawn) for key in order if (drawn := _draw(key, _lines(gathered[key]))) is not None]


def _panels(event: Evaluation) -> list[tuple[tuple[str, str], str]]:
    """Which panels an evaluation belongs to, and as which line; none for what the page does not show."""
    parts = event.run.split("/")
    middle = parts[1] if len(parts) > 1 else IN_FEDERATION
    if middle.startswith("without-"):
        left_out = middle.removeprefix("without-")
        if event.held_out:
            return [((LEAVE_ONE_OUT, left_out), _HELD)] if event.site == left_out else []
        return [((LEAVE_ONE_OUT, left_out), _VAL)] if event.part == "val" else []
    if parts[0] == "local":
        return []
    if event.held_out:
        return [((IN_FEDERATION, event.site), _HELD)]
    if event.part != "val":
        return [((IN_FEDERATION, event.site), _TEST)]
    together = ((IN_FEDERATION, "all training centers"), _VAL)
    return [together] if "+" in event.site else [together, ((IN_FEDERATION, event.site), _VAL)]


def _lines(curves: Mapping[tuple[str, str], _Curve]) -> list[_Line]:
    known = {arm: i for i, arm in enumerate(ARMS)}
    order = sorted(curves, key=lambda key: (known.get(key[0], 9), key), reverse=True)
    made = [
        _Line(arm, kind, [(r, mean(v) or 0.0) for r, v in sorted(curves[(arm, kind)].items())]) for arm, kind in order
    ]
    return [each for each in made if len(each.points) > 1]


def _draw(key: tuple[str, str], lines: list[_Line]) -> Markup | None:
    if not lines:
        return None
    rounds = [r for each in lines for r, _ in each.points]
    values = [v for each in lines for _, v in each.points]
    x = Scale(min(rounds), max(rounds), 34, _WIDTH - 12)
    y = Scale(min(0.5, int(min(values) * 10) / 10), 1.0, _HEIGHT - 40, 10)
    drawn = [
        group(
            path([(x(r), y(v)) for r, v in each.points], class_=f"curve {each.kind.replace(' ', '-')}"),
            class_=f"arm {each.arm}",
            title=f"{each.arm}, {each.kind}: AUC {decimal(each.points[-1][1])} after round {each.points[-1][0]}",
        )
        for each in lines
    ]
    return svg(
        _frame(x, y), *drawn, width=_WIDTH, height=_HEIGHT, title=f"AUC by round, {key[1]}, {key[0]}", class_="learning"
    )


def _frame(x: Scale, y: Scale) -> Markup:
    parts = [
        join(
            [
                line(x.start, y(t), x.end, y(t), class_="chance" if t == 0.5 else "grid"),
                text(x.start - 6, y(t) + 4, decimal(t, places=1), class_="tick", anchor="end"),
            ]
        )
        for t in ticks(y.low, y.high)
    ]
    whole = [t for t in ticks(x.low, x.high) if t == int(t)]
    parts += [text(x(t), y.start + 16, f"{t:g}", class_="tick", anchor="middle") for t in whole]
    return join([*parts, text((x.start + x.end) / 2, y.start + 32, "round", class_="tick", anchor="middle")])

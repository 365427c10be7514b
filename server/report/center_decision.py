"""A center's decision curve as the center itself told it: exact, at few thresholds, some of which it kept back."""

from __future__ import annotations

__all__ = ["center_decision"]

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from common.pooled import NetBenefit
from server.report.decision import DecisionLine, decision_picture
from server.report.estimates import reason
from server.report.reading import Row


def center_decision(site: str, told: Mapping[str, Sequence[Row]]) -> tuple[Markup | None, str]:
    """The picture of the arms' curves, from each arm's rows at the center, and what is to be said of it; None and why
    where the center told no curve. Several rows of an arm (seeds) are not mixed: the first speaks.
    """
    curves = {arm: next((row.net_benefit for row in rows if row.net_benefit), ()) for arm, rows in told.items()}
    shown = {arm: points for arm, points in curves.items() if any(point.model is not None for point in points)}
    if not shown:
        why = (
            "few-between"
            if any(curves.values())
            else next((row.net_benefit_why for rows in told.values() for row in rows if row.net_benefit_why), None)
        )
        return None, reason(why) if why else ""
    lines = {arm: _line(points) for arm, points in reversed(shown.items())}
    first = next(iter(shown.values()))
    everybody = [(point.threshold, point.everybody) for point in first]
    odds = first[0].threshold / (1 - first[0].threshold)
    share = (first[0].everybody + odds) / (1 + odds)
    return decision_picture(f"Net benefit at {site}", lines, everybody=everybody, share=share), _note(first)


def _line(points: Sequence[NetBenefit]) -> DecisionLine:
    there = [(point.threshold, point.model) for point in points if point.model is not None]
    band = [(p.threshold, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    return DecisionLine(there, band, marked=True)


def _note(points: Sequence[NetBenefit]) -> str:
    kept = sum(point.model is None for point in points)
    if not kept:
        return ""
    stay = "stays" if kept == 1 else "stay"
    return f"{kept} of {len(points)} thresholds {stay} at the center: too few patients lie between them and the next."

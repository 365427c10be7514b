"""The shift cards: one for each center, ready to print."""

from __future__ import annotations

__all__ = ["Card", "Fact", "cards"]

from collections.abc import Mapping
from dataclasses import dataclass

from server.report.estimates import reason
from server.report.numbers import decimal, signed
from server.report.reading import Run
from server.report.tables import probability
from server.shift_card import ShiftCard

_AXES = {"acquisition": "acquisition", "prevalence": "prevalence", "case mix": "case_mix"}


@dataclass(frozen=True)
class Fact:
    """A line of a card: the glossary key of what it is, its name where that is another one, and what was found."""

    key: str
    name: str
    shown: str


@dataclass(frozen=True)
class Card:
    """A center. `verdict` is empty, and `why` says why, where it was not compared; `sentences` are (what, sentence)."""

    site: str
    patients: str
    verdict: str
    why: str
    sentences: tuple[tuple[str, str], ...]
    facts: tuple[Fact, ...]


def cards(run: Run) -> list[Card]:
    """Centers that differ first, then by site id."""
    return [_card(one, run) for one in sorted(run.shift, key=lambda c: (c.verdict in (None, "none"), c.site))]


def _card(one: ShiftCard, run: Run) -> Card:
    if one.verdict is None:
        why = "fewer patients than a comparison needs" if one.why == "too-few" else reason(one.why)
        return Card(one.site, "–" if one.n_patients is None else str(one.n_patients), "", why, (), ())
    verdict = "no shift shown" if one.verdict == "none" else " and ".join(one.causes) or one.verdict
    verdict += f", here or at {one.or_other}" if one.or_other else ""
    sentences = (
        ("How far", one.how_far),
        ("Along what", one.along_what),
        ("What it did", one.what_it_did),
        ("Which model", one.which_model),
        ("What to do", one.what_to_do),
    )
    told = tuple((what, sentence) for what, sentence in sentences if sentence)
    return Card(one.site, str(one.n_patients), verdict, "", told, _facts(one, run))


def _facts(one: ShiftCard, run: Run) -> tuple[Fact, ...]:
    found = [_axis(axis, one.p_by_axis or {}) for axis in _AXES]
    found += [Fact("descriptor", a.name, f"{signed(a.difference)} SD, z {signed(a.z, places=1)}") for a in one.along]
    names = run.setting("task", "classes")
    if isinstance(names, list) and len(names) == len(one.shares):
        for name, here, there in zip(names, one.shares, one.shares_reference, strict=True):
            found.append(Fact("class_share", f"share {name}", f"{100 * here:.0f} %, elsewhere {100 * there:.0f} %"))
    if one.discrepancy is not None:
        below = one.discrepancy_usual
        beside = "" if below is None else f"; without shift below {decimal(below, places=4)}"
        found.append(Fact("discrepancy", "", f"{decimal(one.discrepancy, places=4)}{beside}"))
    if one.classifier is not None:
        found.append(
            Fact("two_sample", "", f"AUC {decimal(one.classifier.auc)}, p {probability(one.classifier.p)}")
        )  # fmt: skip
    if one.frechet is not None:
        usual = f"{decimal(one.frechet.distance)}; without shift below {decimal(one.frechet.usual)}"
        found.append(Fact("frechet", "", f"{usual}, p {probability(one.frechet.p)}"))
    return tuple(found)


def _axis(axis: str, p: Mapping[str, float]) -> Fact:
    return Fact(_AXES[axis], "", f"p {probability(p.get(axis))}")

"""Ask every site how its patients look to the final model, in two rounds of sums, and make the cards of what came.

Moments first; then, in the coordinates that they give together, means, variances and draws with multipliers that each
site keeps to itself. Whoever tells nothing has a card that says why, and is in nobody's comparison.
"""

from __future__ import annotations

__all__ = ["Told", "ask_shift", "panel"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.config import Experiment
from common.orders import EvaluateOrder, Part, PartReport
from common.randomness import derive
from common.shift import ShiftMoments, ShiftReference, ShiftSums
from common.shift_orders import SentReference, ShiftOrder
from common.update import Weights
from server.evidence import parts_of
from server.repairs import Repaired, no_looks
from server.results import Row
from server.rounds import Evaluated, Federation, Roster
from server.shift import make_reference
from server.shift_card import ShiftCard, make_cards

_PART = "shift"


@dataclass(frozen=True)
class Told:
    """Both rounds: the `sums` of sites in the coordinates of `reference`; `without` says of every other site that was
    asked why it has none, and `failures` which of them gave no answer that can be read.
    """

    sums: Mapping[str, ShiftSums] = field(default_factory=dict)
    reference: ShiftReference | None = None
    without: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def ask_shift(
    federation: Federation,
    experiment: Experiment,
    roster: Roster,
    weights: Weights,
    order: EvaluateOrder,
    *,
    lost: Collection[str] = (),
) -> Told:
    """Two messages to each site, as `order` names the run, about the patients that did not train.

    Nobody is asked where training is private or sums leave under masks alone (`no_looks`), or at a single site; the
    second message goes to sites with moments alone, and to none where they share no class. The `lost` sites, which
    gave no answer before, would only let everybody wait once more.
    """
    every = {site: replace(order, parts={_PART: parts}) for site, parts in _parts(roster, experiment).items()}
    if no_looks(experiment) is not None or len(every) < 2:
        return Told()
    asked = {site: one for site, one in every.items() if site not in lost}
    found = _both_rounds(federation, experiment, roster, weights, asked) if asked else Told()
    return replace(found, without={**dict.fromkeys(set(every) - set(asked), "no-answer"), **found.without})


def _both_rounds(
    federation: Federation,
    experiment: Experiment,
    roster: Roster,
    weights: Weights,
    asked: Mapping[str, EvaluateOrder],
) -> Told:
    first = _ask(federation, asked, "shift-moments", ShiftOrder(experiment.seed), weights)
    moments, without, failures = _moments(first, asked, classes=len(experiment.task.classes))
    reference = _reference(moments, roster.train, seed=experiment.seed)
    if reference is None:
        return Told({}, None, dict.fromkeys(moments, "no-comparison") | without, failures)
    again = {site: asked[site] for site in moments}
    about = ShiftOrder(experiment.seed, SentReference.of(reference))
    second = _ask(federation, again, "shift-sums", about, weights)
    sums, later, lost = _sums(second, again, reference)
    return Told(sums, reference, without | later, failures | lost)


def _parts(roster: Roster, experiment: Experiment) -> dict[str, tuple[Part, ...]]:
    """By site, whom the model did not learn from: at a site that trains its val patients, and its test patients where
    these do not train; at a held-out one everybody.
    """
    known: tuple[Part, ...] = ("val", "test") if experiment.protocol == "in-federation" else ("val",)
    everybody: tuple[Part, ...] = ("train", "val", "test")
    return dict.fromkeys(roster.train, known) | dict.fromkeys(roster.held_out, everybody)


def _ask(
    federation: Federation,
    asked: Mapping[str, EvaluateOrder],
    stage: str,
    about: ShiftOrder,
    weights: Weights,
) -> Evaluated:
    orders = {site: replace(one, stage=stage, shift=about) for site, one in asked.items()}  # type: ignore[arg-type]
    return federation.evaluate(next(iter(asked.values())).round, orders, weights)


def _moments(
    evaluated: Evaluated, asked: Collection[str], *, classes: int
) -> tuple[dict[str, ShiftMoments], dict[str, str], dict[str, str]]:
    """By site: its moments; or why it told none; and who failed. Moments of another width than most are a failure."""
    parts, failures = parts_of(evaluated, _PART), dict(evaluated.failures)
    found = {site: part.shift_moments.moments for site, part in parts.items() if part.shift_moments is not None}
    shapes = [one.totals.shape for one in found.values() if len(one.counts) == classes]
    usual = max(shapes, key=shapes.count, default=None)
    for site in [site for site, one in found.items() if one.totals.shape != usual]:
        failures[site] = f"its moments have shape {found.pop(site).totals.shape}, not {usual}; run one release"
    return found, _without(asked, found, parts, failures), failures


def _sums(
    evaluated: Evaluated, asked: Collection[str], reference: ShiftReference
) -> tuple[dict[str, ShiftSums], dict[str, str], dict[str, str]]:
    parts, failures, found = parts_of(evaluated, _PART), dict(evaluated.failures), {}
    for site, part in parts.items():
        try:
            if part.shift_sums is not None:
                found[site] = part.shift_sums.sums(reference)
        except ValueError as error:
            failures[site] = f"its sums do not fit the reference ({error}); run one release everywhere"
    return found, _without(asked, found, parts, failures), failures


def _without(
    asked: Collection[str], found: Collection[str], parts: Mapping[str, PartReport], failures: Collection[str]
) -> dict[str, str]:
    """Why each of the others is not among the `found`; a site whose report has no such part has no patient in it."""
    why = {site: "no-answer" if site in failures else "too-few" for site in asked if site not in found}
    return why | {site: parts[site].why or "no-answer" for site in why if site in parts and site not in failures}


def _reference(moments: Mapping[str, ShiftMoments], trainers: Collection[str], *, seed: int) -> ShiftReference | None:
    """None where nobody can be compared with anybody."""
    if len(moments) < 2 or not set(moments) & set(trainers):
        return None
    try:
        return make_reference([moments[site] for site in sorted(moments)], seed=seed)
    except (ValueError, np.linalg.LinAlgError):  # no class at every center, or numbers without a decomposition
        return None


def panel(
    told: Told,
    experiment: Experiment,
    *,
    trainers: Collection[str],
    rows: Sequence[Row],
    repairs: Sequence[Repaired] = (),
) -> tuple[ShiftCard, ...]:
    """A card for every site that was asked, in the order of ids: its comparison with the `trainers`, or why there is
    none.
    """
    bare = {site: ShiftCard(site, None, why=why) for site, why in told.without.items()}
    cards = {card.site: card for card in _compared(told, experiment, trainers, rows, repairs)}
    alone = {s: ShiftCard(s, one.patients, why="no-comparison") for s, one in told.sums.items() if s not in cards}
    return tuple(card for _, card in sorted({**bare, **alone, **cards}.items()))


def _compared(
    told: Told, experiment: Experiment, trainers: Collection[str], rows: Sequence[Row], repairs: Sequence[Repaired]
) -> tuple[ShiftCard, ...]:
    against = sorted(set(trainers) & set(told.sums))
    if told.reference is None or not against or len(told.sums) < 2:
        return ()
    try:
        return make_cards(
            told.sums,
            told.reference,
            rng=derive(experiment.seed, "shift", "server"),
            positive=experiment.task.positive_index,
            against=against,
            rows=rows,
            trained=trainers,
            repairs=repairs,
        )
    except np.linalg.LinAlgError:
        return ()

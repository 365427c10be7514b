"""Two models compared where each site tells the server its sums: histograms of the second model, then both placed."""

from __future__ import annotations

__all__ = ["compare_in_clear"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from common.config import Experiment
from common.influence import Difference, InfluenceSums
from common.macro import MacroSums
from common.orders import EvaluateOrder, PartReport, Placing
from common.paired import side_by_side
from common.update import Weights
from server.evidence import Question, parts_of
from server.paired import (
    Compared,
    Evaluating,
    PooledDifference,
    both_asked,
    own_difference,
    paired_order,
    pooled_difference,
)
from server.pooled_in_clear import InClear
from server.rounds import Evaluated, Federation

_Placings = tuple[Placing | None, ...]


@dataclass(frozen=True)
class _Pair:
    """Both models' histograms, question by question, and whose they are."""

    sites: tuple[str, ...]
    questions: tuple[tuple[Question, Question], ...]

    def placing(self) -> dict[str, tuple[_Placings, _Placings]]:
        """By site what it needs to place its cases under both models; without a site that is in no question."""
        found = {}
        for site in self.sites:
            first = tuple(a.placing(site) if both_asked(a, b) else None for a, b in self.questions)
            second = tuple(b.placing(site) if both_asked(a, b) else None for a, b in self.questions)
            if any(one is not None for one in first):
                found[site] = first, second
        return found


def compare_in_clear(
    federation: Federation,
    experiment: Experiment,
    weights: tuple[Weights, Weights],
    first: Evaluating,
    sites: Collection[str],
) -> Compared:
    """Each center's own difference, and that of the training `sites` together; asked again without one that fails."""
    ours, theirs = (InClear(federation, experiment, each) for each in weights)
    tested = first.tested(sites)
    parts = {site: part for site, part in parts_of(first.evaluated, "test").items() if site in tested}
    order, others, failures = _counted(theirs, first, [site for site, part in parts.items() if part.histograms])
    left, orders = sorted(others), {site: paired_order(one) for site, one in first.orders.items()}
    own: dict[str, Difference] = {}
    while True:
        mine, second = ({site: told[site] for site in left} for told in (parts, others))
        questions = zip(ours.pooled(mine, first.counting), theirs.pooled(second, order), strict=True)
        pair = _Pair(tuple(left), tuple(questions))
        placing = pair.placing()
        asked = orders | {s: replace(orders[s], placing=a, against=b) for s, (a, b) in placing.items()}
        answered = Evaluated({}, {})
        if asked:
            answered = federation.evaluate(order.round, asked, side_by_side(*weights))
        told = parts_of(answered, "test")
        own |= {site: own_difference(part) for site, part in told.items()}
        failures |= answered.failures
        if not placing.keys() & answered.failures.keys():
            return Compared(own, _pooled(pair, told) if tested else None, failures)
        left = [site for site in left if site not in answered.failures]
        orders = {site: orders[site] for site in left}


def _counted(
    theirs: InClear, first: Evaluating, sites: Sequence[str]
) -> tuple[EvaluateOrder, Mapping[str, PartReport], dict[str, str]]:
    """The order that asked for the second model's counts, these by site, and who failed on the way."""
    order = replace(first.counting, compared="second")
    if not sites:
        return order, {}, {}
    grid, lost = theirs.first_pass(replace(first.val, compared="second"), sites)
    order = theirs.counting(order, grid)
    found = theirs.federation.evaluate(order.round, dict.fromkeys(sites, order), theirs.weights)
    parts = {site: part for site, part in parts_of(found, "test").items() if part.histograms}
    return order, parts, {**lost, **found.failures}


def _pooled(pair: _Pair, parts: Mapping[str, PartReport]) -> PooledDifference:
    """The sites' influence sums of the difference, put together."""
    told = {site: parts[site] for site in pair.sites if site in parts}
    influence = {
        site: [None if one is None else InfluenceSums.from_json(one) for one in part.influence]
        for site, part in told.items()
    }
    count = len(pair.questions)
    macro = {s: MacroSums.from_json(p.macro, classes=count) for s, p in told.items() if p.macro is not None}
    sums: list[InfluenceSums | None] = []
    for n, (first, second) in enumerate(pair.questions):
        there = [influence[site][n] for site in first.sites if influence.get(site)] if both_asked(first, second) else []
        known = [one for one in there if one is not None]
        complete = bool(known) and len(known) == len(first.sites)
        sums.append(sum(known, InfluenceSums.zero(known[0].center)) if complete else None)
    alike = len({first.sites for first, _ in pair.questions}) == 1 and len(macro) == len(pair.questions[0][0].sites)
    total = sum(macro.values(), MacroSums.zero(count)) if alike and macro else None
    suppressed = any(first.left_out for first, _ in pair.questions) or not pair.sites
    return pooled_difference(sums, total, why="suppressed" if suppressed else "one-class")

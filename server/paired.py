"""Two models compared over the sites: the paired, patient-clustered difference of their AUCs at each center that is
tested, and over all training sites' test cases together, without a prediction leaving a site.

A center's own difference is exact and comes as three numbers. For all cases together the second model's histograms are
asked for as the first's were, and then the influence sums of the difference (`common.influence`): in the clear, or,
with `evaluation.secure`, as totals under masks.
"""

from __future__ import annotations

__all__ = ["FIRST", "SECOND", "Against", "Compared", "PooledDifference", "ask_paired", "paired_contrasts"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.config import Experiment
from common.influence import Difference, InfluenceSums, mean_difference
from common.macro import MacroSums, macro_difference
from common.orders import EvaluateOrder, PartReport, Placing
from common.paired import side_by_side
from common.stage_sums import StageSums
from common.update import Weights
from server.evidence import Question, Together, parts_of
from server.pooled_in_clear import InClear
from server.pooled_under_masks import UnderMasks
from server.rounds import Evaluated, Federation, Roster
from server.secure_sums import DroppedOut
from server.statistics import Contrast

FIRST, SECOND = "checkpoint", "other"
"""What the two models are called in results."""

_IN_FEDERATION = "in-federation"


@dataclass(frozen=True)
class Against:
    """The second model, and the SHA-256 of both files by what they are called in results."""

    weights: Weights
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class PooledDifference:
    """The paired test over all training sites' test cases from sums; its Δ is off the exact one by `bound` at most."""

    found: Difference
    bound: float | None = None

    @classmethod
    def none(cls, why: str) -> PooledDifference:
        """No number, and why."""
        return cls(Difference(None, None, None, None, None, why))


@dataclass(frozen=True)
class Compared:
    """Each tested center's own difference, that of all cases together (None: nothing was put together), who failed."""

    own: Mapping[str, Difference]
    together: PooledDifference | None = None
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _First:
    """What the first model's evaluation left: its orders by site, the orders of its first pass and of its counts, the
    answers, and what was put together.
    """

    orders: Mapping[str, EvaluateOrder]
    val: EvaluateOrder
    counting: EvaluateOrder
    evaluated: Evaluated
    together: Together | None


@dataclass(frozen=True)
class _Pair:
    """The second model's histograms beside the first's, and whose they are."""

    sites: tuple[str, ...]
    questions: tuple[tuple[Question, Question], ...]


def ask_paired(
    federation: Federation,
    experiment: Experiment,
    roster: Roster,
    weights: tuple[Weights, Weights],
    *,
    orders: Mapping[str, EvaluateOrder],
    val: EvaluateOrder,
    counting: EvaluateOrder,
    evaluated: Evaluated,
    together: Together | None,
) -> Compared:
    """Compare the first of `weights`, whose evaluation is done, with the second.

    `orders` by site say which cases were tested, `val` and `counting` how the first model was asked for its first pass
    and for its counts, `evaluated` and `together` what came of it.
    """
    first = _First(orders, val, counting, evaluated, together)
    tested = tuple(site for site in roster.train if site in evaluated.reports)
    how = _under_masks if experiment.evaluation.secure else _in_clear
    return how(federation, experiment, weights, first, tested)


def _in_clear(
    federation: Federation,
    experiment: Experiment,
    weights: tuple[Weights, Weights],
    first: _First,
    tested: Collection[str],
) -> Compared:
    ours, theirs = (InClear(federation, experiment, each) for each in weights)
    parts = {site: part for site, part in parts_of(first.evaluated, "test").items() if site in tested}
    counted, failures = _counted(theirs, first, [site for site, part in parts.items() if part.histograms])
    order, others = counted
    left = sorted(others)
    orders = {site: _paired(one) for site, one in first.orders.items()}
    own: dict[str, Difference] = {}
    while True:
        pair = _Pair(
            tuple(left),
            tuple(
                zip(
                    ours.pooled({site: parts[site] for site in left}, first.counting),
                    theirs.pooled({site: others[site] for site in left}, order),
                    strict=True,
                )
            ),
        )
        placing = {site: _placing(pair, site) for site in left}
        placing = {site: both for site, both in placing.items() if any(one is not None for one in both[0])}
        asked = orders | {s: replace(orders[s], placing=a, against=b) for s, (a, b) in placing.items()}
        answered = federation.evaluate(first.counting.round, asked, side_by_side(*weights))
        own |= {site: _own(part) for site, part in parts_of(answered, "test").items()}
        failures |= answered.failures
        if not placing.keys() & answered.failures.keys():
            break
        left = [site for site in left if site not in answered.failures]
        orders = {site: orders[site] for site in left}
    return Compared(own, _pooled(pair, parts_of(answered, "test")) if tested else None, failures)


def _counted(
    theirs: InClear, first: _First, sites: Sequence[str]
) -> tuple[tuple[EvaluateOrder, Mapping[str, PartReport]], dict[str, str]]:
    """The second model's counts by site with the order that asked for them, and who failed on the way."""
    order = replace(first.counting, compared="second")
    if not sites:
        return (order, {}), {}
    grid, lost = theirs.first_pass(replace(first.val, compared="second"), sites)
    order = theirs.counting(order, grid)
    found = theirs.federation.evaluate(order.round, dict.fromkeys(sites, order), theirs.weights)
    parts = {site: part for site, part in parts_of(found, "test").items() if part.histograms}
    return (order, parts), {**lost, **found.failures}


def _paired(order: EvaluateOrder) -> EvaluateOrder:
    """The order for the site's own difference on the cases that `order` tests."""
    return replace(order, stage="paired", edges=(), threshold=None, repair=None, apart=False, compared=None)


def _placing(pair: _Pair, site: str) -> tuple[tuple[Placing | None, ...], tuple[Placing | None, ...]]:
    first = tuple(a.placing(site) if _asked(a, b) else None for a, b in pair.questions)
    second = tuple(b.placing(site) if _asked(a, b) else None for a, b in pair.questions)
    return first, second


def _asked(first: Question, second: Question) -> bool:
    """Whether a question has both models' AUCs over the same sites."""
    return first.sites == second.sites and first.pool.auc is not None and second.pool.auc is not None


def _own(part: PartReport) -> Difference:
    return part.difference.difference if part.difference else Difference(None, None, None, None, None, "no-answer")


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
        there = [influence[site][n] for site in first.sites if influence.get(site)] if _asked(first, second) else []
        known = [one for one in there if one is not None]
        complete = bool(known) and len(known) == len(first.sites)
        sums.append(sum(known, InfluenceSums.zero(known[0].center)) if complete else None)
    alike = len({first.sites for first, _ in pair.questions}) == 1 and len(macro) == len(pair.questions[0][0].sites)
    total = sum(macro.values(), MacroSums.zero(count)) if alike and macro else None
    suppressed = any(first.left_out for first, _ in pair.questions) or not pair.sites
    return _difference(sums, total, why="suppressed" if suppressed else "one-class")


def _difference(sums: Sequence[InfluenceSums | None], macro: MacroSums | None, *, why: str) -> PooledDifference:
    """The paired test with its bound; without interval and p where the bound is more than half of the interval."""
    known = [one for one in sums if one is not None and one.bound is not None]
    if not known:
        return PooledDifference.none(why)
    found = known[0].difference() if len(sums) == 1 else macro_difference(sums, macro)
    bound = float(np.mean([one.bound for one in known]))
    if found.low is not None and found.high is not None and 0 < (found.high - found.low) / 2 < bound:
        found = replace(found, low=None, high=None, p=None, why="coarse")
    return PooledDifference(found, bound)


def _under_masks(
    federation: Federation,
    experiment: Experiment,
    weights: tuple[Weights, Weights],
    first: _First,
    tested: Collection[str],
) -> Compared:
    both = side_by_side(*weights)
    orders = {site: _paired(order) for site, order in first.orders.items()}
    answered = federation.evaluate(first.counting.round, orders, both)
    own = {site: _own(part) for site, part in parts_of(answered, "test").items()}
    if not tested:
        return Compared(own, None, answered.failures)
    if first.together is None or not first.together.sites:
        return Compared(own, PooledDifference.none("unplaced"), answered.failures)
    try:
        pooled = _total(federation, experiment, weights, first, first.together)
    except DroppedOut as lost:
        return Compared(own, PooledDifference.none("unplaced"), {**answered.failures, **lost.failures})
    return Compared(own, pooled, answered.failures)


def _total(
    federation: Federation,
    experiment: Experiment,
    weights: tuple[Weights, Weights],
    first: _First,
    together: Together,
) -> PooledDifference:
    """Over the sites that were counted for the first model, all of them: DroppedOut where one stays away."""
    theirs = UnderMasks(federation, experiment, weights[1])
    grid, lost = theirs.first_pass(replace(first.val, compared="second"), together.sites)
    if lost:
        raise DroppedOut(lost)
    order = theirs.counting(replace(first.counting, compared="second"), grid)
    counted = theirs.counted(order, together.sites, whole=True)
    pairs = list(zip(together.questions, counted.questions, strict=True))
    placing = tuple(a.placing_among_all() if _asked(a, b) else None for a, b in pairs)
    against = tuple(b.placing_among_all() if _asked(a, b) else None for a, b in pairs)
    if all(how is None for how in placing):
        return PooledDifference.none("one-class")
    asked = replace(_paired(order), placing=placing, against=against)
    pair = UnderMasks(federation, experiment, side_by_side(*weights))
    told: StageSums = pair.placed_by_all(asked, together.sites, purpose="final differences")
    return _difference(told.influence, told.macro, why="one-class")


def paired_contrasts(compared: Compared, experiment: Experiment, orders: Collection[str]) -> list[Contrast]:
    """A contrast for each center that was asked, and for `all`: in-federation from sums, else the mean over centers."""
    own = {site: compared.own.get(site) or _silent(compared, site) for site in sorted(orders)}
    found = [_contrast(site, experiment, one) for site, one in own.items()]
    if experiment.protocol != _IN_FEDERATION:
        return [*found, _contrast("all", experiment, mean_difference(list(own.values())))] if len(own) > 1 else found
    if compared.together is None:
        return found
    whole = _contrast("all", experiment, compared.together.found)
    ends = {"low_federated": whole.low, "high_federated": whole.high, "bound_federated": compared.together.bound}
    return [*found, replace(whole, delta_federated=whole.delta_auc, p_federated=whole.p, **ends)]


def _silent(compared: Compared, site: str) -> Difference:
    return Difference(None, None, None, None, None, "no-answer" if site in compared.failures else "too-few")


def _contrast(site: str, experiment: Experiment, found: Difference) -> Contrast:
    """No difference of two AUCs is beyond 1, so neither is its interval."""
    low, high = (None if end is None else min(1.0, max(-1.0, end)) for end in (found.low, found.high))
    one = Contrast(FIRST, SECOND, experiment.protocol, site, found.delta, low, high, found.p)
    return replace(one, why=found.why)

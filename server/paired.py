"""Two models compared over the sites: the paired, patient-clustered difference of their AUCs at each center that is
tested, and over all training sites' test cases together, without a prediction leaving a site.

A center's own difference is exact and comes as three numbers. For all cases together the second model's histograms are
asked for as the first's were, and then the influence sums of the difference (`common.influence`): in the clear, or,
with `evaluation.secure`, as totals under masks.
"""

from __future__ import annotations

__all__ = [
    "FIRST",
    "SECOND",
    "Against",
    "Compared",
    "Evaluating",
    "PooledDifference",
    "both_asked",
    "own_difference",
    "paired_contrasts",
    "paired_order",
    "pooled_difference",
]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.config import Experiment
from common.influence import Difference, InfluenceSums, mean_difference
from common.macro import MacroSums, macro_difference
from common.orders import EvaluateOrder, PartReport
from common.update import Weights
from server.evidence import Question, Together
from server.rounds import Evaluated
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
class Evaluating:
    """A finished evaluation of the first model: the orders of its first pass and of its counts, the orders by site that
    say which cases were tested, the answers, and what was put together of all training sites.
    """

    val: EvaluateOrder
    counting: EvaluateOrder
    orders: Mapping[str, EvaluateOrder]
    evaluated: Evaluated
    together: Together | None

    def tested(self, sites: Collection[str]) -> tuple[str, ...]:
        """Those of the training `sites` whose test cases were evaluated."""
        return tuple(site for site in sorted(sites) if site in self.evaluated.reports)


def paired_order(order: EvaluateOrder) -> EvaluateOrder:
    """The order for the site's own difference on the cases that `order` tests."""
    return replace(order, stage="paired", edges=(), threshold=None, repair=None, apart=False, compared=None)


def own_difference(part: PartReport) -> Difference:
    """What a site told of its own cases."""
    return part.difference.difference if part.difference else Difference(None, None, None, None, None, "no-answer")


def both_asked(first: Question, second: Question) -> bool:
    """Whether a question has both models' AUCs over the same sites."""
    return first.sites == second.sites and first.pool.auc is not None and second.pool.auc is not None


def pooled_difference(sums: Sequence[InfluenceSums | None], macro: MacroSums | None, *, why: str) -> PooledDifference:
    """The paired test with its bound; without interval and p where the bound is more than half of the interval."""
    known = [one for one in sums if one is not None and one.bound is not None]
    if not known:
        return PooledDifference.none(why)
    found = known[0].difference() if len(sums) == 1 else macro_difference(sums, macro)
    bound = float(np.mean([one.bound for one in known]))
    if found.low is not None and found.high is not None and 0 < (found.high - found.low) / 2 < bound:
        found = replace(found, low=None, high=None, p=None, why="coarse")
    return PooledDifference(found, bound)


def paired_contrasts(compared: Compared, experiment: Experiment, orders: Collection[str]) -> list[Contrast]:
    """A contrast for each center that was asked, and for `all`: in-federation from sums, else the mean over centers."""
    own = {site: compared.own.get(site) or _silent(compared, site) for site in sorted(orders)}
    found = [_contrast(site, experiment, one) for site, one in own.items()]
    if experiment.protocol != _IN_FEDERATION:
        return [*found, _contrast("all", experiment, mean_difference(list(own.values())))] if len(own) > 1 else found
    if compared.together is None:
        return found
    whole = _contrast("all", experiment, compared.together.found)
    whole = replace(whole, delta_federated=whole.delta_auc, low_federated=whole.low, high_federated=whole.high)
    return [*found, replace(whole, p_federated=whole.p, bound_federated=compared.together.bound)]


def _silent(compared: Compared, site: str) -> Difference:
    return Difference(None, None, None, None, None, "no-answer" if site in compared.failures else "too-few")


def _contrast(site: str, experiment: Experiment, found: Difference) -> Contrast:
    """No difference of two AUCs is beyond 1, so neither is its interval."""
    low, high = (None if end is None else min(1.0, max(-1.0, end)) for end in (found.low, found.high))
    one = Contrast(FIRST, SECOND, experiment.protocol, site, found.delta, low, high, found.p)
    return replace(one, why=found.why)

"""Two models compared where the server sees totals alone:
three secure sums more, over the sites of the first model's.
"""

from __future__ import annotations

__all__ = ["compare_under_masks"]

from collections.abc import Collection
from dataclasses import replace

from common.config import Experiment
from common.paired import side_by_side
from common.update import Weights
from server.evidence import Together, parts_of
from server.paired import (
    Compared,
    Evaluating,
    PooledDifference,
    both_asked,
    own_difference,
    paired_order,
    pooled_difference,
)
from server.pooled_under_masks import Uncounted, UnderMasks
from server.rounds import Federation
from server.secure_sums import DroppedOut, NotOpened


def compare_under_masks(
    federation: Federation,
    experiment: Experiment,
    weights: tuple[Weights, Weights],
    first: Evaluating,
    sites: Collection[str],
) -> Compared:
    """Each center's own difference, in the clear as its own numbers are, and the total over the training `sites`."""
    both = side_by_side(*weights)
    orders = {site: paired_order(order) for site, order in first.orders.items()}
    answered = federation.evaluate(first.counting.round, orders, both)
    own = {site: own_difference(part) for site, part in parts_of(answered, "test").items()}
    if not first.tested(sites):
        return Compared(own, None, answered.failures)
    if first.together is None or not first.together.sites:
        return Compared(own, PooledDifference.none("unplaced"), answered.failures)
    try:
        pooled = _total(federation, experiment, weights, first, first.together)
    except (DroppedOut, NotOpened, Uncounted) as lost:
        return Compared(own, PooledDifference.none("unplaced"), {**answered.failures, **lost.failures})
    return Compared(own, pooled, answered.failures)


def _total(
    federation: Federation,
    experiment: Experiment,
    weights: tuple[Weights, Weights],
    first: Evaluating,
    together: Together,
) -> PooledDifference:
    """Over the sites that were counted for the first model, all of them: DroppedOut, NotOpened or Uncounted
    where one stays away.
    """
    theirs = UnderMasks(federation, experiment, weights[1])
    order = replace(first.counting, compared="second")
    counted = theirs.counted(order, together.sites, whole=True)
    pairs = list(zip(together.questions, counted.questions, strict=True))
    placing = tuple(a.placing_among_all() if both_asked(a, b) else None for a, b in pairs)
    against = tuple(b.placing_among_all() if both_asked(a, b) else None for a, b in pairs)
    if all(how is None for how in placing):
        return PooledDifference.none("one-class")
    asked = replace(paired_order(order), placing=placing, against=against)
    pair = UnderMasks(federation, experiment, side_by_side(*weights))
    told = pair.placed_by_all(asked, together.sites, purpose="final differences")
    return pooled_difference(told.influence, told.macro, why="one-class")

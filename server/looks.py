"""Ask the training sites how their crops look, before centers that did not train are told what to mend towards."""

from __future__ import annotations

__all__ = ["Mending", "ask_looks"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.config import Experiment
from common.orders import EvaluateOrder
from common.repair_orders import RepairOrder
from server.evidence import parts_of
from server.repairs import no_looks, repair_order
from server.rounds import Federation, training_parts


@dataclass(frozen=True)
class Mending:
    """The order to mend, the sites whose looks are in it, and who failed to tell theirs, and why."""

    order: RepairOrder
    reference: tuple[str, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)


def ask_looks(
    federation: Federation,
    experiment: Experiment,
    order: EvaluateOrder,
    sites: Collection[str],
    *,
    val: Sequence[float],
) -> Mending:
    """One message to each of the training `sites`, as `order` names the run; `val` are the shares of classes among val
    cases.

    Sites that decline by their policy, or fail, are not in the sum. Nobody is asked where `no_looks` says why.
    """
    if no_looks(experiment) is not None:
        return Mending(repair_order(experiment, (), val=val))
    asked = replace(order, stage="looks", parts={"train": training_parts(experiment)})
    answered = federation.evaluate(order.round, dict.fromkeys(sites, asked), {})
    told = {site: part.looks for site, part in parts_of(answered, "train").items()}
    known = {site: looks for site, looks in told.items() if looks and looks.size == experiment.crop.size}
    return Mending(repair_order(experiment, known.values(), val=val), tuple(known), answered.failures)

"""All training sites' cases put together, where the server sees totals alone: three secure sums, 1,024 bins
(fewer with several classes: `common.bins.secure_bins`).

The threshold comes from the total of val histograms, the bins from that of test histograms, counts from a total over
test cases between these bins, with the sums of their places in their bins and of these squared. Totals go back to the
sites, each takes its own cases off, and the influence and calibration sums come back as a third total.
"""

from __future__ import annotations

__all__ = ["Counted", "UnderMasks"]

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from common.bins import secure_bins
from common.config import Experiment
from common.evaluation_blocks import evaluation_directory, evaluation_sums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder
from common.stage_sums import StageSums
from common.sums_orders import named_by_model
from common.update import Weights
from common.weights import fingerprint
from server.evidence import Federated, FirstPass, Question, Together, agree, federated, own_auc, parts_of, pool
from server.rounds import Evaluated, Federation
from server.secure_sums import DroppedOut, NotOpened, Totals, secure_totals, sum_once

_TOTAL = "total"
_ATTEMPTS = 2
"""How often all counted sites are asked for their placements."""


@dataclass(frozen=True)
class Counted:
    """The total of counts over `sites`, put together by question; `failures`: who was left out, and why."""

    sites: tuple[str, ...]
    sums: EvaluationSums | None
    questions: tuple[Question, ...]
    failures: Mapping[str, str]


@dataclass(frozen=True)
class UnderMasks:
    """One model's evaluation over `federation`."""

    federation: Federation
    experiment: Experiment
    weights: Weights

    def first_pass(self, order: EvaluateOrder, sites: Collection[str]) -> tuple[FirstPass, Mapping[str, str]]:
        """Sensitivity `evaluation.sensitivity` on the sites' val cases, and everybody's bins; and who failed, and why.

        Where test cases are put together, the bins are quantiles of theirs: only totals are told, and bins choose
        nothing.
        """
        tested = self.experiment.protocol == "in-federation"
        parts = {**order.parts, **({"test": ("test",)} if tested else {})}
        asked = replace(order, stage="first-pass", parts=parts)
        found = self._totals(asked, sites, purpose="final val")
        first = self._agreed(found, "val", asked)
        return (replace(first, edges=self._agreed(found, "test", asked).edges) if tested else first), found.failures

    def _agreed(self, found: Totals, part: str, order: EvaluateOrder) -> FirstPass:
        task = self.experiment.task
        return agree(
            {_TOTAL: self._read(found, part, order).histograms},
            questions=task.questions,
            positive_index=task.positive_index,
            sensitivity=self.experiment.evaluation.sensitivity,
            bins=secure_bins(len(task.questions)),
        )

    def counting(self, order: EvaluateOrder, first: FirstPass) -> EvaluateOrder:
        """The order for a site's own numbers; its counts are asked for under masks."""
        return replace(order, edges=first.edges, threshold=first.threshold)

    def together(self, order: EvaluateOrder, evaluated: Evaluated, sites: Collection[str]) -> Together | None:
        """Counts and placements, each as a total. None where the sites were not tested."""
        parts = {site: part for site, part in parts_of(evaluated, "test").items() if site in sites}
        if not evaluated.reports.keys() & set(sites):
            return None
        found = self.counted(order, sites)
        numbers, lost = self._placed(order, found.questions, found.sites)
        own = tuple(own_auc(parts[site]) for site in found.sites if site in parts)
        lost = {**found.failures, **lost}
        return Together(found.sums or EvaluationSums.zero(), numbers, own, lost, found.questions, found.sites)

    def counted(self, order: EvaluateOrder, sites: Collection[str], *, whole: bool = False) -> Counted:
        """The counts of test cases as a total over `sites`; over all of them where it must be `whole`."""
        asked = replace(order, stage="counts")
        found = self._totals(asked, sites, purpose="final test", whole=whole)
        told, task = self._read(found, "test", asked), self.experiment.task
        questions = pool(
            {_TOTAL: told.histograms}, order.edges, questions=task.questions, positive_index=task.positive_index
        )
        return Counted(found.sites, told.sums, questions, found.failures)

    def placed_by_all(self, order: EvaluateOrder, sites: Collection[str], *, purpose: str) -> StageSums:
        """The total of what `order` asks about test cases, over all of `sites`; DroppedOut or NotOpened where one stays
        away.
        """
        for left in range(_ATTEMPTS - 1, -1, -1):
            try:
                return self._read(self._totals(order, sites, purpose=purpose, whole=True), "test", order)
            except (DroppedOut, NotOpened):
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _placed(
        self, order: EvaluateOrder, questions: tuple[Question, ...], sites: Collection[str]
    ) -> tuple[Federated, Mapping[str, str]]:
        """The numbers of all cases, and who kept them from having an interval.

        The counts cannot be taken back, so all that were counted must place theirs; a total without one of them would
        give it away. Where one stays away, be it before the placements are sealed or when they are to be opened, the
        AUC is that of the counts, without an interval, and it is named.
        """
        placing = tuple(question.placing_among_all() for question in questions)
        failures: Mapping[str, str] = {}
        told = StageSums()
        if any(how is not None for how in placing):
            asked = replace(order, stage="placements", edges=(), placing=placing)
            try:
                told = self.placed_by_all(asked, sites, purpose="final placements")
            except (DroppedOut, NotOpened) as lost:
                failures = _unplaced(lost.failures, sites)
        return federated(questions, {_TOTAL: told.influence}, {_TOTAL: told.logistic}, {_TOTAL: told.macro}), failures

    def _totals(self, order: EvaluateOrder, sites: Collection[str], *, purpose: str, whole: bool = False) -> Totals:
        """The totals over `sites`; over all of them where it must be `whole`, else without those that drop out."""
        ask = sum_once if whole else secure_totals
        return ask(
            self.federation.exchange(order, self.weights),
            sites,
            evaluation_directory(order),
            run=named_by_model(order.run, fingerprint(self.weights)),
            round_number=order.round,
            purpose=purpose,
        )

    def _read(self, found: Totals, part: str, order: EvaluateOrder) -> StageSums:
        return evaluation_sums(found.numbers, part, order, sites=found.sites)


def _unplaced(failures: Mapping[str, str], sites: Collection[str]) -> dict[str, str]:
    everybody = ", ".join(sorted(sites))
    return {
        site: f"{why}; its cases are counted but not placed, so the AUC over all centers has no interval: evaluate the "
        f"same sites again ({everybody}) when {site} can be reached, or another model without it"
        for site, why in failures.items()
    }

"""All training sites' cases put together, where the server sees totals alone: four secure sums, 1,024 bins
(fewer with several classes: `common.bins.secure_bins`).

The threshold comes from the total of val histograms. Of test cases there are three totals over the same sites: that of
histograms gives the bins; counts between these come with the sums of places in the bins and of these squared; totals go
back to the sites, each takes its own cases off, and the influence and calibration sums come back. Whoever is lost
before the first of the three opens is asked around; after that nobody is, for two totals of test cases that differ in
one site would give it away.
"""

from __future__ import annotations

__all__ = ["Counted", "Uncounted", "UnderMasks"]

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from common.bins import secure_bins
from common.config import Experiment
from common.errors import RunFailed
from common.evaluation_blocks import evaluation_directory, evaluation_sums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder
from common.stage_sums import StageSums
from common.sums_orders import named_by_model
from common.update import Weights
from common.weights import fingerprint
from server.evidence import Federated, FirstPass, Question, Together, agree, federated, own_auc, parts_of, pool
from server.rounds import Evaluated, Federation
from server.secure_sums import DroppedOut, NotOpened, TooFewLeft, Totals, secure_totals, sum_once

_TOTAL = "total"


@dataclass(frozen=True)
class Counted:
    """The total of counts over `sites`, put together by question; `failures`: who was left out, and why."""

    sites: tuple[str, ...]
    sums: EvaluationSums | None
    questions: tuple[Question, ...]
    failures: Mapping[str, str]


class Uncounted(RunFailed):
    """There are no counts of test cases over all sites; `failures`: whose fault, and what to do, by site."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        listed = "; ".join(f"{site}: {why}" for site, why in sorted(failures.items()))
        super().__init__(f"test cases of all centers were not counted ({listed})")


@dataclass(frozen=True)
class UnderMasks:
    """One model's evaluation over `federation`."""

    federation: Federation
    experiment: Experiment
    weights: Weights

    def first_pass(self, order: EvaluateOrder, sites: Collection[str]) -> tuple[FirstPass, Mapping[str, str]]:
        """Sensitivity `evaluation.sensitivity` on the sites' val cases; and who failed, and why.
        No test case is told.
        """
        asked = replace(order, stage="first-pass")
        found = self._asked_around(asked, sites, purpose="final val")
        return self._agreed(found, "val", asked), found.failures

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
        """Counts and placements, each as a total. None where the sites were not tested.

        Where the counts cannot be had, everything that follows from them is absent, and who is at fault is named.
        """
        parts = {site: part for site, part in parts_of(evaluated, "test").items() if site in sites}
        if not evaluated.reports.keys() & set(sites):
            return None
        try:
            found = self.counted(order, sites)
        except Uncounted as absent:
            mine = tuple(own_auc(part) for part in parts.values())
            return Together(EvaluationSums.zero(), Federated(None, None, why="uncounted"), mine, absent.failures)
        numbers, lost = self._placed(order, found.questions, found.sites)
        own = tuple(own_auc(parts[site]) for site in found.sites if site in parts)
        lost = {**found.failures, **lost}
        return Together(found.sums or EvaluationSums.zero(), numbers, own, lost, found.questions, found.sites)

    def counted(self, order: EvaluateOrder, sites: Collection[str], *, whole: bool = False) -> Counted:
        """The counts of test cases as a total over `sites`, between the quantiles of the same cases: only totals are
        told, and bins choose nothing. Uncounted where they cannot be had.

        Who is lost before the histograms are opened is left out, unless it must be the `whole` of `sites`. From then on
        the counts are over the same sites or none.
        """
        grid = replace(order, stage="first-pass", edges=(), threshold=None)
        ask = self._all_or_none if whole else self._asked_around
        try:
            seen = ask(grid, sites, purpose="final bins")
        except TooFewLeft as lost:
            raise Uncounted(_too_few(lost.failures)) from None
        except (DroppedOut, NotOpened) as lost:
            dropped = lost.dropped if isinstance(lost, NotOpened) else {}
            among = lost.sites if isinstance(lost, NotOpened) else sites
            raise Uncounted({**dropped, **_uncounted(lost.failures, among)}) from None
        asked = replace(order, stage="counts", edges=self._agreed(seen, "test", grid).edges)
        try:
            found = self._all_or_none(asked, seen.sites, purpose="final test")
        except (DroppedOut, NotOpened) as lost:
            raise Uncounted({**seen.failures, **_uncounted(lost.failures, seen.sites)}) from None
        told, task = self._read(found, "test", asked), self.experiment.task
        questions = pool(
            {_TOTAL: told.histograms}, asked.edges, questions=task.questions, positive_index=task.positive_index
        )
        return Counted(found.sites, told.sums, questions, seen.failures)

    def placed_by_all(self, order: EvaluateOrder, sites: Collection[str], *, purpose: str) -> StageSums:
        """The total of what `order` asks about test cases, over all of `sites`; DroppedOut or NotOpened where one stays
        away.
        """
        return self._read(self._all_or_none(order, sites, purpose=purpose), "test", order)

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

    def _asked_around(self, order: EvaluateOrder, sites: Collection[str], *, purpose: str) -> Totals:
        """The totals over `sites` without those that drop out."""
        directory = evaluation_directory(order)
        exchange = self.federation.exchange(order, self.weights)
        return secure_totals(exchange, sites, directory, **self._named(order, purpose))

    def _all_or_none(self, order: EvaluateOrder, sites: Collection[str], *, purpose: str) -> Totals:
        """The totals over all of `sites`, which are asked twice; DroppedOut or NotOpened where one stays away again."""
        directory, named = evaluation_directory(order), self._named(order, purpose)
        exchange = self.federation.exchange(order, self.weights)
        with suppress(DroppedOut, NotOpened):
            return sum_once(exchange, sites, directory, **named)
        return sum_once(exchange, sites, directory, **named)

    def _named(self, order: EvaluateOrder, purpose: str) -> dict[str, Any]:
        run = named_by_model(order.run, fingerprint(self.weights))
        return {"run": run, "round_number": order.round, "purpose": purpose}

    def _read(self, found: Totals, part: str, order: EvaluateOrder) -> StageSums:
        return evaluation_sums(found.numbers, part, order, sites=found.sites)


def _unplaced(failures: Mapping[str, str], sites: Collection[str]) -> dict[str, str]:
    what = "its cases are counted but not placed, so the AUC over all centers has no interval"
    return {site: f"{why}; {what}: {_way_out(site, sites)}" for site, why in failures.items()}


def _uncounted(failures: Mapping[str, str], sites: Collection[str]) -> dict[str, str]:
    what = "the test cases of all centers together are not counted without it"
    return {site: f"{why}; {what}: {_way_out(site, sites)}" for site, why in failures.items()}


def _way_out(site: str, sites: Collection[str]) -> str:
    everybody = ", ".join(sorted(sites))
    return f"evaluate the same sites again ({everybody}) when {site} can be reached, or another model without it"


def _too_few(failures: Mapping[str, str]) -> dict[str, str]:
    what = "too few sites are left to hide one in a total, so the test cases of all centers together are not counted"
    return {site: f"{why}; {what}: evaluate again when {site} can be reached" for site, why in failures.items()}

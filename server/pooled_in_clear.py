"""All training sites' cases put together, where each site tells the server its sums: merged cells, 64 bins."""

from __future__ import annotations

__all__ = ["InClear"]

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from common.bins import with_edge
from common.config import Experiment
from common.errors import RunFailed
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums
from common.logistic import LogisticSums
from common.macro import MacroSums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder, PartReport
from common.update import Weights
from server.evidence import FirstPass, Question, Together, agree, federated, own_auc, parts_of, pool
from server.rounds import Evaluated, Federation


@dataclass(frozen=True)
class InClear:
    """One model's evaluation over `federation`."""

    federation: Federation
    experiment: Experiment
    weights: Weights

    def first_pass(self, order: EvaluateOrder, sites: Collection[str]) -> tuple[FirstPass, Mapping[str, str]]:
        """Sensitivity `evaluation.sensitivity` on the sites' val cases, and everybody's bins;
        and who failed, and why.
        """
        asked = replace(order, stage="first-pass")
        found = self.federation.evaluate(order.round, dict.fromkeys(sites, asked), self.weights)
        task = self.experiment.task
        first = agree(
            self._histograms(parts_of(found, "val")),
            questions=task.questions,
            positive_index=task.positive_index,
            sensitivity=self.experiment.evaluation.sensitivity,
        )
        return first, found.failures

    def counting(self, order: EvaluateOrder, first: FirstPass) -> EvaluateOrder:
        """The order for a site's own numbers, and its counts with them. The locked threshold is an edge, so that a
        site's cells can end there.
        """
        task = self.experiment.task
        edges = tuple(
            tuple(with_edge(inner, first.threshold).tolist()) if k == task.positive_index else inner
            for k, inner in zip(task.questions, first.edges, strict=True)
        )
        return replace(order, stage="counts", edges=edges, threshold=first.threshold)

    def together(self, order: EvaluateOrder, evaluated: Evaluated, sites: Collection[str]) -> Together | None:
        """From the sites' counts, their placements: asked again without a site that fails.

        None where no site told sums.
        """
        parts = {site: part for site, part in parts_of(evaluated, "test").items() if site in sites}
        failures: dict[str, str] = {}
        while any(part.sums for part in parts.values()):
            questions = self.pooled(parts, order)
            answered = self.federation.evaluate(order.round, _placing(order, questions, parts), self.weights)
            if not answered.failures:
                return _put_together(parts, questions, answered, failures)
            failures |= answered.failures
            parts = {site: part for site, part in parts.items() if site not in answered.failures}
        return None

    def pooled(self, parts: Mapping[str, PartReport], order: EvaluateOrder) -> tuple[Question, ...]:
        """The sites' histograms of their counts put together, for each question."""
        task = self.experiment.task
        return pool(self._histograms(parts), order.edges, questions=task.questions, positive_index=task.positive_index)

    def _histograms(self, parts: Mapping[str, PartReport]) -> dict[str, list[ScoreHistogram]]:
        """Each site's histograms, one for each question. A part that was kept back as a whole has none."""
        wanted = len(self.experiment.task.questions)
        found = {}
        for site, part in parts.items():
            if not part.histograms:
                continue
            try:
                found[site] = [ScoreHistogram.from_json(told) for told in part.histograms]
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RunFailed(
                    f"site {site}: its histograms cannot be read ({error}); run one release everywhere"
                ) from error
            if len(found[site]) != wanted:
                raise RunFailed(
                    f"site {site} sent {len(found[site])} histograms of {wanted}; run one release everywhere"
                )
        return found


def _placing(order: EvaluateOrder, questions: tuple[Question, ...], sites: Collection[str]) -> dict[str, EvaluateOrder]:
    placing = {site: tuple(question.placing(site) for question in questions) for site in sites}
    return {
        site: replace(order, stage="placements", edges=(), placing=how)
        for site, how in placing.items()
        if any(one is not None for one in how)
    }


def _put_together(
    parts: Mapping[str, PartReport], questions: tuple[Question, ...], answered: Evaluated, failures: Mapping[str, str]
) -> Together:
    placed = parts_of(answered, "test")
    influence = {
        site: [None if told is None else InfluenceSums.from_json(told) for told in part.influence]
        for site, part in placed.items()
    }
    logistic = {
        site: None if part.logistic is None else LogisticSums.from_json(part.logistic) for site, part in placed.items()
    }
    macro = {
        site: None if part.macro is None else MacroSums.from_json(part.macro, classes=len(questions))
        for site, part in placed.items()
    }
    found = federated(questions, influence, logistic, macro)
    whole = {site for site, part in parts.items() if not part.histograms}
    sums = [EvaluationSums.from_json(part.sums) for part in parts.values() if part.sums is not None]
    return Together(
        sum(sums, EvaluationSums.zero()),
        replace(found, left_out=tuple(sorted({*found.left_out, *whole}))),
        tuple(own_auc(part) for part in parts.values()),
        failures,
    )

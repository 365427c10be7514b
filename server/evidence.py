"""Cross-center evaluation from what sites send: bins that they agree on, the pooled numbers, who could not be in them.

Under `questions` stands one entry for the positive class against the rest, or, with more than two classes, for each. A
site whose policy keeps one of its classes back cannot be pooled: it is left out and named. Shapes: Q questions.
"""

from __future__ import annotations

__all__ = [
    "Federated",
    "FirstPass",
    "Question",
    "Together",
    "agree",
    "columns",
    "federated",
    "own_auc",
    "parts_of",
    "pool",
    "question_of",
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from common.auc import ClusteredAuc
from common.bins import PLAIN_BINS, equal_edges, first_grid, in_few_digits, quantile_edges
from common.calibration import Estimate
from common.decisions import DECISIONS
from common.errors import RunFailed
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums, OtherCases, Others
from common.logistic import LogisticSums, Start, start_from
from common.macro import MacroSums, macro_of
from common.metrics import EvaluationSums
from common.orders import PartReport, Placing
from common.pooled import NetBenefit, Pool
from common.tasks import Task
from server.rounds import Evaluated
from server.statistics import mean_over_centers


@dataclass(frozen=True)
class Together:
    """All training sites' test cases: what adds, what follows from placements, the sites' `own` AUCs,
    and who failed. Under masks also the `questions` of the totals and over which `sites` these are.
    """

    sums: EvaluationSums
    found: Federated
    own: tuple[ClusteredAuc, ...]
    failures: Mapping[str, str]
    questions: tuple[Question, ...] = ()
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class FirstPass:
    """What the first pass settles: the locked threshold (None without positives), each question's edges, and the
    `shares` of classes, in their order (empty where a class is not there, or was kept back).
    """

    threshold: float | None
    edges: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class Question:
    """One class against the rest: the histograms of `sites` (in this order) put together;
    `left_out` were suppressed.
    """

    sites: tuple[str, ...]
    left_out: tuple[str, ...]
    pool: Pool
    start: Start | None = None

    def placing(self, site: str) -> Placing | None:
        """What the site needs for its placements; None where it is not in this question, or there is no pair."""
        center = self.pool.auc
        if site not in self.sites or center is None:
            return None
        return Placing(center, self.pool.others(self.sites.index(site)), self.start)

    def placing_among_all(self) -> Placing | None:
        """The same for any site, where the pool is of totals over all of them; None without a pair."""
        center = self.pool.auc
        if center is None:
            return None
        classes = (("positives", self.pool.positives), ("negatives", self.pool.negatives))
        everybody = (OtherCases(tuple(n.sum(axis=0).tolist()), **self.pool.places(name)) for name, n in classes)
        return Placing(center, Others(tuple(self.pool.edges.tolist()), *everybody), self.start, whole=True)


@dataclass(frozen=True)
class Federated:
    """All sites' cases, from sums. A number that does not exist is None, and `why` says why.

    `auc` is off the exact one by `bound` at most; with more than two classes it is the mean over questions, each in
    `by_question`, and has an interval where no site is in one question and left out of another. `left_out`: sites whose
    policy kept them out. `why` is `uncounted` where a site was lost and there is no total of counts, `unplaced` where a
    total of counts was told, and then no total of placements, and
    `coarse` where `bound` is more than half the interval, which would claim too much: it is None.
    """

    auc: float | None
    bound: float | None
    low: float | None = None
    high: float | None = None
    variance: float | None = None
    calibration_slope: Estimate = field(default_factory=lambda: Estimate(None))
    calibration_intercept: Estimate = field(default_factory=lambda: Estimate(None))
    net_benefit: tuple[NetBenefit, ...] = ()
    left_out: tuple[str, ...] = ()
    why: str | None = None
    by_question: tuple[Federated, ...] = ()

    @property
    def area(self) -> ClusteredAuc:
        """The AUC alone, as a site's own."""
        return ClusteredAuc(self.auc, self.variance, self.low, self.high, self.why)


def parts_of(evaluated: Evaluated, part: str) -> dict[str, PartReport]:
    """The reports on one part, by site, sorted; a site without cases there is absent."""
    return {site: report.parts[part] for site, report in sorted(evaluated.reports.items()) if part in report.parts}


def own_auc(part: PartReport) -> ClusteredAuc:
    """The site's own AUC, as it told it."""
    why = part.why if part.auc_low is None else None
    return ClusteredAuc(part.auc, part.auc_variance, part.auc_low, part.auc_high, why)


def agree(
    histograms: Mapping[str, Sequence[ScoreHistogram]],
    *,
    questions: Sequence[int],
    positive_index: int,
    sensitivity: float,
    bins: int = PLAIN_BINS,
) -> FirstPass:
    """From the first pass's histograms by site and question: threshold and edges; equal widths where it saw no case.

    The threshold finds `sensitivity` of the positives, to one cell below.
    """
    threshold, edges, counted, grid = None, [], [], first_grid(len(questions))
    for number, k in enumerate(questions):
        found = question_of({site: told[number] for site, told in histograms.items()}, grid)
        if k == positive_index:
            threshold = found.pool.threshold_at(sensitivity)
        counted.append([float(cases.sum()) for cases in (found.pool.negatives, found.pool.positives)])
        cases = sum((found.pool.positives.sum(axis=0), found.pool.negatives.sum(axis=0)), np.zeros(len(grid) + 1))
        inner = quantile_edges(cases, bins) if found.sites else equal_edges(bins)
        edges.append(tuple(in_few_digits(inner).tolist()))
    return FirstPass(threshold, tuple(edges), _shares(counted, positive_index))


def _shares(counted: Sequence[Sequence[float]], positive_index: int) -> tuple[float, ...]:
    """From each question's cases of the other classes and of its own."""
    several = len(counted) > 1
    images = [own for _, own in counted] if several else [counted[0][int(k == positive_index)] for k in (0, 1)]
    return tuple(number / sum(images) for number in images) if min(images) > 0 else ()


def question_of(histograms: Mapping[str, ScoreHistogram], edges: Sequence[float] | np.ndarray) -> Question:
    """One question's histograms by site; RunFailed where a site counted other bins."""
    inner = np.asarray(edges, dtype=np.float64)
    if odd := [site for site, told in sorted(histograms.items()) if told.bins != len(inner) + 1]:
        raise RunFailed(f"site {odd[0]} counted other bins than it was asked for; do all sites run the same release?")
    there = {s: h for s, h in sorted(histograms.items()) if h.positives is not None and h.negatives is not None}
    left_out = tuple(sorted(histograms.keys() - there.keys()))
    return Question(tuple(there), left_out, Pool(tuple(there.values()), inner))


def pool(
    histograms: Mapping[str, Sequence[ScoreHistogram]],
    edges: Sequence[Sequence[float]],
    *,
    questions: Sequence[int],
    positive_index: int,
) -> tuple[Question, ...]:
    """The second pass's histograms by site and question, put together; (Q,)."""
    found = []
    for number, (k, inner) in enumerate(zip(questions, edges, strict=True)):
        question = question_of({site: told[number] for site, told in histograms.items()}, inner)
        if k == positive_index and question.sites:
            positives, negatives = (x.sum(axis=0) for x in (question.pool.positives, question.pool.negatives))
            question = replace(question, start=start_from(positives, negatives, inner))
        found.append(question)
    return tuple(found)


def federated(
    questions: Sequence[Question],
    influence: Mapping[str, Sequence[InfluenceSums | None]],
    logistic: Mapping[str, LogisticSums | None],
    macro: Mapping[str, MacroSums | None] | None = None,
) -> Federated:
    """The pooled numbers from the sums by site (and question), of every site that a question has.

    `macro`: with several questions, the sums of all of them together.
    """
    answers = [_answer(question, n, influence) for n, question in enumerate(questions)]
    main = next((q for q in questions if q.start is not None), None)
    slope = intercept = Estimate(None, "suppressed" if any(q.left_out for q in questions) else "one-class")
    benefit: tuple[NetBenefit, ...] = ()
    told = [sums for _, sums in sorted(logistic.items()) if sums is not None]
    if main is not None:
        benefit = main.pool.net_benefit(DECISIONS)
        if told:
            whole = sum(told[1:], told[0])
            slope, intercept = whole.calibration_slope, whole.calibration_intercept
    if len(answers) == 1:
        return replace(
            answers[0], calibration_slope=slope, calibration_intercept=intercept, net_benefit=benefit, by_question=()
        )
    area = _macro(questions, answers, influence, macro or {})
    return replace(
        area,
        calibration_slope=slope,
        calibration_intercept=intercept,
        net_benefit=benefit,
        left_out=tuple(sorted({site for q in questions for site in q.left_out})),
        by_question=tuple(answers),
    )


def _macro(
    questions: Sequence[Question],
    answers: Sequence[Federated],
    influence: Mapping[str, Sequence[InfluenceSums | None]],
    macro: Mapping[str, MacroSums | None],
) -> Federated:
    """The mean over questions; its interval where all have the same sites, since a patient's images are in all."""
    known = [(a.auc, a.bound) for a in answers if a.auc is not None and a.bound is not None]
    if not known:
        return Federated(None, None, why=answers[0].why)
    area, bound = (float(np.mean(values)) for values in zip(*known, strict=True))
    unplaced = next((a.why for a in answers if a.why == "unplaced"), None)
    alike = {q.sites for q in questions if q.pool.auc is not None}
    sums = [macro.get(site) for site in min(alike)]
    if unplaced or len(alike) > 1 or None in sums:
        return Federated(area, bound, why=unplaced or "suppressed")
    total = sum((one for one in sums if one is not None), MacroSums.zero(len(questions)))
    found = macro_of([_total(q, n, influence) for n, q in enumerate(questions)], total)
    return _unless_coarse(Federated(found.auc, bound, found.low, found.high, found.variance, why=found.why))


def columns(found: Federated, task: Task, own: Sequence[ClusteredAuc]) -> dict[str, Any]:
    """The columns of a row that come from sums; `own` are the sites' own AUCs."""
    mean = mean_over_centers(own)
    names = [task.classes[k] for k in task.questions]
    by_class = {
        name: {"auc": one.auc, "bound": one.bound, "low": one.low, "high": one.high, "why": one.why}
        for name, one in zip(names, found.by_question, strict=bool(found.by_question))
    }
    return {
        "auc_federated": found.auc,
        "auc_federated_bound": found.bound,
        "auc_federated_low": found.low,
        "auc_federated_high": found.high,
        "auc_federated_why": found.why,
        "auc_federated_by_class": by_class or None,
        "auc_mean_of_sites": mean.auc,
        "auc_mean_of_sites_low": mean.low,
        "auc_mean_of_sites_high": mean.high,
        "net_benefit": found.net_benefit,
        "suppressed": found.left_out,
    }


def _answer(question: Question, number: int, influence: Mapping[str, Sequence[InfluenceSums | None]]) -> Federated:
    center = question.pool.auc
    if center is None:
        return Federated(None, None, left_out=question.left_out, why="suppressed" if question.left_out else "one-class")
    if not any(influence.values()):
        return Federated(center, question.pool.auc_error_bound, left_out=question.left_out, why="unplaced")
    total = _total(question, number, influence)
    assert total is not None
    found = total.auc()
    answer = Federated(found.auc, total.bound, found.low, found.high, found.variance, why=found.why)
    return replace(_unless_coarse(answer), left_out=question.left_out)


def _total(
    question: Question, number: int, influence: Mapping[str, Sequence[InfluenceSums | None]]
) -> InfluenceSums | None:
    """The influence sums of every site that the question has; None where it has no pair."""
    center = question.pool.auc
    if center is None:
        return None
    total = InfluenceSums.zero(center)
    for site in question.sites:
        sums = influence[site][number]
        if sums is None:
            raise RunFailed(f"site {site} sent a histogram but no influence sums; evaluate again without it")
        total = total + sums
    return total


def _unless_coarse(found: Federated) -> Federated:
    """The numbers, without the interval where the bound is more than half of it."""
    low, high, bound = found.low, found.high, found.bound
    if low is not None and high is not None and bound is not None and bound > (high - low) / 2:
        return replace(found, low=None, high=None, why="coarse")
    return found

"""What a federation's messages would tell of a model, beside the exact numbers: the same code of client and server.

A simulation sees every score, and shows here that the sums tell the same. Each site heeds its own policy. With
`evaluation.secure` the sums are those that would travel under masks: 1,024 bins for two classes, and cells of any size,
since a server would see only their totals. The masks themselves are left out: they cancel exactly (`common.masks`).
"""

from __future__ import annotations

__all__ = ["federated_columns", "federated_difference", "federated_from_local"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.evidence import histograms_of, influence_of
from common.auc import ClusteredAuc, clustered_auc
from common.bins import PLAIN_BINS, first_grid, secure_bins
from common.groups import large_enough
from common.influence import Difference, InfluenceSums, Placements, mean_difference, place
from common.macro import MacroSums, clustered_macro_auc, macro_difference, macro_placed, summed
from server.evidence import Question, agree, columns, federated, pool

if TYPE_CHECKING:
    from simulation.evidence import Cases, Judge

_SiteCases = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def federated_columns(cases: Cases, judge: Judge) -> dict[str, Any]:
    """The federated columns of a judge's row `all` in-federation:
    first pass over val cases, two rounds over test cases.
    """
    task, test = cases.experiment.task, _tested(cases, judge)
    pooled = _pooled(cases, judge, test)
    sums = {
        site: influence_of(task, *test[site], placing=[q.placing(site) for q in pooled], smallest=_cell(cases, site))
        for site in test
    }
    found = federated(
        pooled,
        {site: told.influence for site, told in sums.items()},
        {site: told.logistic for site, told in sums.items()},
        {site: told.macro for site, told in sums.items()},
    )
    return columns(found, task, [_own(cases, *told) for told in test.values()])


def federated_difference(cases: Cases, ours: Sequence[Judge], theirs: Sequence[Judge]) -> Difference:
    """The paired test of two arms' models on all sites' cases, of the mean difference over seeds."""
    asked = cases.experiment.task.questions
    pairs = _by_seed(ours, theirs)
    tests = [[_tested(cases, judge) for judge in pair] for pair in pairs]
    pools = [[_pooled(cases, j, t) for j, t in zip(*both, strict=True)] for both in zip(pairs, tests, strict=True)]
    sites = {pools[0][0][q].sites for q in range(len(asked))}
    centers = [_difference_of_pools([[pool[q] for pool in pair] for pair in pools]) for q in range(len(asked))]
    if len(sites) > 1 or all(center is None for center in centers):
        why = "suppressed" if any(question.left_out for question in pools[0][0]) else "one-class"
        return Difference(None, None, None, None, None, why)
    totals = [_images(question) for question in pools[0][0]]
    questions = [None if center is None else InfluenceSums.zero(center) for center in centers]
    macro = MacroSums.zero(len(asked))
    for number, site in enumerate(sites.pop()):
        labels, _, whose = tests[0][0][site]
        placed: list[Placements | None] = []
        for q, k in enumerate(asked):
            there = [
                [
                    place(labels == k, test[site][1][:, k], pool[q].pool.others(number))
                    for pool, test in zip(*both, strict=True)
                ]
                for both in zip(pools, tests, strict=True)
            ]
            sums, mean = questions[q], _mean_difference(there)
            placed.append(None if sums is None else mean)
            if sums is not None:
                questions[q] = sums + InfluenceSums.of(mean, whose, center=sums.center, smallest=_cell(cases, site))
        if len(asked) > 1:
            known = [center or 0.0 for center in centers]
            macro += MacroSums.of(placed, labels, whose, centers=known, totals=totals, smallest=_cell(cases, site))
    if len(asked) == 1 and questions[0] is not None:
        return questions[0].difference()
    return macro_difference(questions, macro)


def _difference_of_pools(pairs: Sequence[Sequence[Question]]) -> float | None:
    """The mean over seeds of the histograms' Δ, near which the sums are; None where there is no pair of images."""
    areas = [[question.pool.auc for question in pair] for pair in pairs]
    if any(area is None for pair in areas for area in pair):
        return None
    return float(np.mean([(one or 0.0) - (two or 0.0) for one, two in areas]))


def _images(question: Question) -> tuple[float, float]:
    return float(question.pool.positives.sum().round()), float(question.pool.negatives.sum().round())


def _mean_difference(pairs: Sequence[Sequence[Placements]]) -> Placements:
    shares = np.mean([(one - two).share for one, two in pairs], axis=0)
    return Placements(pairs[0][0].positive, shares)


def federated_from_local(cases: Cases, ours: Sequence[Judge], local: Sequence[Judge]) -> Difference:
    """The mean over sites of the paired test against each site's own model, each exact at its site, mean over seeds."""
    asked, found = cases.experiment.task.questions, []
    for site in cases.trainers:
        pairs = _by_seed(ours, [judge for judge in local if judge.trained_on == (site,)])
        told = [[_of(cases, judge, site, cases.tested(judge, site)) for judge in pair] for pair in pairs]
        labels, _, whose = told[0][0]
        least = _smallest(cases, site)
        if not all(large_enough(whose[(labels == k) == flag], least) for k in asked for flag in (True, False)):
            return Difference(None, None, None, None, None, "suppressed")
        if len(asked) > 1:
            found.append(_macro_at_home(told))
            continue
        (index,) = asked
        placed = [[place(labels == index, scores[:, index]) for _, scores, _ in pair] for pair in told]
        found.append(InfluenceSums.of(_mean_difference(placed), whose, center=0.0).difference())
    return mean_difference(found)


def _macro_at_home(told: Sequence[Sequence[_SiteCases]]) -> Difference:
    """The paired test of macro AUCs at one site, from pairs of models' cases by seed."""
    labels, _, whose = told[0][0]
    placed = [[macro_placed(labels, scores) for _, scores, _ in pair] for pair in told]
    means: list[Placements | None] = []
    for k in range(len(placed[0][0])):
        of_class = [[one for model in pair if (one := model[k]) is not None] for pair in placed]
        means.append(_mean_difference(of_class) if of_class[0] else None)
    return macro_difference(*summed(means, labels, whose))


def _by_seed(ours: Sequence[Judge], theirs: Sequence[Judge]) -> list[tuple[Judge, Judge]]:
    other = {judge.seed: judge for judge in theirs}
    return [(judge, other[judge.seed]) for judge in ours]


def _pooled(cases: Cases, judge: Judge, test: Mapping[str, _SiteCases]) -> tuple[Question, ...]:
    """The sites' test histograms of a judge put together, between bins agreed on over its scores of val cases."""
    task = cases.experiment.task
    val = {site: _of(cases, judge, site, cases.sites[site].rows("val")) for site in cases.trainers}
    secure = cases.experiment.evaluation.secure
    grid = [first_grid(len(task.questions))] * len(task.questions)
    first = agree(
        {
            s: histograms_of(task, *c, edges=grid, smallest=_cell(cases, s))
            for s, c in (test if secure else val).items()
            if len(c[0])
        },
        questions=task.questions,
        positive_index=task.positive_index,
        sensitivity=cases.experiment.evaluation.sensitivity,
        bins=secure_bins(len(task.questions)) if secure else PLAIN_BINS,
    )
    told = {
        s: histograms_of(task, *c, edges=first.edges, smallest=_cell(cases, s), placed=secure) for s, c in test.items()
    }
    return pool(told, first.edges, questions=task.questions, positive_index=task.positive_index)


def _own(
    cases: Cases, labels: NDArray[np.int64], scores: NDArray[np.float64], whose: NDArray[np.int64]
) -> ClusteredAuc:
    """A site's own AUC, exact."""
    index = cases.experiment.task.positive_index
    if scores.shape[1] > 2:
        return clustered_macro_auc(labels, scores, whose)
    return clustered_auc(labels == index, scores[:, index], whose)


def _cell(cases: Cases, site: str) -> int:
    """The least patients of a cell that the server would see."""
    return 1 if cases.experiment.evaluation.secure else _smallest(cases, site)


def _smallest(cases: Cases, site: str) -> int:
    return cases.sites[site].policy.smallest_group


def _tested(cases: Cases, judge: Judge) -> dict[str, _SiteCases]:
    """The test cases of every training site that has some."""
    rows = {site: cases.tested(judge, site) for site in cases.trainers}
    return {site: _of(cases, judge, site, mine) for site, mine in rows.items() if len(mine)}


def _of(cases: Cases, judge: Judge, site: str, rows: NDArray[np.int64]) -> _SiteCases:
    """Labels, scores and patients of some cases of a site."""
    here = cases.sites[site]
    return here.labels[rows], cases.scores(judge, site)[rows], here.patients[rows]

"""What a federation's messages would tell of a model, beside the exact numbers: the same code of client and server.

A simulation sees every score, and shows here that the sums tell the same. Each site heeds its own policy. With
`evaluation.secure` the sums are those that would travel under masks: 1,024 bins, and cells of any size, since a server
would see only their totals. The masks themselves are left out: they cancel exactly (`common.masks`).
"""

from __future__ import annotations

__all__ = ["federated_columns", "federated_difference", "federated_from_local"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.evidence import histograms_of, influence_of
from common.auc import ClusteredAuc, clustered_auc, macro_auc
from common.bins import FIXED, PLAIN_BINS, SECURE_BINS
from common.groups import large_enough
from common.influence import Difference, InfluenceSums, Placements, mean_difference, place
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
    found = federated(pooled, {s: one for s, (one, _) in sums.items()}, {s: two for s, (_, two) in sums.items()})
    return columns(found, task, [_own(cases, *told) for told in test.values()])


def federated_difference(cases: Cases, ours: Sequence[Judge], theirs: Sequence[Judge]) -> Difference:
    """The paired test of two arms' models on all sites' cases, of the mean difference over seeds, for two classes."""
    pairs = _by_seed(ours, theirs)
    index = cases.experiment.task.positive_index
    tests = [[_tested(cases, judge) for judge in pair] for pair in pairs]
    questions = [
        [_pooled(cases, j, t)[0] for j, t in zip(pair, test, strict=True)]
        for pair, test in zip(pairs, tests, strict=True)
    ]
    areas = [[question.pool.auc for question in pair] for pair in questions]
    sites = questions[0][0].sites
    if any(area is None for pair in areas for area in pair):
        return Difference(None, None, None, None, None, "suppressed" if questions[0][0].left_out else "one-class")
    center = float(np.mean([(one or 0.0) - (two or 0.0) for one, two in areas]))
    total = InfluenceSums.zero(center)
    for site in sites:
        labels, _, whose = tests[0][0][site]
        placed = [
            [
                place(labels == index, test[site][1][:, index], question.pool.others(sites.index(site)))
                for question, test in zip(*both, strict=True)
            ]
            for both in zip(questions, tests, strict=True)
        ]
        shares = np.mean([(one - two).share for one, two in placed], axis=0)
        mean = Placements(placed[0][0].positive, shares)
        total = total + InfluenceSums.of(mean, whose, center=center, smallest=_cell(cases, site))
    return total.difference()


def federated_from_local(cases: Cases, ours: Sequence[Judge], local: Sequence[Judge]) -> Difference:
    """The mean over sites of the paired test against each site's own model, each exact at its site, mean over seeds."""
    index = cases.experiment.task.positive_index
    found = []
    for site in cases.trainers:
        pairs = _by_seed(ours, [judge for judge in local if judge.trained_on == (site,)])
        told = [[_of(cases, judge, site, cases.tested(judge, site)) for judge in pair] for pair in pairs]
        labels, _, whose = told[0][0]
        if not all(large_enough(whose[(labels == index) == flag], _smallest(cases, site)) for flag in (True, False)):
            return Difference(None, None, None, None, None, "suppressed")
        placed = [[place(labels == index, scores[:, index]) for _, scores, _ in pair] for pair in told]
        mean = Placements(labels == index, np.mean([(one - two).share for one, two in placed], axis=0))
        found.append(InfluenceSums.of(mean, whose, center=0.0).difference())
    return mean_difference(found)


def _by_seed(ours: Sequence[Judge], theirs: Sequence[Judge]) -> list[tuple[Judge, Judge]]:
    other = {judge.seed: judge for judge in theirs}
    return [(judge, other[judge.seed]) for judge in ours]


def _pooled(cases: Cases, judge: Judge, test: Mapping[str, _SiteCases]) -> tuple[Question, ...]:
    """The sites' test histograms of a judge put together, between bins agreed on over its scores of val cases."""
    task = cases.experiment.task
    val = {site: _of(cases, judge, site, cases.sites[site].rows("val")) for site in cases.trainers}
    secure = cases.experiment.evaluation.secure
    grid = [FIXED] * len(task.questions)
    first = agree(
        {
            s: histograms_of(task, *c, edges=grid, smallest=_cell(cases, s))
            for s, c in (test if secure else val).items()
            if len(c[0])
        },
        questions=task.questions,
        positive_index=task.positive_index,
        sensitivity=cases.experiment.evaluation.sensitivity,
        bins=SECURE_BINS if secure else PLAIN_BINS,
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
        return ClusteredAuc(macro_auc(labels, scores), None, None, None, "multi-class")
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

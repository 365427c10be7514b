"""What a federation's messages would tell of a model, beside the exact numbers: the same code of client and server.

A simulation sees every score, and shows here that the sums tell the same. Each site heeds its own policy.
"""

from __future__ import annotations

__all__ = ["federated_columns"]

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from client.evidence import histograms_of, influence_of
from common.auc import clustered_auc
from common.bins import FIXED
from server.evidence import agree, columns, federated, pool

if TYPE_CHECKING:
    from simulation.evidence import Cases, Judge

_SiteCases = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def federated_columns(cases: Cases, judge: Judge) -> dict[str, Any]:
    """The federated columns of a judge's row `all` in-federation: first pass over val cases, two rounds over test cases."""
    task = cases.experiment.task
    index, questions = task.positive_index, task.questions
    smallest = {site: cases.sites[site].policy.smallest_group for site in cases.trainers}
    val = {site: _of(cases, judge, site, cases.sites[site].rows("val")) for site in cases.trainers}
    test = {site: _of(cases, judge, site, cases.tested(judge, site)) for site in cases.trainers}
    grid = [FIXED] * len(questions)
    first = agree(
        {s: histograms_of(task, *c, edges=grid, smallest=smallest[s]) for s, c in val.items() if len(c[0])},
        questions=questions,
        positive_index=index,
        sensitivity=cases.experiment.evaluation.sensitivity,
    )
    told = {s: histograms_of(task, *c, edges=first.edges, smallest=smallest[s]) for s, c in test.items() if len(c[0])}
    pooled = pool(told, first.edges, questions=questions, positive_index=index)
    sums = {s: influence_of(task, *test[s], placing=[q.placing(s) for q in pooled], smallest=smallest[s]) for s in told}
    found = federated(pooled, {s: one for s, (one, _) in sums.items()}, {s: two for s, (_, two) in sums.items()})
    own = [clustered_auc(labels == index, scores[:, index], whose) for labels, scores, whose in test.values()]
    return columns(found, task, own)


def _of(cases: Cases, judge: Judge, site: str, rows: NDArray[np.int64]) -> _SiteCases:
    """Labels, scores and patients of some cases of a site."""
    here = cases.sites[site]
    return here.labels[rows], cases.scores(judge, site)[rows], here.patients[rows]

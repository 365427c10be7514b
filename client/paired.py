"""What a site tells of two models on the same cases: the paired difference of their AUCs, and sums that add.

The difference is exact on the site's own cases. For all sites' cases together the site sends the influence sums of the
difference of both models' placements, which hold what a patient's placements under the two have in common. Shapes: N
cases, K classes.
"""

from __future__ import annotations

__all__ = ["paired_sums", "report_paired"]

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.evidence import everybody, macro_sums, others_of
from client.site import Site
from common.groups import large_enough, sides_large_enough
from common.influence import Difference, InfluenceSums, Placements, place
from common.macro import macro_difference, macro_placed, summed
from common.orders import EvaluateOrder, PartReport
from common.paired import SentDifference
from common.stage_sums import StageSums
from common.tasks import Task

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]
Both = tuple[Scores, Scores]
"""Two models' scores (N, K) of the same cases."""


def report_paired(site: Site, rows: Rows, scores: Both, order: EvaluateOrder) -> PartReport:
    """A site's answer about the cases `rows` (N,), as far as its policy lets it out."""
    smallest, sends = site.policy.smallest_group, site.policy.evaluation_sends
    labels, patients = site.labels[rows], site.patients[rows]
    told = SentDifference(why="policy")
    if "numbers" in sends:
        told = _own_difference(site.task, labels, scores, patients, smallest=smallest)
    influence: tuple[InfluenceSums | None, ...] = (None,) * len(order.placing)
    macro = None
    asked = bool(order.placing) and not order.evaluation.secure
    if asked and "sums" in sends and large_enough(patients, smallest):
        sums = paired_sums(site.task, labels, scores, patients, order, smallest=smallest)
        influence, macro = sums.influence, sums.macro
    return replace(
        PartReport.nothing(),
        difference=told,
        influence=tuple(None if one is None else one.to_json() for one in influence),
        macro=None if macro is None else macro.to_json(),
    )


def _own_difference(task: Task, labels: Rows, scores: Both, patients: Rows, *, smallest: int) -> SentDifference:
    """Exact, from the site's own cases; kept back where a class has too few patients for the site's policy."""
    groups = [patients, *(patients[labels == k] for k in np.unique(labels)), *_sides(task, labels, patients)]
    if not all(large_enough(group, smallest) for group in groups):
        return SentDifference(why="suppressed")
    return SentDifference.of(_difference(task, labels, scores, patients))


def _sides(task: Task, labels: Rows, patients: Rows) -> list[Rows]:
    return [patients[(labels == k) == flag] for k in task.questions for flag in (True, False)]


def _difference(task: Task, labels: Rows, scores: Both, patients: Rows) -> Difference:
    """The paired test of the AUCs, of macro AUCs with more than two classes."""
    if len(task.questions) > 1:
        both = zip(*(macro_placed(labels, each) for each in scores), strict=True)
        placed = [None if a is None or b is None else a - b for a, b in both]
        return macro_difference(*summed(placed, labels, patients))
    positive, index = labels == task.positive_index, task.positive_index
    first, second = (place(positive, each[:, index]) for each in scores)
    return InfluenceSums.of(first - second, patients, center=0.0).difference()


def paired_sums(
    task: Task, labels: Rows, scores: Both, patients: Rows, order: EvaluateOrder, *, smallest: int
) -> StageSums:
    """For each question, the patients' influence sums of the difference, around the difference of both centers; and
    those of all questions together.

    None where the order places one of the models nowhere, or where a class has too few patients, whatever it says.
    """
    found: list[InfluenceSums | None] = []
    placed: list[Placements | None] = []
    totals: list[tuple[float, float]] = []
    centers: list[float] = []
    for k, first, second in zip(task.questions, order.placing, order.against, strict=True):
        of_class = labels == k
        if first is None or second is None or not sides_large_enough(of_class, patients, smallest):
            found.append(None)
            placed.append(None)
            totals.append((0.0, 0.0))
            centers.append(0.0)
            continue
        others = [others_of(how, of_class, p[:, k]) for how, p in zip((first, second), scores, strict=True)]
        one, other = (place(of_class, p[:, k], known) for known, p in zip(others, scores, strict=True))
        centers.append(first.center - second.center)
        placed.append(one - other)
        found.append(InfluenceSums.of(one - other, patients, center=centers[-1], smallest=smallest))
        totals.append(everybody(others[0], of_class))
    macro = macro_sums(task, labels, patients, placed, centers=centers, totals=totals, smallest=smallest)
    return StageSums(influence=tuple(found), macro=macro)

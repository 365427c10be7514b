"""What a site sends about a model's scores of its cases: its own exact numbers, and sums that add across sites.

Every number passes the site's policy first: none is about fewer patients than `smallest_group`. Shapes: N cases, K classes.
"""

from __future__ import annotations

__all__ = ["histograms_of", "influence_of", "report_part"]

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from client.measures import log_loss, measure_cases, permitted
from client.site import Site
from common.bins import FIXED
from common.groups import large_enough
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums, place
from common.logistic import LogisticSums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder, PartReport, Placing
from common.tasks import Task

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]

_TOLD = ("sensitivity", "specificity", "brier", "ece")
"""Numbers of `Measures` that the sums give as well."""


def report_part(site: Site, rows: Rows, scores: Scores, order: EvaluateOrder) -> PartReport:
    """A site's answer about the cases `rows` (N,) with their scores (N, K)."""
    labels, patients, smallest = site.labels[rows], site.patients[rows], site.policy.smallest_group
    index = site.task.positive_index
    found = measure_cases(labels, scores, patients, positive_index=index, threshold=order.threshold)
    found = permitted(found, labels, patients, positive_index=index, smallest=smallest)
    numbers = {name: value for name, value in asdict(found).items() if name not in _TOLD}
    if found.n_images is None:
        return PartReport(loss=None, **numbers)
    loss = log_loss(labels, scores)
    report = PartReport(loss=loss, **numbers)
    return _with_stage(report, site, (labels, scores, patients), order, loss)


def _with_stage(
    report: PartReport, site: Site, cases: tuple[Rows, Scores, Rows], order: EvaluateOrder, loss: float | None
) -> PartReport:
    """The report with what the order's stage asks for."""
    (labels, scores, patients), smallest = cases, site.policy.smallest_group
    match order.stage:
        case "progress":
            return report
        case "first-pass":
            grid = [FIXED] * len(site.task.questions)
            found = histograms_of(site.task, *cases, edges=grid, smallest=smallest)
            return replace(report, histograms=tuple(h.to_json() for h in found))
        case "counts":
            found = histograms_of(site.task, *cases, edges=order.edges, smallest=smallest)
            sums = EvaluationSums.of(
                labels == site.task.positive_index,
                scores[:, site.task.positive_index],
                patients,
                site=site.id,
                threshold=order.threshold,
                loss_sum=None if loss is None else loss * len(labels),
                smallest=smallest,
            )
            return replace(report, sums=sums.to_json(), histograms=tuple(h.to_json() for h in found))
        case "placements":
            influence, logistic = influence_of(site.task, *cases, placing=order.placing, smallest=smallest)
            told = tuple(None if sums is None else sums.to_json() for sums in influence)
            return replace(report, influence=told, logistic=None if logistic is None else logistic.to_json())


def histograms_of(
    task: Task,
    labels: Rows,
    scores: Scores,
    patients: Rows,
    *,
    edges: Sequence[Sequence[float] | Scores],
    smallest: int,
) -> tuple[ScoreHistogram, ...]:
    """For each question, the cases by class between its edges."""
    return tuple(
        ScoreHistogram.of(labels == k, scores[:, k], patients, edges=inner, smallest=smallest)
        for k, inner in zip(task.questions, edges, strict=True)
    )


def influence_of(
    task: Task,
    labels: Rows,
    scores: Scores,
    patients: Rows,
    *,
    placing: Sequence[Placing | None],
    smallest: int,
) -> tuple[tuple[InfluenceSums | None, ...], LogisticSums | None]:
    """For each question, the patients' influence sums, and the calibration sums of the positive class.

    None where `placing` says so, or where a class has too few patients, whatever it says.
    """
    found: list[InfluenceSums | None] = []
    logistic = None
    for k, how in zip(task.questions, placing, strict=True):
        of_class, p = labels == k, scores[:, k]
        told = all(large_enough(patients[of_class == flag], smallest) for flag in (True, False))
        if how is None or not told:
            found.append(None)
            continue
        placed = place(of_class, p, how.others)
        found.append(InfluenceSums.of(placed, patients, center=how.center, smallest=smallest))
        if how.start is not None:
            logistic = LogisticSums.of(of_class, p, start=how.start)
    return tuple(found), logistic

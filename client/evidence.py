"""What a site sends about a model's scores of its cases: its own exact numbers, and sums that add across sites.

Every number passes the site's policy first: none is about fewer patients than `smallest_group`. In a secure evaluation
the sums leave under masks alone (`client.sealing`). Shapes: N cases, K classes.
"""

from __future__ import annotations

__all__ = ["histograms_of", "influence_of", "report_looks", "report_part", "stage_sums"]

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from client.looks import lesion_margin, looks_of
from client.measures import log_loss, measure_cases, permitted
from client.repair import Crops
from client.site import Site
from common.bins import FIXED, bin_of, place_in_bin
from common.errors import BadInput
from common.groups import large_enough
from common.histogram import Cells, ScoreHistogram
from common.influence import InfluenceSums, OtherCases, Others, place
from common.logistic import LogisticSums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder, PartReport, Placing
from common.stage_sums import StageSums
from common.tasks import Task

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]

_TOLD = ("sensitivity", "specificity", "brier", "ece")
"""Numbers of `Measures` that the sums give as well."""


def report_part(site: Site, rows: Rows, scores: Scores, order: EvaluateOrder) -> PartReport:
    """A site's answer about the cases `rows` (N,) with their scores (N, K)."""
    labels, patients, smallest = site.labels[rows], site.patients[rows], site.policy.smallest_group
    index, sends = site.task.positive_index, site.policy.evaluation_sends
    found = measure_cases(labels, scores, patients, positive_index=index, threshold=order.threshold)
    found = permitted(found, labels, patients, positive_index=index, smallest=smallest)
    if "numbers" not in sends:
        return PartReport(*(None,) * 10, why="policy")
    numbers = {name: value for name, value in asdict(found).items() if name not in _TOLD}
    if found.n_images is None:
        return PartReport(loss=None, **numbers)
    report = PartReport(loss=log_loss(labels, scores), **numbers)
    if order.stage == "progress" or order.evaluation.secure:
        return report
    if "sums" not in sends:
        return _without_sums(report, order)
    told = stage_sums(site, rows, scores, order, smallest=smallest)
    return replace(
        report,
        sums=None if told.sums is None else told.sums.to_json(),
        histograms=tuple(one.to_json() for one in told.histograms),
        influence=tuple(None if one is None else one.to_json() for one in told.influence),
        logistic=None if told.logistic is None else told.logistic.to_json(),
    )


def report_looks(site: Site, rows: Rows, crops: Crops, order: EvaluateOrder) -> PartReport:
    """How the crops (N, S, S) of the cases `rows` look; without it, and `why`, where the site's policy keeps that back.

    A site that trains with privacy or not at all tells nothing about its patients outside the budget.
    """
    nothing = PartReport(*(None,) * 10, why="policy")
    if "sums" not in site.policy.evaluation_sends or site.policy.privacy_required:
        return nothing
    smallest, margin = site.policy.smallest_group, lesion_margin(order.crop)
    found = looks_of(crops, site.patients[rows], margin=margin, smallest=smallest)
    return replace(nothing, looks=found, why=None if found else "suppressed")


def _without_sums(report: PartReport, order: EvaluateOrder) -> PartReport:
    """The report of a site that keeps its sums: both classes of every histogram are suppressed."""
    bins = {"first-pass": [len(FIXED) + 1] * len(order.task.questions), "counts": [len(e) + 1 for e in order.edges]}
    kept = tuple(ScoreHistogram(count, None, None).to_json() for count in bins.get(order.stage, []))
    return replace(report, histograms=kept, influence=(None,) * len(order.placing), why=report.why or "policy")


def stage_sums(site: Site, rows: Rows, scores: Scores, order: EvaluateOrder, *, smallest: int) -> StageSums:
    """What the order's stage asks for, about the cases `rows` (N,) with their scores (N, K).

    `smallest`: the least patients of a cell; 1 where only the total over sites is told.
    """
    task, cases = site.task, (site.labels[rows], scores, site.patients[rows])
    match order.stage:
        case "first-pass":
            grid = [FIXED] * len(task.questions)
            return StageSums(histograms=histograms_of(task, *cases, edges=grid, smallest=smallest))
        case "counts":
            sums = _evaluation_sums(site, cases, order, smallest=smallest)
            placed = order.evaluation.secure
            counted = histograms_of(task, *cases, edges=order.edges, smallest=smallest, placed=placed)
            return StageSums(sums, counted)
        case "placements":
            influence, logistic = influence_of(task, *cases, placing=order.placing, smallest=smallest)
            return StageSums(influence=influence, logistic=logistic)
        case "progress" | "looks" | "shift-moments" | "shift-sums":
            return StageSums()


def _evaluation_sums(
    site: Site, cases: tuple[Rows, Scores, Rows], order: EvaluateOrder, *, smallest: int
) -> EvaluationSums:
    (labels, scores, patients), index = cases, site.task.positive_index
    return EvaluationSums.of(
        labels == index,
        scores[:, index],
        patients,
        site=site.id,
        threshold=order.threshold,
        loss_sum=(log_loss(labels, scores) or 0.0) * len(labels),
        smallest=smallest,
    )


def histograms_of(
    task: Task,
    labels: Rows,
    scores: Scores,
    patients: Rows,
    *,
    edges: Sequence[Sequence[float] | Scores],
    smallest: int,
    placed: bool = False,
) -> tuple[ScoreHistogram, ...]:
    """For each question, the cases by class between its edges; `placed`: with their places, for a total under masks."""
    return tuple(
        ScoreHistogram.of(labels == k, scores[:, k], patients, edges=inner, smallest=smallest, placed=placed)
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
        others = _without_own(how.others, of_class, p) if how.whole else how.others
        placed = place(of_class, p, others)
        found.append(InfluenceSums.of(placed, patients, center=how.center, smallest=smallest))
        if how.start is not None:
            logistic = LogisticSums.of(of_class, p, start=how.start)
    return tuple(found), logistic


def _without_own(everybody: Others, labels: Rows | NDArray[np.bool_], p: Scores) -> Others:
    """The other sites' cases, from everybody's; BadInput where the site's own are not among them."""
    bins, own = len(everybody.edges) + 1, bin_of(p, everybody.edges)
    places = place_in_bin(p, everybody.edges)
    found = []
    positive = np.asarray(labels).astype(np.bool_)
    for theirs, which in ((everybody.positives, positive), (everybody.negatives, ~positive)):
        mine = Cells.placed(own[which], places[which], total=bins)
        counts = tuple(_less(theirs.counts, mine.counts).tolist())
        first, second = (
            None if sums is None else tuple(_less(sums, less or ()).astype(np.int64).tolist())
            for sums, less in ((theirs.places, mine.places), (theirs.squares, mine.squares))
        )
        found.append(OtherCases(counts, places=first, squares=second))
    return Others(everybody.edges, *found)


def _less(total: Sequence[float], mine: Sequence[int]) -> Scores:
    if len(total) != len(mine) or (left := np.asarray(total, dtype=np.float64) - mine).min() < 0:
        raise BadInput("the histogram of all sites' cases lacks some of this site's own; evaluate again from the start")
    return left

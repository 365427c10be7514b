"""What a site sends about a model's scores of its cases: its own exact numbers, and sums that add across sites.

Every number passes the site's policy first: none is about fewer patients than `smallest_group`. In a secure evaluation
the sums leave under masks alone (`client.sealing`). Shapes: N cases, K classes.
"""

from __future__ import annotations

__all__ = [
    "everybody",
    "histograms_of",
    "influence_of",
    "macro_sums",
    "others_of",
    "report_looks",
    "report_part",
    "stage_sums",
]

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from client.detail import with_detail
from client.looks import lesion_margin, looks_of
from client.measures import log_loss, measure_cases, permitted
from client.repair import Crops
from client.site import Site
from common.bins import bin_of, first_grid, place_in_bin
from common.errors import BadInput
from common.groups import large_enough, sides_large_enough
from common.histogram import Cells, ScoreHistogram
from common.influence import InfluenceSums, OtherCases, Others, Placements, place
from common.logistic import LogisticSums
from common.macro import MacroSums
from common.metrics import Confusion, EvaluationSums
from common.observed import ObservedExpected
from common.orders import EvaluateOrder, PartReport, Placing
from common.stage_sums import StageSums
from common.tasks import Task

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]


def report_part(site: Site, rows: Rows, scores: Scores, order: EvaluateOrder) -> PartReport:
    """A site's answer about the cases `rows` (N,) with their scores (N, K)."""
    smallest, sends = site.policy.smallest_group, site.policy.evaluation_sends
    second = order.compared == "second"
    report = PartReport.nothing(None if second else "policy")
    if "numbers" in sends and not second:
        report = _own_numbers(site, rows, scores, order)
        if _tells_counts(site, order):
            threshold = None if _cuts_a_cell(site, order) else order.threshold
            report = with_detail(report, site, rows, scores, order, threshold=threshold)
    enough = large_enough(site.patients[rows], smallest)
    if not enough or order.stage == "progress" or order.evaluation.secure or order.apart or site.role == "held-out":
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
        macro=None if told.macro is None else told.macro.to_json(),
    )


def _own_numbers(site: Site, rows: Rows, scores: Scores, order: EvaluateOrder) -> PartReport:
    """The site's exact numbers, as far as its policy lets them out; with those of its counts where these are told."""
    labels, patients, index = site.labels[rows], site.patients[rows], site.task.positive_index
    positive, p, smallest = labels == index, scores[:, index], site.policy.smallest_group
    counted = _tells_counts(site, order)
    found = measure_cases(labels, scores, patients, positive_index=index, threshold=order.threshold)
    called = p >= order.threshold if counted and order.threshold is not None else None
    found = permitted(found, labels, patients, positive_index=index, smallest=smallest, called=called)
    if not counted:
        found = replace(found, sensitivity=None, specificity=None, brier=None, ece=None)
    elif _cuts_a_cell(site, order):
        found = replace(found, sensitivity=None, specificity=None, why=found.why or "small-cell")
    if found.n_images is None:
        return PartReport(loss=None, **asdict(found))
    report = PartReport(loss=log_loss(labels, scores), **asdict(found))
    if not counted or not sides_large_enough(positive, patients, smallest):
        return report
    ratio = ObservedExpected.of(positive, p, patients)
    return replace(report, observed=ratio.observed, expected=ratio.expected, log_oe_variance=ratio.log_variance)


def _tells_counts(site: Site, order: EvaluateOrder) -> bool:
    """Whether what follows from counts is told in clear: asked for, and not under masks as part of a total.

    In a secure evaluation a site that the server calls `apart` tells it where it is held out by its own word, or where
    its policy lets sums out in clear: a site that trains and sends masked sums alone is not talked out of its masks.
    """
    may = site.role == "held-out" or "sums" in site.policy.evaluation_sends
    return bool(order.edges) and (not order.evaluation.secure or (order.apart and may))


def _cuts_a_cell(site: Site, order: EvaluateOrder) -> bool:
    """Whether decisions at the threshold would part a merged cell of the histogram, which ends at it if it can. At 0
    every case is positive, and a site that is held out by its own word sends no histogram.
    """
    if order.evaluation.secure or order.threshold is None or site.policy.smallest_group <= 1 or site.role == "held-out":
        return False
    return order.threshold > 0 and order.threshold not in order.edges[_question(site)]


def _question(site: Site) -> int:
    return site.task.questions.index(site.task.positive_index)


def report_looks(site: Site, rows: Rows, crops: Crops, order: EvaluateOrder) -> PartReport:
    """How the crops (N, S, S) of the cases `rows` look; without it, and `why`, where the site's policy keeps that back.

    A site that trains with privacy or not at all tells nothing about its patients outside the budget.
    """
    nothing = PartReport.nothing("policy")
    if "sums" not in site.policy.evaluation_sends or site.policy.privacy_required:
        return nothing
    smallest, margin = site.policy.smallest_group, lesion_margin(order.crop)
    found = looks_of(crops, site.patients[rows], margin=margin, smallest=smallest)
    return replace(nothing, looks=found, why=None if found else "suppressed")


def _without_sums(report: PartReport, order: EvaluateOrder) -> PartReport:
    """The report of a site that keeps its sums: both classes of every histogram are suppressed."""
    asked = len(order.task.questions)
    bins = {"first-pass": [len(first_grid(asked)) + 1] * asked, "counts": [len(e) + 1 for e in order.edges]}
    kept = tuple(ScoreHistogram(count, None, None).to_json() for count in bins.get(order.stage, []))
    return replace(report, histograms=kept, influence=(None,) * len(order.placing), why=report.why or "policy")


def stage_sums(site: Site, rows: Rows, scores: Scores, order: EvaluateOrder, *, smallest: int) -> StageSums:
    """What the order's stage asks for, about the cases `rows` (N,) with their scores (N, K).

    `smallest`: the least patients of a cell; 1 where only the total over sites is told.
    """
    task, cases = site.task, (site.labels[rows], scores, site.patients[rows])
    match order.stage:
        case "first-pass":
            grid = [first_grid(len(task.questions))] * len(task.questions)
            return StageSums(histograms=histograms_of(task, *cases, edges=grid, smallest=smallest))
        case "counts":
            second = order.compared == "second"
            sums = None if second else _evaluation_sums(site, cases, order, smallest=smallest)
            placed = order.evaluation.secure
            counted = histograms_of(
                task, *cases, edges=order.edges, smallest=smallest, placed=placed, threshold=order.threshold
            )
            return StageSums(sums, counted)
        case "placements":
            return influence_of(task, *cases, placing=order.placing, smallest=smallest)
        case "progress" | "looks" | "shift-moments" | "shift-sums" | "paired":
            return StageSums()


def _evaluation_sums(
    site: Site, cases: tuple[Rows, Scores, Rows], order: EvaluateOrder, *, smallest: int
) -> EvaluationSums:
    (labels, scores, patients), index = cases, site.task.positive_index
    sums = EvaluationSums.of(
        labels == index,
        scores[:, index],
        patients,
        site=site.id,
        threshold=order.threshold,
        loss_sum=(log_loss(labels, scores) or 0.0) * len(labels),
        smallest=smallest,
    )
    if sums.confusion is None or not _cuts_a_cell(site, order):
        return sums
    return replace(sums, confusion=Confusion.kept_back())


def histograms_of(
    task: Task,
    labels: Rows,
    scores: Scores,
    patients: Rows,
    *,
    edges: Sequence[Sequence[float] | Scores],
    smallest: int,
    placed: bool = False,
    threshold: float | None = None,
) -> tuple[ScoreHistogram, ...]:
    """For each question, the cases by class between its edges; `placed`: with their places, for a total under masks.

    Cells of the positive class against the rest end at `threshold`.
    """
    found = []
    for k, inner in zip(task.questions, edges, strict=True):
        ends = threshold if k == task.positive_index else None
        about = (labels == k, scores[:, k], patients)
        found.append(ScoreHistogram.of(*about, edges=inner, smallest=smallest, placed=placed, threshold=ends))
    return tuple(found)


def influence_of(
    task: Task,
    labels: Rows,
    scores: Scores,
    patients: Rows,
    *,
    placing: Sequence[Placing | None],
    smallest: int,
) -> StageSums:
    """For each question, the patients' influence sums; those of all questions together; and the calibration sums of the
    positive class.

    None where `placing` says so, or where a class has too few patients, whatever it says.
    """
    found: list[InfluenceSums | None] = []
    placements: list[Placements | None] = []
    totals: list[tuple[float, float]] = []
    logistic = None
    for k, how in zip(task.questions, placing, strict=True):
        of_class, p = labels == k, scores[:, k]
        told = sides_large_enough(of_class, patients, smallest)
        if how is None or not told:
            found.append(None)
            placements.append(None)
            totals.append((0.0, 0.0))
            continue
        others = others_of(how, of_class, p)
        placed = place(of_class, p, others)
        found.append(InfluenceSums.of(placed, patients, center=how.center, smallest=smallest))
        placements.append(placed)
        totals.append(everybody(others, of_class))
        if how.start is not None:
            logistic = LogisticSums.of(of_class, p, start=how.start)
    centers = [0.0 if how is None else how.center for how in placing]
    macro = macro_sums(task, labels, patients, placements, centers=centers, totals=totals, smallest=smallest)
    return StageSums(influence=tuple(found), logistic=logistic, macro=macro)


def macro_sums(
    task: Task,
    labels: Rows,
    patients: Rows,
    placed: Sequence[Placements | None],
    *,
    centers: Sequence[float],
    totals: Sequence[tuple[float, float]],
    smallest: int,
) -> MacroSums | None:
    """The sums of all questions together; None for a single question, or where a class has too few patients."""
    if len(placed) < 2 or not all(large_enough(patients[labels == k], smallest) for k in task.questions):
        return None
    return MacroSums.of(placed, labels, patients, centers=centers, totals=totals, smallest=smallest)


def others_of(how: Placing, own: NDArray[np.bool_], p: Scores) -> Others:
    """The other sites' cases, which this site's are placed among. `own` (N,): which of these are of the class. BadInput
    where all sites' cases lack some of them.
    """
    return _without_own(how.others, own, p) if how.whole else how.others


def everybody(others: Others, own: NDArray[np.bool_]) -> tuple[float, float]:
    """All sites' images of the class and of the rest, whole numbers."""
    there = int(own.sum()), int((~own).sum())
    return round(there[0] + others.positives.total), round(there[1] + others.negatives.total)


def _without_own(total: Others, labels: Rows | NDArray[np.bool_], p: Scores) -> Others:
    """The other sites' cases, from everybody's; BadInput where the site's own are not among them."""
    bins, own = len(total.edges) + 1, bin_of(p, total.edges)
    places = place_in_bin(p, total.edges)
    found = []
    positive = np.asarray(labels).astype(np.bool_)
    for theirs, which in ((total.positives, positive), (total.negatives, ~positive)):
        mine = Cells.placed(own[which], places[which], total=bins)
        counts = tuple(_less(theirs.counts, mine.counts).tolist())
        first, second = (
            None if sums is None else tuple(_less(sums, less or ()).astype(np.int64).tolist())
            for sums, less in ((theirs.places, mine.places), (theirs.squares, mine.squares))
        )
        found.append(OtherCases(counts, places=first, squares=second))
    return Others(total.edges, *found)


def _less(total: Sequence[float], mine: Sequence[int]) -> Scores:
    if len(total) != len(mine) or (left := np.asarray(total, dtype=np.float64) - mine).min() < 0:
        raise BadInput("the histogram of all sites' cases lacks some of this site's own; evaluate again from the start")
    return left

"""What a site adds to its numbers at the end of a run, as far as its policy lets it: groups of patients, decisions."""

from __future__ import annotations

__all__ = ["with_detail"]

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.decisions import decision_curve
from client.site import Site
from client.subgroups import Cases, tell
from common.detail_orders import Detail
from common.groups import sides_large_enough
from common.orders import EvaluateOrder, PartReport

Rows = NDArray[np.int64]


def with_detail(
    report: PartReport,
    site: Site,
    rows: Rows,
    scores: NDArray[np.float64],
    order: EvaluateOrder,
    *,
    threshold: float | None,
) -> PartReport:
    """The report on the cases `rows` (N,) with their scores (N, K), and its detail where counts are told in clear.

    Groups leave where `policy.evaluation_sends` has `subgroups` and training needs no privacy, with decisions at
    `threshold` unless it is None; the decision curve is that of a site in no total alone, whose histograms nobody has.
    """
    if report.n_images is None:
        return report
    detail = _with_groups(Detail(), Cases(site, rows, scores, threshold))
    return replace(report, detail=_with_decisions(detail, report, site, rows, scores, order))


def _with_groups(detail: Detail, cases: Cases) -> Detail:
    policy = cases.site.policy
    if "subgroups" not in policy.evaluation_sends or policy.privacy_required:
        return replace(detail, groups_why="policy")
    told = tell(cases)
    return replace(detail, groups=told.groups, groups_why=told.why, left_out=dict(told.left_out))


def _with_decisions(
    detail: Detail, report: PartReport, site: Site, rows: Rows, scores: NDArray[np.float64], order: EvaluateOrder
) -> Detail:
    if not order.apart:
        return replace(detail, decisions_why="in-total")
    index, smallest = site.task.positive_index, site.policy.smallest_group
    positive, patients = site.labels[rows] == index, site.patients[rows]
    if not sides_large_enough(positive, patients, smallest):
        return replace(detail, decisions_why="suppressed")
    told = [order.threshold if number is not None else None for number in (report.sensitivity, report.specificity)]
    return replace(detail, decisions=decision_curve(positive, scores[:, index], patients, smallest=smallest, told=told))

"""A site's answers to the two questions of the shift panel:
what `client.shift` sums, where the site's policy allows it.

Sums over patients alone: none where the site, half of it, or a class that it has is smaller than its policy's
`smallest_group`.
"""

from __future__ import annotations

__all__ = ["report_shift"]

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from client.descriptors import describe
from client.features import pooled_features
from client.looks import lesion_margin
from client.multipliers import multipliers
from client.service import model_of, site_crops
from client.shift import TOO_FEW, Patients, patients_of, shift_moments, shift_sums
from client.site import Site
from common.errors import BadInput, RunFailed
from common.orders import EvaluateOrder, PartReport
from common.shift_orders import SentMoments, SentSums, ShiftOrder
from common.update import Weights

Rows = NDArray[np.int64]


def report_shift(site: Site, rows: Rows, order: EvaluateOrder, weights: Weights) -> PartReport:
    """Moments of the patients of the cases `rows` (N,), or, where the order brings a reference, their weighted sums.

    Nothing but `why` where policy, or too few patients, keep them back; a site that trains with privacy or not at all
    tells nothing about its patients outside the budget. RunFailed where the model's features are not finite.
    """
    asked, nothing = order.shift, PartReport.nothing("policy")
    if asked is None or (asked.reference is None) != (order.stage == "shift-moments"):
        raise BadInput("message: the order for shift sums lacks what it is about; run one release everywhere")
    if "shift-sums" not in site.policy.evaluation_sends or site.policy.privacy_required:
        return nothing
    if why := _kept_back(site, rows):
        return replace(nothing, why=why)
    try:
        return _told(site, rows, order, asked, weights)
    except ValueError as error:
        raise RunFailed(f"site {site.id}: {error}") from None


def _told(site: Site, rows: Rows, order: EvaluateOrder, asked: ShiftOrder, weights: Weights) -> PartReport:
    crops, told = site_crops(site, order.crop)[rows], PartReport.nothing()
    descriptors = describe(crops, margin=lesion_margin(order.crop))
    model = model_of(order, weights)
    features = pooled_features(model, crops, precision=order.training.precision, seed=asked.seed)
    patients = _patients(site, rows, descriptors, features)
    if asked.reference is None:
        moments = shift_moments(patients, classes=len(site.task.classes))
        return replace(told, shift_moments=SentMoments.of(moments))
    sums = shift_sums(patients, asked.reference.reference, rng=multipliers(site, rows))
    return replace(told, shift_sums=SentSums.of(sums))


def _patients(site: Site, rows: Rows, descriptors: NDArray[np.float64], features: NDArray[np.float64]) -> Patients:
    labels, whose = site.labels[rows], site.patients[rows]
    return patients_of(descriptors, features, labels=labels, patients=whose, positive=site.task.positive_index)


def _kept_back(site: Site, rows: Rows) -> str | None:
    """Why nothing is told: `suppressed` by policy, or `too-few` to be compared; None where sums may leave.

    Halves of the patients are told of, so both must be large enough; and a class of one patient is never summed.
    """
    none = np.zeros((len(rows), 0))
    counts = np.bincount(_patients(site, rows, none, none).classes, minlength=len(site.task.classes))
    smallest = max(site.policy.smallest_group, 2)
    if counts.sum() // 2 < smallest or ((counts > 0) & (counts < smallest)).any():
        return "suppressed"
    return "too-few" if counts.sum() < TOO_FEW else None

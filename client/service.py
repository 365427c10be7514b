"""What a site does when it is asked: introduce itself, train, evaluate. Plain values in and out; no Flower here."""

from __future__ import annotations

__all__ = [
    "answer_evaluate",
    "answer_query",
    "answer_train",
    "model_of",
    "open_site",
    "proximal_of",
    "scores_of",
    "scores_of_both",
    "site_crops",
    "use_threads",
]

import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.cache import load_crops
from client.evaluations import count_models
from client.keyed import keyed_digest
from client.private_round import Custody, answer_private
from client.site import Site, load_site, require_declared, require_task
from common.config import Crop, FedAvg, FedProx, Model
from common.errors import BadInput
from common.orders import EvaluateOrder, EvaluateReport, Part, PartReport, SiteCard, TrainOrder, TrainReport
from common.paired import apart
from common.private_orders import CardOrder
from common.repair_orders import Repair
from common.update import Weights, difference, norm
from common.weights import get_weights, set_weights

if TYPE_CHECKING:
    from client.repaired import Score
    from common.model import AttentionNet

PARTS: tuple[Part, ...] = ("train", "val", "test")


@functools.lru_cache(maxsize=64)
def open_site(folder: Path) -> Site:
    """The site folder, parsed and checked once in this process."""
    return load_site(folder)


_COUNTS_STAY = "its policy requires privacy; set privacy.kind to 'patient' in the experiment"


def answer_query(site: Site, order: CardOrder | None = None) -> SiteCard:
    """Who the site is, for the coordinator's roster.

    For a private run, or where the site's policy requires privacy, without its counts, and with a checksum of its data
    that only the site can make; BadInput where its nominal number of patients was not declared.
    """
    training = site.role == "train"
    quiet = training and ((order is not None and order.private) or site.policy.privacy_required)
    if quiet:
        require_declared(site)
    return SiteCard(
        site=site.id,
        role=site.role,
        artificial=site.artificial,
        evaluations=(site.policy.evaluations_per_run, site.policy.evaluations_in_all) if training else None,
        task=site.task,
        images={} if quiet else {part: len(site.rows(part)) for part in PARTS},
        patients=site.nominal_patients,
        data_sha256=keyed_digest(site) if quiet else site.data_sha256,
    )


def answer_train(
    site: Site, order: TrainOrder, weights: Weights, *, custody: Custody | None = None
) -> tuple[TrainReport, Weights]:
    """One round of local training from `weights`; the report, and the change of the weights.

    BadInput where the site's role is held-out, so that it never trains, or where its policy requires privacy and the
    order asks for none, whatever the server wishes.
    """
    if site.role == "held-out":
        raise BadInput(f"site {site.id} is held out: it only evaluates; change its role at the site, not at the server")
    use_threads(order.threads)
    require_task(site, order.task)
    if order.private is not None:
        return answer_private(site, order, order.private, weights, custody=custody or Custody())
    if site.policy.privacy_required:
        raise BadInput(f"site {site.id}: {_COUNTS_STAY}")
    return _train_plainly(site, order, weights)


def _train_plainly(site: Site, order: TrainOrder, weights: Weights) -> tuple[TrainReport, Weights]:
    from client.training import TrainingData, train
    from common.randomness import derive

    rows = site.rows(*order.parts)
    crops = site_crops(site, order.crop)
    model = model_of(order, weights)
    data = TrainingData(crops=crops[rows], labels=site.labels[rows], classes=len(site.task.classes))
    began = time.monotonic()
    trained = train(
        model,
        data,
        order.training,
        steps=order.steps,
        progress=order.progress,
        rng=derive(order.seed, "site", site.id, "round", order.round),
        proximal=proximal_of(order.strategy),
    )
    seconds = time.monotonic() - began
    change = difference(get_weights(model), weights, spend=True)
    report = TrainReport(
        site=site.id,
        weight=float(len(rows)),
        samples=trained.samples,
        steps=trained.steps,
        loss=trained.loss,
        norm=norm(change),
        seconds=round(seconds, 3),
    )
    return report, change


def model_of(order: TrainOrder | EvaluateOrder, weights: Weights) -> AttentionNet:
    """The model that an order describes, with the weights that came with it."""
    double = order.training.precision == "float64"
    model = _architecture(order.model, order.task.name, len(order.task.classes), double)
    set_weights(model, weights)
    return model


@functools.lru_cache(maxsize=1)
def _architecture(config: Model, task: str, classes: int, double: bool) -> AttentionNet:
    """A model whose weights are about to be overwritten: drawing them anew for each message would take longer."""
    from common.model import build_model

    model = build_model(config, task=task, classes=classes, seed=0)
    return model.double() if double else model


def proximal_of(strategy: FedAvg | FedProx) -> float:
    """FedProx's mu; 0 where nothing pulls."""
    match strategy:
        case FedProx(mu=mu):
            return mu
        case FedAvg():
            return 0.0


def answer_evaluate(
    site: Site, order: EvaluateOrder, weights: Weights, *, custody: Custody | None = None
) -> EvaluateReport:
    """The site's own exact numbers, and what the order's stage asks for, for each part that was asked.

    EvaluationsExhausted where the site's policy allows no more of them.
    """
    from client.evidence import report_looks
    from client.paired import report_paired
    from client.sent import log_report
    from client.shift_report import report_shift

    began = time.monotonic()
    use_threads(order.threads)
    require_task(site, order.task)
    count_models((custody or Custody()).folder(site), site, order, weights)
    parts: dict[str, PartReport] = {}
    for name, splits in order.parts.items():
        rows = site.rows(*splits)
        if len(rows) and order.stage == "looks":
            parts[name] = report_looks(site, rows, site_crops(site, order.crop)[rows], order)
        elif len(rows) and order.stage in ("shift-moments", "shift-sums"):
            parts[name] = report_shift(site, rows, order, weights)
        elif len(rows) and order.stage == "paired":
            parts[name] = report_paired(site, rows, scores_of_both(site, rows, order, weights, part=name), order)
        elif len(rows):
            parts[name] = _report_scored(site, rows, order, weights, part=name)
    seconds = None if site.policy.privacy_required else round(time.monotonic() - began, 3)
    report = EvaluateReport(site=site.id, seconds=seconds, parts=parts)
    log_report(site, order, report)
    return report


def _report_scored(site: Site, rows: np.ndarray, order: EvaluateOrder, weights: Weights, *, part: str) -> PartReport:
    from client.evidence import report_part

    scores = scores_of(site, rows, order, weights, part=part)
    report = report_part(site, rows, scores, order)
    if order.repair is None or report.n_images is None:
        return report
    return replace(report, repairs=_repairs(site, rows, scores, order, weights))


def _repairs(
    site: Site, rows: np.ndarray, scores: np.ndarray, order: EvaluateOrder, weights: Weights
) -> tuple[Repair, ...]:
    """The cases after each repair; numbers about fewer patients than the site's policy lets out are None."""
    from client.repaired import CenterCases, repairs_of

    assert order.repair is not None
    cases = CenterCases(
        site_crops(site, order.crop)[rows],
        scores,
        site.labels[rows],
        site.patients[rows],
        site.task.positive_index,
        site.policy.smallest_group,
    )
    return repairs_of(cases, model_of(order, weights), order.repair, crop=order.crop, score=_scorer(order))


def _scorer(order: EvaluateOrder) -> Score:
    """How the order wants cases scored."""
    from client.evaluation import score_as

    return score_as(order.evaluation, precision=order.training.precision)


def scores_of(site: Site, rows: np.ndarray, order: EvaluateOrder, weights: Weights, *, part: str) -> np.ndarray:
    """The scores (N, K) of the cases `rows`; those of test cases are kept from the first pass on until their
    placements, or, where the model is compared with another, until the difference.
    """
    from client.kept import keep_scores, kept_scores, scores_name

    if part != "test" or order.stage == "progress":
        return _scored(site, rows, order, weights)
    last = _last_message(order)
    name = scores_name(order, weights, part=part, data_sha256=site.data_sha256)
    kept = kept_scores(site.state, name, cases=len(rows), take=last)
    if kept is not None:
        return kept
    scores = _scored(site, rows, order, weights)
    if not last:
        two = order.compared is not None or order.stage == "paired"
        keep_scores(site.state, name, scores, beside=1 if two else 0)
    return scores


def _last_message(order: EvaluateOrder) -> bool:
    """Whether nothing more is asked about the order's models."""
    if order.stage == "paired":
        return bool(order.placing) or not order.evaluation.secure
    return order.stage == "placements" and order.compared is None


def scores_of_both(
    site: Site, rows: np.ndarray, order: EvaluateOrder, weights: Weights, *, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """The scores (N, K) of both models that came with an order of the stage `paired`."""
    first, second = apart(weights)
    return scores_of(site, rows, order, first, part=part), scores_of(site, rows, order, second, part=part)


def _scored(site: Site, rows: np.ndarray, order: EvaluateOrder, weights: Weights) -> np.ndarray:
    return _scorer(order)(model_of(order, weights), site_crops(site, order.crop)[rows])


def site_crops(site: Site, crop: Crop) -> np.ndarray:
    """Every image's crop (N, S, S) uint8, decoded once and kept in the site's state folder."""
    return load_crops(site, crop)


def use_threads(threads: int) -> None:
    """Set torch's threads: one and two give different bits, so the experiment says how many."""
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)

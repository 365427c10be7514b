"""Repair without labels at each center that a federated model never saw: the same code of client and server.

Models are those of the first seed. A training site's looks heed its own policy, as in a deployment; the numbers are
exact.
"""

from __future__ import annotations

__all__ = ["repairs"]

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from client.evaluation import score_as
from client.looks import lesion_margin, looks_of
from client.repaired import CenterCases, repairs_of
from client.service import site_crops
from client.site import Site
from common.config import Experiment
from common.orders import Part
from common.repair_orders import LooksSums, RepairOrder
from server.repairs import Repaired, no_looks, repair_order, repaired_rows
from simulation.models import finished_model, read_scores
from simulation.plan import IN_FEDERATION, LEAVE_ONE_OUT, ModelPlan

Looks = Callable[[str, tuple[Part, ...]], LooksSums | None]


def repairs(
    run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]
) -> tuple[Repaired, ...]:
    """Rows by protocol and center; none where the experiment asks for none, or no center is unseen."""
    if not experiment.evaluation.repair:
        return ()

    @functools.cache
    def looks(name: str, parts: tuple[Part, ...]) -> LooksSums | None:
        site = sites[name]
        rows, smallest = site.rows(*parts), site.policy.smallest_group
        crops = site_crops(site, experiment.crop)[rows]
        return looks_of(crops, site.patients[rows], margin=lesion_margin(experiment.crop), smallest=smallest)

    first = [plan for plan in plans if (plan.arm, plan.seed) == ("federated", experiment.seed)]
    ordered = sorted(first, key=lambda p: (p.protocol != LEAVE_ONE_OUT, p.held_out or ""))
    return tuple(row for plan in ordered for row in _of_model(run, plan, experiment, sites, looks))


def _of_model(
    run: Path, plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site], looks: Looks
) -> list[Repaired]:
    """Under leave-one-center-out the center that was left out, else the sites whose role is held-out."""
    watched = [name for name, site in sites.items() if site.role == "held-out"]
    centers = [plan.held_out] if plan.held_out is not None else sorted(watched)
    if not centers:
        return []
    order, reference = _order(plan, experiment, sites, looks)
    model, found = finished_model(run, plan, experiment), []
    score = score_as(experiment.evaluation, precision=experiment.training.precision)
    for name in centers:
        site, crops = sites[name], site_crops(sites[name], experiment.crop)[:]
        scores, index = read_scores(run, plan, name), experiment.task.positive_index
        cases = CenterCases(crops, scores, site.labels, site.patients, index)
        told = repairs_of(cases, model, order, crop=experiment.crop, score=score)
        found += repaired_rows(
            told,
            protocol=plan.protocol,
            seed=plan.seed,
            site=name,
            trained_on=plan.trained_on,
            reference=reference,
        )
    return found


def _order(
    plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site], looks: Looks
) -> tuple[RepairOrder, tuple[str, ...]]:
    """What a server would order of a center, and whose looks are in it."""
    parts: tuple[Part, ...] = ("train",) if plan.protocol == IN_FEDERATION else ("train", "test")
    asked = sorted(plan.trained_on) if no_looks(experiment) is None else ()
    known = {name: found for name in asked if (found := looks(name, parts))}
    labels = np.concatenate([sites[name].labels[sites[name].rows("val")] for name in plan.trained_on])
    val = np.bincount(labels, minlength=len(experiment.task.classes)) / max(len(labels), 1)
    return repair_order(experiment, known.values(), val=val.tolist()), tuple(known)

"""Repair without labels, as `results.json` has it, and what the server asks for to have it. Never instead of a row."""

from __future__ import annotations

__all__ = ["Repaired", "no_looks", "repair_order", "repaired_rows"]

import functools
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from common.config import Experiment, NoPrivacy
from common.repair_orders import LooksSums, Repair, RepairOrder


@dataclass(frozen=True)
class Repaired:
    """One repair of one federated model at a center that did not train; `repair` "none" is the main row's own numbers.

    `reference`: the training sites whose looks a repair of pictures aimed at. The rest is as in
    `common.repair_orders.Repair`.
    """

    protocol: str
    seed: int
    site: str
    trained_on: tuple[str, ...]
    repair: str
    reference: tuple[str, ...] = ()
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    delta_auc: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    p: float | None = None
    brier: float | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    prior: tuple[float, ...] | None = None
    why: str | None = None
    arm: str = "federated"


def repaired_rows(
    told: Sequence[Repair],
    *,
    protocol: str,
    seed: int,
    site: str,
    trained_on: Sequence[str],
    reference: Sequence[str],
) -> list[Repaired]:
    """A center's repairs as rows; `reference` stands with those that used it."""
    found = []
    for one in told:
        aimed = tuple(reference) if one.repair in ("intensity", "amplitude") and one.brier is not None else ()
        about = {"protocol": protocol, "seed": seed, "site": site, "trained_on": tuple(trained_on)}
        found.append(Repaired(**about, reference=aimed, **asdict(one)))  # type: ignore[arg-type]
    return found


def repair_order(experiment: Experiment, looks: Collection[LooksSums], *, val: Sequence[float]) -> RepairOrder:
    """What a center that did not train is asked to mend: its pictures towards the training sites' `looks`, where there
    are any, and its answers from the shares of classes that the model takes for granted; `val` as in `_model_shares`.
    """
    total = functools.reduce(LooksSums.__add__, looks) if looks else None
    return RepairOrder(looks=total, looks_why=no_looks(experiment), shares=_model_shares(experiment, val))


def no_looks(experiment: Experiment) -> str | None:
    """Why training sites are not asked how their crops look; None where they are.

    Sums over the patients that train are in no budget, so a private run asks for none, and where sums leave under masks
    alone none leaves in the clear.
    """
    if not isinstance(experiment.privacy, NoPrivacy):
        return "private-training"
    return "masked-only" if experiment.evaluation.secure else None


def _model_shares(experiment: Experiment, val: Sequence[float]) -> tuple[float, ...]:
    """The share of each class that a model takes for granted: equal ones where classes were weighted against their
    frequency in training, else those of the training sites' val cases (`val`, empty where they are not known).
    """
    classes = len(experiment.task.classes)
    if experiment.training.class_weights:
        return (1 / classes,) * classes
    return tuple(val) if len(val) == classes and min(val) > 0 else ()

"""What the server asks and a site answers, besides tensors: plain data, as JSON on the wire, checked on arrival."""

from __future__ import annotations

__all__ = ["EvaluateOrder", "EvaluateReport", "Part", "PartReport", "SiteCard", "TrainOrder", "TrainReport"]

from dataclasses import field
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from common.config import Crop, Evaluation, FedAvg, FedProx, Model, Training
from common.private_orders import PrivateOrder, PrivateReport
from common.tasks import Task

_STRICT = ConfigDict(extra="forbid")

Part = Literal["train", "val", "test"]


@checked(frozen=True, config=_STRICT)
class SiteCard:
    """How a site introduces itself. `images` counts images by part; it is empty where privacy is asked for, since nothing
    that leaves may follow from the true count. `patients` is the declared nominal number.

    `artificial` sites were cut from one center: a report must not take them for centers.
    """

    site: str
    role: Literal["train", "held-out"]
    task: Task
    images: dict[Part, int]
    patients: int
    data_sha256: str
    artificial: bool = False


@checked(frozen=True, config=_STRICT)
class TrainOrder:
    """One site's work in one round: `steps` steps while the global schedule moves over `progress` (two shares of 1).

    With `private` the site trains with privacy or not at all.
    """

    run: str
    round: int
    seed: int
    threads: int
    steps: int
    progress: tuple[float, float]
    parts: tuple[Part, ...]
    task: Task
    crop: Crop
    model: Model
    training: Training
    strategy: FedAvg | FedProx
    private: PrivateOrder | None = None


@checked(frozen=True, config=_STRICT)
class TrainReport:
    """What goes with an update: `weight` is the number of training images, `seconds` the time inside steps.

    With `private` the weight is the nominal number of patients, `samples` what is expected, `loss` and `seconds` are None.
    """

    site: str
    weight: float
    samples: int
    steps: int
    loss: float | None
    norm: float
    seconds: float | None
    private: PrivateReport | None = None


@checked(frozen=True, config=_STRICT)
class EvaluateOrder:
    """Score the cases of some parts with the weights sent; `threshold` is locked, or not yet known."""

    run: str
    round: int
    threads: int
    parts: dict[str, tuple[Part, ...]]
    task: Task
    crop: Crop
    model: Model
    training: Training
    evaluation: Evaluation
    threshold: float | None = None


@checked(frozen=True, config=_STRICT)
class PartReport:
    """One part's result: the site's own exact AUC with its interval, and sums that add across sites (`EvaluationSums`).

    `sums` is None in a secure evaluation: they leave the site only under masks (`common.masks`).
    """

    n_images: int
    n_patients: int
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    auc_variance: float | None
    auc_patient: float | None
    loss: float | None
    calibration_slope: float | None
    calibration_intercept: float | None
    why: str | None
    sums: dict[str, Any] | None


@checked(frozen=True, config=_STRICT)
class EvaluateReport:
    """A site's answer to an EvaluateOrder, by the order's names of parts."""

    site: str
    seconds: float
    parts: dict[str, PartReport] = field(default_factory=dict)

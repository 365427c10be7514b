"""What the server asks and a site answers, besides tensors: plain data, as JSON on the wire, checked on arrival."""

from __future__ import annotations

__all__ = [
    "EvaluateOrder",
    "EvaluateReport",
    "Part",
    "PartReport",
    "Placing",
    "SiteCard",
    "Stage",
    "TrainOrder",
    "TrainReport",
]

from dataclasses import field
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from common.auc import ClusteredAuc
from common.config import Crop, Evaluation, FedAvg, FedProx, Model, Positive, Training
from common.detail_orders import Detail
from common.influence import Others
from common.logistic import Start
from common.paired import SentDifference
from common.private_orders import PrivateOrder, PrivateReport
from common.repair_orders import LooksSums, Repair, RepairOrder
from common.shift_orders import SentMoments, SentSums, ShiftOrder
from common.tasks import Task

_STRICT = ConfigDict(extra="forbid")

Part = Literal["train", "val", "test"]
Stage = Literal["progress", "first-pass", "counts", "placements", "looks", "shift-moments", "shift-sums", "paired"]


@checked(frozen=True, config=_STRICT)
class SiteCard:
    """How a site introduces itself. `images` counts images by part; it is empty where privacy is asked for, since
    nothing that leaves may follow from the true count. `patients` is the declared nominal number.

    `artificial` sites were cut from one center: a report must not take them for centers. `evaluations`: how many a
    training site's policy lets leave, of one run and in all.
    """

    site: str
    role: Literal["train", "held-out"]
    task: Task
    images: dict[Part, int]
    patients: int
    data_sha256: str
    artificial: bool = False
    evaluations: tuple[int, int] | None = None


@checked(frozen=True, config=_STRICT)
class TrainOrder:
    """One site's work in one round: `steps` steps while the global schedule moves over `progress` (two shares of 1).

    With `private` the site trains with privacy or not at all.
    """

    run: str
    round: int
    seed: int
    threads: Positive
    steps: Positive
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

    With `private` the weight is the nominal number of patients, `samples` what is expected, `loss` and `seconds` are
    None.
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
class Placing:
    """How to place a site's cases for one question: around `center`, among the `others`; and where calibration starts.

    `whole`: `others` are everybody's cases over unmerged bins, the site's own among them, which it takes off itself. So
    it is where the server knows totals alone.
    """

    center: float
    others: Others
    start: Start | None = None
    whole: bool = False


@checked(frozen=True, config=_STRICT)
class EvaluateOrder:
    """Score the cases of some parts with the weights sent; `threshold` is locked, or not yet known.

    A `stage` asks for more than the site's own numbers, for each of the task's questions (`Task.questions`): the first
    pass for histograms over the fixed grid; `counts` for sums, and histograms between `edges`; `placements` for
    influence and calibration sums as `placing` says (None: the site is not in this question). `looks` asks how the
    parts' crops look, and for nothing else: no case is scored. With `repair` the site mends its pictures and answers by
    it, beside the rest. `shift-moments` and then `shift-sums` ask for what `shift` says, and for nothing else. A
    site `apart` is in no total: it sends no sums, and tells what follows from its counts by itself, in a secure
    evaluation too.

    A model that is `compared` with another keeps its scores at the site until `paired` asks for the difference; of the
    second, histograms alone are told. `paired` comes with both models (`common.paired`): for the exact difference of
    their AUCs at the site, and, with `placing` for the first and `against` for the second, for influence sums of it.
    """

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
    stage: Stage = "progress"
    edges: tuple[tuple[float, ...], ...] = ()
    placing: tuple[Placing | None, ...] = ()
    repair: RepairOrder | None = None
    apart: bool = False
    shift: ShiftOrder | None = None
    compared: Literal["first", "second"] | None = None
    against: tuple[Placing | None, ...] = ()


@checked(frozen=True, config=_STRICT)
class PartReport:
    """One part's result: the site's own exact numbers, and what the order's stage asked for.

    Numbers that the site's policy keeps back are None and `why` is `suppressed`; a class without cases is `one-class`;
    a part without cases is not in the report at all. `sums` is an `EvaluationSums`, `histograms` and `influence` hold a
    `ScoreHistogram` and `InfluenceSums` for each question, `logistic` is a `LogisticSums`, each as its `to_json` writes
    it; with more than two classes `macro` is a `MacroSums`. In a secure evaluation these five are not in the report:
    they leave the site only under masks (`common.masks`). `by_class`: with more than two classes each against the rest.
    What follows from counts, from `sensitivity` to `log_oe_variance` (`common.observed`), is there where a site's
    counts were asked for, unless they leave under masks as part of a total. `looks`, `shift_moments` and `shift_sums`
    answer the stages of these names; `repairs` the order to mend, and is empty where the site's numbers stay there.
    `difference` is there in the stage `paired` alone; its `influence` and `macro` are of the difference.
    `detail` (groups of patients, the decision curve) comes with counts that are told in clear.
    """

    n_images: int | None
    n_patients: int | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    auc_variance: float | None
    auc_patient: float | None
    loss: float | None
    calibration_slope: float | None
    calibration_intercept: float | None
    why: str | None
    sensitivity: float | None = None
    specificity: float | None = None
    brier: float | None = None
    ece: float | None = None
    observed: int | None = None
    expected: float | None = None
    log_oe_variance: float | None = None
    sums: dict[str, Any] | None = None
    histograms: tuple[dict[str, Any], ...] = ()
    influence: tuple[dict[str, Any] | None, ...] = ()
    logistic: dict[str, Any] | None = None
    looks: LooksSums | None = None
    repairs: tuple[Repair, ...] = ()
    macro: dict[str, Any] | None = None
    by_class: tuple[ClusteredAuc, ...] = ()
    shift_moments: SentMoments | None = None
    shift_sums: SentSums | None = None
    difference: SentDifference | None = None
    calibration_slope_low: float | None = None
    calibration_slope_high: float | None = None
    calibration_intercept_low: float | None = None
    calibration_intercept_high: float | None = None
    detail: Detail | None = None

    @classmethod
    def nothing(cls, why: str | None = None) -> PartReport:
        """A report that tells no number, and `why`."""
        return cls(*(None,) * 10, why=why)


@checked(frozen=True, config=_STRICT)
class EvaluateReport:
    """A site's answer to an EvaluateOrder, by the order's names of parts.

    `seconds` is None where the site requires privacy: it follows from the true number of cases.
    """

    site: str
    seconds: float | None
    parts: dict[str, PartReport] = field(default_factory=dict)

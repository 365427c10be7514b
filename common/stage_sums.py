"""What a site counts about one part of its cases at one stage of an evaluation, before it is told or masked."""

from __future__ import annotations

__all__ = ["StageSums", "no_case"]

from dataclasses import dataclass

from common.bins import first_grid
from common.errors import BadInput
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums
from common.logistic import LogisticSums
from common.macro import MacroSums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder


@dataclass(frozen=True)
class StageSums:
    """Sums of the stages: `first-pass` has histograms, `counts` sums and histograms, `placements` influence and
    logistic.

    `histograms` and `influence` have one entry for each of the task's questions; an influence is None where the order
    gave no placing. `macro` goes with several influences: None with a single question, or where a class has too few
    patients.
    """

    sums: EvaluationSums | None = None
    histograms: tuple[ScoreHistogram, ...] = ()
    influence: tuple[InfluenceSums | None, ...] = ()
    logistic: LogisticSums | None = None
    macro: MacroSums | None = None


def no_case(order: EvaluateOrder) -> StageSums:
    """The sums of a site without a case, to an order of some stage; BadInput where the stage sums nothing."""
    match order.stage:
        case "first-pass":
            grid = first_grid(len(order.task.questions)).tolist()
            return StageSums(histograms=tuple(_empty(grid) for _ in order.task.questions))
        case "counts":
            sums = EvaluationSums.of([], [], [], site="", threshold=order.threshold, loss_sum=0.0)
            second, secure = order.compared == "second", order.evaluation.secure
            return StageSums(None if second else sums, tuple(_empty(edges, placed=secure) for edges in order.edges))
        case "placements":
            starts = [how.start for how in order.placing if how is not None and how.start is not None]
            return StageSums(
                influence=tuple(None if how is None else InfluenceSums.zero(how.center) for how in order.placing),
                logistic=LogisticSums.of([], [], start=starts[-1]) if starts else None,
                macro=MacroSums.zero(len(order.placing)) if len(order.placing) > 1 else None,
            )
        case "paired":
            both = zip(order.placing, order.against, strict=True)
            zeros = [InfluenceSums.zero(a.center - b.center) if a and b else None for a, b in both]
            return StageSums(
                influence=tuple(zeros),
                macro=MacroSums.zero(len(order.placing)) if len(order.placing) > 1 else None,
            )
        case "progress" | "looks" | "shift-moments" | "shift-sums":
            raise BadInput("an evaluation for progress, looks or shift sums nothing under masks; ask for another stage")


def _empty(edges: list[float] | tuple[float, ...], *, placed: bool = False) -> ScoreHistogram:
    return ScoreHistogram.of([], [], [], edges=edges, placed=placed)

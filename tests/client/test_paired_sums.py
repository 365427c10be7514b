"""The sums of two models' difference that leave under masks, against the exact paired test of all cases at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.evidence import histograms_of
from client.paired import paired_sums
from common.bins import first_grid, quantile_edges, secure_bins
from common.blocks import decode, encode
from common.config import Experiment
from common.errors import BadInput
from common.evaluation_blocks import evaluation_directory, evaluation_numbers, evaluation_sums
from common.histogram import ScoreHistogram
from common.influence import Difference
from common.macro import macro_difference, macro_placed, summed
from common.orders import EvaluateOrder, Placing
from common.paired import SentDifference, apart, side_by_side
from common.parsing import parse
from server.evidence import Question, pool
from server.paired import pooled_difference
from server.rounds import evaluate_order
from tests.experiments import experiment_table
from tests.server.test_paired import laid, other
from tests.server.test_together import SIZES, drawn, three_sites


@pytest.mark.parametrize("classes", [(), ("none", "cyst", "mass")])
def test_totals_under_masks_are_the_paired_test_of_all_cases(tmp_path: Path, classes: tuple[str, ...]) -> None:
    sites = three_sites(tmp_path, dict.fromkeys(SIZES, 5), classes=classes)
    tables = (drawn(sites), other(sites))
    task = sites["ash"].task
    cases = {name: (site.labels, site.patients) for name, site in sites.items()}
    bins = secure_bins(len(task.questions))

    def questions(number: int) -> tuple[Question, ...]:
        scores = np.concatenate(list(tables[number].values()))
        grid = first_grid(len(task.questions))
        edges = [quantile_edges(np.histogram(scores[:, k], [0, *grid, 1])[0], bins) for k in task.questions]
        labels, whose = (np.concatenate([told[n] for told in cases.values()]) for n in (0, 1))
        whole: tuple[ScoreHistogram, ...] = histograms_of(
            task, labels, scores, whose, edges=edges, smallest=1, placed=True
        )
        return pool({"total": whole}, edges, questions=task.questions, positive_index=task.positive_index)

    def placing(number: int) -> tuple[Placing | None, ...]:
        return tuple(question.placing_among_all() for question in questions(number))

    table = experiment_table([Path("ash")], evaluation={"secure": True})
    table["task"] = {"name": task.name, "classes": list(task.classes), "positive": task.positive}
    made = evaluate_order(parse(Experiment, table, where="test"), {"test": ("test",)}, run="r", round_number=1)
    order = EvaluateOrder(**{**made.__dict__, "stage": "paired", "placing": placing(0), "against": placing(1)})
    directory, words = evaluation_directory(order), np.zeros(0, dtype=np.uint64)
    for name, (labels, patients) in cases.items():
        both = (tables[0][name], tables[1][name])
        told = paired_sums(task, labels, both, patients, order, smallest=1)
        sealed = encode(directory, evaluation_numbers({"test": told}), sites=len(sites))
        words = words + sealed if len(words) else sealed
    total = evaluation_sums(decode(directory, words), "test", order, sites=tuple(sites))
    found = pooled_difference(total.influence, total.macro, why="one-class")

    labels, one, two, whose = laid(sites, tables, tuple(SIZES), part="")
    both = zip(macro_placed(labels, one), macro_placed(labels, two), strict=True)
    exact = macro_difference(*summed([a - b if a and b else None for a, b in both], labels, whose))
    assert exact.delta is not None
    assert exact.error is not None
    assert found.bound is not None
    assert found.found.delta is not None
    assert abs(found.found.delta - exact.delta) <= found.bound < 2e-3
    assert found.found.delta == pytest.approx(exact.delta, abs=3e-5)
    assert found.found.error == pytest.approx(exact.error, abs=1e-6 if not classes else 1e-5)


unit = st.floats(-1, 1)
maybe = st.none() | st.sampled_from(["suppressed", "one-class"])


@given(unit, st.floats(0, 1), st.floats(1, 1e6))
def test_three_numbers_give_the_paired_test_back(delta: float, error: float, degrees: float) -> None:
    found = Difference.of(delta, error, degrees)
    back = SentDifference.of(found).difference
    assert (back.delta, back.low, back.high, back.p, back.why) == (
        found.delta, found.low, found.high, found.p, found.why,
    )  # fmt: skip


def test_two_models_travel_side_by_side() -> None:
    first, second = {"a": np.ones(2), "b": np.zeros(1)}, {"a": np.zeros(2), "b": np.ones(1)}
    back = apart(side_by_side(first, second))
    for told, whole in zip(back, (first, second), strict=True):
        assert told.keys() == whole.keys()
        assert all((told[name] == whole[name]).all() for name in whole)
    for torn in (first, {}, {"first/a": np.ones(1)}, side_by_side(first, second) | {"third/a": np.ones(1)}):
        with pytest.raises(BadInput, match="not two models side by side"):
            apart(torn)

"""The sentence at the top says what the numbers say, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.model_card import write_model_card
from server.report.numbers import decimal, precision_for, signed
from server.report.reading import read_run
from server.report.sentence import _clause, answer, reservations
from server.statistics import Contrast
from tests.server.report_folder import Folder

LOCO = "leave-one-center-out"


def folder(tmp_path: Path, *, arms: tuple[str, ...] = ("federated", "pooled"), **given: Any) -> Folder:
    made = Folder(tmp_path / "run", sites=("a", "b"), seeds=1, cases=20)
    values = {"a": 0.9, "b": 0.82, "all": 0.86}
    for arm in arms:
        for site, auc in values.items():
            numbers = {"auc": auc, "auc_low": auc - 0.04, "auc_high": auc + 0.04} | given
            made.row(arm, LOCO, 0, site, ["a", "b"], predictions=None, **numbers)
    return made


def sentence(made: Folder, **config: Any) -> str:
    return answer(read_run(made.write(**config)))


def test_better_than_local_and_no_difference_from_pooled(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.contrast("pooled", LOCO, "all", -0.012, -0.03, 0.01, 0.3)
    made.contrast("local", LOCO, "all", 0.06, 0.02, 0.10, 0.001)
    assert sentence(made) == (
        "At a center it has never seen, the federated model reaches AUC .86 (mean of 2 centers, each left out in turn; "
        "95 % interval .82–.90 over the patients of these 2 centers; worst center b at .82; 2 centers are too few to "
        "tell where a further one would lie), with no demonstrable difference from pooling the data "
        "(−.01; −.03 to .01) and .06 above a model trained in one hospital (.02 to .10)."
    )


def test_a_further_center_has_an_interval_of_its_own_where_centers_are_enough(tmp_path: Path) -> None:
    """Six centers that differ by more than their errors: the prediction interval is the wider one."""
    areas = {"a": 0.7, "b": 0.76, "c": 0.82, "d": 0.86, "e": 0.9, "f": 0.93}
    made = Folder(tmp_path / "run", sites=tuple(areas), seeds=1, cases=20)
    for site, auc in (areas | {"all": 0.83}).items():
        ends = {"auc_low": auc - 0.04, "auc_high": auc + 0.04, "auc_variance": 0.0004}
        made.row("federated", LOCO, 0, site, [*areas], predictions=None, auc=auc, **ends)
    run = read_run(made.write())
    found = run.across("federated", "auc")
    assert found is not None
    assert found.prediction_low is not None
    assert found.prediction_low < 0.79 < 0.87 < (found.prediction_high or 0)
    ahead = f"{decimal(found.prediction_low)}–{decimal(found.prediction_high)}"
    assert (
        "95 % interval .79–.87 over the patients of these 6 centers; worst center a at .70; "
        f"95 % prediction interval for a further center {ahead})"
    ) in answer(run)


def test_worse_is_said_as_worse(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.contrast("pooled", LOCO, "all", -0.051, -0.08, -0.02, 0.001)
    text = sentence(made)
    assert ".05 below pooling the data (−.08 to −.02)" in text
    assert "it was not compared with a model trained in one hospital" in text


def test_a_bound_that_rounds_to_nothing_gets_more_places(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.contrast("pooled", LOCO, "all", 0.012, 0.0004, 0.03, 0.04)
    assert ".0120 above pooling the data (.0004 to .0300)" in sentence(made)


def test_missing_arms_are_named(tmp_path: Path) -> None:
    made = folder(tmp_path, arms=("federated",))
    assert "it was not compared with pooling the data or a model trained in one hospital" in sentence(made)
    assert "Not in this run: pooled, local and ensemble." in reservations(read_run(made.root))


def test_without_a_federated_arm_nothing_is_compared(tmp_path: Path) -> None:
    text = sentence(folder(tmp_path, arms=("pooled",)))
    assert text.startswith("At a center it has never seen, the pooled model reaches AUC .86")
    assert "there is no federated model to compare with it" in text


def test_no_auc_at_all(tmp_path: Path) -> None:
    made = folder(tmp_path, auc=None, auc_low=None, auc_high=None, why="one-class")
    text = sentence(made)
    assert "has no AUC that can be averaged over centers (the cases are all of one class)" in text
    assert not re.search(r"\.\d", text)


def test_where_one_center_has_no_auc_the_others_are_still_said(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.rows = [row | {"auc": None, "why": "suppressed"} if row["site"] != "a" else row for row in made.rows]
    assert "no AUC that can be averaged over centers (suppressed: fewer patients" in sentence(made)
    assert "; it reaches .90 at a." in sentence(made)


def test_no_interval_is_said(tmp_path: Path) -> None:
    made = folder(tmp_path, auc_low=None, auc_high=None)
    made.contrast("pooled", LOCO, "all", 0.02, None, None, None)
    text = sentence(made)
    assert "; no interval;" in text
    assert ".02 above pooling the data (no interval, so it may be chance)" in text


def test_a_single_run_with_an_outside_center_answers_for_it(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", sites=("a", "b", "far"), seeds=1, cases=20)
    for site, auc in (("a", 0.9), ("b", 0.8), ("far", 0.71)):
        made.row(
            "federated", "in-federation", 0, site, ["a", "b"], predictions=None, auc=auc, auc_low=0.6, auc_high=0.95
        )
    assert (
        sentence(made)
        == "At a center it has never seen, the federated model reaches AUC .71 at far (95 % interval .60–.95)."
    )


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    made = Folder(tmp_path / "run", sites=("a", "b"), seeds=1, cases=20)
    for site in ("a", "b", "all"):
        made.row("federated", "in-federation", 0, site, ["a", "b"], predictions=None, auc=0.8, held_out=False)
    text = sentence(made)
    assert text.startswith("At the centers that trained it, the federated model reaches AUC .80 on test patients")
    assert text.endswith("no center was held out, so this says nothing about a center it has never seen.")


@pytest.mark.parametrize(("looks", "word"), [(1, "once"), (2, "twice"), (7, "7 times")])
def test_the_looks_are_told(tmp_path: Path, looks: int, word: str) -> None:
    run = read_run(folder(tmp_path).write(evaluation={"looks": looks}))
    assert any(f"had been looked at {word} before" in note for note in reservations(run))


def test_no_look_is_told_too(tmp_path: Path) -> None:
    run = read_run(folder(tmp_path).write(evaluation={"looks": 0}))
    assert "Held-out results of these data had never been looked at before this run." in reservations(run)


def test_an_interval_and_a_p_that_disagree_are_borderline(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.contrast("pooled", LOCO, "all", -0.06, -0.12, -0.01, 0.06)
    assert ".06 below pooling the data (−.12 to −.01; p .060, borderline)" in sentence(made)


_difference = st.floats(-0.5, 0.5).map(lambda v: round(v, 6))


@given(st.lists(_difference, min_size=3, max_size=3).map(sorted))
def test_a_difference_is_claimed_exactly_when_the_interval_leaves_zero_out(bounds: list[float]) -> None:
    low, delta, high = bounds
    text = _clause(Contrast("federated", "pooled", LOCO, "all", delta, low, high), "X")
    assert ("no demonstrable difference" in text) == (low <= 0 <= high)
    if low > 0:
        assert "above X" in text
    if high < 0:
        assert "below X" in text


@given(_difference)
def test_numbers_read_back(value: float) -> None:
    places = precision_for(value)
    back = float(decimal(value, places=places).replace("−", "-"))
    assert abs(back - value) <= 0.5 * 10**-places + 1e-12
    assert decimal(-0.0001) == ".00"
    assert decimal(None) == "–"
    assert signed(0.06) == "+.06"


def test_the_model_card_repeats_the_sentence_and_escapes_names(tmp_path: Path) -> None:
    made = folder(tmp_path)
    root = made.write(name="<b>|demo")
    card = write_model_card(root).read_text(encoding="utf-8")
    assert answer(read_run(root)).replace("|", "") in card
    assert "<b>" not in card
    assert "\\|demo" in card
    assert "| b (worst) | 10 | .82 (.78–.86) | .82 (.78–.86) |" in card
    assert write_model_card(root).read_text(encoding="utf-8") == card

"""Which models a comparison trains."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import Experiment
from common.errors import BadInput
from common.parsing import parse
from simulation.plan import ModelPlan, plan_models

SITES = ("cedar", "ash", "birch")


def plans(sites: tuple[str, ...] = SITES, seed: int = 0, **comparison: Any) -> list[ModelPlan]:
    task = {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"}
    table = {"name": "x", "task": task, "seed": seed, "comparison": comparison}
    return plan_models(parse(Experiment, table, where="test"), sites)


def test_a_whole_comparison() -> None:
    found = plans(seeds=2, seed=5)
    assert len(found) == 2 * (3 + 2 * (1 + 3))
    assert len({plan.name for plan in found}) == len(found)
    assert {plan.seed for plan in found} == {5, 6}
    assert "federated/without-birch/seed-5" in {plan.name for plan in found}


def test_a_held_out_center_is_never_trained_on() -> None:
    for plan in plans():
        assert plan.held_out not in plan.trained_on
        assert plan.trained_on == tuple(sorted(plan.trained_on))
        if plan.arm != "local":
            assert {*plan.trained_on, plan.held_out} - {None} == set(SITES)


def test_the_plan_does_not_depend_on_the_order_of_sites() -> None:
    assert plans(("ash", "birch", "cedar")) == plans(("cedar", "birch", "ash"))


@pytest.mark.parametrize("arms", [["local"], ["ensemble"], ["local", "ensemble"]])
def test_a_local_model_is_trained_once_and_serves_both(arms: list[str]) -> None:
    assert [plan.trained_on for plan in plans(arms=arms)] == [("ash",), ("birch",), ("cedar",)]


def test_one_site_cannot_be_left_out() -> None:
    assert {plan.protocol for plan in plans(("ash",), arms=["federated"])} == {"in-federation"}
    with pytest.raises(BadInput, match="needs two sites that train"):
        plans(("ash",), arms=["federated"], protocols=["leave-one-center-out"])
    with pytest.raises(BadInput, match="no arm and protocol"):
        plans(arms=[])

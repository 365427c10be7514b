"""The cards of a comparison, from centers' patients and the comparison's own rows to their sentences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from client.shift import Patients
from client.site import Site
from common.config import Experiment
from common.shift import DESCRIPTORS
from server.results import Row
from simulation.shift import cards_of
from tests.conftest import Compared


def patients(seed: int, *, seen: float = 0.0) -> Patients:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((120, len(DESCRIPTORS) + 12))
    values[:, 2] += seen
    return Patients(values, rng.integers(0, 2, 120))


def test_the_sentences_come_from_the_rows_of_the_comparison(compared: Compared) -> None:
    """`cedar` differs and leaves the reference; `ash` is then compared with `birch` alone, and so is its AUC."""
    rows = [Row(**row) for row in compared.results["rows"]]
    found = {"ash": patients(1), "birch": patients(2), "cedar": patients(3, seen=2.0), "yew": patients(4)}
    task = SimpleNamespace(classes=("benign", "malignant"), positive_index=1)
    experiment = cast(Experiment, SimpleNamespace(task=task, seed=0))
    roles = dict.fromkeys(found, "train") | {"yew": "held-out"}
    sites = {name: cast(Site, SimpleNamespace(role=role)) for name, role in roles.items()}
    cards = {card.site: card for card in cards_of(found, experiment, sites, rows)}
    assert cards["cedar"].verdict == "acquisition"
    assert cards["ash"].against == ("birch",)
    for name, protocol, others in (
        ("ash", "leave-one-center-out", ["birch"]),
        ("yew", "in-federation", ["ash", "birch"]),
    ):
        here, there = mean_auc(compared, protocol, [name]), mean_auc(compared, protocol, others)
        assert cards[name].performance.auc == pytest.approx(here)
        assert cards[name].performance.auc_reference == pytest.approx(there)
        assert f"AUC is {shown(here)} here, {shown(there)} at {' and '.join(others)}" in cards[name].what_it_did
    assert "so the models differ" in cards["ash"].what_it_did
    assert "one model for all of them" in cards["yew"].what_it_did
    assert "of another one, that left this center out" in cards["ash"].which_model
    assert "had no patient of this center" in cards["yew"].which_model


def mean_auc(compared: Compared, protocol: str, sites: list[str]) -> float:
    rows: list[dict[str, Any]] = compared.results["rows"]
    mine = [r for r in rows if (r["arm"], r["protocol"]) == ("federated", protocol) and r["site"] in sites]
    assert {r["site"] for r in mine} == set(sites)
    return float(np.mean([r["auc"] for r in mine]))


def shown(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")

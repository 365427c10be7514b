"""Federated SGD with one full-batch step a round is pooled full-batch SGD: over the real apps, against two oracles.

The mean over all images is the image-weighted mean of the sites' means, so after every round the weights agree up to
rounding; with sites of unequal size an unweighted mean does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.augment import normalise
from client.service import site_crops
from common.config import Experiment
from common.model import build_model
from common.parsing import parse
from common.update import Update, Weights, difference, norm
from common.weights import get_weights, load, set_weights
from server.run import MODEL, initial_weights
from simulation.models import train_model
from simulation.plan import plan_models
from simulation.sources import open_sites
from tests.experiments import experiment_table, write_uneven_sites

Precision = Literal["float64", "float32"]
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


def experiment(sites: list[Path], precision: Precision, *, rounds: int = 20) -> Experiment:
    training: dict[str, Any] = {
        "rounds": rounds,
        "steps": None,
        "full_batch": True,
        "optimizer": {"kind": "sgd", "learning_rate": 0.2, "momentum": 0.0, "weight_decay": 0.0},
        "schedule": "constant",
        "warmup": 0.0,
        "average": 0.0,
        "class_weights": False,
        "augmentation": "none",
        "precision": precision,
        "batch_size": 16,
    }
    changes = {"arms": ["federated", "pooled"], "protocols": ["in-federation"], "pictures": 0}
    table = experiment_table(sites, training=training, comparison=changes, evaluation={"every": rounds})
    return parse(Experiment, table, where="identity")


def relative(a: Weights, b: Weights) -> float:
    """‖a − b‖ / ‖b‖ over all tensors."""
    return norm(difference(a, b)) / norm(b)


def both_arms(tmp_path: Path, asked: Experiment) -> Mapping[str, Weights]:
    """The final weights of the federated arm, over LocalGrid, ServerApp and ClientApp, and of the pooled arm."""
    sites = open_sites(asked)
    plans = plan_models(asked, list(sites))
    for plan in plans:
        train_model(tmp_path / "run", plan, asked, sites)
    return {plan.arm: load(tmp_path / "run" / "models" / plan.name / MODEL) for plan in plans}


def plain_loop(asked: Experiment, start: Weights) -> Weights:
    """The first lines that anyone would write: all images of all sites, one step of gradient descent a round."""
    sites = open_sites(asked).values()
    model = build_model(asked.model, task=asked.task.name, classes=2, seed=1)
    model.to(torch.float64 if asked.training.precision == "float64" else torch.float32)
    set_weights(model, start)
    rows = [site.rows("train") for site in sites]
    crops = np.concatenate([site_crops(site, asked.crop)[r] for site, r in zip(sites, rows, strict=True)])
    labels = torch.from_numpy(np.concatenate([site.labels[r] for site, r in zip(sites, rows, strict=True)]))
    images = normalise(torch.from_numpy(crops)).to(next(model.parameters()).dtype)
    for _ in range(asked.training.rounds):
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= asked.training.optimizer.learning_rate * parameter.grad
    return get_weights(model)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_federated_sgd_is_pooled_sgd(tmp_path: Path, precision: Precision) -> None:
    asked = experiment(write_uneven_sites(tmp_path / "sites", {"ash": 8, "birch": 16, "cedar": 32}), precision)
    found = both_arms(tmp_path, asked)
    start = initial_weights(asked)
    moved = relative(found["federated"], start)
    assert moved >= 0.05
    assert relative(found["federated"], found["pooled"]) <= TOLERANCE[precision]
    assert relative(found["federated"], plain_loop(asked, start)) <= TOLERANCE[precision]


def test_an_unweighted_mean_is_not_pooled_sgd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same assertion, with every site counting the same, fails: the test above can tell."""
    weighted = Update.of

    def unweighted(delta: Weights, *, weight: float) -> Update:
        return weighted(delta, weight=min(weight, 1.0))

    monkeypatch.setattr(Update, "of", unweighted)
    asked = experiment(write_uneven_sites(tmp_path / "sites", {"ash": 8, "birch": 16, "cedar": 32}), "float64")
    found = both_arms(tmp_path, asked)
    assert relative(found["federated"], found["pooled"]) > 1000 * TOLERANCE["float32"]

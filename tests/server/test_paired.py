"""Two models compared over the messages of a run: against the slow loop over all cases, in the clear and under masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.service import scores_of
from client.site import load_site
from common.config import Experiment
from common.files import read_json, sha256_file
from common.influence import InfluenceSums, place
from common.parsing import parse
from common.update import Weights
from common.weights import save
from server.against import keep_against
from server.records import read_records
from server.rounds import evaluate_order
from server.run import coordinate, initial_weights, prepare_run, resolved
from server.strategy import FlowerFederation
from tests.common.test_influence import slow_difference
from tests.experiments import experiment_table, write_uneven_sites
from tests.simulation.test_secure_run import WatchedGrid

SIZES = {"ash": 64, "birch": 96, "cedar": 80, "elm": 48}
HELD = "elm"


@dataclass
class World:
    """Sites, two models of one configuration, and where runs go."""

    base: Path
    sites: list[Path]
    experiment: Experiment
    first: Path
    second: Path

    def rows(self, site: str) -> NDArray[np.int64]:
        return load_site(self.base / "sites" / site).rows(*(("train", "val", "test") if site == HELD else ("test",)))

    def cases(self, site: str) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Labels, both models' probabilities, and patients of a site's tested cases."""
        here, rows = load_site(self.base / "sites" / site), self.rows(site)
        order = evaluate_order(self.experiment, {"test": ("test",)}, run="oracle", round_number=1)
        p = [scores_of(here, rows, order, model(self.experiment, n), part="test")[:, 1] for n in (0, 1)]
        return here.positive[rows], p[0], p[1], here.patients[rows]


def model(experiment: Experiment, number: int) -> Weights:
    """Two models that rank otherwise: the weights before training, of two seeds."""
    return initial_weights(replace(experiment, seed=number))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    base = tmp_path_factory.mktemp("world")
    sites = write_uneven_sites(base / "sites", SIZES)
    experiment = parse(Experiment, experiment_table(sites), where="test")
    files = [base / f"{name}.safetensors" for name in ("first", "second")]
    for number, path in enumerate(files):
        save(path, model(experiment, number))
    return World(base, sites, experiment, *files)


def compare(world: World, folder: Path, *, second: Path | None = None, **changes: Any) -> WatchedGrid:
    """An evaluation of the first model against the second."""
    from client.app import app

    about = parse(Experiment, experiment_table(world.sites, **changes), where="test")
    about = resolved(about, {site: "held-out" if site == HELD else "train" for site in SIZES})
    prepare_run(folder, about, model(world.experiment, 0))
    keep_against(folder, world.first, second or world.second)
    grid = WatchedGrid(app, world.sites)
    coordinate(FlowerFederation(grid, about), folder, train=False)
    return grid


def told(folder: Path) -> Mapping[str, dict[str, Any]]:
    return {one["site"]: one for one in read_json(folder / "results.json")["contrasts"]}


@pytest.mark.parametrize("secure", [False, True])
def test_differences_are_those_of_the_slow_loop(world: World, tmp_path: Path, secure: bool) -> None:
    grid = compare(world, tmp_path / "run", evaluation={"secure": secure})
    found = told(tmp_path / "run")
    assert list(found) == [*SIZES, "all"]
    print([e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"])
    assert not [e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"]
    for site in SIZES:
        labels, one, two, whose = world.cases(site)
        delta, variance = slow_difference(labels, one, two, whose)
        exact = InfluenceSums.of(place(labels, one) - place(labels, two), whose, center=0.0).difference()
        print(site, found[site], delta, variance**0.5)
        assert found[site]["delta_auc"] == pytest.approx(delta, abs=1e-9)
    labels, one, two, whose = (
        np.concatenate(x)
        for x in zip(
            *((l, a, b, w + 1000 * n) for n, (l, a, b, w) in enumerate(world.cases(s) for s in SIZES if s != HELD)),
            strict=True,
        )
    )
    delta, variance = slow_difference(labels, one, two, whose)
    print(found["all"], delta, variance**0.5)

"""Two models compared through Flower's apps, in the clear and under masks: exact, small, counted and written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.evaluations import read_answered
from client.service import answer_evaluate, scores_of
from client.site import load_site
from common.config import Experiment
from common.errors import BadInput, EvaluationsExhausted, LedgerRefused
from common.files import read_json, sha256_file
from common.influence import InfluenceSums, place
from common.paired import side_by_side
from common.parsing import parse
from common.update import Weights
from common.weights import save
from server.__main__ import main
from server.against import keep_against, read_against
from server.records import read_records
from server.rounds import evaluate_order
from server.run import coordinate, initial_weights, prepare_run, resolved
from server.strategy import FlowerFederation
from tests.common.test_influence import slow_difference
from tests.experiments import experiment_table, write_experiment, write_uneven_sites
from tests.simulation.test_secure_run import WatchedGrid

SIZES = {"ash": 64, "birch": 96, "cedar": 80, "elm": 48}
HELD = "elm"
LIMIT = 64 * 1024

Cases = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


@dataclass
class World:
    """Sites, two models of one configuration, and a finished comparison in the clear and under masks."""

    sites: list[Path]
    experiment: Experiment
    files: tuple[Path, Path]
    runs: dict[bool, tuple[Path, WatchedGrid]]

    def cases(self, name: str) -> Cases:
        """Labels, both models' probabilities, and patients of a site's tested cases."""
        site = load_site(next(folder for folder in self.sites if folder.name == name))
        rows = site.rows(*(("train", "val", "test") if name == HELD else ("test",)))
        order = evaluate_order(self.experiment, {"test": ("test",)}, run="oracle", round_number=1)
        p = [scores_of(site, rows, order, model(self.experiment, n), part="test")[:, 1] for n in (0, 1)]
        return site.positive[rows], p[0], p[1], site.patients[rows]

    def contrasts(self, *, secure: bool) -> dict[str, dict[str, Any]]:
        """By site."""
        return {one["site"]: one for one in read_json(self.runs[secure][0] / "results.json")["contrasts"]}


def model(experiment: Experiment, number: int) -> Weights:
    """Two models that rank otherwise: the weights before training, of two seeds."""
    return initial_weights(replace(experiment, seed=number))


def compare(folder: Path, sites: list[Path], files: tuple[Path, Path], **changes: Any) -> WatchedGrid:
    """An evaluation of the first model against the second."""
    from client.app import app

    about = parse(Experiment, experiment_table(sites, **changes), where="test")
    about = resolved(about, {site: "held-out" if site == HELD else "train" for site in SIZES})
    prepare_run(folder, about, model(about, 0))
    keep_against(folder, *files)
    grid = WatchedGrid(app, sites)
    coordinate(FlowerFederation(grid, about), folder, train=False)
    return grid


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    base = tmp_path_factory.mktemp("world")
    sites = write_uneven_sites(base / "sites", SIZES)
    experiment = parse(Experiment, experiment_table(sites), where="test")
    files = (base / "first.safetensors", base / "second.safetensors")
    for number, path in enumerate(files):
        save(path, model(experiment, number))
    runs = {}
    for secure in (False, True):
        folder = base / f"run-{secure}"
        evaluation = {"secure": secure, "repair": False}
        runs[secure] = folder, compare(folder, sites, files, evaluation=evaluation)
    return World(sites, experiment, files, runs)


@pytest.mark.parametrize("secure", [False, True])
def test_differences_are_those_of_the_slow_loop(world: World, secure: bool) -> None:
    found = world.contrasts(secure=secure)
    assert list(found) == [*SIZES, "all"]
    assert not [e for e in read_records(world.runs[secure][0] / "records.jsonl") if e["event"] == "failure"]
    for name in SIZES:
        labels, one, two, whose = world.cases(name)
        exact = InfluenceSums.of(place(labels, one) - place(labels, two), whose, center=0.0).difference()
        delta, variance = slow_difference(labels, one, two, whose)
        assert (exact.delta, exact.error) == pytest.approx((delta, np.sqrt(variance)), abs=1e-9)
        assert found[name]["delta_auc"] == pytest.approx(delta, abs=1e-9)
        assert found[name]["p"] == pytest.approx(exact.p, abs=1e-9)
    each = [world.cases(name) for name in SIZES if name != HELD]
    labels, one, two = (np.concatenate([cases[n] for cases in each]) for n in range(3))
    whose = np.concatenate([1000 * n + cases[3] for n, cases in enumerate(each)])
    delta, variance = slow_difference(labels, one, two, whose)
    exact = InfluenceSums.of(place(labels, one) - place(labels, two), whose, center=0.0).difference()
    row = found["all"]
    assert abs(row["delta_auc"] - delta) <= row["bound_federated"] + 1e-12
    half = ((row["high"] - row["low"]) / 2, ((exact.high or 0) - (exact.low or 0)) / 2)
    scale = np.sqrt(variance) / half[1]
    assert half[0] * scale == pytest.approx(np.sqrt(variance), abs=1e-6 if secure else 2e-3)
    assert row["delta_auc"] == pytest.approx(delta, abs=1e-6 if secure else 5e-3)


def test_only_totals_of_the_difference_are_told_under_masks(world: World) -> None:
    told = [
        str(m.content.config_records["order"]["json"])
        for m in world.runs[True][1].seen
        if m.metadata.dst_node_id == 1 and m.has_content() and m.content.config_records
    ]
    assert sum('"difference":{' in text for text in told) == len(SIZES)
    for text in told:
        assert not [name for name in ('"sums":{', '"histograms":[{', '"influence":[{') if name in text]


def test_what_a_site_sends_of_both_models_is_small(world: World) -> None:
    """At most 64 KiB a site and model, in the clear and under masks."""
    for secure in (False, True):
        sent: dict[int, int] = {}
        for m in world.runs[secure][1].seen:
            if m.metadata.dst_node_id == 1 and m.has_content() and m.metadata.message_type.startswith("evaluate"):
                arrays = [a for record in m.content.array_records.values() for a in record.values()]
                texts = [str(record["json"]) for record in m.content.config_records.values()]
                size = sum(len(a.data) for a in arrays) + sum(map(len, texts))
                sent[m.metadata.src_node_id] = sent.get(m.metadata.src_node_id, 0) + size
        assert len(sent) == len(SIZES)
        assert 1_000 < max(sent.values()) < 2 * LIMIT


def test_the_log_of_what_is_sent_has_the_difference_and_the_sums(world: World) -> None:
    folder = next(folder for folder in world.sites if folder.name == "ash")
    lines = [json.loads(line) for line in (folder / "private" / "sent.jsonl").read_text().splitlines()]
    paired = [line for line in lines if line["stage"] == "paired"]
    clear, own, masked = paired
    row = world.contrasts(secure=False)["ash"]
    assert clear["parts"]["test"]["numbers"]["difference"]["delta"] == pytest.approx(row["delta_auc"], abs=1e-12)
    assert clear["parts"]["test"]["sums"] == {"influence": 24}
    assert own["parts"]["test"]["sums"] == {}
    assert (masked["under_masks"], masked["with"]) == (True, ["birch", "cedar"])
    assert set(masked["sums"]) == {"test.influence.0.counts", "test.influence.0.whole", "test.influence.0.part"}


def test_two_models_are_two_evaluations(tmp_path: Path) -> None:
    (folder,) = write_uneven_sites(tmp_path, {"ash": 16})
    text = (folder / "site.toml").read_text(encoding="utf-8")
    (folder / "site.toml").write_text(text.replace("[policy]\n", "[policy]\nevaluations_in_all = 3\n"), "utf-8")
    site, experiment = load_site(folder), parse(Experiment, experiment_table([folder]), where="test")
    order = evaluate_order(experiment, {"test": ("test",)}, run="r", round_number=1, stage="paired")
    both = side_by_side(model(experiment, 0), model(experiment, 1))
    first = answer_evaluate(site, order, both)
    assert answer_evaluate(site, order, both).parts == first.parts
    assert read_answered(folder).in_all == 2
    again = side_by_side(model(experiment, 0), model(experiment, 2))
    with pytest.raises(EvaluationsExhausted, match="has answered 3 evaluations in all"):
        answer_evaluate(site, order, again)
    with pytest.raises(BadInput, match="not two models side by side"):
        answer_evaluate(replace(site, role="held-out"), order, model(experiment, 0))


def test_patients_whom_privacy_hides_are_in_no_comparison(tmp_path: Path) -> None:
    (folder,) = write_uneven_sites(tmp_path, {"ash": 16})
    site, experiment = load_site(folder), parse(Experiment, experiment_table([folder]), where="test")
    site = replace(site, policy=replace(site.policy, privacy_required=True))
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "ledger.jsonl").write_text("{}\n")
    both = side_by_side(model(experiment, 0), model(experiment, 1))
    order = evaluate_order(experiment, {"test": ("train", "val", "test")}, run="r", round_number=1, stage="paired")
    with pytest.raises(LedgerRefused, match="answers no evaluation about the patients who did"):
        answer_evaluate(site, order, both)


@pytest.mark.parametrize("secure", [False, True])
def test_no_image_is_scored_twice(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool) -> None:
    """Test cases of a training site are scored once by each model, whichever message asks for sums or differences."""
    import client.service as service

    scored: list[int] = []
    whole = service._scored

    def counted(site: Any, rows: Any, *rest: Any) -> Any:
        if site.id == "ash":
            scored.append(len(rows))
        return whole(site, rows, *rest)

    monkeypatch.setattr(service, "_scored", counted)
    compare(tmp_path / "run", world.sites, world.files, evaluation={"repair": False, "secure": secure})
    val, test, in_the_clear = 16, 16, 16
    second = [in_the_clear, test] if secure else [val, test]
    assert scored == [val, test, *second], "under masks own numbers come apart, and the second model needs no threshold"


def test_another_architecture_is_refused_in_one_line(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    table: Mapping[str, Any] = {"sites": [{"id": name} for name in SIZES]}
    config = write_experiment(tmp_path / "tiny.toml", world.sites, **table)
    wide = {name: np.concatenate([array, array]) for name, array in model(world.experiment, 1).items()}
    some = dict(list(model(world.experiment, 1).items())[1:])
    for weights, why in ((wide, "is (.*) there and"), (some, "is in first.safetensors and not in bad.safetensors")):
        save(tmp_path / "bad.safetensors", weights)
        given = [str(world.files[0]), str(config), "--out", str(tmp_path / "run")]
        assert main(["evaluate", *given, "--against", str(tmp_path / "bad.safetensors")]) == 2
        told = capsys.readouterr().err
        assert "--against bad.safetensors: not of the same model as first.safetensors" in told
        assert told.count("\n") == 1
        assert not (tmp_path / "run").exists(), why
    assert main(["evaluate", *given, "--against", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors: no such weights file" in capsys.readouterr().err


def test_results_say_which_files_were_compared(world: World) -> None:
    folder, _ = world.runs[False]
    models = read_json(folder / "results.json")["provenance"]["models"]
    assert models == dict(zip(("checkpoint", "other"), map(sha256_file, world.files), strict=True))
    against = read_against(folder)
    assert against is not None
    assert against.sha256 == models
    (folder / "other.safetensors").write_bytes(b"torn")
    with pytest.raises(BadInput, match=r"other.safetensors: the checksum is wrong"):
        read_against(folder)

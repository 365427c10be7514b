"""The experiment's schema: what is refused, with which words, and what a run folder keeps."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from common.config import AdamW, Experiment, FedProx, Sgd, load_experiment
from common.errors import BadInput
from common.parsing import parse, to_table

TASK = {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"}


def complaint(table: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        parse(Experiment, {"name": "x", "task": TASK, **table}, where="x.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"strategy": {"kind": "fedprox", "nu": 1}}, "x.toml: strategy.fedprox.nu: unexpected key (did you mean mu?)"),
        ({"modle": {}}, "x.toml: modle: unexpected key (did you mean model?)"),
        ({"crop": {"sise": 3}}, "x.toml: crop.sise: unexpected key (did you mean size?)"),
        (
            {"training": {"steps": 1, "optimizer": {"kind": "sgd", "momemtum": 1}}},
            "training.optimizer.sgd.momemtum: unexpected key (did you mean momentum?)",
        ),
        ({"training": {"steps": 1, "augmentation": {"flop": 0.5}}}, "flop: unexpected key (did you mean flip?)"),
        ({"sites": [{"pth": "a"}]}, "sites.0.pth: unexpected key (did you mean path?)"),
        ({"crop": {"size": 8}}, "crop.size: Input should be greater than or equal to 16 (it says 8)"),
        (
            {"strategy": {"kind": "fedporx"}},
            "strategy.kind: 'fedporx' is none of fedavg, fedprox (did you mean fedprox?)",
        ),
        ({"strategy": {"mu": 0.1}}, "strategy.kind: this key is missing; add it"),
        ({"training": {"rounds": 3}}, "training: give a budget: either steps or epochs"),
        ({"training": {"steps": 3, "epochs": 3}}, "training: give a budget: either steps or epochs"),
        ({"sites": [{}]}, "give a site either by path (simulation) or by id (deployment)"),
        ({"task": {**TASK, "positive": "evil"}}, "task.positive: 'evil' is not one of"),
        ({"task": {"name": "lump", "classes": ["a", "b"]}}, "task.positive: this key is missing"),
        ({"task": {**TASK, "classes": ["malignant"]}}, "two or more different names"),
        ({"name": "Über uns"}, "name: "),
        ({"training": {"steps": 1, "optimizer": {"kind": "sgd", "learning_rate": float("nan")}}}, "learning_rate"),
        ({"deadlines": {"reply": float("inf")}}, "deadlines.reply: "),
        ({"comparison": {"arms": ["federated", "swarm"]}}, "comparison.arms.1: "),
        ({"comparison": {"seeds": 0}}, "comparison.seeds: "),
    ],
)
def test_what_is_refused_names_the_key_and_the_way_out(table: dict[str, Any], expected: str) -> None:
    assert expected in complaint(table)


def test_a_missing_name_is_named() -> None:
    with pytest.raises(BadInput, match=r"name: this key is missing"):
        parse(Experiment, {"task": TASK}, where="x.toml")


def test_unions_are_picked_by_kind() -> None:
    table = {
        "name": "x",
        "task": TASK,
        "strategy": {"kind": "fedprox", "mu": 0.5},
        "training": {"steps": 4, "optimizer": {"kind": "sgd"}},
    }
    experiment = parse(Experiment, table, where="x.toml")
    assert experiment.strategy == FedProx(mu=0.5)
    assert experiment.training.optimizer == Sgd()
    assert parse(Experiment, {"name": "x", "task": TASK}, where="x").training.optimizer == AdamW()


@given(
    seed=st.integers(0, 2**31),
    rounds=st.integers(1, 500),
    rate=st.floats(1e-6, 1.0),
    held_out=st.lists(st.text("abc-", min_size=1), max_size=3),
    augmented=st.booleans(),
    average=st.floats(0, 1),
)
def test_an_experiment_survives_its_run_folder(
    seed: int, rounds: int, rate: float, held_out: list[str], average: float, augmented: bool
) -> None:
    training = {
        "rounds": rounds,
        "epochs": 1.5,
        "average": average,
        "optimizer": {"kind": "sgd", "learning_rate": rate},
    }
    table = {"name": "x", "task": TASK, "seed": seed, "held_out": held_out, "training": training}
    if not augmented:
        training["augmentation"] = None
    experiment = parse(Experiment, table, where="x")
    text = tomli_w.dumps(to_table(experiment))
    assert parse(Experiment, tomllib.loads(text), where="x") == experiment


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name = ", "not valid TOML"),
        (b"\xff\xfe\x00", "cannot be read (UnicodeDecodeError)"),
        (b"", "this key is missing"),
    ],
)
def test_a_file_that_is_no_experiment(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"broken\.toml") as caught:
        load_experiment(path)
    assert expected in str(caught.value)


def test_no_augmentation_can_be_said_in_toml() -> None:
    table = {"name": "x", "task": TASK, "training": {"epochs": 1, "augmentation": "none"}}
    experiment = parse(Experiment, table, where="x")
    assert experiment.training.augmentation is None
    assert to_table(experiment)["training"]["augmentation"] == "none"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_experiment(tmp_path / "none.toml")
    with pytest.raises(BadInput, match="cannot be read"):
        load_experiment(tmp_path)

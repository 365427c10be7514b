"""Weights between a module, a file and a running mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config import Model
from common.errors import BadInput
from common.model import build_model
from common.weights import TailAverage, fingerprint, get_weights, load, save, set_weights


def model(norm: str = "group", seed: int = 0) -> torch.nn.Module:
    return build_model(Model(backbone="small", norm=norm), task="lump", classes=2, seed=seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", ["group", "batch", "frozen"])
def test_weights_move_between_modules(norm: str) -> None:
    one, two = model(norm), model(norm, seed=1)
    set_weights(two, get_weights(one))
    assert fingerprint(get_weights(two)) == fingerprint(get_weights(one))
    assert all(array.dtype.kind == "f" for array in get_weights(one).values())


def test_weights_are_copies() -> None:
    module = model()
    before = get_weights(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert fingerprint(before) == fingerprint(get_weights(model()))


def test_weights_that_do_not_fit_are_named() -> None:
    weights = get_weights(model())
    name = next(iter(weights))
    with pytest.raises(BadInput, match=name):
        set_weights(model(), {n: a for n, a in weights.items() if n != name})
    with pytest.raises(BadInput, match="strange"):
        set_weights(model(), {**weights, "strange": np.zeros(1, np.float32)})
    with pytest.raises(BadInput, match=name):
        set_weights(model(), {**weights, name: weights[name][:1]})


def test_a_file_keeps_every_bit(tmp_path: Path) -> None:
    weights = {**get_weights(model()), "scalar": np.array(0.1), "half": np.ones(3, np.float16), "view": np.eye(4)[::2]}
    save(tmp_path / "model.safetensors", weights)
    assert fingerprint(load(tmp_path / "model.safetensors")) == fingerprint(weights)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_torn_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    save(path, get_weights(model()))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        load(path)


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such weights file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(BadInput, match="not a safetensors file"):
        load(tmp_path)


def test_fingerprint_sees_names_shapes_types_and_bits() -> None:
    base = {"a": np.array([1.0, 2.0])}
    others = [
        {"b": np.array([1.0, 2.0])},
        {"a": np.array([[1.0, 2.0]])},
        {"a": np.array([1.0, 2.0], np.float32)},
        {"a": np.array([1.0, np.nextafter(2.0, 3.0)])},
        {"a": np.array([1.0]), "b": np.array([2.0])},
    ]
    seen = {fingerprint(base), *(fingerprint(other) for other in others)}
    assert len(seen) == 1 + len(others)
    assert fingerprint({"a": np.ones(1), "b": np.zeros(1)}) == fingerprint({"b": np.zeros(1), "a": np.ones(1)})


@given(rounds=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_tail_average_is_the_plain_mean_of_the_last_models(rounds: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = [{"w": rng.normal(size=3).astype(np.float32)} for _ in range(rounds)]
    tail = TailAverage(rounds, share)
    for number, weights in enumerate(models, start=1):
        tail.add(number, weights)
    count = max(1, int(np.ceil(share * rounds - 1e-9)))
    expected = np.mean([m["w"].astype(np.float64) for m in models[-count:]], axis=0)
    mean = tail.mean(models[-1])["w"]
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7)


def test_a_share_of_rounds_is_not_lifted_by_rounding() -> None:
    assert TailAverage(100, 0.07).first == 94  # .07 · 100 is 7.000000000000001


def test_without_a_model_the_tail_is_the_last_one() -> None:
    last = {"w": np.ones(2)}
    assert TailAverage(10, 0.3).mean(last) is last

"""Checkpoints: whole or absent, and no other run's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from common import files
from common.errors import BadInput
from common.update import Weights
from common.weights import TailAverage, fingerprint
from server.checkpoints import State, latest, store


def weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(20, 30)).astype(np.float32), "b": rng.normal(size=5)}


def state(number: int, *, best: bool = True, average: float = 0.5) -> State:
    tail = TailAverage(4, average)
    for done in range(1, number + 1):
        tail.add(done, weights(done))
    chosen = weights(99) if best else None
    return State(number, weights(number), tail, chosen, [(n, 1 / n) for n in range(1, number + 1)], ["ash"])


def read(folder: Path, identity: str = "me") -> State:
    return latest(folder, identity=identity, tail=TailAverage(4, 0.5))


@pytest.mark.parametrize("best", [True, False])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_what_is_stored_is_read_back_bit_for_bit(tmp_path: Path, number: int, best: bool) -> None:
    before = state(number, best=best)
    store(tmp_path, before, identity="me")
    after = read(tmp_path)
    assert fingerprint(after.weights) == fingerprint(before.weights)
    assert fingerprint(after.tail.mean(after.weights)) == fingerprint(before.tail.mean(before.weights))
    assert after.tail.count == before.tail.count
    assert (after.best is None) == (before.best is None)
    assert after.best is None or fingerprint(after.best) == fingerprint(weights(99))
    assert (after.round, after.validation, after.contributors) == (number, before.validation, ["ash"])
    assert after.best_loss == before.best_loss


def test_only_the_newest_round_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".round-0001.safetensors.x1y2").write_bytes(b"what a kill left")
    for number in range(4):
        store(tmp_path, state(number), identity="me")
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"round-0003"}


def test_a_kill_between_any_two_writes_leaves_a_whole_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop at each rename in turn: the state read back is the one before or the new one, never a mixture."""
    real = os.replace
    for allowed in range(4):
        folder = tmp_path / str(allowed)
        store(folder, state(2), identity="me")
        left = allowed

        def replace(source: str, target: Path) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(source, target)

        monkeypatch.setattr(files.os, "replace", replace)
        try:
            store(folder, state(3), identity="me")
        except KeyboardInterrupt:
            assert allowed < 3
        finally:
            monkeypatch.setattr(files.os, "replace", real)
        found = read(folder)
        assert found.round == (3 if allowed == 3 else 2)
        assert fingerprint(found.weights) == fingerprint(weights(found.round))


@pytest.mark.parametrize("name", ["round-0002.safetensors", "round-0002.state.safetensors"])
@pytest.mark.parametrize("how", ["torn", "flipped", "gone", "empty"])
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, name: str, how: str) -> None:
    store(tmp_path, state(2), identity="me")
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    match how:
        case "torn":
            path.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[-9] ^= 1
            path.write_bytes(content)
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(b"")
    with pytest.raises(BadInput, match=name.replace(".", r"\.")) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"\xff", b'{"round": 2}'])
def test_a_damaged_description_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    store(tmp_path, state(2), identity="me")
    (tmp_path / "round-0002.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"round-0002\.json"):
        read(tmp_path)


def test_another_configuration_and_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no checkpoint"):
        read(tmp_path)
    store(tmp_path, state(1), identity="me")
    with pytest.raises(BadInput, match="another configuration"):
        read(tmp_path, identity="you")


def test_the_description_is_json_for_a_person(tmp_path: Path) -> None:
    store(tmp_path, state(1), identity="me")
    about = json.loads((tmp_path / "round-0001.json").read_text(encoding="utf-8"))
    assert about["weights"] == fingerprint(weights(1))

"""The state of a run after each round: whole or absent, and enough to continue bit for bit."""

from __future__ import annotations

__all__ = ["State", "latest", "store"]

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import BadInput
from common.files import read_json, write_json
from common.update import Weights
from common.weights import TailAverage, fingerprint, load, save

_AVERAGE = "average/"
_BEST = "best/"
_KEYS = {"round", "identity", "weights", "state", "tail_count", "validation", "contributors", "data", "token"}


@dataclass
class State:
    """What the round loop knows after `round` rounds.

    `validation` holds [round, loss] of each evaluation, `data` the SHA-256 of each training site's data. `token` makes
    the run's name its own in the sites' ledgers.
    """

    round: int
    weights: Weights
    tail: TailAverage
    best: Weights | None = None
    validation: list[tuple[int, float]] = field(default_factory=list)
    contributors: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def best_loss(self) -> float | None:
        """The lowest validation loss so far."""
        return min((loss for _, loss in self.validation), default=None)


def store(folder: Path, state: State, *, identity: str) -> None:
    """Write `round-NNNN.safetensors`, then its JSON (whose presence says that the round is whole);
    drop older rounds.
    """
    stem = f"round-{state.round:04d}"
    extra: Weights = {}
    if state.tail.total is not None:
        extra |= {_AVERAGE + name: array for name, array in state.tail.total.items()}
    if state.best is not None:
        extra |= {_BEST + name: array for name, array in state.best.items()}
    with ThreadPoolExecutor(1) as beside:  # hashed while they are written
        weights_hash = beside.submit(fingerprint, state.weights)
        extra_hash = beside.submit(fingerprint, extra) if extra else None
        save(folder / f"{stem}.safetensors", state.weights)
        if extra:
            save(folder / f"{stem}.state.safetensors", extra)
    about: dict[str, Any] = {
        "round": state.round,
        "identity": identity,
        "weights": weights_hash.result(),
        "tail_count": state.tail.count,
        "state": extra_hash.result() if extra_hash else None,
        "validation": state.validation,
        "contributors": state.contributors,
        "data": state.data,
        "token": state.token,
    }
    write_json(folder / f"{stem}.json", about)
    _drop_older(folder, keep=stem)


def _drop_older(folder: Path, *, keep: str) -> None:
    """Remove older rounds, and what a killed process left half-written."""
    for path in (*folder.glob("round-*"), *folder.glob(".round-*")):
        if not path.name.startswith(keep):
            path.unlink(missing_ok=True)


def latest(folder: Path, *, identity: str, tail: TailAverage) -> State:
    """The newest whole state; BadInput where there is none, it belongs to another experiment, or it was damaged."""
    marks = sorted(folder.glob("round-????.json"))
    if not marks:
        raise BadInput(f"{folder.parent.name}: the run folder has no checkpoint; start again with another --out")
    about = read_json(marks[-1])
    stem = marks[-1].stem
    if not isinstance(about, dict) or not about.keys() >= _KEYS:
        raise BadInput(f"{stem}.json: no checkpoint's description; restore the file or start again with another --out")
    if about["identity"] != identity:
        raise BadInput(f"{stem}: this run folder belongs to another configuration; choose another --out")
    weights = _checked(folder / f"{stem}.safetensors", about["weights"])
    extra = _checked(folder / f"{stem}.state.safetensors", about["state"]) if about["state"] else {}
    tail.total = {n.removeprefix(_AVERAGE): a for n, a in extra.items() if n.startswith(_AVERAGE)} or None
    tail.count = about["tail_count"]
    best = {n.removeprefix(_BEST): a for n, a in extra.items() if n.startswith(_BEST)} or None
    validation = [(int(r), float(loss)) for r, loss in about["validation"]]
    contributors, data = list(about["contributors"]), dict(about["data"])
    return State(about["round"], weights, tail, best, validation, contributors, data, str(about["token"]))


def _checked(path: Path, expected: str) -> Weights:
    weights = load(path)
    if fingerprint(weights) != expected:
        raise BadInput(f"{path.name}: the checksum is wrong; restore the file or start again with another --out")
    return weights

"""What privacy costs while training: time and memory of private rounds, noise and ledger included,
against plain steps.
"""

from __future__ import annotations

__all__ = ["memory", "time_bf16", "time_float32"]

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from client.ledger import Account, Request, opened
from client.memory import keep_freed_memory
from client.private_training import PrivateData, private_steps
from client.schedule import make_optimizer
from client.training import TrainingData, train
from common.config import Model, Training
from common.entropy import Entropy
from common.model import AttentionNet, build_model
from common.privacy import Mechanism
from common.weights import get_weights
from tests.benchmarks.rows import Row, interleave

PATIENTS, EACH, SIDE, STEPS = 16, 3, 112, 4
ROOT = Path(__file__).resolve().parents[2]
MECHANISM = Mechanism("patient", 1.0, 1.3, 1.0, float(PATIENTS), EACH, "all")
"""Everybody is in every step, so that both sides see the same number of images."""
_PEAK = """
import resource, sys
from pathlib import Path
from tests.benchmarks.private_training import plain_turns, private_turns
import tempfile
with tempfile.TemporaryDirectory() as folder:
    turn = private_turns(Path(folder), "float32") if sys.argv[1] == "private" else plain_turns("float32")
    turn(); turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
Precision = Literal["float32", "bf16"]


def time_float32() -> Row:
    """float32."""
    return _time("private-time", "float32")


def time_bf16() -> Row:
    """bf16."""
    return _time("private-time-bf16", "bf16")


def _time(name: str, precision: Precision) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = interleave(private_turns(Path(folder), precision), plain_turns(precision), rounds=7)
    return Row(
        name, theirs / ours, ours, theirs, "images/s", f"{_what()}, {precision}, {torch.get_num_threads()} threads"
    )


def memory() -> Row:
    """The largest resident size of two processes, one training with privacy and one without."""
    ours, theirs = (_peak(kind) for kind in ("private", "plain"))
    return Row("private-memory", ours / theirs, ours, theirs, "MiB", f"{_what()}, float32, peak of the process")


def _what() -> str:
    return (
        f"ResNet-18, group norm, {SIDE} px, {PATIENTS} patients of {EACH} images a step, {STEPS} steps a round, with "
        "ledger"
    )


def private_turns(folder: Path, precision: Precision) -> Callable[[], int]:
    """A turn is a round: room in the ledger, `STEPS` private steps, the answer on the disk."""
    keep_freed_memory()
    model, (crops, labels) = _model(), _images()
    data = PrivateData(crops, labels, np.arange(len(labels)) // EACH)
    plan = _plan(precision)
    optimizer, entropy = make_optimizer(model, plan), Entropy()
    account = Account(folder / "tal", "tal", 1e6, 1e-3)
    number = iter(range(1_000_000))

    def compute() -> bytes:
        private_steps(
            model, data, plan, MECHANISM, steps=STEPS, progress=(0.4, 0.5), entropy=entropy, optimizer=optimizer
        )
        return b"".join(array.tobytes() for array in get_weights(model).values())

    def turn() -> int:
        with opened(account) as ledger:
            ledger.release(Request("bench", next(number), "a" * 64), MECHANISM.plan(STEPS), compute)
        return STEPS * PATIENTS * EACH

    return turn


def plain_turns(precision: Precision) -> Callable[[], int]:
    """A turn is `STEPS` plain steps on as many images, and a copy of the weights."""
    model, (crops, labels) = _model(), _images()
    plan, rng = _plan(precision), np.random.default_rng(0)
    optimizer = make_optimizer(model, plan)
    data = TrainingData(crops, labels, classes=2)

    def turn() -> int:
        done = train(model, data, plan, steps=STEPS, progress=(0.4, 0.5), rng=rng, optimizer=optimizer)
        get_weights(model)
        return done.samples

    return turn


def _plan(precision: Precision) -> Training:
    return Training(steps=1000, batch_size=PATIENTS * EACH, class_weights=False, precision=precision)


def _model() -> AttentionNet:
    return build_model(Model(), task="node", classes=2, seed=0)


def _images() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (PATIENTS * EACH, SIDE, SIDE)).astype(np.uint8), np.arange(PATIENTS * EACH) % 2


def _peak(kind: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, kind],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) / 1024

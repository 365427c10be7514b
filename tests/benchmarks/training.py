"""The client's training loop against the loop a user would write first, and against its own bare step."""

from __future__ import annotations

__all__ = ["auc_against_plain", "group_norm_against_plain", "resident", "speed_against_plain"]

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from client.augment import normalise
from client.evaluation import score
from client.precision import place
from client.schedule import make_optimizer
from client.training import TrainingData, train
from common.config import Model, Training
from common.model import AttentionNet, build_model
from tests.benchmarks.plain import Frames, PlainLoop, draw_frames
from tests.benchmarks.rows import Row, apart, interleave

BATCH = 32
"""What `Training.batch_size` is where an experiment says nothing."""
_REST = 10.0
"""Seconds before each turn; see LOG.md for what two threads get here without it."""


def speed_against_plain() -> Row:
    """ResNet-18 with batch norm at 224 px."""
    return _speed("train-vs-plain", Model(norm="batch"))


def group_norm_against_plain() -> Row:
    """ResNet-18 with group norm at 224 px."""
    return _speed("train-vs-plain-group-norm", Model(norm="group"))


def _speed(name: str, model: Model, *, size: int = 224, steps: int = 3) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        frames = draw_frames(Path(folder), images=160, seed=0)
        turn = _our_turns(_build(model, seed=0), _cached(Path(folder), frames, size), steps=steps)
        with apart(partial(_plain_turns, model, frames, size, steps)) as plain:
            ours, theirs = interleave(turn, plain, rounds=7, rest=_REST)
    what = f"ResNet-18, {model.norm} norm, {size} px, batch {BATCH}, {torch.get_num_threads()} threads"
    return Row(name, ours / theirs, ours, theirs, "images/s", what)


def _plain_turns(model: Model, frames: Frames, size: int, steps: int) -> Callable[[], int]:
    plain = PlainLoop(_build(model, seed=0), frames, size=size, batch=BATCH, seed=0)
    return lambda: plain.steps(steps)


def resident() -> Row:
    """The loop with augmentation and a memory-mapped cache, against its step on tensors that wait in memory."""
    size, steps = 224, 6
    with tempfile.TemporaryDirectory() as folder:
        frames = draw_frames(Path(folder), images=160, seed=0)
        data = _cached(Path(folder), frames, size)
        turn = _our_turns(_build(Model(norm="batch"), seed=0), data, steps=steps)
        bare = _bare_turns(_build(Model(norm="batch"), seed=0), data, steps=steps)
        ours, theirs = interleave(turn, bare, rounds=9)
    what = f"ResNet-18, batch norm, {size} px, batch {BATCH}, {torch.get_num_threads()} threads"
    return Row("train-vs-resident", ours / theirs, ours, theirs, "images/s", what)


def auc_against_plain() -> Row:
    """Test AUC after equal budgets at 64 px and equal schedules, the mean over seeds; `ratio` is ours − theirs."""
    size, batch, epochs, cases, seeds = 64, 16, 8, 320, 3
    ours, theirs = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            train_folder, test_folder = Path(folder, "train"), Path(folder, "test")
            for each in (train_folder, test_folder):
                each.mkdir()
            frames = draw_frames(train_folder, images=cases, seed=2 * seed)
            test = draw_frames(test_folder, images=400, seed=2 * seed + 1)
            crops = test.crops(size)
            steps = epochs * cases // batch
            plan = Training(steps=steps, batch_size=batch)
            mine, other = (_build(Model(), seed=seed) for _ in range(2))
            rng = np.random.default_rng(seed)
            train(mine, _cached(train_folder, frames, size), plan, steps=steps, progress=(0, 1), rng=rng)
            plain = PlainLoop(other, frames, size=size, batch=batch, seed=seed)
            _follow_schedule(plain, plan, steps)
        ours.append(float(roc_auc_score(test.labels, score(mine, crops)[:, 1])))
        theirs.append(float(roc_auc_score(test.labels, score(other, crops, precision="float32")[:, 1])))
    a, b = float(np.mean(ours)), float(np.mean(theirs))
    each_seed = ", ".join(f"{x:.3f}/{y:.3f}" for x, y in zip(ours, theirs, strict=True))
    what = f"ResNet-18, group norm, {size} px, {cases} synthetic cases, {epochs} epochs; by seed {each_seed}"
    return Row("train-vs-plain-auc", a - b, a, b, "AUC, difference", what)


def _follow_schedule(plain: PlainLoop, plan: Training, steps: int) -> None:
    from client.schedule import rate_at

    for step in range(steps):
        for group in plain.optimizer.param_groups:
            group["lr"] = plan.optimizer.learning_rate * rate_at(plan, (step + 0.5) / steps)
        plain.steps(1)


def _build(model: Model, *, seed: int) -> AttentionNet:
    return build_model(model, task="node", classes=2, seed=seed)


def _cached(folder: Path, frames: Frames, size: int) -> TrainingData:
    file = folder / f"crops-{size}.npy"
    np.save(file, frames.crops(size))
    return TrainingData(crops=np.load(file, mmap_mode="r"), labels=frames.labels, classes=2)


def _our_turns(model: AttentionNet, data: TrainingData, *, steps: int) -> Callable[[], int]:
    plan = Training(steps=1000, batch_size=BATCH)
    rng = np.random.default_rng(0)
    optimizer = make_optimizer(model, plan)

    def turn() -> int:
        return train(model, data, plan, steps=steps, progress=(0.4, 0.5), rng=rng, optimizer=optimizer).samples

    return turn


def _bare_turns(model: AttentionNet, data: TrainingData, *, steps: int) -> Callable[[], int]:
    plan = Training(steps=1000, batch_size=BATCH)
    where = place(model, side=data.crops.shape[-1])
    optimizer = make_optimizer(model, plan)
    images = where.images(normalise(torch.from_numpy(data.crops[:BATCH].copy())))
    labels = torch.from_numpy(data.labels[:BATCH]).to(where.device)
    model.train()

    def turn() -> int:
        for _ in range(steps):
            with where.autocast():
                logits = model(images)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return steps * BATCH

    return turn

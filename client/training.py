"""Local training: some steps of one round, or of a pooled or local arm.

The same function serves every arm, so that arms differ in data alone: a federated client calls it once a round with a
fresh optimizer, a pooled arm calls it with the optimizer of the call before.
"""

from __future__ import annotations

__all__ = ["Trained", "TrainingData", "batches", "class_weights", "train"]

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.augment import augment, normalise
from client.memory import keep_freed_memory
from client.precision import Place, place
from client.schedule import make_optimizer, rate_at, set_rate
from common.config import Training
from common.errors import BadInput, RunFailed
from common.model import AttentionNet, Dropout


@dataclass(frozen=True)
class TrainingData:
    """Gray crops (N, S, S) uint8, in memory or memory-mapped, with labels (N,) int64 in 0 … classes − 1."""

    crops: np.ndarray
    labels: np.ndarray
    classes: int


@dataclass(frozen=True)
class Trained:
    """The mean loss of a call's steps (None where it is private), the sample gradients, the steps, the optimizer."""

    loss: float | None
    samples: int
    steps: int
    optimizer: torch.optim.Optimizer


def train(
    model: AttentionNet,
    data: TrainingData,
    plan: Training,
    *,
    steps: int,
    progress: tuple[float, float],
    rng: np.random.Generator,
    optimizer: torch.optim.Optimizer | None = None,
    proximal: float = 0.0,
    on_step: Callable[[int], None] | None = None,
) -> Trained:
    """Make `steps` optimizer steps on the model, in place.

    `progress` is where in the whole training the call begins and ends, in [0, 1]: the learning rate follows it. Each
    step sees exactly `plan.batch_size` images (all of them with `plan.full_batch`). `proximal` is FedProx's mu, whose
    anchor is the weights at the call. `on_step` hears how many steps are done. Same model, data and rng: same bits on
    the same processor and threads. BadInput without images, RunFailed where the loss is not finite.
    """
    if len(data.labels) == 0:
        raise BadInput("no image to train on; give the site train cases or the role held-out")
    where = place(model, side=data.crops.shape[-1], precision=plan.precision, layout=plan.layout)
    if where.device.type == "cpu":
        keep_freed_memory()
    optimizer = optimizer or make_optimizer(model, plan)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    anchor = [parameter.detach().clone() for parameter in trained] if proximal else []
    coins = torch.Generator().manual_seed(int(rng.integers(2**63)))
    lesson = _Lesson(model, data, plan, where, coins)
    order = itertools.repeat(np.arange(len(data.labels))) if plan.full_batch else batches(len(data.labels), plan, rng)
    losses: list[Tensor] = []
    samples = 0
    model.train()
    with _dropout_from(coins, model):
        for step, images in enumerate(itertools.islice(order, steps)):
            set_rate(optimizer, rate_at(plan, progress[0] + (progress[1] - progress[0]) * (step + 0.5) / steps))
            losses.append(lesson.gradients(images))
            _require_finite(losses, last=step + 1 == steps)
            if proximal:
                add_pull(trained, anchor, mu=proximal)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            samples += len(images)
            if on_step is not None:
                on_step(step + 1)
    mean = float(torch.stack(losses).double().mean()) if losses else 0.0
    return Trained(loss=mean, samples=samples, steps=steps, optimizer=optimizer)


def batches(images: int, plan: Training, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of exactly `plan.batch_size` indices, without end: epochs, each in a new order, laid end to end."""
    waiting = rng.permutation(images)
    while True:
        while len(waiting) < plan.batch_size:
            waiting = np.concatenate([waiting, rng.permutation(images)])
        yield waiting[: plan.batch_size]
        waiting = waiting[plan.batch_size :]


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """The weight of each class, (classes,): inverse to its images, of mean 1 over them; 0 for a class without any."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights


def add_pull(parameters: list[nn.Parameter], anchor: list[Tensor], *, mu: float) -> None:
    """Add the gradient of FedProx's mu/2 · ‖w − anchor‖², which is mu · (w − anchor) (Li et al. 2020)."""
    pairs = [(p, a) for p, a in zip(parameters, anchor, strict=True) if p.grad is not None]
    away = torch._foreach_sub([p.detach() for p, _ in pairs], [a for _, a in pairs])
    torch._foreach_add_([p.grad for p, _ in pairs if p.grad is not None], away, alpha=mu)


@dataclass(frozen=True)
class _Lesson:
    """What turns indices of images into gradients."""

    model: AttentionNet
    data: TrainingData
    plan: Training
    where: Place
    coins: torch.Generator

    def gradients(self, images: np.ndarray) -> Tensor:
        """Add the gradients of the mean loss over `images`, at most a batch of them at a time; the loss, a scalar."""
        size = self.plan.batch_size
        losses = [self._piece(images[at : at + size], of=len(images)) for at in range(0, len(images), size)]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _piece(self, images: np.ndarray, *, of: int) -> Tensor:
        x = self.where.images(self._inputs(images))
        labels = torch.from_numpy(self.data.labels[images]).to(self.where.device)
        with self.where.autocast():
            votes = self.model.votes(x)
        losses = [self._loss(logits.to(self.where.dtype), labels) / of for logits in votes]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _inputs(self, images: np.ndarray) -> Tensor:
        crops = torch.from_numpy(np.ascontiguousarray(self.data.crops[images])).to(self.where.device)
        if self.plan.augmentation is None:
            return normalise(crops)
        return augment(crops, self.plan.augmentation, self.coins)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None
        if self.plan.class_weights:
            weights = torch.from_numpy(class_weights(self.data.labels, self.data.classes)).to(logits)
        return F.cross_entropy(
            logits, labels, weight=weights, label_smoothing=self.plan.label_smoothing, reduction="sum"
        )


@contextmanager
def _dropout_from(coins: torch.Generator, model: nn.Module) -> Iterator[None]:
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    for layer in layers:
        layer.generator = coins
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None


def _require_finite(losses: list[Tensor], *, last: bool, every: int = 16) -> None:
    """Look at the losses: each where that is free, every few steps on CUDA, where a look waits for the device."""
    step = len(losses)
    if losses[-1].is_cuda and not last and step % every:
        return
    if not bool(torch.stack(losses[-every:] if losses[-1].is_cuda else losses[-1:]).isfinite().all()):
        raise RunFailed(
            f"the loss is not finite at step {step} of this call; lower training.optimizer.learning_rate or set "
            "training.precision to float32"
        )

"""Private training of the heads alone: what they see of each image is computed once, since nothing before them learns.

The gradient of a linear layer under cross-entropy is known in closed form, so that no backward pass is needed either.
Shapes: B images, U units, K classes, F features.
"""

from __future__ import annotations

__all__ = ["SeenLesson", "by_formula"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.augment import normalise
from client.precision import Place
from client.private_gradients import ClippedSum, Unit, add_clipped, image_losses
from common.gradients import descriptors
from common.model import AttentionNet

_BATCH = 128


@dataclass(frozen=True)
class SeenLesson:
    """As `Lesson`, for the linear layers in `model`: each has what it sees of every image, (N, width), in `seen`."""

    model: nn.ModuleList
    seen: tuple[Tensor, ...]
    labels: np.ndarray
    where: Place
    label_smoothing: float = 0.0

    @classmethod
    def of(
        cls, model: AttentionNet, crops: np.ndarray, labels: np.ndarray, where: Place, *, label_smoothing: float
    ) -> SeenLesson:
        """Look at crops (N, S, S) once; the model has a single task and must not learn but in its heads."""
        (task,) = model.heads
        layers = [model.heads[task]]
        if task in model.gradients:
            layers.append(model.gradients[task].linear)  # type: ignore[arg-type]
        batches = [crops[at : at + _BATCH] for at in range(0, len(crops), _BATCH)]
        seen = [_seen(model, batch, where, gradients=len(layers) > 1) for batch in batches]
        return cls(
            nn.ModuleList(layers),
            tuple(torch.cat(parts) for parts in zip(*seen, strict=True)),
            labels,
            where,
            label_smoothing,
        )

    @property
    def trained(self) -> list[nn.Parameter]:
        """The heads' parameters, in the model's order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def losses(self, units: Sequence[Unit]) -> Tensor:
        """Each image's loss, (B,), unit after unit."""
        rows = np.concatenate([unit.rows for unit in units])
        with self.where.autocast():
            votes = [layer(seen[rows]) for layer, seen in zip(self.model, self.seen, strict=True)]
        return image_losses(votes, self.labels[rows], self.where, label_smoothing=self.label_smoothing)


@torch.no_grad()
def _seen(model: AttentionNet, crops: np.ndarray, where: Place, *, gradients: bool) -> tuple[Tensor, ...]:
    images = where.images(normalise(torch.from_numpy(np.array(crops)).to(where.device)))
    with where.autocast():
        features = model.features(images).to(where.dtype)
    return (features, descriptors(images.contiguous())) if gradients else (features,)


@torch.no_grad()
def by_formula(lesson: SeenLesson, units: Sequence[Unit], *, clip: float) -> ClippedSum:
    """The clipped sum of all units at once: each image's gradient is (p − y) ⊗ (features, 1)."""
    total = [torch.zeros_like(parameter) for parameter in lesson.trained]
    if not units:
        return ClippedSum(total, clip)
    rows = np.concatenate([unit.rows for unit in units])
    counts = torch.tensor([len(unit.rows) for unit in units], device=lesson.where.device)
    owner = torch.repeat_interleave(torch.arange(len(units), device=lesson.where.device), counts)
    wanted = torch.from_numpy(lesson.labels[rows]).to(lesson.where.device)
    means: list[Tensor] = []
    for layer, seen in zip(lesson.model, lesson.seen, strict=True):
        assert isinstance(layer, nn.Linear)
        x_BF = seen[rows].to(layer.weight.dtype)
        smooth, classes = lesson.label_smoothing, layer.out_features
        target_BK = F.one_hot(wanted, classes).to(x_BF) * (1 - smooth) + smooth / classes
        apart_BK = torch.softmax(layer(x_BF), 1) - target_BK
        for each in (apart_BK[:, :, None] * x_BF[:, None, :], apart_BK):
            sums = torch.zeros(len(units), *each.shape[1:], dtype=each.dtype, device=each.device)
            means.append(sums.index_add_(0, owner, each) / counts.view(-1, *[1] * (each.ndim - 1)))
    add_clipped(total, means, clip=clip)
    return ClippedSum(total, clip)

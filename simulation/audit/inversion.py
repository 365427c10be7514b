"""Draw the image back from a gradient (Geiping et al. 2020): one image, one step, the small CNN, labels known.

The attacker has the model and what was released, and looks for an image whose gradient points the same way.
"""

from __future__ import annotations

__all__ = ["SIDE", "Inverted", "invert", "own_gradient", "small_model"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from client.augment import MEAN, SPREAD
from common.config import Model
from common.model import AttentionNet, build_model

SIDE, STEPS, RATE, SMOOTHNESS = 32, 900, 0.05, 2e-3


@dataclass(frozen=True)
class Inverted:
    """The image drawn, (S, S) uint8, and its structural similarity to the true one."""

    image: NDArray[np.uint8]
    similarity: float


def small_model(*, seed: int) -> AttentionNet:
    """The model under attack, before its first step; without normalisation,
    since group normalisation hides much by itself.
    """
    return build_model(Model(backbone="small", norm="frozen"), task="attacked", classes=2, seed=seed).double()


def own_gradient(model: AttentionNet, image: NDArray[np.uint8], label: int) -> list[Tensor]:
    """What a site without privacy would send after one step on one image."""
    return _gradient(model, _seen(torch.from_numpy(image[None]).double() / 255), label, create_graph=False)


def invert(
    model: AttentionNet,
    released: Sequence[Tensor],
    label: int,
    *,
    truth: NDArray[np.uint8],
    seed: int,
    steps: int = STEPS,
) -> Inverted:
    """Look for the image for `steps` steps of signed Adam on 1 − cosine and total variation."""
    from skimage.metrics import structural_similarity

    target = [each.detach().double() for each in released]
    generator = torch.Generator().manual_seed(seed)
    start = 0.5 + 0.05 * torch.randn(1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    image = start.clamp(0, 1).requires_grad_(True)
    optimizer = torch.optim.Adam([image], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        found = _gradient(model, _seen(image), label, create_graph=True)
        (_apart(found, target) + SMOOTHNESS * _variation(image)).backward()  # type: ignore[no-untyped-call]
        assert image.grad is not None
        image.grad.sign_()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            image.clamp_(0, 1)
    drawn = np.round(image.detach()[0].numpy() * 255).astype(np.uint8)
    return Inverted(drawn, float(structural_similarity(drawn, truth, data_range=255)))


def _seen(image_1SS: Tensor) -> Tensor:
    """Gray in [0, 1] as the model takes it, (1, 1, S, S), in float64 and without changes in place."""
    return ((image_1SS - MEAN) / SPREAD).unsqueeze(1)


def _gradient(model: AttentionNet, x: Tensor, label: int, *, create_graph: bool) -> list[Tensor]:
    loss = F.cross_entropy(model(x), torch.tensor([label]))
    parameters = list(model.parameters())
    return list(torch.autograd.grad(loss, parameters, create_graph=create_graph, materialize_grads=True))


def _apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """1 − the cosine between two gradients."""
    product = torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()
    lengths = [torch.stack([(a**2).sum() for a in each]).sum().clamp_min(1e-24).sqrt() for each in (one, other)]
    return 1 - product / (lengths[0] * lengths[1])


def _variation(image_1SS: Tensor) -> Tensor:
    """Total variation, the mean over pixels."""
    across = (image_1SS[..., 1:] - image_1SS[..., :-1]).abs().mean()
    return across + (image_1SS[..., 1:, :] - image_1SS[..., :-1, :]).abs().mean()

"""Initial weights from phantoms: they carry nobody's data.

A trunk and its attention learn the tasks of `simulation.pretext` on lumps, whose machines vary far more than real ones.
Exposed as `python -m simulation pretrain`; the weights in configs/weights/ were made by it.
"""

from __future__ import annotations

__all__ = ["Pretrained", "pretrain"]

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from client.augment import augment
from client.precision import place
from common.config import Augmentation, Model
from common.files import write_atomic
from common.model import AttentionNet, build_model
from common.randomness import derive, derive_seed
from simulation.phantom.lump import Lump, draw_lump
from simulation.phantom.lump_scene import SIDE
from simulation.pretext import Pretext, sign_targets

Report = Callable[[int, int], None]

BATCH, PEAK_RATE, WEIGHT_DECAY, LONGEST_STEP = 32, 1e-3, 0.05, 5.0
STEP_COST = 20
"""A step takes about as long as this many lumps: for the progress bar."""
WARMUP = 150
"""Steps until the learning rate is at its peak."""
HORIZON = 2.5
"""The half cosine would reach 0 after this many times the steps: weights that are learned to the end know the phantoms
too well and gain nothing on real images (LOG.md)."""
MARGINS = (0.0, 0.35)
"""Of the crops around lumps: the weights are to serve whatever margin an experiment chooses."""
LOOKS = Augmentation(flip=0, rotate=0, scale=0, shift=0, gain=0.3, gamma=0.3, blur=0.5, noise=0.1)


@dataclass(frozen=True)
class Pretrained:
    """What was made: the file, its size, the mean loss over the last tenth of the steps, and the time that it took."""

    weights: str
    megabytes: float
    loss: float
    seconds: float


def pretrain(
    out: Path,
    *,
    seed: int = 0,
    images: int = 20_000,
    steps: int = 1_000,
    size: int = 64,
    model: Model | None = None,
    progress: Report | None = None,
) -> Pretrained:
    """Draw `images` lumps, learn on crops of `size` pixels for `steps` steps of 32, write trunk and attention to `out`.

    The file is safetensors in bf16; heads are not in it. `progress(done, total)` hears how far it is.
    Same seed and arguments, same bytes on one processor with one number of threads.
    """
    began = time.monotonic()
    lumps = []
    for number in range(images):
        lumps.append(draw_lump(derive(seed, "lump", number)))
        if progress is not None and number % 100 == 0:
            progress(number, images + STEP_COST * steps)
    net = build_model(model or Model(), task="pretext", classes=2, seed=derive_seed(seed, "initial"))
    loss = _learn(net, lumps, seed=seed, steps=steps, size=size, progress=progress)
    content = save({name: t.to(torch.bfloat16).contiguous() for name, t in net.state_dict().items() if _kept(name)})
    write_atomic(out, content)
    return Pretrained(out.name, round(len(content) / 1e6, 2), loss, round(time.monotonic() - began, 1))


def _kept(name: str) -> bool:
    return name.startswith(("trunk.", "attention."))


def _learn(net: AttentionNet, lumps: list[Lump], *, seed: int, steps: int, size: int, progress: Report | None) -> float:
    targets = sign_targets(lumps)
    coins = torch.Generator().manual_seed(derive_seed(seed, "steps"))
    where = place(net, side=size)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "pretext"))
        pretext = Pretext(net.trunk.channels, measures=targets.measures.shape[1], cells=size // 16)
    optimizer = _optimizer([*net.named_parameters(), *pretext.named_parameters()])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    views = _Views(lumps, size, coins)
    recent: list[float] = []
    net.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * _rate(step, steps)
        rows = torch.randint(len(lumps), (BATCH,), generator=coins)
        crops, masks = views.of(rows)
        inputs = where.images(augment(crops, LOOKS, coins))
        with where.autocast():
            losses = pretext.losses(net, inputs, masks, targets.of(rows))
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, LONGEST_STEP)
        optimizer.step()
        recent = [*recent, float(loss.detach())][-max(1, steps // 10) :]
        if progress is not None and step % 10 == 0:
            progress(len(lumps) + STEP_COST * step, len(lumps) + STEP_COST * steps)
    return float(np.mean(recent))


def _optimizer(named: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    matrices = [parameter for _, parameter in named if parameter.ndim > 1]
    others = [parameter for _, parameter in named if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE)


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / (HORIZON * steps))) / 2


class _Views:
    """Crops of lumps, each time from a slightly different square, tilt and side."""

    def __init__(self, lumps: list[Lump], size: int, coins: torch.Generator) -> None:
        self.images = torch.from_numpy(np.stack([lump.image for lump in lumps]))
        self.masks = [np.packbits(lump.mask) for lump in lumps]
        self.boxes = torch.tensor([lump.box for lump in lumps], dtype=torch.float32)
        self.size = size
        self.coins = coins

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (B, S, S) of 0 to 255 and masks (B, 1, S, S) of 0 to 1."""
        masks = np.stack([np.unpackbits(self.masks[row]).reshape(1, SIDE, SIDE) for row in rows])
        both = torch.cat([self.images[rows][:, None].float(), torch.from_numpy(masks).float() * 255], 1)
        grid = F.affine_grid(self._squares(self.boxes[rows]), [len(rows), 2, self.size, self.size], align_corners=False)
        crops, shown = F.grid_sample(both, grid, align_corners=False).unbind(1)
        return crops, (shown / 255).unsqueeze(1)

    def _squares(self, boxes_B4: Tensor) -> Tensor:
        """(B, 2, 3): from the crop's coordinates to the image's, both from -1 to 1."""
        x, y, width, height = boxes_B4.unbind(1)
        longer = torch.maximum(width, height)
        side = longer * (1 + 2 * (MARGINS[0] + (MARGINS[1] - MARGINS[0]) * self._uniform(len(boxes_B4)))) / SIDE
        across = x + width / 2 + 0.04 * longer * self._normal(len(boxes_B4))
        down = y + height / 2 + 0.04 * longer * self._normal(len(boxes_B4))
        mirror = torch.where(self._uniform(len(boxes_B4)) < 0.5, -1.0, 1.0)
        tilt, stretch = 0.08 * self._normal(len(boxes_B4)), torch.exp(0.05 * self._normal(len(boxes_B4)))
        cos, sin = side * torch.cos(tilt), side * torch.sin(tilt)
        top = torch.stack([cos * mirror * stretch, -sin, 2 * across / SIDE - 1], 1)
        bottom = torch.stack([sin * mirror, cos / stretch, 2 * down / SIDE - 1], 1)
        return torch.stack([top, bottom], 1)

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.coins)

    def _normal(self, count: int) -> Tensor:
        return torch.randn(count, generator=self.coins)

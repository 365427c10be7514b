"""The training loop that a user would write first: PIL decode in a DataLoader, float32, torch's default layout."""

from __future__ import annotations

__all__ = ["Frames", "Pictures", "PlainLoop", "draw_frames"]

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from client.augment import MEAN, SPREAD
from client.box import Box
from client.crops import crop
from common.config import Augmentation, Crop


@dataclass(frozen=True)
class Frames:
    """Gray PNG files of a quarter of a megapixel, the lesion's box (x, y, width, height) and the label of each."""

    files: tuple[Path, ...]
    boxes: tuple[Box, ...]
    labels: np.ndarray

    def crops(self, size: int) -> np.ndarray:
        """What the client's cache holds: (N, size, size) uint8."""
        spec = Crop(size=size)
        return np.stack([crop(Image.open(file), box, spec) for file, box in zip(self.files, self.boxes, strict=True)])


def draw_frames(folder: Path, *, images: int, seed: int) -> Frames:
    """Speckle with one dark ellipse each: one class is tall and one wide,
    and they overlap so much that AUC is near .9.
    """
    rng = np.random.default_rng(seed)
    height, width = 448, 560
    rows, columns = np.mgrid[:height, :width]
    files, boxes = [], []
    labels = rng.integers(0, 2, images)
    for i, label in enumerate(labels):
        speckle = rng.rayleigh(size=(height // 2, width // 2))
        speckle = gaussian_filter(speckle, (0.7, 1.4)).repeat(2, 0).repeat(2, 1)
        half = rng.uniform(45, 90)
        aspect = math.exp(rng.normal(0.16 if label else -0.16, 0.18))
        half_x, half_y = half / math.sqrt(aspect), half * math.sqrt(aspect)
        x, y = rng.uniform(half_x, width - half_x), rng.uniform(half_y, height - half_y)
        inside = ((columns - x) / half_x) ** 2 + ((rows - y) / half_y) ** 2 < 1
        gray = np.log1p(speckle * np.where(inside, rng.uniform(0.3, 0.7), 1.0)) * rng.uniform(110, 170)
        files.append(folder / f"{i:05d}.png")
        Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(files[-1])
        boxes.append((int(x - half), int(y - half), int(2 * half), int(2 * half)))
    return Frames(tuple(files), tuple(boxes), labels.astype(np.int64))


class Pictures(Dataset[tuple[Tensor, int]]):
    """Decoded, cropped and changed by PIL and torchvision, one at a time."""

    def __init__(self, frames: Frames, size: int, augmentation: Augmentation) -> None:
        self.frames = frames
        self.spec = Crop(size=size)
        gain = augmentation.gain
        self.change = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(augmentation.flip),
                transforms.RandomAffine(
                    augmentation.rotate,
                    translate=(augmentation.shift, augmentation.shift),
                    scale=(1 - augmentation.scale, 1 + augmentation.scale),
                    interpolation=transforms.InterpolationMode.BILINEAR,
                ),
                transforms.ColorJitter(brightness=gain, contrast=gain),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, SPREAD),
            ]
        )

    def __len__(self) -> int:
        return len(self.frames.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        square = crop(Image.open(self.frames.files[i]), self.frames.boxes[i], self.spec)
        return self.change(Image.fromarray(square)), int(self.frames.labels[i])


class PlainLoop:
    """A model, a DataLoader with two workers (quicker than none here), AdamW; steps are made on demand."""

    def __init__(
        self, model: nn.Module, frames: Frames, *, size: int, batch: int, seed: int, learning_rate: float = 5e-4
    ) -> None:
        self.model = model.train()
        self.batch = batch
        self.loader = DataLoader(
            Pictures(frames, size, Augmentation()),
            batch_size=batch,
            shuffle=True,
            drop_last=True,
            num_workers=2,
            persistent_workers=True,
            generator=torch.Generator().manual_seed(seed),
        )
        self.batches = self._batches()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.05)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader

    def steps(self, number: int) -> int:
        """Make optimizer steps; how many images they took."""
        for _ in range(number):
            images, labels = next(self.batches)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            _ = loss.item()
        return number * self.batch

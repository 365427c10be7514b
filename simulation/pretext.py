"""What initial weights learn on lumps: to name a lesion's signs, to outline it, and to carry its gradients.

The last, regressing a histogram of oriented gradients from the pooled features (after MaskFeat, Wei et al. 2022), makes
sure that a linear head on the trunk knows at least what HOG knows. Shapes: B images, S pixels a side, C channels.
"""

from __future__ import annotations

__all__ = ["Pretext", "Targets", "gradient_histogram", "sign_targets"]

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.model import AttentionNet
from simulation.phantom.lump import Lump
from simulation.phantom.lump_signs import MARGINS, SHAPES

BINS = 9
"""Orientations over half a circle."""
COARSE, FINE = 16, 8
"""Side of the mask that is read from pooled features, and of the patch of mask that each position of the map draws."""


@dataclass(frozen=True)
class Targets:
    """`classes` (N, 3) int64: malignant, shape, margin; `measures` (N, M) float32 of mean 0 and deviation 1."""

    classes: Tensor
    measures: Tensor

    def of(self, rows: Tensor) -> Targets:
        """Those of some rows."""
        return Targets(self.classes[rows], self.measures[rows])


def sign_targets(lumps: Sequence[Lump]) -> Targets:
    """The signs as numbers; measures are standardised over the lumps given."""
    signs = [lump.signs for lump in lumps]
    classes = [(int(s.malignant), SHAPES.index(s.shape), MARGINS.index(s.margin)) for s in signs]
    measures = np.array(
        [
            (
                np.log(s.aspect),
                np.log(lump.box[3] / lump.box[2]),
                abs(s.tilt),
                s.echo,
                s.heterogeneity,
                s.posterior,
                s.halo,
                s.capsule,
                np.log1p(s.calcifications),
                s.cysts,
                s.edge_shadow,
                s.distortion,
            )
            for s, lump in zip(signs, lumps, strict=True)
        ],
        dtype=np.float32,
    )
    measures = (measures - measures.mean(0)) / (measures.std(0) + 1e-6)
    return Targets(torch.tensor(classes), torch.from_numpy(measures))


def gradient_histogram(images_B1SS: Tensor, cells: int) -> Tensor:
    """(B, BINS, cells, cells): gradient magnitude by orientation in each cell, over the norm of 3 × 3 cells around.

    The magnitude is shared between the two nearest orientations (Dalal and Triggs 2005).
    """
    x = images_B1SS
    across = F.pad(x[..., 2:] - x[..., :-2], (1, 1, 0, 0))
    down = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
    magnitude = torch.sqrt(across**2 + down**2 + 1e-12)
    position = torch.remainder(torch.atan2(down, across), torch.pi) / torch.pi * BINS
    upper = position - position.floor()
    low = position.floor().long() % BINS
    votes = magnitude.new_zeros(len(x), BINS, *x.shape[2:])
    votes = votes.scatter_add(1, low, magnitude * (1 - upper)).scatter_add(1, (low + 1) % BINS, magnitude * upper)
    histogram = F.adaptive_avg_pool2d(votes, cells)
    energy = F.pad((histogram**2).sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return histogram / torch.sqrt(F.avg_pool2d(energy, 3, stride=1) * 9 + 1e-6)


class Pretext(nn.Module):
    """The heads that are thrown away afterwards, and the loss through them."""

    def __init__(self, channels: int, *, measures: int, cells: int) -> None:
        super().__init__()
        self.cells = cells
        self.malignant = nn.Linear(channels, 2)
        self.shape = nn.Linear(channels, len(SHAPES))
        self.margin = nn.Linear(channels, len(MARGINS))
        self.measures = nn.Linear(channels, measures)
        self.gradients = nn.Linear(channels, BINS * cells * cells)
        self.outline = nn.Linear(channels, COARSE * COARSE)
        self.patches = nn.Conv2d(channels, FINE * FINE, 1)

    def losses(
        self, model: AttentionNet, images_B1SS: Tensor, masks_B1SS: Tensor, targets: Targets
    ) -> dict[str, Tensor]:
        """Each task's loss, already weighted; their sum is what is minimised."""
        features = model.maps(images_B1SS)
        pooled = model.attention.pool(features).float()
        malignant, shape, margin = targets.classes.unbind(1)
        drawn = F.pixel_shuffle(self.patches(features).float(), FINE)
        coarse = F.adaptive_avg_pool2d(masks_B1SS, COARSE).flatten(1)
        described = gradient_histogram(_standardised(images_B1SS), self.cells).flatten(1)
        return {
            "malignant": F.cross_entropy(self.malignant(pooled).float(), malignant, label_smoothing=0.05),
            "shape": 0.5 * F.cross_entropy(self.shape(pooled).float(), shape),
            "margin": 0.5 * F.cross_entropy(self.margin(pooled).float(), margin),
            "measures": 0.5 * F.mse_loss(self.measures(pooled).float(), targets.measures),
            "gradients": 0.5 / 0.012 * F.mse_loss(self.gradients(pooled).float(), described),
            "outline": 0.5 * F.binary_cross_entropy_with_logits(self.outline(pooled).float(), coarse),
            "mask": F.binary_cross_entropy_with_logits(drawn, F.adaptive_avg_pool2d(masks_B1SS, drawn.shape[-1])),
        }


def _standardised(images_B1SS: Tensor) -> Tensor:
    mean, spread = images_B1SS.mean((1, 2, 3), keepdim=True), images_B1SS.std((1, 2, 3), keepdim=True)
    return (images_B1SS - mean) / (spread + 1e-3)

"""Histograms of oriented gradients inside the model, with a linear vote of their own beside the attention CNN's.

A few hundred numbers that nothing learns say much about a lesion's outline and orientation, whatever the gain; on small
sites a linear model of them generalises where a CNN's first layers do not (LOG.md has both, alone and together).
Shapes: B images, S pixels a side, K classes.
"""

from __future__ import annotations

__all__ = ["GradientVote", "descriptors"]

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ORIENTATIONS, CELLS, BLOCK = 9, 4, 2
"""Bins over half a circle, cells a side, and cells a side of the blocks over which contrast is normalised."""
_CLIP = 0.2
_LEAST = 1e-3


def descriptors(images_B1SS: Tensor) -> Tensor:
    """(B, 324): blocks of 2 × 2 cells, overlapping, each normalised as L2-Hys and scaled to a mean square of about 1.

    Votes are shared between the two nearest orientations, not between cells (Dalal and Triggs 2005).
    """
    x = images_B1SS
    across = F.pad(x[..., 2:] - x[..., :-2], (1, 1, 0, 0))
    down = F.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
    magnitude = torch.sqrt(across**2 + down**2)
    position = torch.remainder(torch.atan2(down, across), math.pi) * (ORIENTATIONS / math.pi) - 0.5
    bins = torch.arange(ORIENTATIONS, device=x.device, dtype=x.dtype).view(1, -1, 1, 1)
    apart = (position - bins).abs()
    shares = (1 - torch.minimum(apart, ORIENTATIONS - apart)).clamp_min(0)
    cells = F.adaptive_avg_pool2d(shares * magnitude, CELLS)
    blocks = F.unfold(cells, BLOCK)
    blocks = _unit(_unit(blocks).clamp_max(_CLIP))
    return blocks.flatten(1) * math.sqrt(ORIENTATIONS * BLOCK**2)


def _unit(blocks: Tensor) -> Tensor:
    return blocks / torch.sqrt((blocks**2).sum(1, keepdim=True) + _LEAST**2)


class GradientVote(nn.Module):
    """Logits of one linear layer over the descriptors of an image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks = CELLS - BLOCK + 1
        self.linear = nn.Linear(ORIENTATIONS * (BLOCK * blocks) ** 2, classes)

    def forward(self, images_B1SS: Tensor) -> Tensor:
        """(B, 1, S, S) to (B, K); descriptors in the precision of the images, whatever autocast says."""
        with torch.no_grad(), torch.autocast(images_B1SS.device.type, enabled=False):
            seen = descriptors(images_B1SS.contiguous())
        logits: Tensor = self.linear(seen)
        return logits

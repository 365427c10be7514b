"""What the model does to gray values before its first convolution, so that a machine's gain and gray curve matter less.

No parameters, nothing learned from a site: a function of one image alone, the same at every site.
Shapes: B images, S pixels a side.
"""

from __future__ import annotations

__all__ = ["Contrast", "Kind", "local", "whole"]

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["fixed", "image", "local"]

_LEAST = 0.1
"""Added to a deviation before dividing by it, in units of the fixed scale: noise in a flat image is not blown up."""
_CELLS = 8
"""Local statistics are taken in this many cells a side and carried between them linearly."""


def whole(images_B1SS: Tensor) -> Tensor:
    """Each image minus its own mean, over its own standard deviation."""
    mean = images_B1SS.mean((2, 3), keepdim=True)
    deviation = images_B1SS.std((2, 3), keepdim=True, correction=0)
    return (images_B1SS - mean) / (deviation + _LEAST)


def local(images_B1SS: Tensor, *, cells: int = _CELLS) -> Tensor:
    """Each pixel minus the mean around it, over the standard deviation around it (after Jarrett et al. 2009).

    "Around" is a window of 3 × 3 of `cells` × `cells` cells, interpolated between their centers.
    """
    centred = images_B1SS - _around(images_B1SS, cells)
    return centred / (_around(centred * centred, cells).clamp_min(0).sqrt() + _LEAST)


def _around(x_B1SS: Tensor, cells: int) -> Tensor:
    coarse = F.adaptive_avg_pool2d(x_B1SS, cells)
    smooth = F.avg_pool2d(F.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return F.interpolate(smooth, size=x_B1SS.shape[2:], mode="bilinear", align_corners=False)


class Contrast(nn.Module):
    """`fixed` leaves the gray scale as it is; `image` and `local` standardise."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images_B1SS: Tensor) -> Tensor:
        """(B, 1, S, S) to the same shape; in the precision of the images, whatever autocast says."""
        match self.kind:
            case "fixed":
                return images_B1SS
            case "image":
                return whole(images_B1SS)
            case "local":
                return local(images_B1SS)

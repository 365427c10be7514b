"""Convolutions as products of unfolded patches (im2col; Chellapilla 2006).

Shapes: B images, C channels in, O channels out, H × W positions in, K taps a side, P positions out of all images,
V = K · K · C values of a patch.
"""

from __future__ import annotations

__all__ = ["unfold_patches"]

from torch import Tensor
from torch.nn import functional as F


def unfold_patches(x_BCHW: Tensor, *, taps: int, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """The values under the filter at each position, (P, K · K · C): rows, columns, then channels within a patch."""
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    padded = F.pad(x_BHWC, (0, 0, padding[1], padding[1], padding[0], padding[0])) if any(padding) else x_BHWC
    images, height, width, channels = padded.shape
    of_image, of_row, of_column, of_channel = padded.stride()
    rows, columns = (height - taps) // stride[0] + 1, (width - taps) // stride[1] + 1
    patches = padded.as_strided(
        (images, rows, columns, taps, taps, channels),
        (of_image, of_row * stride[0], of_column * stride[1], of_row, of_column, of_channel),
        padded.storage_offset(),
    )
    return patches.reshape(images * rows * columns, taps * taps * channels)

"""A model's scores of a site's images."""

from __future__ import annotations

__all__ = ["score", "score_as"]

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from client.augment import normalise
from client.precision import Precision, place
from common.config import Evaluation
from common.model import AttentionNet


@torch.inference_mode()
def score(
    model: AttentionNet,
    crops: np.ndarray,
    *,
    batch_size: int = 128,
    flip: bool = True,
    zooms: Sequence[float] = (1.0,),
    precision: Precision = "auto",
) -> np.ndarray:
    """The probability of each class for each crop: (N, S, S) uint8 to (N, K) float64, each row of sum 1.

    They are the mean over views: the crop magnified by each of `zooms`, filled with black where it shrinks, and with
    `flip` the mirror image of each. The model is left in the mode it was in.
    """
    where = place(model, side=crops.shape[-1], precision=precision)
    was_training = model.training
    model.eval()
    pieces = []
    try:
        for at in range(0, max(len(crops), 1), batch_size):
            piece = torch.from_numpy(np.array(crops[at : at + batch_size]))
            with where.autocast():
                logits = [model(where.images(view)).double() for view in _views(piece, flip=flip, zooms=zooms)]
            pieces.append(torch.stack([view.softmax(1) for view in logits]).mean(0).cpu())
    finally:
        model.train(was_training)
    probabilities: np.ndarray = torch.cat(pieces).numpy()
    return probabilities


def score_as(asked: Evaluation, *, precision: Precision) -> Callable[[AttentionNet, np.ndarray], np.ndarray]:
    """`score` with the views that an experiment asks for."""
    return functools.partial(score, flip=asked.flip, zooms=asked.zooms, precision=precision)


def _views(crops_BSS: Tensor, *, flip: bool, zooms: Sequence[float]) -> Iterator[Tensor]:
    """The same crops seen in several ways, each (B, 1, S, S) as the model takes it."""
    for zoom in zooms:
        images = normalise(crops_BSS if zoom == 1 else _magnified(crops_BSS, zoom))
        yield images
        if flip:
            yield images.flip(3)


def _magnified(crops_BSS: Tensor, zoom: float) -> Tensor:
    images = crops_BSS.float().unsqueeze(1)
    theta = torch.eye(2, 3).div(zoom).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).squeeze(1)

"""A model's scores of a site's images."""

from __future__ import annotations

__all__ = ["score"]

import numpy as np
import torch

from client.augment import normalise
from client.precision import Precision, place
from common.model import AttentionNet


@torch.inference_mode()
def score(
    model: AttentionNet,
    crops: np.ndarray,
    *,
    batch_size: int = 128,
    flip: bool = True,
    precision: Precision = "auto",
) -> np.ndarray:
    """The probability of each class for each crop: (N, S, S) uint8 to (N, K) float64, each row of sum 1.

    With `flip` the mean of the image's probabilities and its mirror image's. The model is left in the mode it was in.
    """
    where = place(model, side=crops.shape[-1], precision=precision)
    was_training = model.training
    model.eval()
    pieces = []
    try:
        for at in range(0, max(len(crops), 1), batch_size):
            images = where.images(normalise(torch.from_numpy(np.ascontiguousarray(crops[at : at + batch_size]))))
            views = (images, images.flip(3)) if flip else (images,)
            with where.autocast():
                logits = [model(view).double() for view in views]
            pieces.append(torch.stack([view.softmax(1) for view in logits]).mean(0).cpu())
    finally:
        model.train(was_training)
    probabilities: np.ndarray = torch.cat(pieces).numpy()
    return probabilities

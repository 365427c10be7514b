"""The model's pooled features of a site's images: what its heads see, in at most 64 numbers an image."""

from __future__ import annotations

__all__ = ["MOST_FEATURES", "pooled_features"]

import numpy as np
import torch

from client.augment import normalise
from client.precision import Precision, place
from common.model import AttentionNet
from common.randomness import derive

MOST_FEATURES = 64


@torch.inference_mode()
def pooled_features(
    model: AttentionNet, crops: np.ndarray, *, seed: int, batch_size: int = 128, precision: Precision = "auto"
) -> np.ndarray:
    """Crops (N, S, S) uint8 to features (N, F) float64 with F ≤ 64.

    A wider model's features are projected by random normal directions that `seed` names, the same at every site
    (Johnson and Lindenstrauss 1984). The model is left in the mode it was in.
    """
    where = place(model, side=crops.shape[-1], precision=precision)
    was_training = model.training
    model.eval()
    pieces = []
    try:
        for at in range(0, max(len(crops), 1), batch_size):
            images = normalise(torch.from_numpy(np.array(crops[at : at + batch_size])))
            with where.autocast():
                pieces.append(model.features(where.images(images)).double().cpu())
    finally:
        model.train(was_training)
    wide: np.ndarray = torch.cat(pieces).numpy()
    if wide.shape[1] <= MOST_FEATURES:
        return wide
    directions = derive(seed, "shift", "projection").standard_normal((wide.shape[1], MOST_FEATURES))
    projected: np.ndarray = wide @ directions / np.sqrt(MOST_FEATURES)
    return projected

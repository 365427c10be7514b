"""Scores are means over views of a crop."""

import numpy as np
import torch

from client.augment import normalise
from client.evaluation import score
from common.config import Model
from common.model import build_model
from common.randomness import derive

CROPS = derive(0, "crops").integers(0, 256, (5, 32, 32), dtype=np.uint8)
MODEL = build_model(Model(backbone="small"), task="any", classes=2, seed=0)


def probabilities(crops: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        images = normalise(torch.from_numpy(crops.copy()))
        return np.asarray(MODEL.eval()(images).double().softmax(1).numpy())


def test_scores_are_the_mean_over_zooms_and_mirror_images() -> None:
    halves = np.zeros_like(CROPS)  # magnified by 1/2: each pixel of the inner square is the mean of four
    halves[:, 8:24, 8:24] = CROPS.reshape(5, 16, 2, 16, 2).astype(float).mean((2, 4)).round().astype(np.uint8)
    views = [CROPS, CROPS[:, :, ::-1], halves, halves[:, :, ::-1]]
    expected = np.mean([probabilities(view) for view in views], axis=0)
    found = score(MODEL, CROPS, flip=True, zooms=(1.0, 0.5), precision="float32")
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_without_zooms_nothing_is_resampled() -> None:
    np.testing.assert_array_equal(
        score(MODEL, CROPS, flip=False, precision="float32"),
        score(MODEL, CROPS, flip=False, zooms=(1.0,), precision="float32"),
    )
    np.testing.assert_allclose(score(MODEL, CROPS, flip=False, precision="float32"), probabilities(CROPS), atol=1e-6)

"""Oriented gradients: against scikit-image, and what gain must not change."""

import numpy as np
import torch
from skimage.feature import hog

from common.config import Model
from common.gradients import descriptors
from common.model import build_model


def images(count: int = 6, side: int = 64) -> torch.Tensor:
    """Smooth random fields, float64."""
    noise = torch.randn(count, 1, side // 4, side // 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(side, side), mode="bicubic")


def test_follows_scikit_image_up_to_shared_orientation_votes() -> None:
    """Ours shares a vote between two orientations and scikit-image does not: they correlate, they are not equal."""
    for image, ours in zip(images().numpy()[:, 0], descriptors(images()).numpy(), strict=True):
        theirs = hog(image, orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
        blocks = theirs.reshape(3, 3, 2, 2, 9).transpose(4, 2, 3, 0, 1).reshape(-1)
        assert np.corrcoef(ours, blocks)[0, 1] > 0.9
        assert np.corrcoef(ours, np.random.default_rng(0).permutation(blocks))[0, 1] < 0.5


def test_gain_and_offset_change_nothing() -> None:
    x = images()
    torch.testing.assert_close(descriptors(3 * x + 5), descriptors(x), rtol=1e-3, atol=1e-3)


def test_each_vote_has_its_own_loss_and_the_answer_is_their_mean() -> None:
    model = build_model(Model(backbone="small", gradients=True), task="node", classes=2, seed=0)
    x = images().float()
    torch.nn.init.normal_(model.gradients["node"].linear.weight)
    cnn, gradients = model.votes(x)
    torch.testing.assert_close(model(x), (cnn + gradients) / 2)
    torch.nn.functional.cross_entropy(gradients, torch.zeros(6, dtype=torch.long)).backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"gradients"}
    plain = build_model(Model(backbone="small"), task="node", classes=2, seed=0)
    assert len(plain.votes(x)) == 1
    torch.testing.assert_close(plain(x), cnn, msg="the CNN of one seed is the same with and without the gradients")

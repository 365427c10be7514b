"""Contrast standardisation: against a slow loop, and what a machine's gain must not change."""

import numpy as np
import pytest
import torch

from common.config import Model
from common.contrast import Contrast, local, whole
from common.model import build_model


def images(side: int = 32) -> torch.Tensor:
    return torch.randn(4, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_whole_is_what_numpy_says() -> None:
    for given, made in zip(images().numpy(), whole(images()).numpy(), strict=True):
        np.testing.assert_allclose(made, (given - given.mean()) / (given.std() + 0.1), atol=1e-12)


def test_local_statistics_are_the_windows_at_the_cells_centers() -> None:
    """With one pixel a cell no interpolation is left: the mean of 3 × 3 pixels around, by a slow loop."""
    x = images(8)
    padded = np.pad(x.numpy()[:, 0], ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.array([[[p[i : i + 3, j : j + 3].mean() for j in range(8)] for i in range(8)] for p in padded])
    centred = x.numpy()[:, 0] - around
    squares = np.pad(centred**2, ((0, 0), (1, 1), (1, 1)), mode="edge")
    spread = np.sqrt([[[s[i : i + 3, j : j + 3].mean() for j in range(8)] for i in range(8)] for s in squares])
    np.testing.assert_allclose(local(x).numpy()[:, 0], centred / (spread + 0.1), atol=1e-10)


@pytest.mark.parametrize("made", [whole, local])
def test_a_machines_gain_hardly_shows(made) -> None:  # type: ignore[no-untyped-def]
    x = images()
    assert (made(2 * x + 1) - made(x)).abs().mean() < 0.1 * made(x).abs().mean()


def test_a_flat_image_stays_finite() -> None:
    flat = torch.full((1, 1, 32, 32), -1.6)
    for kind in ("image", "local"):
        assert Contrast(kind)(flat).abs().max() < 1e-3


def test_the_model_sees_the_standardised_image() -> None:
    model = build_model(Model(backbone="small", contrast="image"), task="node", classes=2, seed=0).double()
    plain = build_model(Model(backbone="small"), task="node", classes=2, seed=0).double()
    torch.testing.assert_close(model(images()), plain(whole(images())))

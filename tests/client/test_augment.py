"""Augmentation on tensors: nothing asked, nothing changed; the generator decides; each change is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from client.augment import MEAN, SPREAD, augment, normalise
from common.config import Augmentation

NOTHING = Augmentation(flip=0, rotate=0, scale=0, shift=0, gain=0, gamma=0, blur=0, noise=0, erase=0)
ALL = Augmentation(blur=0.5, noise=0.1, erase=0.5)


def crops(images: int = 6, side: int = 32) -> torch.Tensor:
    """Random gray crops."""
    return torch.randint(0, 256, (images, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def coins(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def only(**changes: float) -> Augmentation:
    """One change alone."""
    return Augmentation(**{**dict.fromkeys(NOTHING.__dataclass_fields__, 0.0), **changes})


def test_normalise_is_the_formula() -> None:
    x = crops()
    expected = ((x.double() / 255 - MEAN) / SPREAD).float().unsqueeze(1)
    torch.testing.assert_close(normalise(x), expected)


def test_nothing_asked_nothing_changed() -> None:
    assert torch.equal(augment(crops(), NOTHING, coins()), normalise(crops()))


def test_generator_decides_and_global_state_is_untouched() -> None:
    before = torch.get_rng_state()
    x = crops()
    kept = x.clone()
    assert torch.equal(augment(x, ALL, coins(1)), augment(x, ALL, coins(1)))
    assert not torch.equal(augment(x, ALL, coins(1)), augment(x, ALL, coins(2)))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x, kept)


@pytest.mark.parametrize("other", [{}, {"shift": 1e-9}])
def test_flip_mirrors_left_and_right(other: dict[str, float]) -> None:
    mirrored = normalise(crops()).flip(3)
    torch.testing.assert_close(augment(crops(), only(flip=1.0, **other), coins()), mirrored, rtol=0, atol=1e-3)


def test_rotation_is_scipys() -> None:
    x = crops(1)
    ours = augment(x, only(rotate=30.0), coins(4))[0, 0] * SPREAD + MEAN
    center = np.array([15.5, 15.5])

    def turned(angle: float) -> np.ndarray:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return affine_transform(x[0].numpy() / 255.0, turn, offset=center - turn @ center, order=1, mode="constant")

    errors = [
        np.abs(turned(angle) - ours.numpy())[4:-4, 4:-4].mean() for angle in np.radians(np.linspace(-30, 30, 2401))
    ]
    assert min(errors) < 2e-3
    assert np.median(errors) > 0.05


def test_gray_values_stay_in_range() -> None:
    gray = augment(crops(64), Augmentation(gain=0.5, gamma=0.5, blur=1, noise=0.5, erase=1), coins()) * SPREAD + MEAN
    assert gray.isfinite().all()
    assert gray.min() >= -1e-5
    assert gray.max() <= 1 + 1e-5


def test_erase_blanks_a_rectangle() -> None:
    changed = augment(crops(), only(erase=1.0), coins()) != normalise(crops())
    assert changed.flatten(1).any(1).all()
    for mask in changed[:, 0]:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() >= 0.95 * rows * columns


def test_probability_is_the_share_of_images() -> None:
    flipped = augment(crops(400), only(flip=0.25), coins()) != normalise(crops(400))
    assert 0.17 < flipped.flatten(1).any(1).float().mean() < 0.33

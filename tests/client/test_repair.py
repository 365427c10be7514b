"""Repairs without labels: what they recover, what they leave alone, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from client.augment import normalise
from client.repair import (
    adapt_batch_statistics,
    amplitude_sums,
    gray_counts,
    harmonise_amplitude,
    harmonise_intensity,
    recalibrate_prior,
)
from common.config import Model
from common.harmonisation import GrayCounts, amplitude_gain, gray_curve
from common.model import build_model
from tests.speckle_world import BASE, GAIN, GAMMA, MARGIN, Machine, pictures


def crops(machine: Machine, *, seed: int = 0, count: int = 150) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pictures(rng, rng.integers(0, 2, count), rng.integers(0, 2, count), machine)


@pytest.mark.parametrize("machine", [GAIN, GAMMA, Machine(gain=-4.0)])
def test_intensity_repair_undoes_a_gray_curve(machine: Machine) -> None:
    """The very same speckle by another gray curve comes back, but for what the display clipped."""
    right, shifted, known = crops(BASE), crops(machine), crops(BASE, seed=1)
    counts = [gray_counts(some, margin=MARGIN) for some in (shifted, known)]
    mended = harmonise_intensity(shifted, *counts)
    before, after = (np.abs(some.astype(float) - right).mean() for some in (shifted, mended))
    assert after < 0.3 * before


def test_the_curve_rises_and_is_the_identity_on_itself() -> None:
    own = gray_counts(crops(BASE), margin=MARGIN)
    np.testing.assert_allclose(gray_curve(own, own), np.arange(256), atol=1e-9)
    curve = gray_curve(gray_counts(crops(GAMMA), margin=MARGIN), own)
    assert (np.diff(curve) >= 0).all()
    assert curve[0] >= 0
    assert curve[-1] <= 255
    np.testing.assert_array_equal(gray_curve(GrayCounts(np.zeros(256, dtype=np.int64)), own), np.arange(256))


def test_counts_and_amplitudes_add() -> None:
    one, other = crops(BASE), crops(GAIN)
    both = np.concatenate([one, other])
    gray = gray_counts(one, margin=MARGIN) + gray_counts(other, margin=MARGIN)
    np.testing.assert_array_equal(gray.counts, gray_counts(both, margin=MARGIN).counts)
    waves = amplitude_sums(one) + amplitude_sums(other)
    np.testing.assert_allclose(waves.total, amplitude_sums(both).total)
    assert waves.images == len(both)


def test_amplitude_repair_moves_the_mean_gray_and_keeps_phases() -> None:
    shifted, known = crops(GAIN), crops(BASE, seed=1)
    own, reference = amplitude_sums(shifted), amplitude_sums(known)
    mended = harmonise_amplitude(shifted, own, reference)
    assert abs(mended.mean() - known.mean()) < 0.2 * abs(shifted.mean() - known.mean())
    gain = amplitude_gain(own, reference)
    assert (gain > 0).all()
    assert (gain[16] == 1).all()
    np.testing.assert_array_equal(harmonise_amplitude(shifted, own, own), shifted)


def test_a_blank_surround_stays_black() -> None:
    images = crops(BASE)
    images[:, :6] = 0
    brighter = gray_counts(crops(GAIN), margin=MARGIN)
    assert not harmonise_intensity(images, gray_counts(images, margin=MARGIN), brighter)[:, :6].any()
    assert not harmonise_amplitude(images, amplitude_sums(images), amplitude_sums(crops(GAIN)))[:, :6].any()


def test_batch_statistics_become_the_centers_and_the_model_stays() -> None:
    model = build_model(Model(backbone="small", norm="batch", attention="none"), task="lump", classes=2, seed=0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = crops(GAIN, count=64)
    adapted = adapt_batch_statistics(model, images)
    assert adapted is not None
    assert not adapted.training
    with torch.no_grad():
        first = model.trunk.conv1(normalise(torch.from_numpy(images)))
    torch.testing.assert_close(adapted.trunk.bn1.running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(adapted.trunk.bn1.running_var, first.var((0, 2, 3)), rtol=1e-3, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(before[name], value)}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


def test_a_model_without_batch_norm_has_nothing_to_adapt() -> None:
    model = build_model(Model(backbone="small", norm="group", attention="none"), task="lump", classes=2, seed=0)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    assert adapt_batch_statistics(model, crops(BASE, count=8)) is None


@pytest.mark.parametrize("prevalence", [0.1, 0.5, 0.8])
def test_the_prior_is_found_and_calibration_mends_but_not_the_auc(prevalence: float) -> None:
    """Answers calibrated at a share of one half, x ~ N(±.8, 1): the right answer elsewhere is known."""
    rng = np.random.default_rng(0)
    labels = (rng.random(8000) < prevalence).astype(int)
    logit = 1.6 * rng.normal(0.8 * (2 * labels - 1), 1)
    known, right = (1 / (1 + np.exp(-logit - shift)) for shift in (0.0, np.log(prevalence / (1 - prevalence))))
    found = recalibrate_prior(np.column_stack([1 - known, known]), np.array([0.5, 0.5]))
    assert found.prior[1] == pytest.approx(prevalence, abs=0.02)
    np.testing.assert_allclose(found.probabilities[:, 1], right, atol=0.03)
    assert roc_auc_score(labels, found.probabilities[:, 1]) == pytest.approx(roc_auc_score(labels, known), abs=1e-12)


def test_a_prior_needs_every_class_in_training() -> None:
    with pytest.raises(ValueError, match="above 0"):
        recalibrate_prior(np.full((4, 2), 0.5), np.array([1.0, 0.0]))

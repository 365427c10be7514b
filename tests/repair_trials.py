"""A small network that learned on one machine, and centers whose pictures another machine takes."""

from __future__ import annotations

__all__ = ["areas", "cost_without_shift", "recovered", "small_model"]

import functools

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from client.augment import normalise
from client.evaluation import score
from client.repair import amplitude_sums, gray_counts, harmonise_amplitude, harmonise_intensity
from common.config import Model
from common.model import AttentionNet, build_model
from tests.speckle_world import BASE, GAIN, GAMMA, MARGIN, Machine, pictures

SHIFTS = {"gain + 3 dB": GAIN, "gain + 9 dB": Machine(gain=9.0), "gamma 1.3": GAMMA, "gamma 2.0": Machine(gamma=2.0)}
"""The panel's own shifts, which cost little AUC, and larger ones that cost about .1."""


@functools.lru_cache(maxsize=2)
def small_model(images: int = 2000, steps: int = 150) -> AttentionNet:
    """A small network with batch norm, trained on pictures of the base machine."""
    torch.set_num_threads(1)
    malignant, crops = _cases(np.random.default_rng(11), images, BASE)
    inputs, labels = normalise(torch.from_numpy(crops)), torch.from_numpy(malignant)
    model = build_model(Model(backbone="small", norm="batch", attention="none"), task="lump", classes=2, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    rng = np.random.default_rng(12)
    model.train()
    for _ in range(steps):
        some = torch.from_numpy(rng.integers(0, images, 64))
        loss = torch.nn.functional.cross_entropy(model(inputs[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _cases(rng: np.random.Generator, images: int, machine: Machine) -> tuple[np.ndarray, np.ndarray]:
    malignant = rng.integers(0, 2, images)
    return malignant, pictures(rng, malignant, (rng.random(images) < 0.3).astype(np.int64), machine)


@functools.lru_cache(maxsize=1)
def _reference() -> np.ndarray:
    return _cases(np.random.default_rng(13), 1500, BASE)[1]


def areas(center: int, machine: Machine, *, images: int = 300) -> dict[str, float]:
    """AUC of a center's pictures: of the base machine, of `machine`, and of `machine` repaired."""
    model, known = small_model(), _reference()
    labels, right = _cases(np.random.default_rng([14, center]), images, BASE)
    _, crops = _cases(np.random.default_rng([14, center]), images, machine)
    gray, amplitude = gray_counts(crops, margin=MARGIN), amplitude_sums(crops)
    versions = {
        "right": right,
        "unrepaired": crops,
        "intensity": harmonise_intensity(crops, gray, gray_counts(known, margin=MARGIN)),
        "amplitude": harmonise_amplitude(crops, amplitude, amplitude_sums(known)),
    }
    return {name: float(roc_auc_score(labels, score(model, some, flip=False)[:, 1])) for name, some in versions.items()}


def recovered(what: str, centers: int, *, repair: str = "intensity") -> tuple[float, float]:
    """The mean loss of AUC at centers of another machine, and the share of it that the repair recovers."""
    found = [areas(center, SHIFTS[what]) for center in range(centers)]
    lost = float(np.mean([area["right"] - area["unrepaired"] for area in found]))
    return lost, float(np.mean([area[repair] - area["unrepaired"] for area in found])) / lost


def cost_without_shift(centers: int, *, repair: str = "intensity", images: int = 300) -> np.ndarray:
    """AUC that the repair costs at centers where nothing is wrong, one for each."""
    return np.array([(found := areas(c, BASE, images=images))["unrepaired"] - found[repair] for c in range(centers)])

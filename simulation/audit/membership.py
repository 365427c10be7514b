"""Who trained the model? The likelihood-ratio attack with shadow models of the head (LiRA; Carlini et al. 2022).

Every model, the target too, trains on a random half of one pool of patients, so that members and others differ in
nothing but membership. A patient's score is how much better the target's confidence fits the shadows that had it than
the others.
"""

from __future__ import annotations

__all__ = ["SHADOWS", "Attack", "Pool", "attack", "train_heads"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor
from torch.nn import functional as F

from common.randomness import derive

SHADOWS, FALSE_POSITIVES = 32, 0.01
Train = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""From who is in (models, patients) to each model's confidence in every patient's labels,
in logits (models, patients).
"""


@dataclass(frozen=True)
class Pool:
    """Features (N, width) float32 and labels (N,) of images of patients 0 … P − 1,
    whose codes are in `patients` (N,).
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]

    @property
    def people(self) -> int:
        """How many patients."""
        return int(self.patients.max()) + 1


@dataclass(frozen=True)
class Attack:
    """What the attacker reaches: `tpr` at 1 % false positives, the AUC, and the ROC curve's points."""

    tpr: float
    auc: float
    members: int
    others: int
    curve: tuple[tuple[float, float], ...]


def attack(pool: Pool, train: Train, *, seed: int) -> Attack:
    """Train a target and 32 shadows, and tell the target's members from the others."""
    rng = derive(seed, "membership")
    inside = np.stack([_half(pool.people, rng) for _ in range(SHADOWS + 1)])
    confidence = train(inside)
    return _judged(_ratios(confidence, inside), inside[0])


def _half(people: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    chosen = np.zeros(people, dtype=bool)
    chosen[rng.permutation(people)[: people // 2]] = True
    return chosen


def _ratios(confidence: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log likelihood ratios (P,) of the target, row 0: normal distributions with each patient's means,
    one spread each.
    """
    shadows, there = confidence[1:], inside[1:]
    means = [np.nanmean(np.where(there == was, shadows, np.nan), axis=0) for was in (True, False)]
    spreads = [
        float(np.nanstd(np.where(there == was, shadows - mean, np.nan)))
        for was, mean in zip((True, False), means, strict=True)
    ]
    logs = [norm.logpdf(confidence[0], mean, max(spread, 1e-9)) for mean, spread in zip(means, spreads, strict=True)]
    return np.asarray(logs[0] - logs[1])


def _judged(scores: NDArray[np.float64], member: NDArray[np.bool_]) -> Attack:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(member[order]) / member.sum()
    alarms = np.cumsum(~member[order]) / (~member).sum()
    within = alarms <= FALSE_POSITIVES
    tpr = float(hits[within][-1]) if within.any() else 0.0
    auc = float(np.trapezoid(np.concatenate([[0.0], hits]), np.concatenate([[0.0], alarms])))
    every = max(1, len(order) // 200)
    curve = tuple((float(a), float(h)) for a, h in zip(alarms[::every], hits[::every], strict=True))
    return Attack(tpr, auc, int(member.sum()), int((~member).sum()), curve)


def train_heads(pool: Pool, inside: NDArray[np.bool_], *, steps: int = 300, rate: float = 0.05) -> NDArray[np.float64]:
    """All heads at once without privacy, by full descent (Adam):
    each model's confidence in each patient, (models, P).
    """
    models, width = len(inside), pool.features.shape[1]
    x = torch.from_numpy(pool.features)
    y = torch.from_numpy(pool.labels)
    weights = torch.from_numpy(inside[:, pool.patients].astype(np.float32))
    weights = weights / weights.sum(1, keepdim=True)
    head = torch.zeros(models, width + 1, 2, requires_grad=True)
    optimizer = torch.optim.Adam([head], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = _logits(x, head)
        each = F.cross_entropy(logits.flatten(0, 1), y.repeat(models), reduction="none").view(models, -1)
        (each * weights).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return confidences(pool, _logits(x, head.detach()))


def _logits(x: Tensor, head: Tensor) -> Tensor:
    """(models, N, 2)."""
    return torch.einsum("nf,mfk->mnk", x, head[:, :-1]) + head[:, -1:]


def confidences(pool: Pool, logits_MNK: Tensor) -> NDArray[np.float64]:
    """log p / (1 − p) of the right class, the mean over a patient's images: (models, P)."""
    both = logits_MNK.double().numpy()
    right = np.take_along_axis(both, pool.labels[None, :, None], axis=2)[..., 0]
    wrong = np.take_along_axis(both, 1 - pool.labels[None, :, None], axis=2)[..., 0]
    sums = np.stack([np.bincount(pool.patients, weights=margin) for margin in right - wrong])
    return np.asarray(sums / np.bincount(pool.patients))

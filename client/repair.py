"""What a center can mend without labels: its pictures, the model's batch statistics, the prior of its answers.

Repaired scores stand beside the unrepaired ones, never instead of them. A repair of pictures or statistics can cost as
much as it gives where nothing is wrong; recalibration for another prevalence mends calibration and moves no AUC.

Shapes: N images, S pixels a side, K classes.
"""

from __future__ import annotations

__all__ = [
    "Recalibrated",
    "adapt_batch_statistics",
    "amplitude_sums",
    "gray_counts",
    "gray_counts_by_image",
    "harmonise_amplitude",
    "harmonise_intensity",
    "recalibrate_prior",
]

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.descriptors import blank_edges, tissue_mask
from common.harmonisation import AmplitudeSums, Floats, GrayCounts, amplitude_gain, gray_curve

if TYPE_CHECKING:
    from common.model import AttentionNet

Crops = NDArray[np.uint8]


def gray_counts(crops: Crops, *, margin: float) -> GrayCounts:
    """Gray values of the tissue beside the lesions of crops (N, S, S), blank surrounds left out."""
    return GrayCounts(gray_counts_by_image(crops, margin=margin).sum(axis=0))


def gray_counts_by_image(crops: Crops, *, margin: float) -> NDArray[np.int64]:
    """The same for each of the crops alone, (N, 256)."""
    counts = np.zeros((len(crops), 256), dtype=np.int64)
    blank = blank_edges(crops)
    for edges in np.unique(blank, axis=0):
        mask = tissue_mask(crops.shape[-1], margin=margin, blank=(edges[0], edges[1], edges[2], edges[3]))
        for row in np.flatnonzero((blank == edges).all(axis=1)):
            counts[row] = np.bincount(crops[row][mask], minlength=256)
    return counts


def amplitude_sums(crops: Crops) -> AmplitudeSums:
    """Sums of amplitudes over crops (N, S, S)."""
    total = np.zeros((crops.shape[1], crops.shape[2] // 2 + 1))
    for at in range(0, len(crops), 256):
        total += np.abs(np.fft.rfft2(crops[at : at + 256])).sum(axis=0)
    return AmplitudeSums(len(crops), total)


def harmonise_intensity(crops: Crops, own: GrayCounts, reference: GrayCounts) -> Crops:
    """The crops (N, S, S) with the reference's gray levels; blank surrounds stay 0."""
    table = np.round(gray_curve(own, reference)).astype(np.uint8)
    return _kept_blank(table[crops], crops)


def harmonise_amplitude(crops: Crops, own: AmplitudeSums, reference: AmplitudeSums) -> Crops:
    """The crops (N, S, S) with the reference's mean amplitudes at low frequencies; blank surrounds stay 0."""
    gain = amplitude_gain(own, reference)
    mended = np.empty_like(crops)
    for at in range(0, len(crops), 256):
        back = np.fft.irfft2(np.fft.rfft2(crops[at : at + 256]) * gain, s=crops.shape[1:])
        mended[at : at + 256] = np.round(np.clip(back, 0, 255))
    return _kept_blank(mended, crops)


def _kept_blank(mended: Crops, crops: Crops) -> Crops:
    for image, (top, bottom, left, right) in zip(mended, blank_edges(crops), strict=True):
        height, width = image.shape
        image[:top], image[height - bottom :] = 0, 0
        image[:, :left], image[:, width - right :] = 0, 0
    return mended


def adapt_batch_statistics(model: AttentionNet, crops: Crops, *, batch_size: int = 128) -> AttentionNet | None:
    """A copy of the model whose batch-norm means and variances are those of crops (N, S, S); None without such layers.

    Li, Wang, Shi, Liu and Hou 2016 (AdaBN). Weights stay as they are; frozen statistics do too.
    """
    import torch
    from torch import nn

    from client.augment import normalise

    adapted = copy.deepcopy(model).eval()
    layers = [layer for layer in adapted.modules() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats]
    if not layers or not len(crops):
        return None
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    with torch.no_grad():
        for piece in np.array_split(crops, max(1, round(len(crops) / batch_size))):
            adapted.maps(normalise(torch.from_numpy(np.array(piece))).to(next(adapted.parameters())))
    return adapted.eval()


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """`prior` (K,): the share of each class that the answers imply; `probabilities` (N, K) under it."""

    prior: Floats
    probabilities: Floats


def recalibrate_prior(
    probabilities: Floats, trained: Floats, *, most_rounds: int = 1000, tolerance: float = 1e-8
) -> Recalibrated:
    """Probabilities (N, K) of a model trained at shares `trained` (K,), for a center of unknown prevalence.

    Expectation maximisation of Saerens, Latinne and Decaestecker 2002. It holds where only the prevalence differs and
    the model was calibrated; with two classes the order of cases, and so the AUC, stays.
    """
    known = np.asarray(trained, dtype=np.float64)
    if not (known > 0).all() or not len(probabilities):
        raise ValueError("a prior needs cases, and a share above 0 of each class in training")
    known = known / known.sum()
    prior, answers = known.copy(), probabilities
    for _ in range(most_rounds):
        answers = probabilities * (prior / known)
        answers = answers / np.maximum(answers.sum(axis=1, keepdims=True), 1e-300)
        moved, prior = prior, answers.mean(axis=0)
        if np.abs(prior - moved).max() < tolerance:
            break
    return Recalibrated(prior, answers)

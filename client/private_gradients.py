"""The sum that privacy protects: each unit's mean gradient, clipped, added up; in three ways, of one result.

`by_patient` makes one backward pass per unit, plainly. `by_sample` lets Opacus keep each image's gradient and averages
them by unit: the quicker way where a GPU would idle on a few images. `client.joint_gradients.by_pack` passes units some
at a time: the quicker way on a processor. A unit is a patient, or an image.

A unit whose gradient or its norm is not finite counts as zero. Norms and sums are at least float32, whatever autocast
says. Taking one unit away moves the sum by at most its sensitivity, up to the rounding of float32 (below 1e-5 of it for
some dozens of units); noise and sums are rounded to a grid much finer than the noise, which hides the last bits of
floats (Mironov 2012) without proving that nothing of them shows.
"""

from __future__ import annotations

__all__ = [
    "ClippedSum",
    "Lesson",
    "Lessons",
    "Unit",
    "Way",
    "add_clipped",
    "by_patient",
    "by_sample",
    "clip_factors",
    "image_losses",
    "noisy_mean",
    "packs",
    "squared_norms",
]

import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.augment import augment, normalise
from client.precision import Place
from common.config import Augmentation
from common.convolution import Conv
from common.entropy import PIECE, Coins, Entropy
from common.maps import compiled, run
from common.model import AttentionNet
from common.norm import GroupNorm
from common.patches import unfold_patches

Way = Literal["by-pack", "by-patient", "by-sample"]
_BLOCK = 1024
"""Values over which squares are summed in float32."""
_AHEAD = 4
"""Pieces of noise that may wait for a thread."""


@dataclass(frozen=True)
class Unit:
    """Whose gradient is clipped as one: rows of images, and the seed of this step's random changes of them."""

    rows: np.ndarray
    seed: int


@dataclass(frozen=True)
class ClippedSum:
    """Sums of clipped gradients, one tensor per trained parameter;
    without any one unit they differ by `sensitivity`.
    """

    tensors: list[Tensor]
    sensitivity: float


class Lessons(Protocol):
    """What clipping needs of a lesson: a module, those of its parameters that train, and each image's loss."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def where(self) -> Place: ...

    @property
    def trained(self) -> list[nn.Parameter]: ...

    def losses(self, units: Sequence[Unit]) -> Tensor: ...


def image_losses(votes: Sequence[Tensor], labels: np.ndarray, where: Place, *, label_smoothing: float) -> Tensor:
    """Each image's loss, (B,): the sum over the model's votes, (B, K) each."""
    wanted = torch.from_numpy(labels).to(where.device)
    each = [
        F.cross_entropy(logits.to(where.dtype), wanted, label_smoothing=label_smoothing, reduction="none")
        for logits in votes
    ]
    return torch.stack(each).sum(0)


@dataclass(frozen=True)
class Lesson:
    """What turns images into losses: the model, crops (N, S, S) uint8 or float, labels (N,) and how they are seen."""

    model: AttentionNet
    crops: np.ndarray
    labels: np.ndarray
    where: Place
    augmentation: Augmentation | None = None
    label_smoothing: float = 0.0

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that train, in the model's order."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def losses(self, units: Sequence[Unit]) -> Tensor:
        """Each image's loss, (B,), unit after unit; each unit's changes follow from its own seed alone."""
        x = self.where.images(torch.cat([self._inputs(unit) for unit in units]))
        labels = np.concatenate([self.labels[unit.rows] for unit in units])
        with self.where.autocast():
            votes = self.model.votes(x)
        return image_losses(votes, labels, self.where, label_smoothing=self.label_smoothing)

    def _inputs(self, unit: Unit) -> Tensor:
        crops = torch.from_numpy(np.ascontiguousarray(self.crops[unit.rows])).to(self.where.device)
        if self.augmentation is None:
            return normalise(crops)
        return augment(crops, self.augmentation, torch.Generator().manual_seed(unit.seed))


def by_patient(lesson: Lessons, units: Sequence[Unit], *, clip: float) -> ClippedSum:
    """One backward pass per unit; no more images in memory than one unit has."""
    trained = lesson.trained
    total = [torch.zeros_like(parameter) for parameter in trained]
    for unit in units:
        gradients = list(torch.autograd.grad(lesson.losses([unit]).mean(), trained, materialize_grads=True))
        norm = math.sqrt(sum(float(squared_norms(_values(gradient)[None])) for gradient in gradients))
        if norm < math.inf:
            torch._foreach_add_(total, gradients, alpha=min(1.0, clip / norm) if norm else 0.0)
    return ClippedSum(total, clip)


def squared_norms(rows_UN: Tensor) -> Tensor:
    """Σ x² of each row, (U,) float64. One sum of float32 over millions of values comes out up to a
    hundredth too small.
    """
    whole = rows_UN.shape[1] // _BLOCK * _BLOCK
    blocks_UMK = rows_UN[:, :whole].reshape(len(rows_UN), -1, _BLOCK)
    blocks_UM, rest_U = torch.linalg.vector_norm(blocks_UMK, dim=2), torch.linalg.vector_norm(rows_UN[:, whole:], dim=1)
    total: Tensor = blocks_UM.double().square().sum(1) + rest_U.double().square()
    return total


def _values(tensor: Tensor) -> Tensor:
    """A dense tensor's values in the order of its memory, as a view."""
    return tensor.as_strided((tensor.numel(),), (1,))


def by_sample(lesson: Lessons, units: Sequence[Unit], *, clip: float, images: int) -> ClippedSum:
    """Opacus's gradient of each image, averaged by unit; at most `images` in memory, or one unit if it has more."""
    trained = lesson.trained
    total = [torch.zeros_like(parameter) for parameter in trained]
    if not units:
        return ClippedSum(total, clip)
    hooks = _hooks(lesson.model)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")  # images need no gradient
            for pack in packs(units, images):
                _add_pack(total, lesson, pack, clip=clip)
    finally:
        hooks.remove_hooks()
        for parameter in trained:
            parameter.grad = None
            for name in ("grad_sample", "_forward_counter", "_current_grad_sample"):
                if hasattr(parameter, name):
                    delattr(parameter, name)
    return ClippedSum(total, clip)


def packs(units: Sequence[Unit], images: int, *, most: int | None = None) -> Iterator[list[Unit]]:
    """Units in turn, together while they have at most `images` images and are at most `most`; none is ever split."""
    pack: list[Unit] = []
    for unit in units:
        full = len(pack) == most or sum(len(u.rows) for u in pack) + len(unit.rows) > images
        if pack and full:
            yield pack
            pack = []
        pack.append(unit)
    yield pack


def _hooks(model: nn.Module) -> Any:
    """Opacus's hooks on the model, with samplers of our own for norms and convolutions.

    Opacus knows no subclass of group norm; and its convolutions read a channels-last tensor as if it were contiguous,
    which gives wrong gradients without a word.
    """
    from opacus.grad_sample import GradSampleModule
    from opacus.grad_sample.conv import compute_conv_grad_sample

    def conv_samples(layer: Any, activations: list[Tensor], backprops: Tensor) -> Any:
        return compute_conv_grad_sample(layer, [activations[0].contiguous()], backprops.contiguous())

    class Hooks(GradSampleModule):  # type: ignore[misc]
        GRAD_SAMPLERS: ClassVar = {
            **GradSampleModule.GRAD_SAMPLERS,
            GroupNorm: _group_norm_samples,
            nn.Conv2d: conv_samples,
            Conv: _conv_samples,
        }

    return Hooks(model, loss_reduction="sum", strict=False)


def _conv_samples(layer: Any, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    """Each image's product of its patches with its slopes, (B, O, C, K, K); `Conv` has no bias, groups or dilation."""
    if not layer.weight.requires_grad:
        return {}
    images, outputs = backprops.shape[:2]
    channels, taps = layer.in_channels, layer.kernel_size[0]
    patches = unfold_patches(activations[0], taps=taps, stride=layer.stride, padding=layer.padding)
    slopes_BOP = backprops.flatten(2).to(patches)
    product = torch.bmm(slopes_BOP, patches.view(images, -1, patches.shape[1]))
    return {layer.weight: product.view(images, outputs, taps, taps, channels).permute(0, 1, 4, 2, 3)}


def _group_norm_samples(layer: Any, activations: list[Tensor], backprops: Tensor) -> dict[nn.Parameter, Tensor]:
    dtype = layer.weight.dtype
    slopes = backprops.to(dtype)
    seen = F.group_norm(activations[0].to(dtype).contiguous(), layer.num_groups, eps=layer.eps)
    return {
        parameter: gradient
        for parameter, gradient in ((layer.weight, (seen * slopes).sum((2, 3))), (layer.bias, slopes.sum((2, 3))))
        if parameter.requires_grad
    }


def _add_pack(total: list[Tensor], lesson: Lessons, pack: Sequence[Unit], *, clip: float) -> None:
    trained = lesson.trained
    for parameter in trained:
        parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
    lesson.losses(pack).sum().backward()  # type: ignore[no-untyped-call]
    counts = torch.tensor([len(unit.rows) for unit in pack], device=lesson.where.device)
    owner = torch.repeat_interleave(torch.arange(len(pack), device=lesson.where.device), counts)
    add_clipped(total, [_unit_means(parameter, owner, counts) for parameter in trained], clip=clip)


def add_clipped(total: list[Tensor], means: list[Tensor], *, clip: float) -> None:
    """Add units' gradients (U, *shape), each clipped over all tensors; one that is not finite adds nothing."""
    norms = torch.stack([squared_norms(mean.flatten(1)) for mean in means]).sum(0).sqrt()
    factors, finite = clip_factors(norms, clip=clip)
    for sum_, mean in zip(total, means, strict=True):
        mean[~finite] = 0
        sum_ += torch.tensordot(factors.to(mean), mean, 1)


def clip_factors(norms_U: Tensor, *, clip: float) -> tuple[Tensor, Tensor]:
    """What each unit's gradient is multiplied by, (U,), and whether its norm is finite at all;
    where it is not, zero.
    """
    finite_U = norms_U < torch.inf
    return torch.where(finite_U & (norms_U > 0), (clip / norms_U).clamp_max(1), 0), finite_U


def _unit_means(parameter: Any, owner: Tensor, counts: Tensor) -> Tensor:
    """The mean gradient of each unit, (units, *shape). A layer that saw each image twice has rows for both views."""
    each, images = parameter.grad_sample, len(owner)
    if isinstance(each, list):
        each = torch.stack(each).sum(0)
    each = each.to(parameter.dtype).reshape(-1, images, *parameter.shape).sum(0)
    sums = torch.zeros(len(counts), *parameter.shape, dtype=each.dtype, device=each.device)
    sums.index_add_(0, owner, each)
    return sums / counts.view(-1, *[1] * parameter.ndim)


def noisy_mean(clipped: ClippedSum, *, noise_multiplier: float, divisor: float, entropy: Entropy) -> list[Tensor]:
    """The sums with noise of `noise_multiplier` times their sensitivity on each value, over the public `divisor`.

    Rounded to a power of two near 2⁻¹⁸ of the noise's standard deviation before it is divided.
    """
    sigma = noise_multiplier * clipped.sensitivity
    grid = 2.0 ** (math.floor(math.log2(sigma)) - 18)
    means = [torch.empty_like(tensor) for tensor in clipped.tensors]
    ahead: deque[Future[None]] = deque()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for sum_, mean in zip(_pieces(clipped.tensors), _pieces(means), strict=True):
            coins = entropy.coins(len(sum_))
            ahead.append(pool.submit(_add_noise, sum_, mean, coins, sigma=sigma, grid=grid, divisor=divisor))
            if len(ahead) > _AHEAD:
                ahead.popleft().result()
    for each in ahead:
        each.result()
    return means


def _add_noise(sum_: Tensor, mean: Tensor, coins: Coins, *, sigma: float, grid: float, divisor: float) -> None:
    """In one loop where it is there; else in numpy: torch's own threads would wait for one another inside these."""
    if sum_.device.type == "cpu" and sum_.dtype == torch.float32 and compiled() is not None:
        words, turns = (torch.from_numpy(each) for each in (coins.words.view(np.int64), coins.turns))
        run("sonofed_add_noise", words, turns, coins.count, sum_, sigma, grid, divisor, mean)
        return
    sums = sum_.cpu().numpy()
    values = coins.normal().astype(sums.dtype, copy=False)
    values *= sigma
    values += sums
    values *= 1 / grid
    np.rint(values, out=values)
    if mean.device.type == "cpu":
        np.multiply(values, grid / divisor, out=mean.numpy())
    else:
        mean.copy_(torch.from_numpy(values * (grid / divisor)))


def _pieces(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Dense tensors' values in the order of their memory, as views that fit the processor's cache."""
    for tensor in tensors:
        yield from torch.split(_values(tensor), PIECE)

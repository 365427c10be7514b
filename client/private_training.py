"""Local training that no single patient shows through:
Poisson sampling, clipping by patient, noise (Abadi et al. 2016).

The same shape as `client.training.train`, for the caller to choose between once. Every constant is the mechanism's,
which follows from the site's nominal number of patients; the true number enters nowhere, and neither does the mean
loss, which would tell of it.
"""

from __future__ import annotations

__all__ = [
    "PrivateData",
    "Sample",
    "private_steps",
    "quickest_way",
    "sample",
    "step_gradients",
    "training_only",
    "units_pass_apart",
]

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from client.joint_gradients import by_pack
from client.memory import keep_freed_memory
from client.precision import Place, place
from client.private_features import SeenLesson, by_formula
from client.private_gradients import ClippedSum, Lesson, Lessons, Unit, Way, by_patient, by_sample, noisy_mean
from client.schedule import make_optimizer, rate_at, set_rate
from client.training import Trained, add_pull
from common.apart import why_not_apart
from common.config import Training
from common.entropy import Entropy
from common.errors import BadInput
from common.model import AttentionNet
from common.privacy import Mechanism

Sample = list[Unit]
_PASS_APART: dict[Hashable, bool] = {}
"""What `units_pass_apart` found in this process, by all that kernels are chosen by."""


@dataclass(frozen=True)
class PrivateData:
    """Gray crops (N, S, S) uint8 with labels (N,) int64 and whose they are: patients (N,), any codes."""

    crops: np.ndarray
    labels: np.ndarray
    patients: np.ndarray

    def by_patient(self) -> list[np.ndarray]:
        """Each patient's rows, in the order of first appearance."""
        _, first, codes = np.unique(self.patients, return_index=True, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(codes))[:-1]) if len(codes) else []
        return [parts[code] for code in np.argsort(first)]


def private_steps(
    model: AttentionNet,
    data: PrivateData,
    plan: Training,
    mechanism: Mechanism,
    *,
    steps: int,
    progress: tuple[float, float],
    entropy: Entropy,
    optimizer: torch.optim.Optimizer | None = None,
    proximal: float = 0.0,
    on_step: Callable[[int], None] | None = None,
    way: Way | None = None,
) -> Trained:
    """Make `steps` private optimizer steps on the model, in place; `train` explains what is not said here.

    Each step takes a Poisson sample of patients; an empty one still makes a step, of noise alone. `way` is the
    quickest where it is None. Memory holds at most `plan.batch_size` images at a time, or one patient's. The loss is
    not told, and `samples` is what the plan expects, not what was drawn. BadInput where the model or the plan looks at
    more than one patient at a time.
    """
    require_apart(model, plan)
    where = place(model, side=data.crops.shape[-1], precision=plan.precision, layout=plan.layout)
    if where.device.type == "cpu":
        keep_freed_memory()
    people = data.by_patient()
    with training_only(model, mechanism.trains):
        lesson = _lesson(model, data, plan, where, mechanism)
        optimizer = optimizer or make_optimizer(model, plan)
        anchor = [parameter.detach().clone() for parameter in lesson.trained] if proximal else []
        model.train()
        way = way or quickest_way(lesson, images=plan.batch_size)
        for step in range(steps):
            set_rate(optimizer, rate_at(plan, progress[0] + (progress[1] - progress[0]) * (step + 0.5) / steps))
            gradients = step_gradients(lesson, people, mechanism, entropy, way=way, images=plan.batch_size)
            for parameter, gradient in zip(lesson.trained, gradients, strict=True):
                parameter.grad = gradient
            if proximal:
                add_pull(lesson.trained, anchor, mu=proximal)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if on_step is not None:
                on_step(step + 1)
    images = mechanism.images_per_patient if mechanism.unit == "patient" else 1
    return Trained(loss=None, samples=round(steps * mechanism.divisor * images), steps=steps, optimizer=optimizer)


def require_apart(model: nn.Module, plan: Training) -> None:
    """Raise BadInput where training would let one patient's images act on another's gradient, or tell their number."""
    why = why_not_apart(
        batch_norm=any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()),
        dropout=any(getattr(module, "p", 0) for module in model.modules() if type(module).__name__ == "Dropout"),
        class_weights=plan.class_weights,
        full_batch=plan.full_batch,
    )
    if why is not None:
        raise BadInput(why)


def sample(people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy) -> Sample:
    """Who is in a step: each unit by a coin of its own, with images drawn afresh and a seed for their
    random changes.
    """
    k, people_count = mechanism.images_per_patient, len(people)
    seeds = (entropy.words(people_count) >> np.uint64(1)).astype(np.int64)
    drawn = [_some(rows, k, int(seed)) for rows, seed in zip(people, seeds, strict=True)]
    if mechanism.unit == "patient":
        taken = entropy.uniform(people_count) < mechanism.sampling_rate
        return [Unit(rows, int(seed)) for rows, seed, take in zip(drawn, seeds, taken, strict=True) if take]
    taken = entropy.uniform(people_count * k).reshape(people_count, k) < mechanism.sampling_rate
    return [
        Unit(rows[[i]], (int(seed) + i) % 2**63)
        for rows, seed, takes in zip(drawn, seeds, taken, strict=True)
        for i in range(len(rows))
        if takes[i]
    ]


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, size=most, replace=False))


def quickest_way(lesson: Lessons, *, images: int) -> Way:
    """Samples on a GPU and packs elsewhere, where units leave each other's gradients alone;
    else one patient at a time.
    """
    if not isinstance(lesson, Lesson):
        return "by-patient"
    way: Way = "by-sample" if lesson.where.device.type == "cuda" else "by-pack"
    trained = tuple(name for name, parameter in lesson.model.named_parameters() if parameter.requires_grad)
    kind = (str(lesson.model), trained, lesson.where, lesson.crops.shape[1:], images, torch.get_num_threads())
    if kind not in _PASS_APART:
        _PASS_APART[kind] = units_pass_apart(lesson, way, images=images)
    return way if _PASS_APART[kind] else "by-patient"


def units_pass_apart(lesson: Lesson, way: Way, *, images: int) -> bool:
    """Whether a unit moves the sum by its own clipped gradient and nothing else, whoever passes before and beside it.

    On random images, for patients of one image and of several, each clipped: the bound on what a patient can do rests
    on this, and layers that keep images apart on paper may round by what is beside them.
    """
    sizes, clip = (3, 1, 2, 4, 1, 2), 1e-6
    rng, ends = np.random.default_rng(0), np.cumsum(sizes)
    crops = rng.integers(0, 256, (ends[-1], *lesson.crops.shape[1:])).astype(np.uint8)
    probe = replace(lesson, crops=crops, labels=np.zeros(len(crops), dtype=np.int64))
    people = [Unit(np.arange(end - size, end), seed=size) for end, size in zip(ends, sizes, strict=True)]

    def summed(units: Sample) -> torch.Tensor:
        tensors = _sum(probe, units, way, clip=clip, images=images).tensors
        return torch.cat([tensor.flatten().double() for tensor in tensors])

    whole, rest, gone = summed(people), summed(people[:2:-1] + people[:2]), summed(people[2:3])
    return bool((whole - rest - gone).norm() <= 5e-6 * clip)


def _clipped(lesson: Lessons, units: Sample, mechanism: Mechanism, way: Way, *, images: int) -> ClippedSum:
    if isinstance(lesson, SeenLesson):
        return by_formula(lesson, units, clip=mechanism.clip)
    return _sum(lesson, units, way, clip=mechanism.clip, images=images)


def _sum(lesson: Lessons, units: Sample, way: Way, *, clip: float, images: int) -> ClippedSum:
    match way:
        case "by-pack":
            return by_pack(lesson, units, clip=clip, images=images)
        case "by-patient":
            return by_patient(lesson, units, clip=clip)
        case "by-sample":
            return by_sample(lesson, units, clip=clip, images=images)


def step_gradients(
    lesson: Lessons, people: list[np.ndarray], mechanism: Mechanism, entropy: Entropy, *, way: Way, images: int
) -> list[torch.Tensor]:
    """What one step lets out, and all that it lets out: sample, clip, add up, add noise, divide."""
    clipped = _clipped(lesson, sample(people, mechanism, entropy), mechanism, way, images=images)
    return noisy_mean(clipped, noise_multiplier=mechanism.noise_multiplier, divisor=mechanism.divisor, entropy=entropy)


def _lesson(model: AttentionNet, data: PrivateData, plan: Training, where: Place, mechanism: Mechanism) -> Lessons:
    """Where nothing before the heads trains and images stay as they are, what the heads see is computed once."""
    if mechanism.trains == "head" and plan.augmentation is None and len(data.labels):
        return SeenLesson.of(model, data.crops, data.labels, where, label_smoothing=plan.label_smoothing)
    return Lesson(model, data.crops, data.labels, where, plan.augmentation, plan.label_smoothing)


@contextmanager
def training_only(model: nn.Module, trains: str) -> Iterator[None]:
    """Let only the parameters that `trains` names learn, for this block: the model may serve others after it.

    `last-stage`: the trunk's last stage and everything after it; `head`: the linear layers that answer.
    """
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    last = max((name.split(".")[1] for name in before if name.startswith(("trunk.layer", "trunk.conv"))), default="")
    prefixes: tuple[str, ...] = {
        "all": ("",),
        "last-stage": (f"trunk.{last}.", f"trunk.bn{last[-1:]}.", "attention.", "heads.", "gradients."),
        "head": ("heads.", "gradients."),
    }[trains]
    if last.startswith("layer"):
        prefixes = tuple(prefix for prefix in prefixes if not prefix.startswith("trunk.bn"))
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name] and name.startswith(prefixes))
        yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])

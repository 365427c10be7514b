"""What the audit attacks: heads over features that nothing trains, of a site's patients and of a pool with phantoms."""

from __future__ import annotations

__all__ = ["LEAST", "draw_pool", "private_heads", "resized", "site_lesson"]

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.precision import place
from client.private_features import SeenLesson
from client.private_training import PrivateData, step_gradients, training_only
from client.service import site_crops
from client.site import Site
from common.config import Experiment, PatientPrivacy
from common.entropy import Entropy
from common.model import AttentionNet, build_model
from common.privacy import Mechanism, delta_of, mechanism_of
from common.randomness import derive
from common.weights import set_weights
from server.run import initial_weights
from simulation.audit.membership import Pool, confidences
from simulation.phantom.lump import draw_lump

LEAST = 2_048
"""Patients in the pool, so that half of them, who are no members, are more than a thousand."""
_STEPS, _RATE, _PER_STEP = 60, 0.05, 64
Report = Callable[[int, int], None]


def site_lesson(experiment: Experiment, site: Site) -> tuple[SeenLesson, list[NDArray[np.int64]]]:
    """The heads of the experiment's model over the site's training images, and each patient's rows."""
    model = _model(experiment)
    rows = site.rows("train")
    crops = site_crops(site, experiment.crop)[rows]
    where = place(model, side=experiment.crop.size, precision="float32")
    with training_only(model, "head"):
        lesson = SeenLesson.of(model, crops, site.labels[rows], where, label_smoothing=0.0)
        data = PrivateData(crops, site.labels[rows], site.patients[rows])
    return lesson, data.by_patient()


def draw_pool(
    experiment: Experiment, sites: Sequence[Site], *, people: int = LEAST, progress: Report | None = None
) -> Pool:
    """Every patient of the sites, and phantoms until there are `people`:
    what the model's trunk sees of their images.
    """
    crops = [site_crops(site, experiment.crop) for site in sites]
    labels = [site.labels for site in sites]
    patients, first = [], 0
    for site in sites:
        patients.append(site.patients + first)
        first += len(site.pseudonyms)
    missing = max(0, people - first)
    drawn = np.empty((missing, experiment.crop.size, experiment.crop.size), np.uint8)
    malignant = np.empty(missing, np.int64)
    for number in range(missing):
        lump = draw_lump(derive(experiment.seed, "audit", number))
        drawn[number] = resized(lump.image, experiment.crop.size)
        malignant[number] = int(lump.signs.malignant)
        if progress is not None and number % 64 == 0:
            progress(number, missing)
    positive = experiment.task.positive_index
    labels = [(each == positive).astype(np.int64) for each in labels]
    model = _model(experiment)
    where = place(model, side=experiment.crop.size, precision="float32")
    everyone = np.concatenate([*crops, drawn])
    lesson = SeenLesson.of(model, everyone, np.zeros(len(everyone), np.int64), where, label_smoothing=0.0)
    return Pool(
        lesson.seen[0].float().cpu().numpy(),
        np.concatenate([*labels, malignant]),
        np.concatenate([*patients, np.arange(first, first + missing)]),
    )


def resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The whole picture as a square of `side` pixels."""
    pixels = torch.from_numpy(image)[None, None].float()
    small = torch.nn.functional.interpolate(pixels, size=(side, side), mode="area")
    return np.asarray(small[0, 0].round().byte().numpy())


def _model(experiment: Experiment) -> AttentionNet:
    task = experiment.task
    model = build_model(experiment.model, task=task.name, classes=len(task.classes), seed=0)
    set_weights(model, initial_weights(replace(experiment, training=replace(experiment.training, precision="float32"))))
    return model.float()


def private_heads(
    pool: Pool, inside: NDArray[np.bool_], privacy: PatientPrivacy, *, progress: Report | None = None
) -> NDArray[np.float64]:
    """As `train_heads`, each head by the site's own private steps; σ is what `privacy` asks for over all of them."""
    members = int(inside[0].sum())
    per_step = min(_PER_STEP, members)
    asked = replace(privacy, patients_per_step=per_step, trains="head", delta=privacy.delta or delta_of(members))
    mechanism = mechanism_of(asked, nominal_patients=members, steps=_STEPS)
    rows = PrivateData(pool.features, pool.labels, pool.patients).by_patient()
    logits = []
    for number, there in enumerate(inside):
        logits.append(_trained(pool, [rows[patient] for patient in np.flatnonzero(there)], mechanism))
        if progress is not None:
            progress(number + 1, len(inside))
    return confidences(pool, torch.stack(logits))


def _trained(pool: Pool, people: list[NDArray[np.int64]], mechanism: Mechanism) -> torch.Tensor:
    """The logits (N, 2) of a head that trained on `people`."""
    head = nn.Linear(pool.features.shape[1], 2)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    seen = torch.from_numpy(pool.features)
    lesson = SeenLesson(nn.ModuleList([head]), (seen,), pool.labels, place(head, side=32, precision="float32"))
    optimizer, entropy = torch.optim.Adam(head.parameters(), lr=_RATE), Entropy()
    for _ in range(_STEPS):
        gradients = step_gradients(lesson, people, mechanism, entropy, way="by-sample", images=256)
        for parameter, gradient in zip(lesson.trained, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    with torch.no_grad():
        logits: torch.Tensor = head(seen)
    return logits

"""What patients' privacy costs in AUC: heads over features of frozen weights, by size of the sites and ε.

Phantom patients are lumps of seeds that the weights never saw, two crops each; three sites of equal size, FedAvg over
ten rounds, the site's own private steps. BUS-BRA's three devices are the sites where the data are there.
"""

from __future__ import annotations

__all__ = ["Site", "federated_scores", "phantom_pool", "phantom_site", "rows", "table"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from client.box import Box
from client.crops import crop
from client.precision import place
from client.private_features import SeenLesson, by_formula
from client.private_training import sample, step_gradients
from common.auc import auc
from common.config import Crop, Model, PatientPrivacy
from common.entropy import Entropy
from common.model import AttentionNet, build_model, load_weights
from common.privacy import Mechanism, delta_of, mechanism_of
from common.randomness import derive
from simulation.audit.membership import Pool
from simulation.phantom.lump import draw_lump
from tests.prove.finding import ROOT, Finding

SIZES, EPSILONS = (150, 300, 1_000), (1.0, 3.0, 8.0, None)
SITES, ROUNDS, PASSES, PER_STEP, SEEDS, TESTED, DRAWS = 3, 10, 20, 64, 5, 500, 1_000
RATE, MOMENTUM, SIDE = 2.0, 0.9, 64
WEIGHTS = ROOT / "configs" / "weights" / "phantom-resnet18.safetensors"
BUSBRA = ROOT.parent / "shared" / "data" / "busbra"


@dataclass(frozen=True)
class Site:
    """Features (N, width), standardised by public constants and of length about 1, with labels and patients (N,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]

    @property
    def people(self) -> list[NDArray[np.int64]]:
        """Each patient's rows."""
        return [np.flatnonzero(self.patients == code) for code in np.unique(self.patients)]

    def only(self, kept: NDArray[np.bool_]) -> Site:
        """Some rows."""
        return Site(self.features[kept], self.labels[kept], self.patients[kept])


@dataclass(frozen=True)
class Line:
    """One cell of the table: AUC over seeds with its interval, and what was lost to no privacy, with its own."""

    data: str
    patients: str
    epsilon: float | None
    auc: tuple[float, float, float]
    lost: tuple[float, float, float]

    def as_text(self) -> str:
        """A row in Markdown."""
        shown = "∞" if self.epsilon is None else f"{self.epsilon:g}"
        lost = "–" if self.epsilon is None else _span(self.lost)
        return f"| {self.data} | {self.patients} | {shown} | {_span(self.auc)} | {lost} |"


def table() -> Finding:
    """The whole table; printed, and held to what is lost at 1,000 phantom patients a site."""
    found = []
    print("| data | patients a site | ε | AUC (95 %) | lost to ε = ∞ (95 %) |\n|---|---|---:|---|---|", flush=True)
    for line in rows():
        print(line.as_text(), flush=True)
        found.append(line)
    lost = {line.epsilon: line.lost[0] for line in found if line.patients == str(SIZES[-1])}
    value = f"lost {lost[8.0]:.3f} at ε = 8, {lost[3.0]:.3f} at 3, {lost[1.0]:.3f} at 1"
    return Finding(
        value, "≤ .02 lost at ε = 8 and ≤ .05 at 3 with 1,000 patients a site", lost[8.0] <= 0.02 and lost[3.0] <= 0.05
    )


def rows() -> Iterator[Line]:
    """Phantoms by size, then BUS-BRA where it is."""
    test = phantom_site(100, TESTED)
    largest = [phantom_site(number, SIZES[-1]) for number in range(SITES)]
    for size in SIZES:
        sites = [site.only(site.patients < size) for site in largest]
        yield from _lines("phantoms", str(size), sites, [size] * SITES, test)
    if BUSBRA.exists():
        sites, nominal, test = _busbra()
        yield from _lines("BUS-BRA", "/".join(map(str, nominal)), sites, nominal, test)


def _lines(data: str, patients: str, sites: Sequence[Site], nominal: Sequence[int], test: Site) -> Iterator[Line]:
    scores = {
        epsilon: np.stack([federated_scores(sites, nominal, test, epsilon=epsilon, seed=seed) for seed in range(SEEDS)])
        for epsilon in EPSILONS
    }
    draws = {epsilon: _bootstrapped(each, test) for epsilon, each in scores.items()}
    for epsilon in EPSILONS:
        lost = draws[None] - draws[epsilon]
        yield Line(data, patients, epsilon, _summary(draws[epsilon]), _summary(lost))


def _bootstrapped(scores: NDArray[np.float64], test: Site) -> NDArray[np.float64]:
    """The mean AUC over seeds, first as it is, then over draws of patients and seeds (the same for every ε)."""
    rng, people = derive(0, "utility", len(test.labels)), test.people
    found = [np.mean([_auc(each, test, np.arange(len(test.labels))) for each in scores])]
    for _ in range(DRAWS):
        rows = np.concatenate([people[i] for i in rng.integers(0, len(people), len(people))])
        seeds = rng.integers(0, len(scores), len(scores))
        areas = {seed: _auc(scores[seed], test, rows) for seed in set(seeds.tolist())}
        found.append(np.mean([areas[seed] for seed in seeds.tolist()]))
    return np.array(found)


def _auc(scores: NDArray[np.float64], test: Site, rows: NDArray[np.int64]) -> float:
    return float(auc(test.labels[rows] == 1, scores[rows]) or 0.5)


def _summary(draws: NDArray[np.float64]) -> tuple[float, float, float]:
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return float(draws[0]), float(low), float(high)


def _span(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f})"


def federated_scores(
    sites: Sequence[Site], nominal: Sequence[int], test: Site, *, epsilon: float | None, seed: int
) -> NDArray[np.float64]:
    """Scores (N,) of the test images after FedAvg of the heads; ε = None neither clips nor adds noise."""
    torch.manual_seed(seed)
    head = nn.Linear(test.features.shape[1], 2)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    steps = [max(1, round(PASSES * n / min(PER_STEP, n) / ROUNDS)) for n in nominal]
    mechanisms = [_mechanism(n, epsilon, steps=ROUNDS * count) for n, count in zip(nominal, steps, strict=True)]
    for _ in range(ROUNDS):
        start = [parameter.detach().clone() for parameter in head.parameters()]
        mean = [torch.zeros_like(parameter) for parameter in start]
        for site, n, count, mechanism in zip(sites, nominal, steps, mechanisms, strict=True):
            _set(head, start)
            _train(head, site, mechanism, steps=count, private=epsilon is not None)
            for total, parameter in zip(mean, head.parameters(), strict=True):
                total += parameter.detach() * (n / sum(nominal))
        _set(head, mean)
    with torch.no_grad():
        return torch.softmax(head(torch.from_numpy(test.features)).double(), 1)[:, 1].numpy()


@torch.no_grad()
def _set(head: nn.Module, values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(head.parameters(), values, strict=True):
        parameter.copy_(value)


@cache
def _mechanism(nominal: int, epsilon: float | None, *, steps: int) -> Mechanism:
    noise = {"noise_multiplier": 1.0} if epsilon is None else {"epsilon": epsilon}
    privacy = PatientPrivacy(
        patients_per_step=min(PER_STEP, nominal), images_per_patient=4, delta=delta_of(nominal), **noise
    )
    return mechanism_of(privacy, nominal_patients=nominal, steps=steps)


def _train(head: nn.Linear, site: Site, mechanism: Mechanism, *, steps: int, private: bool) -> None:
    lesson = SeenLesson(
        nn.ModuleList([head]),
        (torch.from_numpy(site.features),),
        site.labels,
        place(head, side=SIDE, precision="float32"),
    )
    optimizer, entropy, people = torch.optim.SGD(head.parameters(), lr=RATE, momentum=MOMENTUM), Entropy(), site.people
    for _ in range(steps):
        if private:
            gradients = step_gradients(lesson, people, mechanism, entropy, way="by-sample", images=256)
        else:
            plain = by_formula(lesson, sample(people, mechanism, entropy), clip=float("inf"))
            gradients = [each / mechanism.divisor for each in plain.tensors]
        for parameter, gradient in zip(lesson.trained, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()


def phantom_site(seed: int, patients: int) -> Site:
    """Patients of a lump each, cropped tightly and widely."""
    crops, labels = [], []
    for number in range(patients):
        lump = draw_lump(derive(1_000 + seed, "utility", number))
        image = Image.fromarray(lump.image)
        crops += [crop(image, Box(*lump.box), Crop(size=SIDE, margin=margin)) for margin in (0.1, 0.35)]
        labels += [int(lump.signs.malignant)] * 2
    return Site(_features(np.stack(crops)), np.array(labels), np.arange(patients).repeat(2))


def phantom_pool(patients: int) -> Pool:
    """The same, for the attack on membership."""
    site = phantom_site(7, patients)
    return Pool(site.features, site.labels, site.patients)


def _features(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the heads see, standardised over phantoms of yet another seed: constants that belong to nobody."""
    mean, spread = _constants()
    raw = _raw(crops)
    return np.asarray((raw - mean) / (spread * np.sqrt(raw.shape[1])), dtype=np.float32)


@cache
def _constants() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    lumps = [draw_lump(derive(999, "utility", number)) for number in range(200)]
    crops = [crop(Image.fromarray(each.image), Box(*each.box), Crop(size=SIDE, margin=0.25)) for each in lumps]
    raw = _raw(np.stack(crops))
    return raw.mean(0), raw.std(0) + 1e-3


def _raw(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    model = _model()
    lesson = SeenLesson.of(
        model, crops, np.zeros(len(crops), np.int64), place(model, side=SIDE, precision="float32"), label_smoothing=0.0
    )
    return lesson.seen[0].float().numpy()


@cache
def _model() -> AttentionNet:
    model = build_model(Model(contrast="local"), task="node", classes=2, seed=0)
    load_weights(model, WEIGHTS)
    return model.eval()


def _busbra() -> tuple[list[Site], list[int], Site]:
    """The three devices' training patients, their nominal numbers, and all of their test patients together."""
    import tempfile

    from client.importers import import_site
    from client.service import site_crops
    from client.site import load_site
    from common.config import ImportOptions

    parts, nominal, tests = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for made in import_site("busbra", BUSBRA, Path(folder), options=ImportOptions()):
            site = load_site(made.folder)
            if site.role != "train":
                continue
            whole = Site(_features(site_crops(site, Crop(size=SIDE))), site.positive.astype(np.int64), site.patients)
            train, test = (np.isin(np.arange(len(site)), site.rows(side)) for side in ("train", "test"))
            parts.append(whole.only(train))
            nominal.append(len(np.unique(site.patients[train])))
            tests.append(Site(whole.features[test], whole.labels[test], whole.patients[test] + 10_000 * len(tests)))
    together = Site(
        *(np.concatenate([getattr(each, name) for each in tests]) for name in ("features", "labels", "patients"))
    )
    return parts, nominal, together


if __name__ == "__main__":
    print(table())

"""An audit of an experiment's privacy by attack: what could be proved against it, and what an attacker would see."""

from __future__ import annotations

__all__ = ["Audit", "Counts", "audit"]

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.precision import place
from client.private_gradients import Lesson, Unit, by_patient, noisy_mean
from client.site import Site
from common.config import Experiment, HospitalPrivacy, ImagePrivacy, NoPrivacy, PatientPrivacy
from common.entropy import Entropy
from common.errors import BadInput
from common.files import write_atomic, write_json
from common.privacy import Mechanism, delta_of
from common.randomness import derive, derive_seed
from simulation.audit.bound import lower_bound
from simulation.audit.canaries import plan_of, play
from simulation.audit.heads import LEAST, draw_pool, private_heads, resized, site_lesson
from simulation.audit.inversion import SIDE, STEPS, Inverted, invert, own_gradient, small_model
from simulation.audit.membership import Attack, Pool, attack, train_heads
from simulation.phantom.lump import draw_lump
from simulation.sources import open_sites

Say = Callable[[str, float], None]
FEWEST_CANARIES = 300


@dataclass(frozen=True)
class Counts:
    """How much work an audit is: canary patients and games, patients in the pool, steps of the inversion."""

    canaries: int = 1_000
    games: int = 5
    people: int = LEAST
    inversion: int = STEPS


@dataclass(frozen=True)
class Audit:
    """What was found. `bounds`: of each game, ε that the mechanism exceeds at confidence .95; it was made for
    `epsilon`.

    `membership` by whether heads trained with privacy (`asked`, ε or σ in words) or without.
    """

    name: str
    site: str
    epsilon: float
    delta: float
    canaries: int
    bounds: tuple[float, ...]
    noise_multiplier: float
    steps: int
    asked: str
    membership: dict[str, Attack]
    similarity: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether no game proves more than the mechanism was made for."""
        return max(self.bounds) < self.epsilon


def audit(
    experiment: Experiment, out: Path, *, epsilon: float = 1.0, counts: Counts | None = None, say: Say | None = None
) -> Audit:
    """Attack the experiment's mechanism, model and data three ways; writes OUT/audit.json and the page OUT/audit.html.

    The canaries' game is made for a small `epsilon`: what one run can prove ends near 4. BadInput where the experiment
    asks for no privacy of patients, has another task than two classes, or no site that trains.
    """
    from simulation.audit.page import write_page

    counts, say = counts or Counts(), say or _silent
    privacy = _patients(experiment)
    if len(experiment.task.classes) != 2:
        raise BadInput("the audit attacks models of two classes; this task has more")
    if counts.canaries < FEWEST_CANARIES:
        raise BadInput(f"--canaries must be {FEWEST_CANARIES} or more; fewer prove nothing")
    sites = open_sites(experiment)
    training = [site for site in sites.values() if site.role == "train"]
    if not training:
        raise BadInput("every site is held out; the audit needs one that trains")
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out}: not empty; choose another --out")
    games = _games(experiment, training[0], privacy, epsilon=epsilon, counts=counts, say=say)
    say("drawing the pool", 0.35)
    pool = draw_pool(experiment, list(sites.values()), people=counts.people)
    membership = _membership(pool, privacy, seed=experiment.seed, say=say)
    say("drawing images back from gradients", 0.7)
    truth, drawn = _inversion(privacy, games.mechanism, seed=experiment.seed, steps=counts.inversion)
    found = Audit(
        name=experiment.name,
        site=training[0].id,
        epsilon=epsilon,
        delta=games.delta,
        canaries=counts.canaries,
        bounds=games.bounds,
        noise_multiplier=games.mechanism.noise_multiplier,
        steps=games.steps,
        asked=_asked(privacy),
        membership=membership,
        similarity={name: each.similarity for name, each in drawn.items()},
    )
    write_json(out / "audit.json", asdict(found) | {"holds": found.holds})
    pictures = {"the image": truth} | {name: each.image for name, each in drawn.items()}
    write_atomic(out / "audit.html", write_page(found, pictures).encode())
    return found


def _silent(text: str, share: float) -> None:
    """Nobody listens."""


def _patients(experiment: Experiment) -> PatientPrivacy:
    match experiment.privacy:
        case PatientPrivacy() as privacy:
            return privacy
        case ImagePrivacy() | HospitalPrivacy() | NoPrivacy():
            raise BadInput("the audit is of patient-level privacy; set privacy.kind = 'patient' in the experiment")


def _asked(privacy: PatientPrivacy) -> str:
    return f"ε = {privacy.epsilon:g}" if privacy.epsilon is not None else f"σ = {privacy.noise_multiplier:g}"


@dataclass(frozen=True)
class _Games:
    bounds: tuple[float, ...]
    mechanism: Mechanism
    steps: int
    delta: float


def _games(
    experiment: Experiment, site: Site, privacy: PatientPrivacy, *, epsilon: float, counts: Counts, say: Say
) -> _Games:
    """Games over the heads of the site's own patients, each from fresh heads."""
    base, people = site_lesson(experiment, site)
    start = [parameter.detach().clone() for parameter in base.trained]
    patients = len(people) + counts.canaries // 2
    delta = delta_of(patients)
    images = privacy.images_per_patient
    made = Mechanism("patient", privacy.clip, 1.0, 0.5, 1.0, images, "head")
    mechanism, steps = plan_of(made, epsilon=epsilon, delta=delta, patients=patients)
    bounds = []
    for number in range(counts.games):
        say(f"canaries, game {number + 1} of {counts.games}", 0.35 * number / counts.games)
        with torch.no_grad():
            for parameter, before in zip(base.trained, start, strict=True):
                parameter.copy_(before)
        seed = derive_seed(experiment.seed, "canaries", number)
        played = play(base, people, mechanism, canaries=counts.canaries, steps=steps, seed=seed)
        bounds.append(lower_bound(played.scores, played.present, delta=delta))
    return _Games(tuple(bounds), mechanism, steps, delta)


def _membership(pool: Pool, privacy: PatientPrivacy, *, seed: int, say: Say) -> dict[str, Attack]:
    say("shadow models without privacy", 0.45)
    plain = attack(pool, lambda inside: train_heads(pool, inside), seed=seed)
    say("shadow models with privacy", 0.5)
    return {
        "without privacy": plain,
        "with privacy": attack(pool, lambda inside: private_heads(pool, inside, privacy), seed=seed),
    }


def _inversion(
    privacy: PatientPrivacy, mechanism: Mechanism, *, seed: int, steps: int
) -> tuple[NDArray[np.uint8], dict[str, Inverted]]:
    """A phantom's image, and what is drawn back from its gradient as it is, and clipped and noised by the mechanism."""
    lump = draw_lump(derive(seed, "inversion"))
    truth, label = resized(lump.image, SIDE), int(lump.signs.malignant)
    model = small_model(seed=seed)
    bare = own_gradient(model, truth, label)
    lesson = Lesson(model, truth[None], np.array([label]), place(model, side=SIDE, precision="float64"))
    clipped = by_patient(lesson, [Unit(np.array([0]), 0)], clip=privacy.clip)
    noisy = noisy_mean(clipped, noise_multiplier=mechanism.noise_multiplier, divisor=1.0, entropy=Entropy())
    released = {"without privacy": bare, "with privacy": noisy}
    return truth, {
        name: invert(model, each, label, truth=truth, seed=seed, steps=steps) for name, each in released.items()
    }

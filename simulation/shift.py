"""The shift cards of a comparison: both rounds of sums at every site, through the federated model's features.

The model is the federated one of the first seed that all training centers share, and the cases are those that it did
not learn from (val and test patients; every patient of a held-out site): features of learned cases lie elsewhere.

Here one process holds every site and there is no secret to keep, so multipliers come from the experiment's seed, and a
comparison gives the same bytes wherever its sites lie. A site that answers messages has multipliers of its own
(`client.multipliers`).
"""

from __future__ import annotations

__all__ = ["cards_of", "shift_cards"]

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from client.descriptors import describe
from client.features import pooled_features
from client.looks import lesion_margin
from client.service import site_crops
from client.shift import TOO_FEW, Patients, patients_of, shift_moments, shift_sums
from client.site import Site
from common.config import Experiment
from common.randomness import derive
from server.repairs import Repaired
from server.results import Row
from server.shift import make_reference
from server.shift_card import ShiftCard, make_cards
from simulation.models import finished_model
from simulation.plan import IN_FEDERATION, ModelPlan


def shift_cards(
    run: Path,
    plans: Sequence[ModelPlan],
    experiment: Experiment,
    sites: Mapping[str, Site],
    rows: Sequence[Row],
    *,
    repairs: Sequence[Repaired] = (),
) -> tuple[ShiftCard, ...]:
    """One card for each center, in the order of site ids; none where no federated model is shared by all.

    `repairs`: what was measured of them; the cards' advice names it.
    """
    plan = next(
        (p for p in plans if (p.arm, p.protocol, p.seed) == ("federated", IN_FEDERATION, experiment.seed)), None
    )
    if plan is None:
        return ()
    patients = {name: _patients(run, plan, experiment, site) for name, site in sorted(sites.items())}
    return cards_of(patients, experiment, sites, rows, repairs=repairs)


def cards_of(
    patients: Mapping[str, Patients],
    experiment: Experiment,
    sites: Mapping[str, Site],
    rows: Sequence[Row],
    *,
    repairs: Sequence[Repaired] = (),
) -> tuple[ShiftCard, ...]:
    """The cards from the centers' patients, in the order of `patients`."""
    task = experiment.task
    bare = {name: ShiftCard(name, len(found.classes), why="too-few") for name, found in patients.items()}
    enough = {name: found for name, found in patients.items() if len(found.classes) >= TOO_FEW}
    trainers = [name for name in enough if sites[name].role == "train"]
    if len(enough) < 2 or not trainers:
        return tuple(bare.values())
    moments = [shift_moments(found, classes=len(task.classes)) for found in enough.values()]
    if not (np.stack([one.counts for one in moments]) >= 2).all(axis=0).any():
        return tuple(bare.values())
    reference = make_reference(moments, seed=experiment.seed)
    sums = {
        name: shift_sums(found, reference, rng=derive(experiment.seed, "shift", "site", name))
        for name, found in enough.items()
    }
    cards = make_cards(
        sums,
        reference,
        rng=derive(experiment.seed, "shift", "server"),
        positive=task.positive_index,
        against=trainers,
        rows=rows,
        trained=trainers,
        repairs=repairs,
    )
    return tuple((bare | {card.site: card for card in cards}).values())


def _patients(run: Path, plan: ModelPlan, experiment: Experiment, site: Site) -> Patients:
    parts = ("val", "test") if site.role == "train" else ("train", "val", "test")
    rows = site.rows(*parts)
    crops = site_crops(site, experiment.crop)[rows]
    model = finished_model(run, plan, experiment)
    return patients_of(
        describe(crops, margin=lesion_margin(experiment.crop)),
        pooled_features(model, crops, precision=experiment.training.precision, seed=experiment.seed),
        labels=site.labels[rows],
        patients=site.patients[rows],
        positive=experiment.task.positive_index,
    )

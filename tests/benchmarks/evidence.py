"""How long a comparison's evidence takes once every case is scored."""

from __future__ import annotations

__all__ = ["evidence_seconds"]

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from scipy.special import expit
from threadpoolctl import threadpool_limits

from client.manifest import Policy
from client.shift import Patients, patients_of
from client.site import Site
from common.config import Comparison, Experiment, SiteAt
from common.files import write_atomic
from common.provenance import provenance
from common.shift import DESCRIPTORS
from common.tasks import Task
from server.report import write_report
from server.results import write_results
from server.run import config_text, resolved
from simulation.compare import fixed_budget
from simulation.evidence import assemble
from simulation.plan import ModelPlan, plan_models
from simulation.shift import cards_of
from tests.benchmarks.rows import Row

SITES, IMAGES, FEATURES = 5, 10_000, 64
TASK = Task("lump", ("benign", "malignant"), "malignant")


def evidence_seconds() -> Row:
    """3 arms × 5 centers × 10,000 images, both protocols, to results.json and report.html; the shift panel counts.

    Seconds of processor time with one thread in each library, as on one core, so that what else runs on the machine, or
    waits for its disk, does not count; threads that wait for each other would.
    """
    with threadpool_limits(1):
        return _measured()


def _measured() -> Row:
    rng = np.random.default_rng(0)
    sites = {f"site-{number}": _site(f"site-{number}", rng) for number in range(SITES)}
    experiment = fixed_budget(
        Experiment(
            name="evidence",
            task=TASK,
            sites=tuple(SiteAt(name) for name in sites),
            comparison=Comparison(arms=("federated", "pooled", "local")),
        ),
        sites,
    )
    plans = plan_models(experiment, list(sites))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        text = config_text(resolved(experiment, dict.fromkeys(sites, "train")))
        write_atomic(run / "config.toml", text)
        for plan in plans:
            _score(run, plan, sites, rng)
        images = {name: _images(site, rng) for name, site in sites.items()}
        began, wall = time.process_time(), time.perf_counter()
        evidence = assemble(run, plans, experiment, sites)
        patients = {name: _patients(sites[name], *values) for name, values in images.items()}
        write_results(
            run,
            config={},
            budget={},
            provenance=provenance(threads=1, data={}),
            rows=evidence.rows,
            contrasts=evidence.contrasts,
            shift=cards_of(patients, experiment, sites, evidence.rows),
            subgroups=evidence.subgroups,
        )
        write_report(run)
        seconds, wall = time.process_time() - began, time.perf_counter() - wall
    what = (
        f"3 arms, {SITES} centers of {IMAGES} images, {FEATURES}-d features, {len(plans)} models, both protocols; "
        f"{wall:.1f} s by the clock"
    )
    return Row("evidence-seconds", seconds, seconds, 10, "s", what)


def _site(name: str, rng: np.random.Generator) -> Site:
    """Some 3 images a patient, all of whom have one label, by thirds in train, val and test."""
    patients = np.repeat(np.arange(IMAGES), rng.integers(1, 6, IMAGES))[:IMAGES]
    count = int(patients[-1]) + 1
    labels = (rng.random(count) < 0.4).astype(np.int64)[patients]
    devices = rng.choice(["first", "second", "third"], count)[patients]
    return Site(
        folder=Path(name),
        id=name,
        task=TASK,
        role="train",
        nominal_patients=count,
        split_seed=0,
        artificial=False,
        policy=Policy(),
        images=("",) * IMAGES,
        masks=(None,) * IMAGES,
        boxes=(None,) * IMAGES,
        image_sha256=("",) * IMAGES,
        mask_sha256=(None,) * IMAGES,
        labels=labels,
        positive=labels == 1,
        patients=patients,
        pseudonyms=tuple(f"{name}-{number}" for number in range(count)),
        splits=tuple(("train", "val", "test")[n % 3] for n in patients),
        devices=tuple(devices.tolist()),
        covariates=MappingProxyType({}),
        spacings=(None,) * IMAGES,
        data_sha256="",
    )


def _score(run: Path, plan: ModelPlan, sites: Mapping[str, Site], rng: np.random.Generator) -> None:
    folder = run / "models" / plan.name / "scores"
    folder.mkdir(parents=True)
    for name, site in sites.items():
        p = expit(
            rng.standard_normal(len(site.pseudonyms))[site.patients] + rng.standard_normal(len(site)) + site.positive
        )
        np.save(folder / f"{name}.npy", np.stack([1 - p, p], axis=1))


def _images(site: Site, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((len(site), len(DESCRIPTORS))), rng.standard_normal((len(site), FEATURES))


def _patients(site: Site, descriptors: np.ndarray, features: np.ndarray) -> Patients:
    return patients_of(descriptors, features, labels=site.labels, patients=site.patients, positive=1)

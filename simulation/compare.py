"""The comparison: federated, pooled, local and ensemble, on the same cases, under both protocols,
with several seeds.
"""

from __future__ import annotations

__all__ = ["compare", "fixed_budget"]

import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from client.appearance import appearance
from client.service import site_crops, use_threads
from client.site import Site, require_declared
from common.config import Experiment
from common.errors import BadInput
from common.files import claimed, write_atomic
from common.masks import SMALLEST_ROSTER
from common.progress import Progress
from common.provenance import provenance
from server.budget import check_budget, total_steps
from server.model_card import write_model_card
from server.private_rounds import check_mechanism, is_private, private_samples, private_steps_total
from server.records import Records, read_records
from server.report import write_report
from server.results import write_results
from server.run import config_text, resolved
from server.spending import spending
from simulation.evidence import assemble
from simulation.pictures import draw_pictures
from simulation.plan import ModelPlan, plan_models
from simulation.repairs import repairs
from simulation.shift import shift_cards
from simulation.sources import open_sites
from simulation.workers import train_all


def compare(experiment: Experiment, run: Path, *, insecure_demo: bool = False) -> Path:
    """Train every model that is not there yet, then write tables, pictures and the report; returns the report's path.

    Goes on from what is finished where the folder's configuration equals this one, else BadInput. `insecure_demo` seeds
    the draws of private training.
    """
    sites = open_sites(experiment)
    experiment = fixed_budget(experiment, sites)
    text = config_text(resolved(experiment, {name: site.role for name, site in sites.items()}))
    plans = plan_models(experiment, _trainers(experiment, sites))
    _check_secure(experiment, plans)
    use_threads(experiment.threads)
    with _claimed(run, text, sites):
        _decode(sites, experiment)
        train_all(run, plans, experiment, sites, insecure_demo=insecure_demo)
        _describe_sites(run, experiment, sites)
        _merge_records(run, plans)
        about = provenance(
            threads=experiment.threads,
            data={name: site.data_sha256 for name, site in sites.items()},
            artificial_sites=[name for name, site in sites.items() if site.artificial],
        )
        evidence = assemble(run, plans, experiment, sites)
        draw_pictures(run, plans, experiment, sites)
        mended = repairs(run, plans, experiment, sites)
        write_results(
            run,
            config=tomllib.loads(text.decode()),
            budget=_budget(experiment, plans),
            provenance=about,
            rows=evidence.rows,
            contrasts=evidence.contrasts,
            shift=shift_cards(run, plans, experiment, sites, evidence.rows, repairs=mended),
            subgroups=evidence.subgroups,
            repairs=mended,
            privacy=spending(read_records(run / "records.jsonl"), experiment),
        )
        write_model_card(run)
        return write_report(run)


def _trainers(experiment: Experiment, sites: Mapping[str, Site]) -> list[str]:
    """The sites that train; BadInput where there is none, or the budget is too small for all of them."""
    images = {name: len(site.rows("train")) for name, site in sites.items() if site.role == "train"}
    if not images:
        raise BadInput("every site is held out; at least one must train")
    training = experiment.training
    if is_private(experiment.privacy):
        patients = {name: sites[name].nominal_patients for name in images}
        for name, count in patients.items():
            require_declared(sites[name])
            check_mechanism(experiment.privacy, name, count)
        check_budget(training, images=patients, steps=training.steps or 1)
    else:
        check_budget(training, images=images, steps=total_steps(training, images=sum(images.values())))
    return list(images)


def _check_secure(experiment: Experiment, plans: list[ModelPlan]) -> None:
    """BadInput where secure sums are asked for and a federated model has too few sites to hide one in a total."""
    fewest = min((len(plan.trained_on) for plan in plans if plan.arm == "federated"), default=SMALLEST_ROSTER)
    if experiment.evaluation.secure and fewest < SMALLEST_ROSTER:
        raise BadInput(
            f"evaluation.secure: a federated model of this comparison has {fewest} training sites, too few to hide one "
            f"in a total; set it to false, or have {SMALLEST_ROSTER} or more for every model"
        )


def fixed_budget(experiment: Experiment, sites: Mapping[str, Site]) -> Experiment:
    """The budget as steps, counted on the train parts of all training sites, so that it is the same for every arm.

    With privacy it is counted on nominal patients, and the arms without privacy make as many steps.
    """
    images = sum(len(site.rows("train")) for site in sites.values() if site.role == "train")
    if experiment.training.full_batch:
        return experiment
    if is_private(experiment.privacy):
        patients = {name: site.nominal_patients for name, site in sites.items() if site.role == "train"}
        steps = private_steps_total(experiment.training, experiment.privacy, patients)
    else:
        steps = total_steps(experiment.training, images=images)
    return replace(experiment, training=replace(experiment.training, steps=steps, epochs=None))


def _budget(experiment: Experiment, plans: list[ModelPlan]) -> dict[str, object]:
    """Sample gradients per final model, and in all by arm; the ensemble costs what its local models cost together.

    With full batches they are None: models of more images then cost more.
    """
    training, arms = experiment.training, experiment.comparison.arms
    counts = {arm: sum(plan.arm == arm for plan in plans) for arm in ("federated", "pooled", "local")}
    steps = training.rounds if training.full_batch or training.steps is None else training.steps
    each = None if training.full_batch else steps * training.batch_size
    per_arm = {arm: each and each * counts["local" if arm == "ensemble" else arm] for arm in arms}
    if is_private(experiment.privacy) and "federated" in per_arm:
        per_arm["federated"] = private_samples(experiment.privacy, steps=steps) * counts["federated"]
    return {
        "sample_gradients": each,
        "steps": steps,
        "batch_size": training.batch_size,
        "models": counts,
        "per_arm": per_arm,
    }


@contextmanager
def _claimed(run: Path, text: bytes, sites: Mapping[str, Site]) -> Iterator[None]:
    """The run folder for this process alone, with its configuration written or found equal."""
    data = json.dumps({name: site.data_sha256 for name, site in sites.items()}, indent=1).encode()
    _check_same(run, text, data)
    busy = f"{run}: another process works in this folder; wait for it or choose another --out"
    with claimed(run / ".lock", complaint=busy):
        _check_same(run, text, data)
        write_atomic(run / "config.toml", text)
        write_atomic(run / "data.json", data)
        yield


def _check_same(run: Path, text: bytes, data: bytes) -> None:
    """Raise BadInput unless the folder is new, empty, or a comparison of this configuration and these data."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"{run}: a file, not a folder; choose another --out")
    there = {path.name for path in run.iterdir() if not path.name.startswith(".")} if run.exists() else set()
    for name, content, what in (("config.toml", text, "configuration"), ("data.json", data, "data")):
        path = run / name
        if path.exists() and path.read_bytes() != content:
            raise BadInput(f"{run}: was made with another {what}; choose another --out")
        if not path.exists() and there - {"config.toml"}:
            raise BadInput(f"{run}: not empty, and no comparison; choose another --out")


def _decode(sites: Mapping[str, Site], experiment: Experiment) -> None:
    """Fill each site's cache once, before several processes read it."""
    with Progress("decoding images", total=len(sites)) as progress:
        for done, site in enumerate(sites.values(), start=1):
            site_crops(site, experiment.crop)
            progress.update(done, note=site.id)


def _merge_records(run: Path, plans: list[ModelPlan]) -> None:
    """`records.jsonl` of the comparison: the appearance of each center, then every model's own events."""
    own = run / "appearance.jsonl"
    lines = own.read_text(encoding="utf-8") if own.exists() else ""
    for plan in plans:
        path = run / "models" / plan.name / "records.jsonl"
        lines += "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in read_records(path))
    write_atomic(run / "records.jsonl", lines.encode())


def _describe_sites(run: Path, experiment: Experiment, sites: Mapping[str, Site]) -> None:
    """What each center's crops look like, as events."""
    own = run / "appearance.jsonl"
    own.unlink(missing_ok=True)
    records = Records(own)
    for name, site in sites.items():
        seen = appearance(site_crops(site, experiment.crop))
        records.add(
            "appearance", site=name, n_images=seen.n_images, histogram=seen.histogram, descriptors=seen.descriptors
        )

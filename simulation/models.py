"""Train one model of a comparison and score the cases that its protocol needs; everything lands in its own folder.

RUN/models/federated/without-tal/seed-0/
├── config.toml, records.jsonl, checkpoints/   as in any federated run
├── model.safetensors                          the final model
├── scores/<site>.npy                          (N, K) float64; rows that no protocol needs are NaN
└── done.json                                  present exactly when everything above is whole
"""

from __future__ import annotations

__all__ = ["DONE", "Centre", "finished_model", "read_scores", "scored_rows", "train_model"]

import io
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.evaluation import score_as
from client.service import site_crops, use_threads
from client.site import Site
from client.training import TrainingData, train
from common.config import Experiment
from common.errors import RunFailed
from common.files import write_atomic, write_json
from common.model import AttentionNet, build_model
from common.randomness import derive
from common.update import Weights
from common.weights import TailAverage, get_weights, load, save, set_weights
from server.budget import round_budgets, total_steps
from server.records import Records
from server.run import MODEL, config_text, initial_weights, prepare_run, resolved
from simulation.plan import LEAVE_ONE_OUT, ModelPlan

DONE = "done.json"


def train_model(
    run: Path, plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site], *, insecure_demo: bool = False
) -> None:
    """Train `plan`'s model unless its folder says it is done; a federated one continues from its last checkpoint.

    Only the federated arm trains with the privacy that the experiment asks for: other arms' models leave no hospital,
    or are the yardstick that could not be had.
    """
    folder = run / "models" / plan.name
    if (folder / DONE).exists():
        return
    use_threads(experiment.threads)
    began = time.monotonic()
    mine = replace(
        experiment,
        seed=plan.seed,
        protocol=plan.protocol,
        held_out=tuple(sorted(site for site in sites if site not in plan.trained_on)),
    )
    match plan.arm:
        case "federated":
            _train_federated(folder, plan, mine, sites, insecure_demo=insecure_demo)
        case "pooled" | "local":
            _train_centrally(folder, plan, mine, sites)
    _score(run, plan, mine, sites)
    for spent in (folder / "checkpoints", *folder.glob("ledgers/*/state/answers")):
        shutil.rmtree(spent, ignore_errors=True)
    seconds = round(time.monotonic() - began, 3)
    Records(folder / "records.jsonl").add(
        "model",
        run=plan.name,
        arm=plan.arm,
        seed=plan.seed,
        trained_on=plan.trained_on,
        protocol=plan.protocol,
        seconds=seconds,
    )
    write_json(folder / DONE, {"model": plan.name})


def _train_federated(
    folder: Path, plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site], *, insecure_demo: bool
) -> None:
    """Private training keeps a ledger of its own for each model: a comparison trains the same patients many times."""
    from client.app import app as client_app
    from server.app import app as server_app
    from simulation.grid import run_locally

    here = {
        name: site for name, site in sites.items() if name in plan.trained_on or name == plan.held_out or _watched(site)
    }
    about = resolved(experiment, {name: "train" if name in plan.trained_on else "held-out" for name in here})
    about = replace(about, held_out=())
    prepare_run(folder, about, initial_weights(experiment), resume=True)
    options: dict[str, str | int | float | bool] = {
        "run-folder": str(folder.resolve()),
        "run": plan.name,
        "final": False,
    }
    folders, ledgers = [site.folder.resolve() for site in here.values()], (folder / "ledgers").resolve()
    try:
        run_locally(server_app, client_app, folders, options, ledgers=ledgers, insecure_demo=insecure_demo)
    finally:
        failures = [event for event in _events(folder) if event["event"] == "failure"]
        if failures:  # a model that lacks a site must not be continued once the site is well again
            shutil.rmtree(folder)
            raise RunFailed(f"{plan.name}: site {failures[0]['site']} failed: {failures[0]['why']}") from None


def _watched(site: Site) -> bool:
    return site.role == "held-out"


def _events(folder: Path) -> list[dict[str, str]]:
    from server.records import read_records

    return read_records(folder / "records.jsonl")


@dataclass(frozen=True)
class Centre:
    """All training images of a central arm, laid end to end in the order of site ids."""

    data: TrainingData
    val: TrainingData

    @classmethod
    def of(cls, plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site]) -> Centre:
        """What the plan's centers give to training and to validation under its protocol."""
        parts = ("train", "test") if plan.protocol == LEAVE_ONE_OUT else ("train",)
        return cls(_gathered(plan, experiment, sites, parts), _gathered(plan, experiment, sites, ("val",)))


def _gathered(
    plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site], parts: tuple[str, ...]
) -> TrainingData:
    members = [sites[name] for name in sorted(plan.trained_on)]
    rows = [site.rows(*parts) for site in members]
    crops = np.concatenate([site_crops(site, experiment.crop)[r] for site, r in zip(members, rows, strict=True)])
    labels = np.concatenate([site.labels[r] for site, r in zip(members, rows, strict=True)])
    return TrainingData(crops=crops, labels=labels, classes=len(experiment.task.classes))


def _train_centrally(folder: Path, plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site]) -> None:
    """Pooled and local training: the federated budget and schedule, one optimizer kept over all of its segments.

    A killed model starts again: it is deterministic, so the bytes are the same.
    """
    shutil.rmtree(folder, ignore_errors=True)
    write_atomic(folder / "config.toml", config_text(resolved(experiment, dict.fromkeys(plan.trained_on, "train"))))
    records = Records(folder / "records.jsonl")
    centre = Centre.of(plan, experiment, sites)
    training = experiment.training
    model = _with_weights(experiment, initial_weights(experiment))
    chosen = _Chosen(experiment)
    optimizer = None
    budgets = round_budgets(training.rounds, total_steps(training, images=len(centre.data.labels)))
    for budget in budgets:
        began = time.monotonic()
        trained = train(
            model,
            centre.data,
            training,
            steps=budget.steps,
            progress=budget.progress,
            rng=derive(plan.seed, plan.arm, *plan.trained_on, "round", budget.number),
            optimizer=optimizer,
        )
        optimizer = trained.optimizer
        chosen.add(budget.number, get_weights(model), model, centre.val, records, plan)
        seconds = round(time.monotonic() - began, 3)
        about = {"seconds": seconds, "loss": trained.loss, "samples": trained.samples}
        records.add("round", run=plan.name, round=budget.number, **about)
    save(folder / MODEL, chosen.weights())


class _Chosen:
    """The same choice of the final model as in the federated loop: the tail's mean, or the lowest validation loss."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.tail = TailAverage(experiment.training.rounds, experiment.training.average)
        self.last: Weights = {}
        self.best: tuple[float, Weights] | None = None

    def add(
        self, number: int, weights: Weights, model: AttentionNet, val: TrainingData, records: Records, plan: ModelPlan
    ) -> None:
        """Take in the model after a segment; validate it where the schedule says so."""
        self.last = weights
        self.tail.add(number, weights)
        evaluation = self.experiment.evaluation
        if number % evaluation.every and number != self.experiment.training.rounds:
            return
        loss, auc = _validation(model, val, self.experiment)
        records.add(
            "evaluation", run=plan.name, round=number, site="+".join(plan.trained_on), part="val", held_out=False,
            loss=loss, auc=auc, n_images=len(val.labels),
        )  # fmt: skip
        if loss is not None and evaluation.select == "best" and (self.best is None or loss < self.best[0]):
            self.best = (loss, weights)

    def weights(self) -> Weights:
        """The final model."""
        if self.experiment.evaluation.select == "best" and self.best is not None:
            return self.best[1]
        return self.tail.mean(self.last)


def _validation(model: AttentionNet, val: TrainingData, experiment: Experiment) -> tuple[float | None, float | None]:
    from client.measures import log_loss
    from common.auc import auc

    if not len(val.labels):
        return None, None
    scores = score_as(experiment.evaluation, precision=experiment.training.precision)(model, val.crops)
    positive = experiment.task.positive_index
    return log_loss(val.labels, scores), auc(val.labels == positive, scores[:, positive])


def scored_rows(plan: ModelPlan, site: Site) -> NDArray[np.int64]:
    """Which cases of a site this model must score: val and, in-federation, test of its own; every case elsewhere."""
    if site.id not in plan.trained_on:
        return np.arange(len(site))
    return site.rows("val") if plan.protocol == LEAVE_ONE_OUT else site.rows("val", "test")


def _score(run: Path, plan: ModelPlan, experiment: Experiment, sites: Mapping[str, Site]) -> None:
    model = finished_model(run, plan, experiment)
    score = score_as(experiment.evaluation, precision=experiment.training.precision)
    for name, site in sites.items():
        rows = scored_rows(plan, site)
        scores = np.full((len(site), len(experiment.task.classes)), np.nan)
        if len(rows):
            scores[rows] = score(model, site_crops(site, experiment.crop)[rows])
        buffer = io.BytesIO()
        np.save(buffer, scores, allow_pickle=False)
        write_atomic(run / "models" / plan.name / "scores" / f"{name}.npy", buffer.getvalue())


def finished_model(run: Path, plan: ModelPlan, experiment: Experiment) -> AttentionNet:
    """The model that `train_model` stored for `plan`."""
    return _with_weights(experiment, load(run / "models" / plan.name / MODEL))


def _with_weights(experiment: Experiment, weights: Weights) -> AttentionNet:
    task = experiment.task
    model = build_model(experiment.model, task=task.name, classes=len(task.classes), seed=0)
    if experiment.training.precision == "float64":
        model.double()
    set_weights(model, weights)
    return model


def read_scores(run: Path, plan: ModelPlan, site: str) -> NDArray[np.float64]:
    """The scores (N, K) that `train_model` stored."""
    scores: NDArray[np.float64] = np.load(run / "models" / plan.name / "scores" / f"{site}.npy", allow_pickle=False)
    return scores

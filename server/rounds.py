"""The round loop: ask the sites to train, add what they send, step, store, evaluate.

Flower's own loop can neither resume nor fail honestly, so this one is ours; it knows no Flower, only a `Federation`.
"""

from __future__ import annotations

__all__ = ["Evaluated", "Federation", "Outcome", "Roster", "Trained", "run_rounds"]

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from common.config import Experiment, HospitalPrivacy
from common.errors import BadInput, RunFailed
from common.masks import SMALLEST_ROSTER
from common.orders import EvaluateOrder, EvaluateReport, Part, SiteCard, Stage, TrainOrder, TrainReport
from common.private_orders import PrivateReport
from common.update import Weights, apply_change
from common.weights import TailAverage
from server.budget import RoundBudget, apportion, check_budget, round_budgets, total_steps
from server.checkpoints import State, latest, store
from server.heads import KnownHeads
from server.hospital_noise import require_enough
from server.private_rounds import PrivateRun, check_mechanism, is_private, private_steps_total
from server.records import Records
from server.secure_sums import Exchange


@dataclass(frozen=True)
class Trained:
    """A round's combined change of the weights (None: nobody trained), reports by site, and why others gave none."""

    change: Weights | None
    reports: Mapping[str, TrainReport]
    failures: Mapping[str, str]
    sent_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """The sites' evaluation reports, and why others gave none."""

    reports: Mapping[str, EvaluateReport]
    failures: Mapping[str, str]


class Federation(Protocol):
    """The sites, however they are reached."""

    def train(self, round_number: int, orders: Mapping[str, TrainOrder], weights: Weights) -> Trained: ...

    def evaluate(self, round_number: int, orders: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated: ...

    def exchange(self, order: EvaluateOrder, weights: Weights) -> Exchange: ...


@dataclass(frozen=True)
class Roster:
    """Who takes part: sites that train, and sites that only evaluate."""

    train: Mapping[str, SiteCard]
    held_out: Mapping[str, SiteCard]

    @classmethod
    def of(cls, cards: Mapping[str, SiteCard], experiment: Experiment) -> Roster:
        """Sort the sites by role; BadInput where nobody trains, an id is unknown, or a site answers another task."""
        unknown = set(experiment.held_out) - cards.keys()
        if unknown:
            raise BadInput(f"held_out: no site is called {min(unknown)}; known are {', '.join(sorted(cards))}")
        for site, card in sorted(cards.items()):
            if card.task != experiment.task:
                raise BadInput(
                    f"site {site}: its task is {card.task.name} {list(card.task.classes)} "
                    f"(positive {card.task.positive}), the experiment's {experiment.task.name} "
                    f"{list(experiment.task.classes)} (positive {experiment.task.positive}); make them equal"
                )
        held = {s for s, c in cards.items() if c.role == "held-out" or s in experiment.held_out}
        roster = cls(
            {s: cards[s] for s in sorted(cards) if s not in held}, {s: cards[s] for s in sorted(cards) if s in held}
        )
        if not roster.train:
            raise BadInput("every site is held out; at least one must train")
        if experiment.evaluation.secure and len(roster.train) < SMALLEST_ROSTER:
            raise BadInput(
                f"evaluation.secure: {len(roster.train)} training sites are too few to hide one in a total; "
                f"set it to false, or train on {SMALLEST_ROSTER} or more"
            )
        if isinstance(experiment.privacy, HospitalPrivacy):
            require_enough(experiment.privacy, sites=len(roster.train), rounds=experiment.training.rounds)
        if experiment.protocol == "leave-one-center-out" and not roster.held_out:
            raise BadInput("protocol: leave-one-center-out needs a site that is held out; name one in held_out")
        return roster

    def without(self, lost: Collection[str]) -> Roster:
        """Without the sites that failed in this round: a lost or late one would only let everybody wait once more."""
        return Roster({s: c for s, c in self.train.items() if s not in lost}, self.held_out)


@dataclass(frozen=True)
class Outcome:
    """The final model, the steps it took, and the sites that ever failed with their last reason."""

    weights: Weights
    steps: int
    failures: Mapping[str, str]


def training_parts(experiment: Experiment) -> tuple[Part, ...]:
    """Which of its patients a training center gives to training."""
    return ("train",) if experiment.protocol == "in-federation" else ("train", "test")


def training_sizes(roster: Roster, experiment: Experiment) -> dict[str, int]:
    """By what each training center's share of the steps is measured: its training images, or, where training is
    private, its nominal number of patients, since nothing may follow from the true one.
    """
    if is_private(experiment.privacy):
        return {site: card.patients for site, card in roster.train.items()}
    parts = training_parts(experiment)
    return {site: sum(card.images.get(part, 0) for part in parts) for site, card in roster.train.items()}


def checked_steps(roster: Roster, experiment: Experiment) -> int:
    """Optimizer steps of the final model; BadInput where they are too few for the rounds and sites."""
    sizes, privacy = training_sizes(roster, experiment), experiment.privacy
    if is_private(privacy):
        steps = private_steps_total(experiment.training, privacy, sizes)
    else:
        _require_counts(roster)
        images = sum(card.images.get("train", 0) for card in roster.train.values())
        steps = total_steps(experiment.training, images=images)
    check_budget(experiment.training, images=sizes, steps=steps)
    return steps


def _require_counts(roster: Roster) -> None:
    if quiet := [site for site, card in roster.train.items() if not card.images]:
        raise BadInput(
            f"site {quiet[0]}: its policy requires privacy; set privacy.kind = 'patient' in the experiment, or leave "
            "it out"
        )


def run_rounds(
    federation: Federation,
    roster: Roster,
    experiment: Experiment,
    *,
    run: str,
    folder: Path,
    identity: str,
    records: Records,
    heads: KnownHeads | None = None,
) -> Outcome:
    """Train over all rounds that are left after the last whole checkpoint in `folder` (round 0: the initial weights).

    BadInput where the budget is too small for the sites, RunFailed where no site trained in a round. `identity` names
    the configuration that a checkpoint belongs to; `heads` are those of the sites' ledgers (default: a file beside
    `folder`).
    """
    training = experiment.training
    steps = checked_steps(roster, experiment)
    tail = TailAverage(training.rounds, training.average)
    state = latest(folder, identity=identity, tail=tail)
    _check_data(roster, state)
    heads = heads or KnownHeads(folder.parent / "ledger-heads.json")
    private = _private(roster, experiment, state, heads)
    failures: dict[str, str] = {}
    if records.continued:
        records.add("resumed", run=run, round=state.round)
    for budget in round_budgets(training.rounds, steps)[state.round :]:
        began = time.monotonic()
        orders = _train_orders(roster, experiment, budget, run=run, private=private)
        trained = federation.train(budget.number, orders, state.weights)
        _record_training(records, run, budget.number, trained)
        for site, report in trained.reports.items():
            if report.private:
                heads.learn(site, report.private.head)
        failures |= trained.failures
        if trained.change is None:
            raise RunFailed(f"round {budget.number}: no site trained: {_listed(trained.failures)}")
        state.weights = apply_change(state.weights, trained.change)
        state.round = budget.number
        state.contributors = sorted({*state.contributors, *trained.reports})
        state.tail.add(budget.number, state.weights)
        if budget.number % experiment.evaluation.every == 0 or budget.number == training.rounds:
            there = roster.without(trained.failures)
            failures |= _validate(federation, there, experiment, state, run=run, records=records)
        seconds = round(time.monotonic() - began, 3)
        records.add("round", run=run, round=budget.number, seconds=seconds, loss=_mean_loss(trained))
        store(folder, state, identity=identity)
    chosen = state.best if experiment.evaluation.select == "best" and state.best is not None else None
    return Outcome(chosen if chosen is not None else state.tail.mean(state.weights), steps, failures)


def check_private(roster: Roster, experiment: Experiment) -> None:
    """Raise BadInput where a training site is too small for the privacy that is asked for."""
    if is_private(experiment.privacy):
        for site, patients in training_sizes(roster, experiment).items():
            check_mechanism(experiment.privacy, site, patients)


def _private(roster: Roster, experiment: Experiment, state: State, heads: KnownHeads) -> PrivateRun | None:
    if not is_private(experiment.privacy):
        return None
    name = f"{experiment.name}-{state.token}"
    return PrivateRun.of(experiment, training_sizes(roster, experiment), name=name, heads=heads)


def _check_data(roster: Roster, state: State) -> None:
    """The sites' data are what earlier rounds learned from; BadInput where one has changed since."""
    now = {site: card.data_sha256 for site, card in roster.train.items()}
    for site, was in sorted(state.data.items()):
        if site in now and now[site] != was:
            raise BadInput(
                f"site {site}: its data changed since round {state.round}, so the run cannot go on as it began; "
                "restore the site folder, or start again with another --out"
            )
    state.data = {**state.data, **now}


def _train_orders(
    roster: Roster, experiment: Experiment, budget: RoundBudget, *, run: str, private: PrivateRun | None
) -> dict[str, TrainOrder]:
    sizes = training_sizes(roster, experiment)
    full = experiment.training.full_batch
    shares = dict.fromkeys(sizes, 1) if full else apportion(budget.steps, sizes)
    return {
        site: TrainOrder(
            run=run,
            round=budget.number,
            seed=experiment.seed,
            threads=experiment.threads,
            steps=share,
            progress=budget.progress,
            parts=training_parts(experiment),
            task=experiment.task,
            crop=experiment.crop,
            model=experiment.model,
            training=experiment.training,
            strategy=experiment.strategy,
            private=private.order(site) if private else None,
        )
        for site, share in shares.items()
    }


def evaluate_order(
    experiment: Experiment,
    parts: dict[str, tuple[Part, ...]],
    *,
    run: str,
    round_number: int,
    threshold: float | None = None,
    stage: Stage = "progress",
) -> EvaluateOrder:
    """The order to score `parts`."""
    return EvaluateOrder(
        run=run,
        round=round_number,
        threads=experiment.threads,
        parts=parts,
        task=experiment.task,
        crop=experiment.crop,
        model=experiment.model,
        training=experiment.training,
        evaluation=experiment.evaluation,
        threshold=threshold,
        stage=stage,
    )


def _validate(
    federation: Federation, roster: Roster, experiment: Experiment, state: State, *, run: str, records: Records
) -> Mapping[str, str]:
    """Evaluate for the curves; only the training centers' val patients choose the model."""
    val = evaluate_order(experiment, {"val": ("val",)}, run=run, round_number=state.round)
    everything = evaluate_order(experiment, {"test": ("train", "val", "test")}, run=run, round_number=state.round)
    orders = dict.fromkeys(roster.train, val) | dict.fromkeys(roster.held_out, everything)
    evaluated = federation.evaluate(state.round, orders, state.weights)
    total, images = 0.0, 0
    for site, report in sorted(evaluated.reports.items()):
        held_out = site in roster.held_out
        for part, result in report.parts.items():
            records.add(
                "evaluation",
                run=run,
                round=state.round,
                site=site,
                part=part,
                held_out=held_out,
                loss=result.loss,
                auc=result.auc,
                n_images=result.n_images,
            )
            if part == "val" and not held_out and result.loss is not None and result.n_images is not None:
                total, images = total + result.loss * result.n_images, images + result.n_images
    if images:
        if state.best_loss is None or total / images < state.best_loss:
            state.best = state.weights if experiment.evaluation.select == "best" else None
        state.validation.append((state.round, total / images))
    _record_failures(records, run, state.round, evaluated.failures)
    return evaluated.failures


def _record_training(records: Records, run: str, round_number: int, trained: Trained) -> None:
    for site, report in sorted(trained.reports.items()):
        records.add(
            "train",
            run=run,
            round=round_number,
            site=site,
            seconds=report.seconds,
            bytes=trained.sent_bytes.get(site),
            norm=report.norm,
            loss=report.loss,
            samples=report.samples,
            **({"privacy": _told(report.private)} if report.private else {}),
        )
    _record_failures(records, run, round_number, trained.failures)


def _told(private: PrivateReport) -> dict[str, Any]:
    """What a site says of its spending, for the records: ε is all that its patients ever paid."""
    return {
        "epsilon": private.epsilon,
        "cap": private.cap,
        "delta": private.delta,
        "plan": asdict(private.plan),
        "ledger": private.head.length,
        "again": private.again,
        "insecure_demo": private.insecure_demo,
    }


def _record_failures(records: Records, run: str, round_number: int, failures: Mapping[str, str]) -> None:
    for site, why in sorted(failures.items()):
        records.add("failure", run=run, round=round_number, site=site, why=why)


def _mean_loss(trained: Trained) -> float | None:
    """None where a site keeps its loss to itself."""
    weight = sum(report.weight for report in trained.reports.values())
    losses = [(report.loss, report.weight) for report in trained.reports.values() if report.loss is not None]
    return sum(loss * w for loss, w in losses) / weight if len(losses) == len(trained.reports) else None


def _listed(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{site}: {why}" for site, why in sorted(failures.items())) or "no site was asked"

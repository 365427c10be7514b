"""The last evaluation of a federated run: lock the threshold, ask every site, write `results.json`. Sums only."""

from __future__ import annotations

__all__ = ["evaluate_finally"]

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path

from common.config import Experiment
from common.errors import RunFailed
from common.evaluation_blocks import evaluation_directory, evaluation_sums
from common.metrics import EvaluationSums
from common.observed import ObservedExpected
from common.orders import EvaluateOrder, Part, PartReport
from common.provenance import provenance
from common.sums_orders import named_by_model
from common.update import Weights
from common.weights import fingerprint
from server.budget import sample_gradients
from server.private_rounds import is_private, private_samples
from server.records import Records, read_records
from server.results import Row, write_results
from server.rounds import Evaluated, Federation, Outcome, Roster, evaluate_order, training_sizes
from server.secure_sums import secure_totals
from server.spending import spending

_EVERY: tuple[Part, ...] = ("train", "val", "test")


def evaluate_finally(
    federation: Federation,
    roster: Roster,
    experiment: Experiment,
    outcome: Outcome,
    *,
    run: str,
    folder: Path,
    records: Records,
) -> None:
    """Two messages to each site: val sums for the threshold, then the test cases at that threshold.

    Under leave-one-center-out the training centers' test patients have trained, so only held-out centers are tested.
    """
    last = experiment.training.rounds
    val = evaluate_order(experiment, {"val": ("val",)}, run=run, round_number=last)
    validated, failures = _validated(federation, val, roster.train, outcome.weights)
    threshold = validated.histogram.threshold_at(experiment.evaluation.sensitivity)
    own = evaluate_order(experiment, {"test": ("test",)}, run=run, round_number=last, threshold=threshold)
    whole = evaluate_order(experiment, {"test": _EVERY}, run=run, round_number=last, threshold=threshold)
    orders = dict.fromkeys(roster.held_out, whole)
    if experiment.protocol == "in-federation":
        orders |= dict.fromkeys(roster.train, own)
    evaluated = federation.evaluate(last, orders, outcome.weights)
    together, lost = _together(federation, own, evaluated, roster, outcome.weights)
    for site, why in sorted({**failures, **evaluated.failures, **lost}.items()):
        records.add("failure", run=run, round=last, site=site, why=why)
    rows = _rows(evaluated, roster, experiment, threshold)
    if together.n_images:
        rows.append(_row_of_all(together, experiment, tuple(sorted(roster.train)), threshold))
    if not rows:
        raise RunFailed("no site evaluated the final model; see the failures in records.jsonl")
    steps = outcome.steps
    images = sum(training_sizes(roster, experiment).values())
    each = sample_gradients(experiment.training, images=images, steps=steps)
    if is_private(experiment.privacy):
        each = private_samples(experiment.privacy, steps=steps)
    cards = {**roster.train, **roster.held_out}
    write_results(
        folder,
        config=tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")),
        budget={"sample_gradients": each, "steps": steps, "batch_size": experiment.training.batch_size},
        provenance=provenance(
            threads=experiment.threads,
            data={site: card.data_sha256 for site, card in sorted(cards.items())},
            artificial_sites=[site for site, card in cards.items() if card.artificial],
        ),
        rows=rows,
        contrasts=[],
        privacy=spending(read_records(records.path), experiment),
    )


def _sums(evaluated: Evaluated, part: str, sites: Mapping[str, object]) -> EvaluationSums:
    reports = (evaluated.reports[site].parts.get(part) for site in sorted(sites) if site in evaluated.reports)
    told = (report.sums for report in reports if report)
    return sum((EvaluationSums.from_json(sums) for sums in told if sums is not None), EvaluationSums.zero())


def _validated(
    federation: Federation, order: EvaluateOrder, sites: Collection[str], weights: Weights
) -> tuple[EvaluationSums, Mapping[str, str]]:
    """The pooled sums of the training centers' val patients, for the threshold; and who is not in them, and why."""
    if order.evaluation.secure:
        return _secure(federation, order, "val", sites, weights)
    evaluated = federation.evaluate(order.round, dict.fromkeys(sites, order), weights)
    return _sums(evaluated, "val", evaluated.reports), evaluated.failures


def _together(
    federation: Federation, order: EvaluateOrder, evaluated: Evaluated, roster: Roster, weights: Weights
) -> tuple[EvaluationSums, Mapping[str, str]]:
    """The pooled sums of the training centers' test patients, none where they were not tested; and who is not in them."""
    if order.evaluation.secure and evaluated.reports.keys() & roster.train.keys():
        return _secure(federation, order, "test", roster.train, weights)
    return _sums(evaluated, "test", roster.train), {}


def _secure(
    federation: Federation, order: EvaluateOrder, part: str, sites: Collection[str], weights: Weights
) -> tuple[EvaluationSums, Mapping[str, str]]:
    """One part's pooled sums as a total that no site's own can be read from."""
    found = secure_totals(
        federation.exchange(order, weights),
        sites,
        evaluation_directory((part,), with_threshold=order.threshold is not None),
        run=named_by_model(order.run, fingerprint(weights)),
        round_number=order.round,
        purpose=f"final {part}",
    )
    return evaluation_sums(found.numbers, part, sites=found.sites, threshold=order.threshold), found.failures


def _rows(evaluated: Evaluated, roster: Roster, experiment: Experiment, threshold: float | None) -> list[Row]:
    trained_on = tuple(sorted(roster.train))
    rows = []
    for site, report in sorted(evaluated.reports.items()):
        part = report.parts.get("test")
        held_out = site in roster.held_out
        rows.append(
            _row(site, part, experiment, trained_on, held_out, threshold)
            if part is not None
            else _row_without_cases(site, experiment, trained_on, held_out, threshold)
        )
    return rows


def _row(
    site: str,
    part: PartReport,
    experiment: Experiment,
    trained_on: tuple[str, ...],
    held_out: bool,
    threshold: float | None,
) -> Row:
    sums = None if part.sums is None else EvaluationSums.from_json(part.sums)
    ratio = ObservedExpected.of_sums(sums.calibration, n_patients=part.n_patients) if sums else None
    return Row(
        arm="federated",
        protocol=experiment.protocol,
        seed=experiment.seed,
        site=site,
        held_out=held_out,
        trained_on=trained_on,
        predictions=None,
        n_images=part.n_images,
        n_patients=part.n_patients,
        auc=part.auc,
        auc_low=part.auc_low,
        auc_high=part.auc_high,
        auc_variance=part.auc_variance,
        auc_patient=part.auc_patient,
        sensitivity=sums.confusion.sensitivity if sums and sums.confusion else None,
        specificity=sums.confusion.specificity if sums and sums.confusion else None,
        calibration_slope=part.calibration_slope,
        calibration_intercept=part.calibration_intercept,
        brier=sums.brier.value if sums else None,
        ece=sums.calibration.ece if sums else None,
        threshold=threshold,
        why=part.why or (None if sums else "secure"),
        observed=ratio.observed if ratio else None,
        expected=ratio.expected if ratio else None,
        log_oe_variance=ratio.log_variance if ratio else None,
    )


def _row_without_cases(
    site: str, experiment: Experiment, trained_on: tuple[str, ...], held_out: bool, threshold: float | None
) -> Row:
    """A site that was asked and has no test case: named, with nothing in it."""
    absent = {field.name: None for field in fields(Row)}
    named = {"arm": "federated", "protocol": experiment.protocol, "seed": experiment.seed, "site": site}
    about = {"held_out": held_out, "trained_on": trained_on, "threshold": threshold, "why": "too-few"}
    return Row(**{**absent, **named, **about, "n_images": 0, "n_patients": 0})  # type: ignore[arg-type]


def _row_of_all(
    sums: EvaluationSums, experiment: Experiment, trained_on: tuple[str, ...], threshold: float | None
) -> Row:
    """All training centers' test cases, from sums alone: the AUC to one histogram bin, without an interval."""
    return Row(
        arm="federated",
        protocol=experiment.protocol,
        seed=experiment.seed,
        site="all",
        held_out=False,
        trained_on=trained_on,
        predictions=None,
        n_images=sums.n_images,
        n_patients=sums.n_patients,
        auc=sums.histogram.auc,
        auc_low=None,
        auc_high=None,
        auc_variance=None,
        auc_patient=None,
        sensitivity=sums.confusion.sensitivity if sums.confusion else None,
        specificity=sums.confusion.specificity if sums.confusion else None,
        calibration_slope=None,
        calibration_intercept=None,
        brier=sums.brier.value,
        ece=sums.calibration.ece,
        threshold=threshold,
        why="from-sums",
    )

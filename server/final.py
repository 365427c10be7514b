"""The last evaluation of a federated run: lock the threshold, ask every site, write `results.json`. Sums only.

Three messages to each training site: a first pass over its val cases (threshold, bins), counts of its test cases, and
their placements among everybody's. A held-out site gets the second alone.
"""

from __future__ import annotations

__all__ = ["evaluate_finally"]

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common.auc import ClusteredAuc
from common.config import Experiment
from common.errors import RunFailed
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums
from common.logistic import LogisticSums
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder, Part, PartReport
from common.provenance import provenance
from server.budget import sample_gradients
from server.evidence import Federated, FirstPass, agree, columns, federated, pool
from server.records import Records
from server.results import Row, write_results
from server.rounds import Evaluated, Federation, Outcome, Roster, evaluate_order, training_images

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
    """Lock the threshold on val cases, then number every site's test cases and, in-federation, all of them together.

    Under leave-one-center-out the training centers' test patients have trained, so only held-out centers are tested.
    """
    last = experiment.training.rounds
    val = evaluate_order(experiment, {"val": ("val",)}, run=run, round_number=last, stage="first-pass")
    validated = federation.evaluate(last, dict.fromkeys(roster.train, val), outcome.weights)
    first = _agreed(validated, experiment)
    own = evaluate_order(
        experiment, {"test": ("test",)}, run=run, round_number=last, threshold=first.threshold, stage="counts"
    )
    own = replace(own, edges=first.edges)
    orders = dict.fromkeys(roster.held_out, replace(own, parts={"test": _EVERY}))
    if experiment.protocol == "in-federation":
        orders |= dict.fromkeys(roster.train, own)
    evaluated = federation.evaluate(last, orders, outcome.weights)
    failures = {**validated.failures, **evaluated.failures}
    rows = _rows(evaluated, roster, experiment, first.threshold)
    together = {site: part for site, part in _parts(evaluated, "test").items() if site in roster.train}
    if any(part.sums for part in together.values()):
        together, found = _together(federation, together, own, experiment, outcome, failures)
        rows.append(_row_of_all(together, found, experiment, tuple(sorted(roster.train)), first.threshold))
    for site, why in sorted(failures.items()):
        records.add("failure", run=run, round=last, site=site, why=why)
    if not rows:
        raise RunFailed("no site evaluated the final model; see the failures in records.jsonl")
    steps = outcome.steps
    images = sum(training_images(roster, experiment).values())
    each = sample_gradients(experiment.training, images=images, steps=steps)
    cards = {**roster.train, **roster.held_out}
    write_results(
        folder,
        config=tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")),
        budget={"sample_gradients": each, "steps": steps, "batch_size": experiment.training.batch_size},
        provenance=provenance(
            threads=experiment.threads, data={site: card.data_sha256 for site, card in sorted(cards.items())}
        ),
        rows=rows,
        contrasts=[],
    )


def _parts(evaluated: Evaluated, part: str) -> dict[str, PartReport]:
    """The reports on one part, by site, sorted; a site without cases there is absent."""
    return {site: report.parts[part] for site, report in sorted(evaluated.reports.items()) if part in report.parts}


def _histograms(parts: Mapping[str, PartReport], questions: int) -> dict[str, list[ScoreHistogram]]:
    """Each site's histograms, one for each question. A part that was kept back as a whole has none."""
    found = {}
    for site, part in parts.items():
        if part.n_images is None:
            continue
        try:
            found[site] = [ScoreHistogram.from_json(told) for told in part.histograms]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunFailed(
                f"site {site}: its histograms cannot be read ({error}); run one release everywhere"
            ) from error
        if len(found[site]) != questions:
            raise RunFailed(
                f"site {site} sent {len(found[site])} histograms of {questions}; run one release everywhere"
            )
    return found


def _agreed(validated: Evaluated, experiment: Experiment) -> FirstPass:
    """Sensitivity `evaluation.sensitivity` on the pooled val patients of the training centers, and everybody's bins."""
    task = experiment.task
    return agree(
        _histograms(_parts(validated, "val"), len(task.questions)),
        questions=task.questions,
        positive_index=task.positive_index,
        sensitivity=experiment.evaluation.sensitivity,
    )


def _together(
    federation: Federation,
    parts: dict[str, PartReport],
    order: EvaluateOrder,
    experiment: Experiment,
    outcome: Outcome,
    failures: dict[str, str],
) -> tuple[dict[str, PartReport], Federated]:
    """Ask for placements, again without a site that fails, until every site in the pool has answered.

    Returns the parts of the sites that stayed, and the numbers of all of their cases. `failures` gains who fell out.
    """
    task = experiment.task
    while True:
        questions = pool(
            _histograms(parts, len(task.questions)),
            order.edges,
            questions=task.questions,
            positive_index=task.positive_index,
        )
        placing = {site: tuple(question.placing(site) for question in questions) for site in parts}
        orders = {
            site: replace(order, stage="placements", edges=(), placing=how)
            for site, how in placing.items()
            if any(one is not None for one in how)
        }
        answered = federation.evaluate(order.round, orders, outcome.weights)
        if not answered.failures:
            break
        failures |= answered.failures
        parts = {site: part for site, part in parts.items() if site not in answered.failures}
    placed = _parts(answered, "test")
    influence = {
        site: [None if told is None else InfluenceSums.from_json(told) for told in part.influence]
        for site, part in placed.items()
    }
    logistic = {
        s: None if part.logistic is None else LogisticSums.from_json(part.logistic) for s, part in placed.items()
    }
    found = federated(questions, influence, logistic)
    whole = tuple(site for site, part in parts.items() if part.n_images is None)
    return parts, replace(found, left_out=tuple(sorted({*found.left_out, *whole})))


def _rows(evaluated: Evaluated, roster: Roster, experiment: Experiment, threshold: float | None) -> list[Row]:
    trained_on = tuple(sorted(roster.train))
    return [
        _row(site, part, experiment, trained_on, site in roster.held_out, threshold)
        for site, part in _parts(evaluated, "test").items()
    ]


def _row(
    site: str,
    part: PartReport,
    experiment: Experiment,
    trained_on: tuple[str, ...],
    held_out: bool,
    threshold: float | None,
) -> Row:
    sums = EvaluationSums.from_json(part.sums) if part.sums is not None else EvaluationSums.zero()
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
        sensitivity=sums.confusion.sensitivity if sums.confusion else None,
        specificity=sums.confusion.specificity if sums.confusion else None,
        calibration_slope=part.calibration_slope,
        calibration_intercept=part.calibration_intercept,
        brier=sums.brier.value,
        ece=sums.calibration.ece,
        threshold=threshold,
        why=part.why,
    )


def _row_of_all(
    parts: Mapping[str, PartReport],
    found: Federated,
    experiment: Experiment,
    trained_on: tuple[str, ...],
    threshold: float | None,
) -> Row:
    """All training centers' test cases, from sums alone; sites whose policy kept them out are in `suppressed`."""
    told = [EvaluationSums.from_json(part.sums) for part in parts.values() if part.sums is not None]
    sums = sum(told, EvaluationSums.zero())
    own = [
        ClusteredAuc(p.auc, p.auc_variance, p.auc_low, p.auc_high, p.why if p.auc_low is None else None)
        for p in parts.values()
    ]
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
        auc=found.auc,
        auc_low=found.low,
        auc_high=found.high,
        auc_variance=found.variance,
        auc_patient=None,
        sensitivity=sums.confusion.sensitivity if sums.confusion else None,
        specificity=sums.confusion.specificity if sums.confusion else None,
        calibration_slope=found.calibration_slope.value,
        calibration_intercept=found.calibration_intercept.value,
        brier=sums.brier.value,
        ece=sums.calibration.ece,
        threshold=threshold,
        why=found.why or found.calibration_slope.why or "from-sums",
        **columns(found, experiment.task, own),
    )

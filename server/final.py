"""The last evaluation of a federated run: lock the threshold, ask every site, write `results.json`. Sums only.

A first pass over the training sites' val cases gives threshold and bins, then every site numbers its test cases, and
the training sites place theirs among everybody's. Last, all are asked how their patients look, for the shift cards.
"""

from __future__ import annotations

__all__ = ["evaluate_finally"]

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

from common.config import Experiment
from common.errors import RunFailed
from common.metrics import EvaluationSums
from common.observed import ObservedExpected
from common.orders import EvaluateOrder, Part, PartReport
from common.provenance import provenance
from common.update import Weights
from server.budget import sample_gradients
from server.details import covariates_left_out, detail_columns, groups_absent, subgroups_of
from server.evidence import FirstPass, Together, columns, parts_of
from server.looks import Mending, ask_looks
from server.paired import Against, Compared, Evaluating, paired_contrasts
from server.paired_in_clear import compare_in_clear
from server.paired_under_masks import compare_under_masks
from server.pooled_in_clear import InClear
from server.pooled_under_masks import UnderMasks
from server.private_rounds import is_private, private_samples
from server.records import Records, read_records
from server.repairs import Repaired, repaired_rows
from server.results import Row, by_class, write_results
from server.rounds import Evaluated, Federation, Outcome, Roster, evaluate_order, training_sizes
from server.shift_panel import Told, ask_shift, panel
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
    against: Against | None = None,
) -> None:
    """Lock the threshold on val cases, then number every site's test cases and, in-federation, all of them together;
    and, with `against`, compare the model with another.

    Under leave-one-center-out the training centers' test patients have trained, so only held-out centers are tested.
    """
    found = _ask(federation, roster, experiment, outcome.weights, run=run, against=against)
    for site, why in sorted(found.failures.items()):
        records.add("failure", run=run, round=experiment.training.rounds, site=site, why=why)
    rows = _rows(found, roster, experiment)
    if not rows:
        raise RunFailed("no site evaluated the final model; see the failures in records.jsonl")
    tested = parts_of(found.evaluated, "test")
    cards, repairs = {**roster.train, **roster.held_out}, _repairs(found, roster, experiment)
    write_results(
        folder,
        config=tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")),
        budget=_budget(roster, experiment, steps=outcome.steps),
        provenance=provenance(
            threads=experiment.threads,
            data={site: card.data_sha256 for site, card in sorted(cards.items())},
            artificial_sites=[site for site, card in cards.items() if card.artificial],
            models=against.sha256 if against else None,
        ),
        rows=rows,
        contrasts=paired_contrasts(found.compared, experiment, found.asked) if found.compared else [],
        shift=panel(found.shift, experiment, trainers=roster.train, rows=rows, repairs=repairs),
        repairs=repairs,
        subgroups=subgroups_of(tested, experiment),
        subgroups_absent=groups_absent(tested),
        subgroups_left_out=covariates_left_out(tested),
        privacy=spending(read_records(records.path), experiment),
    )


@dataclass(frozen=True)
class _Found:
    """What the sites answered, by who was asked for what; `failures` says of all of it who did not, and why."""

    first: FirstPass
    mending: Mending | None
    evaluated: Evaluated
    together: Together | None
    shift: Told
    failures: Mapping[str, str]
    asked: Collection[str] = ()
    compared: Compared | None = None


def _ask(
    federation: Federation,
    roster: Roster,
    experiment: Experiment,
    weights: Weights,
    *,
    run: str,
    against: Against | None,
) -> _Found:
    last = experiment.training.rounds
    pooling = (UnderMasks if experiment.evaluation.secure else InClear)(federation, experiment, weights)
    val = evaluate_order(experiment, {"val": ("val",)}, run=run, round_number=last)
    first, failures = pooling.first_pass(val, roster.train)
    own = pooling.counting(evaluate_order(experiment, {"test": ("test",)}, run=run, round_number=last), first)
    own = replace(own, compared="first" if against else None)
    mending = None
    if experiment.evaluation.repair and roster.held_out:
        mending = ask_looks(federation, experiment, val, tuple(roster.train), val=first.shares)
    orders = _orders(own, roster, experiment, mending)
    evaluated = federation.evaluate(last, orders, weights)
    together = pooling.together(own, evaluated, roster.train)
    compared = None
    if against is not None:
        compare = compare_under_masks if experiment.evaluation.secure else compare_in_clear
        done = Evaluating(val, own, orders, evaluated, together)
        compared = compare(federation, experiment, (weights, against.weights), done, roster.train)
    failures = {
        **failures,
        **(mending.failures if mending else {}),
        **evaluated.failures,
        **(together.failures if together else {}),
        **(compared.failures if compared else {}),
    }
    shift = ask_shift(federation, experiment, roster, weights, val, lost=failures)
    failures |= shift.failures
    return _Found(first, mending, evaluated, together, shift, failures, tuple(orders), compared)


def _orders(
    own: EvaluateOrder, roster: Roster, experiment: Experiment, mending: Mending | None
) -> dict[str, EvaluateOrder]:
    """By site: a held-out one is asked about all its cases, a training one about its test cases,
    where these did not train.
    """
    held_out = replace(own, parts={"test": _EVERY}, repair=mending.order if mending else None, apart=True)
    trained = roster.train if experiment.protocol == "in-federation" else ()
    return dict.fromkeys(roster.held_out, held_out) | dict.fromkeys(trained, own)


def _budget(roster: Roster, experiment: Experiment, *, steps: int) -> dict[str, int | None]:
    images = sum(training_sizes(roster, experiment).values())
    each = sample_gradients(experiment.training, images=images, steps=steps)
    if is_private(experiment.privacy):
        each = private_samples(experiment.privacy, steps=steps)
    return {"sample_gradients": each, "steps": steps, "batch_size": experiment.training.batch_size}


def _rows(found: _Found, roster: Roster, experiment: Experiment) -> list[Row]:
    trained_on, threshold = tuple(sorted(roster.train)), found.first.threshold
    rows = []
    for site, report in sorted(found.evaluated.reports.items()):
        part = report.parts.get("test")
        held_out = site in roster.held_out
        rows.append(
            _row(site, part, experiment, trained_on, held_out, threshold)
            if part is not None
            else _row_without_cases(site, experiment, trained_on, held_out, threshold)
        )
    if found.together is not None and found.together.found.why == "uncounted":
        rows.append(_row_uncounted(found.together, experiment, trained_on, threshold))
    elif found.together is not None and found.together.sums.n_images:
        rows.append(_row_of_all(found.together, experiment, trained_on, threshold))
    return rows


def _repairs(found: _Found, roster: Roster, experiment: Experiment) -> list[Repaired]:
    """What the held-out centers told of repairs, by site id; nothing where they were not asked."""
    if found.mending is None:
        return []
    return [
        row
        for site, part in parts_of(found.evaluated, "test").items()
        if site in roster.held_out
        for row in repaired_rows(
            part.repairs,
            protocol=experiment.protocol,
            seed=experiment.seed,
            site=site,
            trained_on=sorted(roster.train),
            reference=found.mending.reference,
        )
    ]


def _row(
    site: str,
    part: PartReport,
    experiment: Experiment,
    trained_on: tuple[str, ...],
    held_out: bool,
    threshold: float | None,
) -> Row:
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
        sensitivity=part.sensitivity,
        specificity=part.specificity,
        calibration_slope=part.calibration_slope,
        calibration_intercept=part.calibration_intercept,
        brier=part.brier,
        ece=part.ece,
        threshold=threshold,
        why=part.why or ("secure" if part.brier is None else None),
        observed=part.observed,
        expected=part.expected,
        log_oe_variance=part.log_oe_variance,
        auc_by_class=by_class(experiment.task.classes, part.by_class),
        **detail_columns(part),
    )


def _why_kept_back(sums: EvaluationSums) -> str | None:
    """Why a row of these sums lacks sensitivity or specificity, where a site kept a cell back."""
    counts = sums.confusion
    return "small-cell" if counts is not None and None in (counts.tp, counts.fp) else None


def _row_without_cases(
    site: str, experiment: Experiment, trained_on: tuple[str, ...], held_out: bool, threshold: float | None
) -> Row:
    """A site that was asked and has no test case: named, with nothing in it."""
    absent = {field.name: None for field in fields(Row) if field.default is MISSING}
    named = {"arm": "federated", "protocol": experiment.protocol, "seed": experiment.seed, "site": site}
    about = {"held_out": held_out, "trained_on": trained_on, "threshold": threshold, "why": "too-few"}
    return Row(**{**absent, **named, **about, "n_images": 0, "n_patients": 0})  # type: ignore[arg-type]


def _row_uncounted(
    together: Together, experiment: Experiment, trained_on: tuple[str, ...], threshold: float | None
) -> Row:
    """All training centers' test cases, where there is no total of them: why, and the mean of the centers' own AUCs."""
    nothing = _row_without_cases("all", experiment, trained_on, False, threshold)
    told = columns(together.found, experiment.task, together.own)
    return replace(nothing, n_images=None, n_patients=None, why=together.found.why, **told)


def _row_of_all(
    together: Together, experiment: Experiment, trained_on: tuple[str, ...], threshold: float | None
) -> Row:
    """All training centers' test cases, from sums alone; sites whose policy kept them out are in `suppressed`."""
    sums, found = together.sums, together.found
    ratio = ObservedExpected.of_sums(sums)
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
        why=found.why or found.calibration_slope.why or _why_kept_back(sums) or "from-sums",
        observed=ratio.observed,
        expected=ratio.expected,
        log_oe_variance=ratio.log_variance,
        auc_by_class=by_class(experiment.task.classes, [one.area for one in found.by_question]),
        **columns(found, experiment.task, together.own),
    )

"""From stored scores to rows, predictions files and contrasts: pure functions of the models' scores and the sites."""

from __future__ import annotations

__all__ = ["Evidence", "assemble"]

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.measures import Measures, measure_cases
from client.site import Site
from common.config import Experiment
from common.files import write_atomic
from common.metrics import threshold_at_sensitivity
from common.observed import ObservedExpected
from server.results import Row, Subgroup, by_class
from server.statistics import Contrast
from simulation.contrasts import contrast_all
from simulation.federated import federated_columns
from simulation.means import mean_row
from simulation.models import read_scores
from simulation.plan import IN_FEDERATION, LEAVE_ONE_OUT, ModelPlan
from simulation.subgroups import subgroup_rows

Scores = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """What `results.json` holds of a comparison."""

    rows: list[Row]
    contrasts: list[Contrast]
    subgroups: list[Subgroup]


@dataclass(frozen=True)
class Judge:
    """One or several models that speak as one (an ensemble): the mean of their probabilities."""

    arm: str
    protocol: str
    seed: int
    trained_on: tuple[str, ...]
    held_out: str | None
    members: tuple[ModelPlan, ...]

    @property
    def place(self) -> str:
        """Where its predictions lie."""
        middle = self.trained_on[0] if self.arm == "local" else f"without-{self.held_out}" if self.held_out else "all"
        return f"predictions/{self.protocol}/{self.arm}/{middle}/seed-{self.seed}"


class Cases:
    """The sites' cases and the models' scores of them."""

    def __init__(self, run: Path, experiment: Experiment, sites: Mapping[str, Site]) -> None:
        self.run = run
        self.experiment = experiment
        self.sites = dict(sites)
        self.trainers = tuple(sorted(name for name, site in sites.items() if site.role == "train"))
        self.watched = tuple(sorted(name for name, site in sites.items() if site.role == "held-out"))
        self._starts: dict[str, list[str]] = {}
        self._read = lru_cache(maxsize=None)(lambda plan, site: read_scores(run, plan, site))

    def scores(self, judge: Judge, site: str) -> Scores:
        """(N, K) for every case of the site; NaN where a member did not score it."""
        first, *others = (self._read(plan, site) for plan in judge.members)
        return np.asarray(sum(others, first) / len(judge.members))

    def starts(self, site: str, rows: Rows) -> list[str]:
        """`patient,image,label` of some cases, as they stand in every predictions file."""
        if site not in self._starts:
            task, here = self.experiment.task, self.sites[site]
            words = ["0", "1"] if len(task.classes) == 2 else task.classes
            labels = here.positive.astype(np.int64) if len(task.classes) == 2 else here.labels
            whose = [here.pseudonyms[code] for code in here.patients.tolist()]
            self._starts[site] = [
                _as_csv([who, f"{site}/{number}", words[label]])
                for number, (who, label) in enumerate(zip(whose, labels.tolist(), strict=True), start=1)
            ]
        return [self._starts[site][row] for row in rows.tolist()]

    def threshold(self, judge: Judge) -> float | None:
        """Locked on the pooled val patients of the judge's training centers."""
        index = self.experiment.task.positive_index
        labels, scores = [], []
        for name in judge.trained_on:
            rows = self.sites[name].rows("val")
            labels.append(self.sites[name].positive[rows])
            scores.append(self.scores(judge, name)[rows, index])
        return threshold_at_sensitivity(
            np.concatenate(labels), np.concatenate(scores), self.experiment.evaluation.sensitivity
        )

    def tested(self, judge: Judge, site: str) -> Rows:
        """The cases that the protocol tests at a site: its test patients in-federation,
        every patient of a held-out center.
        """
        if judge.protocol == LEAVE_ONE_OUT or site in self.watched:
            return np.arange(len(self.sites[site]))
        return self.sites[site].rows("test")


def judges(plans: Sequence[ModelPlan], experiment: Experiment, trainers: Sequence[str]) -> Iterator[Judge]:
    """Everything that is judged: each model under the protocols that it serves, and the ensembles of the local ones."""
    comparison = experiment.comparison
    for plan in plans:
        if plan.arm != "local":
            yield Judge(plan.arm, plan.protocol, plan.seed, plan.trained_on, plan.held_out, (plan,))
    locals_by_seed: dict[int, dict[str, ModelPlan]] = {}
    for plan in plans:
        if plan.arm == "local":
            locals_by_seed.setdefault(plan.seed, {})[plan.trained_on[0]] = plan
    for seed, models in locals_by_seed.items():
        for protocol in comparison.protocols:
            if "local" in comparison.arms:
                for site, plan in models.items():
                    yield Judge("local", protocol, seed, (site,), None, (plan,))
            if "ensemble" in comparison.arms:
                yield from _ensembles(models, protocol, seed, trainers)


def _ensembles(models: Mapping[str, ModelPlan], protocol: str, seed: int, trainers: Sequence[str]) -> Iterator[Judge]:
    if protocol == IN_FEDERATION:
        yield Judge("ensemble", protocol, seed, tuple(models), None, tuple(models.values()))
        return
    for center in trainers:
        others = tuple(name for name in models if name != center)
        if others:
            yield Judge("ensemble", protocol, seed, others, center, tuple(models[name] for name in others))


def assemble(run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]) -> Evidence:
    """Rows and contrasts of all arms, and the predictions files beneath them."""
    cases = Cases(run, experiment, sites)
    everyone = list(judges(plans, experiment, cases.trainers))
    rows: list[Row] = []
    for judge in everyone:
        if judge.protocol == IN_FEDERATION:
            rows += _rows_in_federation(cases, judge)
        else:
            rows += _rows_of_held_out(cases, judge)
    rows += _means_over_centers(rows)
    coarse = {row.arm for row in rows if row.auc_federated_why == "coarse"}
    contrasts = [_without_coarse(one, coarse) for one in contrast_all(cases, everyone)]
    return Evidence(_ordered(rows), contrasts, _subgroups(cases, everyone))


def _without_coarse(one: Contrast, coarse: Collection[str]) -> Contrast:
    """A contrast without interval and p from sums where those of an arm are too coarse;
    against local they are exact.
    """
    if one.delta_federated is None or one.b == "local" or not {one.a, one.b} & set(coarse):
        return one
    return replace(one, low_federated=None, high_federated=None, p_federated=None)


def _subgroups(cases: Cases, everyone: Sequence[Judge]) -> list[Subgroup]:
    """Of the federated models alone: at their left-out center, or at every site."""
    found: list[Subgroup] = []
    for judge in everyone:
        if judge.arm == "federated":
            threshold = cases.threshold(judge)
            for site in (judge.held_out,) if judge.held_out else (*cases.trainers, *cases.watched):
                found += subgroup_rows(cases, judge, site, threshold)
    return sorted(found, key=lambda g: (g.protocol != LEAVE_ONE_OUT, g.site, g.covariate, g.level, g.seed))


def _rows_in_federation(cases: Cases, judge: Judge) -> list[Row]:
    threshold = cases.threshold(judge)
    rows = [_row(cases, judge, (site,), site, threshold) for site in (*cases.trainers, *cases.watched)]
    everybody = _row(cases, judge, cases.trainers, "all", threshold)
    return [*rows, replace(everybody, **federated_columns(cases, judge))]


def _rows_of_held_out(cases: Cases, judge: Judge) -> list[Row]:
    threshold = cases.threshold(judge)
    centers = (judge.held_out,) if judge.held_out else tuple(s for s in cases.trainers if s not in judge.trained_on)
    return [_row(cases, judge, (center,), center, threshold) for center in centers]


def _row(cases: Cases, judge: Judge, members: Sequence[str], name: str, threshold: float | None) -> Row:
    """Measure a judge on the tested cases of one site, or of several laid end to end."""
    tested = {site: cases.tested(judge, site) for site in members}
    labels = np.concatenate([cases.sites[site].labels[rows] for site, rows in tested.items()])
    scores = np.concatenate([cases.scores(judge, site)[rows] for site, rows in tested.items()])
    patients = distinct_patients(cases, tested)
    path = f"{judge.place}/{name}.csv"
    write_atomic(cases.run / path, _predictions(cases, tested, scores))
    index = cases.experiment.task.positive_index
    found = measure_cases(labels, scores, patients, positive_index=index, threshold=threshold)
    held_out = all(site not in judge.trained_on for site in members)
    ratio = ObservedExpected.of(labels == index, scores[:, index], patients)
    row = _as_row(judge, name, held_out, path, threshold, found, ratio)
    return replace(row, auc_by_class=by_class(cases.experiment.task.classes, found.by_class))


def _as_row(
    judge: Judge,
    name: str,
    held_out: bool,
    path: str,
    threshold: float | None,
    found: Measures,
    ratio: ObservedExpected,
) -> Row:
    return Row(
        arm=judge.arm,
        protocol=judge.protocol,
        seed=judge.seed,
        site=name,
        held_out=held_out,
        trained_on=judge.trained_on,
        predictions=path,
        n_images=found.n_images,
        n_patients=found.n_patients,
        auc=found.auc,
        auc_low=found.auc_low,
        auc_high=found.auc_high,
        auc_variance=found.auc_variance,
        auc_patient=found.auc_patient,
        sensitivity=found.sensitivity,
        specificity=found.specificity,
        calibration_slope=found.calibration_slope,
        calibration_intercept=found.calibration_intercept,
        brier=found.brier,
        ece=found.ece,
        threshold=threshold,
        why=found.why,
        observed=ratio.observed,
        expected=ratio.expected,
        log_oe_variance=ratio.log_variance,
        calibration_slope_low=found.calibration_slope_low,
        calibration_slope_high=found.calibration_slope_high,
        calibration_intercept_low=found.calibration_intercept_low,
        calibration_intercept_high=found.calibration_intercept_high,
    )


def distinct_patients(cases: Cases, tested: Mapping[str, Rows]) -> NDArray[np.int64]:
    """Patient numbers over several sites, no number used by two of them."""
    numbers, start = [], 0
    for site, rows in tested.items():
        numbers.append(cases.sites[site].patients[rows] + start)
        start += len(cases.sites[site].pseudonyms)
    return np.concatenate(numbers)


def _predictions(cases: Cases, tested: Mapping[str, Rows], scores: Scores) -> bytes:
    """`patient,image,label,score` at full precision; patients are pseudonyms, images numbers within their site."""
    task = cases.experiment.task
    binary = len(task.classes) == 2
    columns = ["score"] if binary else [f"score_{name}" for name in task.classes]
    shown = scores[:, [task.positive_index]] if binary else scores
    starts = [start for name, rows in tested.items() for start in cases.starts(name, rows)]
    lines = [",".join((start, *map(repr, values))) for start, values in zip(starts, shown.tolist(), strict=True)]
    return "\n".join((_as_csv(["patient", "image", "label", *columns]), *lines, "")).encode()


def _as_csv(values: Sequence[object]) -> str:
    """One line, quoted where it must be, without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def _means_over_centers(rows: Sequence[Row]) -> list[Row]:
    """Leave-one-center-out's `all`: the mean over centers; one row per local model, one per seed for the other arms."""
    groups: dict[tuple[str, int, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        if row.protocol == LEAVE_ONE_OUT:
            key = (row.arm, row.seed, row.trained_on if row.arm == "local" else ())
            groups.setdefault(key, []).append(row)
    return [mean_row(members) for members in groups.values()]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    arms = ("federated", "pooled", "ensemble", "local")
    return sorted(
        rows,
        key=lambda r: (r.protocol != LEAVE_ONE_OUT, arms.index(r.arm), r.seed, r.trained_on, r.site != "all", r.site),
    )

"""The run folder, parsed once into dataclasses. What is optional and not there is noted in `missing`, never invented.

RUN/config.toml, results.json        must be there
RUN/records.jsonl                    learning curves, centers' appearance, failures, seconds
RUN/predictions/….csv                ROC and calibration curves
RUN/pictures/<site>/index.json       attention maps
"""

from __future__ import annotations

__all__ = [
    "ALL",
    "ARMS",
    "IN_FEDERATION",
    "LEAVE_ONE_OUT",
    "Appearance",
    "Budget",
    "Evaluation",
    "Failure",
    "Ledger",
    "Provenance",
    "Row",
    "Run",
    "TrainedModel",
    "read_run",
]

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from common.auc import ClusteredAuc
from common.errors import BadInput
from common.files import read_json
from common.pooled import NetBenefit
from server.centers import Meta, across_centers
from server.repairs import Repaired
from server.results import Subgroup
from server.shift_card import ShiftCard
from server.spending import Spending
from server.statistics import Contrast

ALL = "all"
ARMS = ("federated", "pooled", "local", "ensemble")
IN_FEDERATION = "in-federation"
LEAVE_ONE_OUT = "leave-one-center-out"

_GROWS = ConfigDict(extra="ignore")
_T = TypeVar("_T")


@checked(frozen=True, config=_GROWS)
class Row:
    """One model at one site, as `results.json` has it; None where a number does not exist, and `why` says why."""

    arm: str
    protocol: str
    seed: int
    site: str
    held_out: bool = False
    trained_on: tuple[str, ...] = ()
    predictions: str | None = None
    n_images: int | None = None
    n_patients: int | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    auc_variance: float | None = None
    auc_patient: float | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    brier: float | None = None
    ece: float | None = None
    threshold: float | None = None
    why: str | None = None
    observed: int | None = None
    expected: float | None = None
    log_oe_variance: float | None = None
    auc_federated: float | None = None
    auc_federated_bound: float | None = None
    auc_federated_low: float | None = None
    auc_federated_high: float | None = None
    auc_federated_why: str | None = None
    auc_mean_of_sites: float | None = None
    auc_mean_of_sites_low: float | None = None
    auc_mean_of_sites_high: float | None = None
    net_benefit: tuple[NetBenefit, ...] = ()
    suppressed: tuple[str, ...] = ()
    auc_by_class: dict[str, ClusteredAuc] | None = None
    calibration_slope_low: float | None = None
    calibration_slope_high: float | None = None
    calibration_intercept_low: float | None = None
    calibration_intercept_high: float | None = None
    net_benefit_why: str | None = None

    @property
    def from_sums(self) -> bool:
        """Whether `auc` is the one from sums: a deployed run knows no other of all cases."""
        told = self.auc is not None and self.auc == self.auc_federated
        return self.site == ALL and self.predictions is None and told


@checked(frozen=True, config=_GROWS)
class Budget:
    """Sample gradients of one final model, and of all models of an arm together."""

    sample_gradients: int | None = None
    per_arm: dict[str, int] = field(default_factory=dict)


@checked(frozen=True, config=_GROWS)
class Provenance:
    """What made the numbers."""

    commit: str | None = None
    dirty: bool | None = None
    versions: dict[str, str] = field(default_factory=dict)
    processor: str | None = None
    device: str | None = None
    threads: int | None = None
    data: dict[str, str] = field(default_factory=dict)
    artificial_sites: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)


@checked(frozen=True, config=_GROWS)
class Ledger:
    """What a site said of its ledger with an update: ε of all that it ever released, and its cap."""

    epsilon: float
    cap: float


@checked(frozen=True, config=_GROWS)
class _Private:
    run: str
    site: str
    privacy: Ledger | None = None


@checked(frozen=True, config=_GROWS)
class _Site:
    site: str
    evaluations: tuple[int, int] | None = None


@checked(frozen=True, config=_GROWS)
class _Results:
    config: dict[str, Any]
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...] = ()
    meta: tuple[Meta, ...] | None = None
    subgroups: tuple[Subgroup, ...] = ()
    subgroups_absent: dict[str, str] = field(default_factory=dict)
    subgroups_left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    shift: tuple[ShiftCard, ...] = ()
    repairs: tuple[Repaired, ...] = ()
    budget: Budget = field(default_factory=Budget)
    provenance: Provenance = field(default_factory=Provenance)
    privacy: Spending | None = None


@checked(frozen=True, config=_GROWS)
class Evaluation:
    """An evaluation while training: `part` of `site` under the model of `run` after `round`."""

    run: str
    round: int
    site: str
    part: str = "test"
    held_out: bool = False
    auc: float | None = None
    loss: float | None = None


@checked(frozen=True, config=_GROWS)
class Failure:
    """A site that did not answer, or answered with an error."""

    run: str = ""
    round: int | None = None
    site: str = ""
    why: str = ""


@checked(frozen=True, config=_GROWS)
class TrainedModel:
    """A final model was finished."""

    arm: str
    seconds: float = 0.0


@checked(frozen=True, config=_GROWS)
class Appearance:
    """What a center's crops look like: counts of 64 gray levels, and descriptors as (mean, standard deviation)."""

    site: str
    n_images: int
    histogram: tuple[int, ...]
    descriptors: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run folder in memory; events keep the order of the file, the last one of its kind wins.

    `meta` is that of the file, or made from the rows where an older release wrote none; `ledgers` by model and site.
    `limits`: how many evaluations a training site's policy lets leave, of one run and in all. `subgroups_absent`: by
    site that told no group of its patients, why; `subgroups_left_out`: by site that told some, and covariate without.
    """

    folder: Path
    config: Mapping[str, Any]
    config_text: str
    rows: tuple[Row, ...]
    contrasts: tuple[Contrast, ...]
    meta: tuple[Meta, ...]
    subgroups: tuple[Subgroup, ...]
    shift: tuple[ShiftCard, ...]
    budget: Budget
    provenance: Provenance
    evaluations: tuple[Evaluation, ...]
    failures: tuple[Failure, ...]
    models: tuple[TrainedModel, ...]
    appearances: tuple[Appearance, ...]
    missing: tuple[str, ...]
    repairs: tuple[Repaired, ...] = ()
    privacy: Spending | None = None
    ledgers: Mapping[tuple[str, str], Ledger] = field(default_factory=dict)
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    subgroups_absent: Mapping[str, str] = field(default_factory=dict)
    subgroups_left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def across(self, arm: str, measure: str) -> Meta | None:
        """What leave-one-center-out says of the arm over its centers; `measure` is `auc` or `oe`."""
        return next((entry for entry in self.meta if (entry.arm, entry.measure) == (arm, measure)), None)

    def setting(self, *path: str) -> Any:
        """A value of the resolved experiment, such as `setting("task", "positive")`; None where it is not there."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @property
    def deployed(self) -> bool:
        """Whether one federated model was judged at sites that kept their predictions: no other arm can be known."""
        return bool(self.rows) and all(row.arm == "federated" and row.predictions is None for row in self.rows)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that gave rows."""
        return tuple(sorted({row.seed for row in self.rows}))

    @property
    def protocols(self) -> tuple[str, ...]:
        """Protocols that gave rows, leave-one-center-out first: it answers the question."""
        return tuple(p for p in (LEAVE_ONE_OUT, IN_FEDERATION) if any(row.protocol == p for row in self.rows))

    @property
    def artificial(self) -> frozenset[str]:
        """Sites that were cut from one center: no real centers, and wherever they are named the page says so."""
        return frozenset(self.provenance.artificial_sites)

    def places(self, sites: Iterable[str]) -> tuple[str, str]:
        """What `sites` may be called, one of them and several: centers, unless all of them are artificial."""
        sites = set(sites)
        artificial = bool(sites) and sites <= self.artificial
        return ("artificial site", "artificial sites") if artificial else ("center", "centers")

    def arms(self, protocol: str | None = None) -> tuple[str, ...]:
        """Arms that gave rows (under `protocol`), in the fixed order; arms that this report does not know come last."""
        there = {row.arm for row in self.rows if protocol in (None, row.protocol)}
        return tuple(arm for arm in ARMS if arm in there) + tuple(sorted(there - set(ARMS)))

    def sites(self, protocol: str | None = None) -> tuple[str, ...]:
        """Sites that were tested (under `protocol`), sorted; `all` is not a site."""
        return tuple(sorted({r.site for r in self.rows if protocol in (None, r.protocol)} - {ALL}))


def read_run(folder: Path) -> Run:
    """Parse a run folder; BadInput, in one line, where `results.json` is missing or not what the contract says."""
    results = _parse(_Results, read_json(folder / "results.json"))
    events, missing = _events(folder / "records.jsonl")
    config_path = folder / "config.toml"
    return Run(
        folder=folder,
        config=results.config,
        config_text=config_path.read_text(encoding="utf-8") if config_path.is_file() else "",
        rows=results.rows,
        contrasts=results.contrasts,
        meta=results.meta if results.meta is not None else tuple(across_centers(results.rows)),
        subgroups=results.subgroups,
        shift=results.shift,
        budget=results.budget,
        provenance=results.provenance,
        evaluations=tuple(_of_kind(Evaluation, "evaluation", events)),
        failures=tuple(_of_kind(Failure, "failure", events)),
        models=tuple(_of_kind(TrainedModel, "model", events)),
        appearances=tuple({a.site: a for a in _of_kind(Appearance, "appearance", events)}.values()),
        missing=tuple(missing),
        repairs=results.repairs,
        privacy=results.privacy,
        subgroups_absent=results.subgroups_absent,
        subgroups_left_out=results.subgroups_left_out,
        ledgers={(e.run, e.site): e.privacy for e in _of_kind(_Private, "train", events) if e.privacy},
        limits={e.site: e.evaluations for e in _of_kind(_Site, "site", events) if e.evaluations},
    )


def _parse(kind: type[_T], table: Any) -> _T:
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput(f"results.json: {where}: {first['msg']}; make it again with the command that ran") from None


def _events(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Whole events, and a sentence about lines that cannot be read (a kill may tear the last one)."""
    if not path.is_file():
        return [], ["records.jsonl is not in the run folder: no learning curves, no failures and no seconds are known."]
    events, torn = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            torn += 1
            continue
        if isinstance(event, dict):
            events.append(event)
    return events, [f"{torn} lines of records.jsonl could not be read and were left out."] if torn else []


def _of_kind(kind: type[_T], name: str, events: list[dict[str, Any]]) -> Iterator[_T]:
    adapter = TypeAdapter(kind)
    for event in events:
        if event.get("event") == name:
            try:
                yield adapter.validate_python(event)
            except ValidationError:
                continue

"""One company for the same cases, whichever messages ask for them: an honest evaluation that loses sites at any moment,
and a server that opens what it likes under other purposes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.companies import bind_company, require_company
from client.evidence import stage_sums
from client.paired import paired_sums
from client.sealing import _about
from client.secure_sums import make_key, ready, seal
from client.site import Site, load_site
from common.blocks import Block
from common.config import Experiment
from common.errors import BadInput, RunFailed
from common.evaluation_blocks import evaluation_numbers
from common.orders import EvaluateOrder, EvaluateReport, PartReport
from common.paired import side_by_side
from common.parsing import parse
from common.sums_orders import KeyOrder, ReadyOrder, SealOrder, Terms
from common.update import Weights
from server.evidence import Together
from server.paired import Compared, Evaluating
from server.paired_under_masks import compare_under_masks
from server.pooled_under_masks import UnderMasks
from server.rounds import Evaluated, evaluate_order
from server.secure_sums import secure_totals
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site
from tests.sealed_sites import Sites
from tests.server.test_sums_reopened import DIRECTORY, LOST, NAMES, check_one_roster, numbers_of, opens

STEPS = ("keys", "seal", "ready", "open")
MODELS: tuple[Weights, Weights] = ({"model": np.array([0.0])}, {"model": np.array([1.0])})
EXAMPLES = int(os.environ.get("SONOFED_SUMS", "12"))


@cache
def site_of(name: str) -> Site:
    """Sixteen images of a site whose model is a table of scores."""
    with tempfile.TemporaryDirectory() as base:
        return load_site(write_site(Path(base) / name, name, seed=NAMES.index(name), images=16, per_patient=1))


def scores_of(site: Site, model: float) -> NDArray[np.float64]:
    rng = np.random.default_rng([int(model), *site.id.encode()])
    odds = np.exp(rng.normal(size=(len(site), 2)) + np.eye(2)[site.labels])
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


class Told(dict[str, Mapping[str, np.ndarray]]):
    """What each site counts for an order, when it is asked."""

    def __init__(self, order: EvaluateOrder, weights: Weights) -> None:
        super().__init__()
        self.order, self.weights = order, weights

    def __missing__(self, name: str) -> Mapping[str, np.ndarray]:
        site, order = site_of(name), self.order
        found = {}
        for part, splits in order.parts.items():
            rows = site.rows(*splits)
            if order.stage == "paired":
                both = scores_of(site, 0)[rows], scores_of(site, 1)[rows]
                told = paired_sums(site.task, site.labels[rows], both, site.patients[rows], order, smallest=1)
            else:
                told = stage_sums(site, rows, scores_of(site, self.weights["model"][0])[rows], order, smallest=1)
            found[part] = told
        return evaluation_numbers(found)


@dataclass
class Masked:
    """A federation of `sites` that answers under masks, and otherwise nothing."""

    sites: Sites
    totals: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    splits: dict[str, frozenset[str]] = field(default_factory=dict)

    def evaluate(self, round_number: int, orders: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated:
        return Evaluated({}, {})

    def exchange(self, order: EvaluateOrder, weights: Weights) -> Sites:
        self.sites.numbers = Told(order, weights)
        splits = frozenset(split for parts in order.parts.values() for split in parts)

        def about(terms: Terms) -> Collection[str]:
            self.splits[terms.digest] = splits
            return _about(SealOrder(terms, order), weights)

        self.sites.about = about
        return self.sites

    def opened(self, split: str) -> set[tuple[str, ...]]:
        """Rosters of every total over these cases that the server can read."""
        seen = self.sites.seen_openings
        return {
            terms.sites
            for terms in self.sites.terms_seen
            if split in self.splits[terms.digest] and all((site, terms.digest) in seen for site in terms.sites)
        }


def experiment(names: Collection[str]) -> Experiment:
    table = experiment_table([Path(name) for name in names], evaluation={"secure": True, "repair": False})
    task = site_of("ash").task
    table["task"] = {"name": task.name, "classes": list(task.classes), "positive": task.positive}
    return parse(Experiment, table, where="test")


def evaluation(masked: Masked, names: Collection[str]) -> tuple[Together | None, Compared]:
    """The last evaluation of two models, as the server goes about it."""
    about, federation = experiment(names), masked
    pooling = UnderMasks(federation, about, MODELS[0])  # type: ignore[arg-type]
    val = evaluate_order(about, {"val": ("val",)}, run="r", round_number=1)
    first, _ = pooling.first_pass(val, names)
    own = evaluate_order(about, {"test": ("test",)}, run="r", round_number=1)
    own = replace(pooling.counting(own, first), compared="first")
    nothing = PartReport.nothing("policy")
    reports = {name: EvaluateReport(name, 0.0, {"test": nothing}) for name in names}
    evaluated = Evaluated(reports, {})
    together = pooling.together(own, evaluated, names)
    done = Evaluating(val, own, dict.fromkeys(names, own), evaluated, together)
    compared = compare_under_masks(federation, about, MODELS, done, names)  # type: ignore[arg-type]
    return together, compared


@st.composite
def lost_at_any_time(draw: st.DrawFn) -> tuple[int, dict[str, list[set[str]]]]:
    """How many sites, and who is lost each time that a step is asked, over all totals of an evaluation."""
    count = draw(st.integers(3, 5))
    one = st.sampled_from([set[str]()] * 3 + [{name} for name in NAMES[:count]])
    return count, {step: draw(st.lists(one, max_size=9)) for step in STEPS}


@given(lost_at_any_time())
@example((4, {"seal": [set(), {"elm"}]}))
@example((4, {"seal": [set(), set(), {"elm"}, {"elm"}]}))
@example((4, {"ready": [{"ash"}, set(), {"elm"}]}))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_evaluation_opens_test_cases_over_one_roster(drawn: tuple[int, dict[str, list[set[str]]]]) -> None:
    """Whoever is lost whenever; and no site ever has to refuse the honest server."""
    count, lost = drawn
    with tempfile.TemporaryDirectory() as base:
        masked = Masked(Sites(Path(base), {}, {step: [set(each) for each in times] for step, times in lost.items()}))
        failures: dict[str, str] = {}
        try:
            together, compared = evaluation(masked, NAMES[:count])
        except RunFailed:
            assert not masked.opened("test"), "only without a threshold"
        else:
            failures = {**(together.failures if together else {}), **compared.failures}
    assert len(masked.opened("test")) <= 1
    assert len(masked.opened("val")) <= 1
    assert not [why for why in failures.values() if "already counted" in why]


def test_of_three_sites_one_that_is_lost_leaves_the_first_models_results(tmp_path: Path) -> None:
    """Val, bins, test and placements of the first model are there; the second's bins lose cedar, twice."""
    masked = Masked(Sites(tmp_path, {}, {"seal": [set(), set(), set(), set(), {"cedar"}, {"cedar"}]}))
    together, compared = evaluation(masked, NAMES[:3])
    assert together is not None
    assert together.found.auc is not None
    assert together.found.low is not None
    assert compared.together is not None
    assert (compared.together.found.delta, compared.together.found.why) == (None, "unplaced")
    assert list(compared.failures) == ["cedar"]
    assert compared.failures["cedar"].startswith(LOST)
    assert "when cedar can be reached" in compared.failures["cedar"]


def test_a_whole_evaluation_of_two_models_has_every_number(tmp_path: Path) -> None:
    masked = Masked(Sites(tmp_path, {}))
    together, compared = evaluation(masked, NAMES[:4])
    assert together is not None
    assert compared.together is not None
    assert (together.failures, compared.failures) == ({}, {})
    assert compared.together.found.delta is not None
    purposes = [order.purpose for order in masked.sites.keys_seen]
    first = ["final val", "final bins", "final test", "final placements"]
    assert purposes == [*first, "final bins", "final test", "final differences"]


def asked(sites: Sites, names: Collection[str], **about: Any) -> None:
    secure_totals(sites, names, DIRECTORY, **{"run": "r f", "round_number": 3, **about})


def test_other_purposes_of_the_same_cases_are_refused(tmp_path: Path) -> None:
    """A server that asks for the same cases under another name, with one site less; and what remains possible."""
    sites = Sites(tmp_path, {name: numbers_of(name) for name in NAMES[:4]})
    sites.about = lambda terms: [f"{terms.run} test"]
    asked(sites, NAMES[:4], purpose="final bins")
    with pytest.raises(RunFailed, match="was already counted, and now the roster differs by elm"):
        asked(sites, NAMES[:3], purpose="final test")
    sites.about = lambda terms: [f"{terms.run} val"]
    asked(sites, NAMES[:3], purpose="final val")
    sites.about = lambda terms: [f"{terms.run} test", f"{terms.run} val"]
    with pytest.raises(RunFailed, match="was already counted, and now the roster differs by elm"):
        asked(sites, NAMES[:3], purpose="both at once")
    sites.about = lambda terms: [f"{terms.run} test"]
    asked(sites, NAMES[:3], run="r another model", purpose="final test")


@dataclass
class Hostile:
    """A server that sends any message of any purpose to any site at any time, each purpose with a roster of its own."""

    sites: Sites
    rosters: tuple[tuple[str, ...], ...] = (NAMES[:4], NAMES[:3], NAMES[1:4])
    terms: dict[int, Terms] = field(default_factory=dict)
    openings: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def ask(self, step: str, purpose: int, site: str) -> None:
        with suppress(BadInput):
            match step:
                case "keys":
                    order = KeyOrder("r", 3, f"purpose {purpose}", str(purpose) * 32)
                    keys = tuple(make_key(self.sites.state(one), order, site=one) for one in self.rosters[purpose])
                    self.terms[purpose] = Terms("r", 3, order.purpose, order.attempt, DIRECTORY, keys)
                case "seal" if purpose in self.terms and site in self.rosters[purpose]:
                    told = self.terms[purpose]
                    seal(self.sites.state(site), told, lambda: numbers_of(site), site=site, request="0" * 64)
                case "ready" if purpose in self.terms:
                    told = self.terms[purpose]
                    ready(self.sites.state(site), ReadyOrder("r", 3, told.purpose, told.digest), site=site)
                case "open" if purpose in self.terms:
                    told = self.terms[purpose]
                    self.openings[site, told.digest] = opens(self.sites, site, told)


def test_two_totals_that_wait_sealed_are_not_both_opened(tmp_path: Path) -> None:
    """Every site seals for both before anybody opens: each opens the one that it is asked for first."""
    server = Hostile(Sites(tmp_path, {}))
    for step in ("keys", "seal"):
        for purpose in (0, 1):
            for site in NAMES[:4]:
                server.ask(step, purpose, site)
    for purpose in (0, 1):
        for site in NAMES[:4]:
            server.ask("open", purpose, site)
    assert {digest for _, digest in server.openings} == {server.terms[0].digest}
    other = server.terms[1]
    with pytest.raises(BadInput, match="now the roster differs by elm"):
        ready(server.sites.state("ash"), ReadyOrder("r", 3, other.purpose, other.digest), site="ash")


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.sampled_from(NAMES[:4])), max_size=40))
@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_hostile_server_opens_one_roster_over_all_purposes(sent: list[tuple[str, int, str]]) -> None:
    """Any messages, after everything was sealed that can be."""
    with tempfile.TemporaryDirectory() as base:
        server = Hostile(Sites(Path(base), {}))
        for purpose in range(3):
            server.ask("keys", purpose, "")
        sealing = [message for message in sent if message[0] == "seal"]
        for step, purpose, site in [*sealing, *(message for message in sent if message[0] != "keys")]:
            server.ask(step, purpose, site)
        check_one_roster(server.openings, {terms.digest: terms.sites for terms in server.terms.values()})


def test_cases_are_what_is_counted_whatever_they_are_called() -> None:
    """Parts and stages have names that a server chooses; a pair of models is bound with both."""
    about = experiment(NAMES[:4])
    terms = Terms("r", 1, "p", "0" * 32, (Block("positives", 5),), ())

    def subjects(parts: Any, weights: Weights, stage: Any) -> set[str]:
        order = evaluate_order(about, parts, run="r", round_number=1, stage=stage)
        return set(_about(SealOrder(terms, order), weights))

    plain = subjects({"test": ("test",)}, MODELS[0], "counts")
    assert subjects({"val": ("test",)}, MODELS[0], "first-pass") == plain
    assert plain < subjects({"x": ("val", "test")}, MODELS[0], "counts")
    other = subjects({"test": ("test",)}, MODELS[1], "counts")
    assert not plain & other
    assert plain | other < subjects({"test": ("test",)}, side_by_side(*MODELS), "paired")


def test_a_company_outlives_whatever_is_forgotten(tmp_path: Path) -> None:
    bind_company(tmp_path, ["a", "b"], NAMES[:3], site="ash")
    for names in (["a"], ["b"], ["b", "c"]):
        require_company(tmp_path, names, NAMES[:3], site="ash")
        with pytest.raises(BadInput, match="now the roster differs by elm"):
            bind_company(tmp_path, names, NAMES[:4], site="ash")
    require_company(tmp_path, ["c"], NAMES[:4], site="ash")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.company")} == {0o600}

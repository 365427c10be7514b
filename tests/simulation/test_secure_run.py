"""Secure sums through Flower's apps: the same results as in the clear, no sums on the wire,
and a site that drops out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from numpy.typing import NDArray

from client.service import scores_of
from client.site import Site, load_site
from common.auc import clustered_auc
from common.calibration import calibration_slope
from common.config import Experiment
from common.errors import BadInput, RunFailed
from common.evaluation_blocks import evaluation_directory, evaluation_sums
from common.files import read_json
from common.histogram import ScoreHistogram
from common.influence import InfluenceSums, OtherCases, Others, place
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder, Placing
from common.parsing import parse
from common.pooled import Pool
from common.stage_sums import StageSums
from common.sums_orders import named_by_model
from common.update import Weights
from common.weights import fingerprint, load
from server.evidence import pool
from server.records import read_records
from server.rounds import evaluate_order
from server.run import coordinate, initial_weights, prepare_run, resolved
from server.secure_sums import Totals, secure_totals
from server.strategy import FlowerFederation
from simulation.grid import LocalGrid
from tests.experiments import COMPARISON, experiment_table, merged, write_uneven_sites

SIZES = {"ash": 32, "birch": 48, "cedar": 32, "elm": 32}
OPEN = "query.sums_open"
EXACT = ("n_images", "n_patients", "sensitivity", "specificity", "threshold")
CLOSE = ("brier", "ece", "expected", "log_oe_variance")


class WatchedGrid(LocalGrid):
    """Hands every message and reply to `seen`; the node that `lose` names by type and place loses its answer, once, and
    the second node the answers to those of its orders of type `dropping` that `drop` counts.
    """

    def __init__(
        self,
        app: Any,
        sites: list[Path],
        *,
        lose: dict[str, int] | None = None,
        drop: Collection[int] = (),
        dropping: str = "evaluate.sums_seal",
    ) -> None:
        self.seen: list[Message] = []
        super().__init__(app, sites, on_message=self.seen.append)
        self.lose = dict(lose or {})
        self.drop, self.dropping, self.asked, self.dropped = set(drop), dropping, 0, 0

    def _deliver(self, message: Message) -> str:
        name = super()._deliver(message)
        kind = message.metadata.message_type
        if self.lose.get(kind) == message.metadata.dst_node_id - 101:
            del self.lose[kind]
            self._replies[name] = Message(Error(5, "lost"), reply_to=message)
        if kind == self.dropping and message.metadata.dst_node_id == 102:
            self.asked += 1
            if self.asked in self.drop:
                self.dropped += 1
                self._replies[name] = Message(Error(5, "lost"), reply_to=message)
        return name


def go(
    folder: Path,
    sites: list[Path],
    *,
    held: str = "elm",
    lose: dict[str, int] | None = None,
    drop: Collection[int] = (),
    dropping: str = "evaluate.sums_seal",
    **changes: Any,
) -> WatchedGrid:
    from client.app import app

    about = parse(Experiment, experiment_table(sites, **changes), where="test")
    about = resolved(about, {site: "held-out" if site == held else "train" for site in SIZES})
    prepare_run(folder, about, initial_weights(about), resume=folder.exists())
    grid = WatchedGrid(app, sites, lose=lose, drop=drop, dropping=dropping)
    coordinate(FlowerFederation(grid, about), folder)
    return grid


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["site"]: row for row in read_json(folder / "results.json")["rows"]}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_uneven_sites(tmp_path_factory.mktemp("sites"), SIZES)


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory, sites: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("clear") / "run"
    go(folder, sites)
    return folder


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory, sites: list[Path]) -> tuple[Path, WatchedGrid]:
    folder = tmp_path_factory.mktemp("hidden") / "run"
    return folder, go(folder, sites, evaluation={"secure": True})


def test_a_secure_run_tells_what_a_clear_one_does(hidden: tuple[Path, WatchedGrid], clear: Path) -> None:
    """1,024 bins where the clear run has 64: the areas are the exact one's, each within its own bound."""
    folder, grid = hidden
    assert fingerprint(load(folder / "model.safetensors")) == fingerprint(load(clear / "model.safetensors"))
    secure, plain = rows(folder), rows(clear)
    assert {name: secure["all"][name] for name in EXACT} == {name: plain["all"][name] for name in EXACT}
    for name in CLOSE:
        assert secure["all"][name] == pytest.approx(plain["all"][name], abs=1e-9)
    assert secure["all"]["auc_federated_bound"] <= plain["all"]["auc_federated_bound"]
    both = secure["all"]["auc_federated_bound"] + plain["all"]["auc_federated_bound"]
    assert secure["all"]["auc"] == pytest.approx(plain["all"]["auc"], abs=both + 1e-12)
    assert secure["all"]["auc_mean_of_sites"] == plain["all"]["auc_mean_of_sites"]
    for site in SIZES:
        assert secure[site]["auc"] == plain[site]["auc"]
        if site != "elm":
            assert (secure[site]["brier"], secure[site]["why"]) == (None, plain[site]["why"] or "secure")
    by_counts = ("sensitivity", "specificity", "brier", "ece", "observed", "expected", "log_oe_variance")
    assert [secure["elm"][name] for name in by_counts] == pytest.approx(
        [plain["elm"][name] for name in by_counts], abs=1e-9
    ), "an unseen center is in no total: it tells its own"
    assert None not in [secure["elm"][name] for name in by_counts]
    told = [
        str(m.content.config_records["order"]["json"])
        for m in grid.seen
        if m.metadata.dst_node_id == 1 and m.has_content() and m.content.config_records
    ]
    assert sum('"parts":{' in text for text in told) > 0
    for text in told:
        assert '"sums":{' not in text
        assert '"histograms":[{' not in text
        assert '"influence":[{' not in text
    kinds = [m.metadata.message_type for m in grid.seen]
    secure_kinds = ("query.sums_key", "evaluate.sums_seal", "query.sums_ready", "query.sums_open")
    # message and reply; val, bins, test and placements; three training sites
    assert {kind: kinds.count(kind) for kind in secure_kinds} == dict.fromkeys(secure_kinds, 2 * 4 * 3)


def test_what_a_site_sends_is_small(hidden: tuple[Path, WatchedGrid]) -> None:
    _, grid = hidden
    sent = [
        sum(len(array.data) for array in m.content.array_records["arrays"].values())
        for m in grid.seen
        if m.metadata.message_type == "evaluate.sums_seal" and m.metadata.dst_node_id == 1 and m.has_content()
    ]
    assert len(sent) == 12
    assert sum(sent) < 3 * (42 << 10)


@pytest.mark.parametrize(
    ("kind", "seed", "when"),
    [
        ("query.sums_key", 1, ""),
        ("evaluate.sums_seal", 2, ""),
        ("query.sums_ready", 5, ", after it had sealed its sums"),
    ],
)
def test_a_site_that_drops_out_is_named_and_the_others_are_counted(
    tmp_path: Path, sites: list[Path], kind: str, seed: int, when: str
) -> None:
    """Val loses birch, test has all four again: no case is in both.
    Val of the same model with other sites is refused.
    """
    grid = go(tmp_path / "run", sites, lose={kind: 1}, held="", evaluation={"secure": True}, seed=seed)
    assert grid.lose == {}
    failures = [e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"]
    assert [(e["site"], e["why"]) for e in failures] == [("birch", f"the node was lost (error 5){when}")]
    with pytest.raises(RunFailed, match="was already counted, and now the roster differs by birch"):
        go(tmp_path / "again", sites, held="", evaluation={"secure": True}, seed=seed)


def test_the_total_without_a_site_is_exact(sites: list[Path]) -> None:
    """Counts, then placements among them: what the sites send under masks, against all of their cases at once."""
    from client.app import app

    about = parse(Experiment, experiment_table(sites, evaluation={"secure": True}), where="test")
    grid = WatchedGrid(app, sites, lose={"evaluate.sums_seal": 2})
    federation, weights = FlowerFederation(grid, about), initial_weights(about)
    federation.gather(SIZES)
    edges = tuple(np.linspace(0.05, 0.95, 100).tolist())
    order = evaluate_order(about, {"test": ("test",)}, run="r", round_number=1, threshold=0.5, stage="counts")
    order = replace(order, edges=(edges,))

    def total(asked: EvaluateOrder, names: Collection[str]) -> tuple[Totals, StageSums]:
        found = secure_totals(
            federation.exchange(asked, weights),
            names,
            evaluation_directory(asked),
            run=named_by_model("r", fingerprint(weights)),
            round_number=1,
            purpose=f"final {asked.stage}",
        )
        return found, evaluation_sums(found.numbers, "test", asked, sites=found.sites)

    found, counted = total(order, SIZES)
    assert dict(found.failures) == {"cedar": "the node was lost (error 5)"}
    labels, scores, whose = everybody([load_site(s) for s in sites if s.name != "cedar"], order, weights)
    expected = EvaluationSums.of(
        labels,
        scores,
        whose,
        site="x",
        threshold=0.5,
        loss_sum=-np.log(np.where(labels == 1, scores, 1 - scores)).sum(),
    )
    assert counted.sums is not None
    assert counted.histograms == (ScoreHistogram.of(labels, scores, whose, edges=edges, placed=True),)
    assert counted.sums.confusion == expected.confusion
    assert (counted.sums.sites, counted.sums.n_images) == (("ash", "birch", "elm"), expected.n_images)
    assert counted.sums.n_patients == expected.n_patients
    assert counted.sums.brier.squares == pytest.approx(expected.brier.squares, abs=1e-9)
    assert counted.sums.loss_sum == pytest.approx(expected.loss_sum, abs=1e-6)
    assert counted.sums.calibration.score_sums == pytest.approx(expected.calibration.score_sums, abs=1e-9)
    assert counted.sums.by_patient == pytest.approx(expected.by_patient, abs=1e-9)
    (question,) = pool({"total": counted.histograms}, order.edges, questions=(1,), positive_index=1)
    placing = replace(order, stage="placements", edges=(), placing=(question.placing_among_all(),))
    _, placed = total(placing, found.sites)
    (influence,), logistic = placed.influence, placed.logistic
    assert influence is not None
    assert logistic is not None
    exact = clustered_auc(labels, scores, whose)
    assert influence.auc().auc == pytest.approx(exact.auc, abs=influence.bound or 0)
    assert influence == approximately(told_in_clear(question.pool.auc, labels, scores, whose, edges))
    assert logistic.calibration_slope.value == pytest.approx(calibration_slope(labels, scores).value, abs=1e-3)


def told_in_clear(
    center: float | None, labels: NDArray[Any], scores: NDArray[Any], whose: NDArray[Any], edges: tuple[float, ...]
) -> InfluenceSums:
    """The influence sums where the server knows every site's histogram."""
    flags = [whose // 1000 == n for n in np.unique(whose // 1000)]
    told = tuple(ScoreHistogram.of(labels[w], scores[w], whose[w], edges=edges, placed=True) for w in flags)
    known, total = Pool(told, np.asarray(edges)), InfluenceSums.zero(center or 0.0)
    for n, w in enumerate(flags):
        placed = place(labels[w], scores[w], known.others(n))
        total = total + InfluenceSums.of(placed, whose[w], center=total.center)
    return total


def approximately(sums: InfluenceSums) -> InfluenceSums:
    return replace(
        sums,
        **{
            name: pytest.approx(getattr(sums, name), abs=1e-9)
            for name in ("totals", "least", "most", "products", "fourth")
        },
    )


def everybody(
    sites: list[Site], order: EvaluateOrder, weights: Weights
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Labels, scores and patients of all sites' test cases, laid end to end."""
    rows = [site.rows("test") for site in sites]
    plain = replace(order, stage="progress")
    return (
        np.concatenate([site.labels[r] for site, r in zip(sites, rows, strict=True)]),
        np.concatenate([scores_of(s, r, plain, weights, part="test")[:, 1] for s, r in zip(sites, rows, strict=True)]),
        np.concatenate([1000 * n + s.patients[r] for n, (s, r) in enumerate(zip(sites, rows, strict=True))]),
    )


@pytest.mark.parametrize(
    ("dropping", "drop", "seed", "when"),
    [
        ("evaluate.sums_seal", (4, 5), 3, ""),
        ("query.sums_ready", (4, 5), 6, ", after it had sealed its sums"),
        (OPEN, range(4, 10), 7, ""),
    ],
)
def test_a_site_lost_before_its_placements_leaves_an_area_without_an_interval(
    tmp_path: Path, sites: list[Path], dropping: str, drop: Collection[int], seed: int, when: str
) -> None:
    """Each training site goes through val, bins, test and placements: birch is lost at its fourth time, and again at
    its fifth; where it should open, at each of the three requests in both.
    """
    about: dict[str, Any] = {"evaluation": {"secure": True}, "seed": seed}
    grid = go(tmp_path / "run", sites, lose={}, drop=drop, dropping=dropping, **about)
    assert grid.dropped == len(drop)
    row = rows(tmp_path / "run")["all"]
    assert (row["auc_low"], row["why"], row["n_images"] > 0) == (None, "unplaced", True)
    assert row["auc_federated_bound"] is not None
    failures = [e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"]
    (failure,) = failures
    assert failure["site"] == "birch"
    assert failure["why"] == (
        f"the node was lost (error 5){when}; its cases are counted but not placed, so the AUC over all centers has no "
        "interval: evaluate the same sites again (ash, birch, cedar) when birch can be reached, or another model "
        "without it"
    )


def test_a_site_lost_when_it_should_open_fails_the_run_by_name(tmp_path: Path, sites: list[Path]) -> None:
    """The counts of val: the others have opened, so nobody is asked without birch."""
    with pytest.raises(
        RunFailed, match=r"every site opened it \(birch: the node was lost \(error 5\)\); nothing is re"
    ):
        go(tmp_path / "run", sites, lose={}, evaluation={"secure": True}, seed=8, drop=(1, 2, 3), dropping=OPEN)


def test_a_site_lost_once_before_its_placements_is_asked_again(tmp_path: Path, sites: list[Path]) -> None:
    go(tmp_path / "run", sites, lose={}, evaluation={"secure": True}, seed=4, drop=[3, 5])
    assert rows(tmp_path / "run")["all"]["auc_low"] is not None


@pytest.mark.parametrize(
    ("dropping", "drop", "seed", "what"),
    [
        ("evaluate.sums_seal", (2,), 9, "too few sites are left to hide one in a total"),
        (OPEN, range(2, 5), 10, "the test cases of all centers together are not counted without it"),
        ("evaluate.sums_seal", (3, 4), 11, "the test cases of all centers together are not counted without it"),
    ],
)
def test_a_site_lost_before_the_counts_leaves_the_other_numbers(
    tmp_path: Path, sites: list[Path], dropping: str, drop: Collection[int], seed: int, what: str
) -> None:
    """Of exactly three: bins that are never sealed, bins that are never opened, and counts after the bins were."""
    grid = go(tmp_path / "run", sites, lose={}, drop=drop, dropping=dropping, evaluation={"secure": True}, seed=seed)
    assert grid.dropped == len(drop)
    found = rows(tmp_path / "run")
    assert [found["all"][name] for name in ("auc", "n_images", "brier", "why")] == [None, None, None, "uncounted"]
    assert (found["all"]["auc_federated"], found["all"]["auc_federated_why"]) == (None, "uncounted")
    assert found["elm"]["auc"] is not None
    assert found["elm"]["brier"] is not None
    failures = [e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"]
    (failure,) = failures
    assert failure["site"] == "birch"
    assert what in failure["why"]
    assert "when birch can be reached" in failure["why"]


def test_a_site_lost_before_any_test_case_was_told_is_asked_around(tmp_path: Path, sites: list[Path]) -> None:
    """Val has all four, and no total of test cases has birch."""
    go(tmp_path / "run", sites, held="", lose={}, drop=[2], evaluation={"secure": True}, seed=12)
    opened = [load_site(site) for site in sites if site.name != "birch"]
    assert rows(tmp_path / "run")["all"]["n_images"] == sum(len(site.rows("test")) for site in opened)
    assert rows(tmp_path / "run")["birch"]["auc"] is not None
    failures = [e for e in read_records(tmp_path / "run" / "records.jsonl") if e["event"] == "failure"]
    assert [(e["site"], e["why"]) for e in failures] == [("birch", "the node was lost (error 5)")]


def test_a_site_does_not_place_among_counts_that_lack_its_own(sites: list[Path]) -> None:
    from client.evidence import influence_of

    site = load_site(sites[0])
    empty = OtherCases(tuple([0.0] * 11))
    placing = Placing(0.5, Others(tuple(np.linspace(0.1, 0.9, 10).tolist()), empty, empty), whole=True)
    scores = np.full((len(site), 2), 0.5)
    with pytest.raises(BadInput, match="lacks some of this site's own"):
        influence_of(site.task, site.labels, scores, site.patients, placing=[placing], smallest=1)


def test_a_key_for_another_model_seals_nothing(tmp_path: Path) -> None:
    from client.app import app
    from server.secure_sums import DroppedOut, sum_once

    sites = write_uneven_sites(tmp_path, {"ash": 16, "birch": 16, "cedar": 16})
    about = parse(Experiment, experiment_table(sites), where="test")
    federation, weights = FlowerFederation(LocalGrid(app, sites), about), initial_weights(about)
    federation.gather(("ash", "birch", "cedar"))
    order = evaluate_order(about, {"val": ("val",)}, run="r", round_number=1, stage="first-pass")
    exchange = federation.exchange(order, weights)
    directory = evaluation_directory(order)
    with pytest.raises(DroppedOut, match="site ash: its key was asked for another model than came"):
        sum_once(exchange, ("ash", "birch", "cedar"), directory, run="r " + "0" * 64, round_number=1, purpose="x")


def test_too_few_sites_are_refused_before_anyone_trains(tmp_path: Path, sites: list[Path]) -> None:
    with pytest.raises(BadInput, match=r"evaluation\.secure: 2 training sites are too few to hide one in a total"):
        go(tmp_path / "run", sites, evaluation={"secure": True}, held_out=["ash"])
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_comparison_takes_the_bins_of_secure_sums(tmp_path: Path, sites: list[Path]) -> None:
    """The exact AUC stands beside the federated one, whose bound is that of 1,024 bins; policies merge nothing."""
    from simulation.compare import compare

    changes = {**COMPARISON, "comparison": {"arms": ["federated"], "protocols": ["in-federation"], "pictures": 0}}
    found = {}
    for secure in (False, True):
        table = experiment_table(sites, **merged(changes, {"evaluation": {"secure": secure}}))
        compare(parse(Experiment, table, where="test"), tmp_path / str(secure))
        (row,) = (r for r in read_json(tmp_path / str(secure) / "results.json")["rows"] if r["site"] == "all")
        assert abs(row["auc_federated"] - row["auc"]) <= row["auc_federated_bound"] + 1e-12
        found[secure] = row
    assert found[True]["auc"] == found[False]["auc"]
    assert found[True]["auc_federated_bound"] <= found[False]["auc_federated_bound"]


def test_a_comparison_with_too_few_sites_for_secure_sums_is_refused_at_once(tmp_path: Path, sites: list[Path]) -> None:
    from simulation.compare import compare

    about = parse(Experiment, experiment_table(sites[:3], evaluation={"secure": True}), where="test")
    with pytest.raises(
        BadInput, match="a federated model of this comparison has 2 training sites, too few to hide one"
    ):
        compare(about, tmp_path / "run")
    assert not (tmp_path / "run").exists()

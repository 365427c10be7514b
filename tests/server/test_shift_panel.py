"""The shift panel over messages: the same as from the sites' sums themselves, and by name who is not in it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.descriptors import describe
from client.features import pooled_features
from client.multipliers import multipliers
from client.service import answer_evaluate, site_crops
from client.shift import Patients, patients_of, shift_moments, shift_sums
from client.site import Site, load_site
from common.config import Experiment, PatientPrivacy, load_experiment
from common.errors import SonofedError
from common.files import read_json
from common.model import build_model
from common.orders import EvaluateOrder, EvaluateReport, SiteCard
from common.parsing import parse
from common.randomness import derive
from common.shift_orders import Packed, SentReference
from common.update import Weights
from common.weights import load, set_weights
from server.report import write_report
from server.rounds import Evaluated, Roster, evaluate_order
from server.run import initial_weights
from server.shift import make_reference
from server.shift_card import make_cards
from server.shift_panel import Told, ask_shift, panel
from simulation.__main__ import main
from simulation.sources import open_sites
from tests.experiments import experiment_table, write_experiment
from tests.faults.small_sites import write_site
from tests.server.report_folder import Folder

SIZES = {"ash": 64, "birch": 80, "yew": 28}
CASES = {"ash": ("val", "test"), "birch": ("val", "test"), "yew": ("train", "val", "test")}


def write(folder: Path, *, sends: list[str] | None = None, smallest: int = 5, images: int | None = None) -> Path:
    """A site of as many patients as images; half of a training one's do not train."""
    name = folder.name
    write_site(folder, name, seed=sorted(SIZES).index(name), images=images or SIZES[name])
    text = (
        (folder / "site.toml").read_text(encoding="utf-8").replace("smallest_group = 1", f"smallest_group = {smallest}")
    )
    told = f"[policy]\nevaluation_sends = {json.dumps(sends)}" if sends is not None else "[policy]"
    (folder / "site.toml").write_text(text.replace("[policy]", told), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Experiment]:
    """A run over messages, with its sites."""
    base = tmp_path_factory.mktemp("panel")
    sites = [write(base / "sites" / name) for name in SIZES]
    training = {"rounds": 1, "steps": 4}
    config = write_experiment(base / "tiny.toml", sites, held_out=["yew"], training=training)
    assert main(["run", str(config), "--out", str(base / "run")]) == 0
    return base / "run", load_experiment(config)


def patients(site: Site, experiment: Experiment, weights: Weights) -> Patients:
    """As a site makes them, by hand."""
    model = build_model(experiment.model, task="lump", classes=2, seed=0)
    set_weights(model, weights)
    rows = site.rows(*CASES[site.id])
    crops = site_crops(site, experiment.crop)[rows]
    features = pooled_features(model, crops, precision="float32", seed=experiment.seed)
    seen = describe(crops, margin=experiment.crop.margin)
    return patients_of(seen, features, labels=site.labels[rows], patients=site.patients[rows], positive=1)


def test_the_panel_over_messages_is_that_of_the_sites_sums(finished: tuple[Path, Experiment]) -> None:
    run, experiment = finished
    results = read_json(run / "results.json")
    sites = open_sites(experiment)
    known = {name: patients(site, experiment, load(run / "model.safetensors")) for name, site in sites.items()}
    reference = make_reference([shift_moments(known[name], classes=2) for name in sorted(known)], seed=experiment.seed)
    laid = SentReference.of(reference).reference  # arrays lie in memory as a message brings them: other sums round else
    sums = {
        name: shift_sums(known[name], laid, rng=multipliers(site, site.rows(*CASES[name])))
        for name, site in sites.items()
    }
    rng = derive(experiment.seed, "shift", "server")
    expected = make_cards(sums, reference, rng=rng, against=["ash", "birch"], trained=["ash", "birch"])
    assert [card["site"] for card in results["shift"]] == ["ash", "birch", "yew"]
    assert [card["n_patients"] for card in results["shift"]] == [32, 40, 28]
    for found, card in zip(results["shift"], json.loads(json.dumps([asdict(one) for one in expected])), strict=True):
        told = ("performance", "what_it_did", "what_to_do")
        assert {k: v for k, v in found.items() if k not in told} == {k: v for k, v in card.items() if k not in told}
    (yew,) = (row for row in results["rows"] if row["site"] == "yew")
    assert results["shift"][2]["performance"]["auc"] == yew["auc"]
    assert results["shift"][2]["against"] == ["ash", "birch"]


def test_the_page_of_the_run_has_the_cards_and_the_sites_log_says_what_left(finished: tuple[Path, Experiment]) -> None:
    run, experiment = finished
    html = write_report(run).read_text(encoding="utf-8")
    assert 'id="cards"' in html
    assert all(f'data-site="{name}"' in html for name in SIZES)
    log = Path(experiment.sites[0].path or "") / "private" / "sent.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    sums = {line["stage"]: line["parts"]["shift"]["sums"] for line in lines if line["stage"].startswith("shift")}
    width = 10 + 64
    assert sums["shift-moments"] == {"shift_moments": 2 + 2 * width + width * (width + 1) // 2}
    coordinates = 2 + 10 + 8 + 2 * 64 + 8 * 9 // 2
    assert sums["shift-sums"] == {"shift_sums": 2 + (2 + 10) * coordinates + 2 * 8 + 2 * 8 * 8}


class Sites:
    """The sites of a folder, asked without a grid; `touched` may spoil what one of them says."""

    def __init__(self, *folders: Path) -> None:
        self.sites = {folder.name: load_site(folder) for folder in folders}
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def evaluate(self, _: int, orders: dict[str, EvaluateOrder], weights: Weights) -> Evaluated:
        self.asked.append((next(iter(orders.values())).stage, tuple(orders)))
        reports, failures = {}, {}
        for name, order in orders.items():
            try:
                reports[name] = self.touched(answer_evaluate(self.sites[name], order, weights))
            except SonofedError as error:
                failures[name] = str(error)
        return Evaluated(reports, failures)

    def touched(self, report: EvaluateReport) -> EvaluateReport:
        return report

    train = exchange = evaluate


def ask(there: Sites, *, lost: tuple[str, ...] = (), **changes: Any) -> Told:
    experiment = parse(Experiment, experiment_table([Path("ash")]), where="test")
    experiment = replace(experiment, **changes)
    order = evaluate_order(experiment, {"val": ("val",)}, run="r", round_number=1)
    cards = {n: SiteCard(n, "train", experiment.task, {}, 9, "") for n in there.sites}
    roster = Roster({n: c for n, c in cards.items() if n != "yew"}, {n: c for n, c in cards.items() if n == "yew"})
    return ask_shift(there, experiment, roster, _weights(), order, lost=lost)  # type: ignore[arg-type]


def _weights() -> Weights:
    return initial_weights(parse(Experiment, experiment_table([Path("ash")]), where="test"))


def told_by(told: Told) -> dict[str, str | None]:
    experiment = parse(Experiment, experiment_table([Path("ash")]), where="test")
    return {card.site: card.why for card in panel(told, experiment, trainers=("ash", "birch"), rows=())}


def test_a_site_that_keeps_these_sums_is_named_and_the_others_are_compared(tmp_path: Path) -> None:
    kept = ["numbers", "sums", "masked-sums"]
    there = Sites(write(tmp_path / "ash"), write(tmp_path / "birch", sends=kept), write(tmp_path / "yew"))
    found = ask(there)
    assert there.asked == [("shift-moments", ("ash", "birch", "yew")), ("shift-sums", ("ash", "yew"))]
    assert (set(found.sums), found.without, found.failures) == ({"ash", "yew"}, {"birch": "policy"}, {})
    assert told_by(found) == {"ash": "no-comparison", "birch": "policy", "yew": None}
    assert {card.site for card in panel(found, _tiny(), trainers=("ash",), rows=())} == set(SIZES)


def _tiny() -> Experiment:
    return parse(Experiment, experiment_table([Path("ash")]), where="test")


def test_small_sites_and_small_classes_tell_nothing_by_name(tmp_path: Path) -> None:
    """Of 40 patients, 20 of a class, with groups of 21; and 14 at a policy of 5, which 25 are needed for."""
    sites = write(tmp_path / "ash"), write(tmp_path / "birch", smallest=21), write(tmp_path / "yew", images=14)
    there = Sites(*sites)
    found = ask(there)
    assert found.without == {"ash": "no-comparison", "birch": "suppressed", "yew": "too-few"}
    assert there.asked == [("shift-moments", ("ash", "birch", "yew"))]
    assert told_by(found) == found.without


def test_one_that_goes_between_the_rounds_or_says_nonsense_is_named(tmp_path: Path) -> None:
    class Spoiled(Sites):
        def touched(self, report: EvaluateReport) -> EvaluateReport:
            part = report.parts["shift"]
            if report.site != "birch" or part.shift_sums is None:
                return report
            short = replace(part.shift_sums, mean=Packed.of(part.shift_sums.mean.array[:-1]))
            return replace(report, parts={"shift": replace(part, shift_sums=short)})

    found = ask(Spoiled(*(write(tmp_path / name) for name in SIZES)))
    assert found.without == {"birch": "no-answer"}
    assert "its sums do not fit the reference" in found.failures["birch"]
    assert told_by(found) == {"ash": "no-comparison", "birch": "no-answer", "yew": None}

    class Narrow(Sites):
        def touched(self, report: EvaluateReport) -> EvaluateReport:
            part = report.parts["shift"]
            if report.site != "yew" or part.shift_moments is None:
                return report
            total = part.shift_moments.totals.array[:, :20]
            upper = np.zeros(20 * 21 // 2)
            less = replace(part.shift_moments, totals=Packed.of(total), scatter=Packed.of(upper))
            return replace(report, parts={"shift": replace(part, shift_moments=less)})

    found = ask(Narrow(*(tmp_path / name for name in SIZES)))
    assert set(found.sums) == {"ash", "birch"}
    assert "its moments have shape (2, 20), not (2, 74)" in found.failures["yew"]


def test_a_broken_secret_stops_the_sums_and_nothing_else(tmp_path: Path) -> None:
    there = Sites(*(write(tmp_path / name) for name in SIZES))
    (tmp_path / "birch" / "state").mkdir()
    (tmp_path / "birch" / "state" / "shift.key").write_bytes(b"torn")
    found = ask(there)
    assert "state/shift.key is torn" in found.failures["birch"]
    assert set(found.sums) == {"ash", "yew"}


def test_nobody_is_asked_where_sums_are_in_no_budget_or_masked(tmp_path: Path) -> None:
    there = Sites(*(write(tmp_path / name) for name in SIZES))
    training = replace(_tiny().training, class_weights=False)
    assert ask(there, privacy=PatientPrivacy(noise_multiplier=1.0), training=training) == Told()
    assert ask(there, evaluation=replace(_tiny().evaluation, secure=True)) == Told()
    assert there.asked == []
    assert ask(Sites(tmp_path / "ash")) == Told(), "a single site has nobody to be compared with"
    lost = ask(there, lost=("birch",))
    assert (set(lost.sums), lost.without) == ({"ash", "yew"}, {"birch": "no-answer"})
    assert {site for _, sites in there.asked for site in sites} == {"ash", "yew"}
    assert ask(there, lost=tuple(SIZES)).without == dict.fromkeys(SIZES, "no-answer")


def test_a_leave_one_out_run_asks_training_sites_for_val_patients_alone(tmp_path: Path) -> None:
    there = Sites(*(write(tmp_path / name, images=112) for name in SIZES))
    found = ask(there, protocol="leave-one-center-out")
    assert {site: one.patients for site, one in found.sums.items()} == {"ash": 28, "birch": 28, "yew": 112}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"privacy": {"kind": "patient"}}, "the sums that they need are in no privacy budget"),
        ({"evaluation": {"secure": True}}, "the sums that they need are not asked for where sums leave under masks"),
        ({}, "no sums about the centers' images were compared"),
    ],
)
def test_a_page_without_cards_says_why(tmp_path: Path, config: dict[str, Any], why: str) -> None:
    run = Folder(tmp_path / "run", seeds=1).comparison().write()
    results = read_json(run / "results.json")
    results["config"] |= config
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    html = unescape(write_report(run).read_text(encoding="utf-8"))
    assert f"There are no shift cards: {why}." in html

"""The site's own log of what it sent, and the part of its policy that says what may be sent."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from client.evidence import report_part
from client.sealing import answer_key, answer_seal
from client.sent import log_report
from client.service import answer_evaluate
from client.site import Site, load_site
from common.bins import FIXED
from common.config import Experiment
from common.errors import BadInput, RunFailed
from common.evaluation_blocks import evaluation_directory
from common.files import sha256_bytes
from common.histogram import ScoreHistogram
from common.masks import new_secret, public_key
from common.orders import EvaluateOrder, EvaluateReport, PartReport
from common.parsing import parse
from common.sums_orders import KeyOrder, SealOrder, SiteKey, Terms, named_by_model
from common.update import Weights
from common.weights import fingerprint
from server.evidence import agree
from server.pooled_in_clear import InClear
from server.rounds import Evaluated, evaluate_order
from server.run import initial_weights
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site


def opened(folder: Path, *, sends: list[str] | None = None) -> Site:
    write_site(folder, folder.name, seed=0, images=32, per_patient=2)
    if sends is not None:
        text = (folder / "site.toml").read_text(encoding="utf-8")
        text = text.replace("[policy]", f"[policy]\nevaluation_sends = {json.dumps(sends)}")
        (folder / "site.toml").write_text(text, encoding="utf-8")
    return load_site(folder)


def asked(stage: str, **changes: Any) -> tuple[EvaluateOrder, Weights]:
    experiment = parse(Experiment, experiment_table([Path("ash")]), where="test")
    made = evaluate_order(experiment, {"test": ("test",)}, run="r", round_number=2, threshold=0.5)
    return EvaluateOrder(**{**made.__dict__, "stage": stage, **changes}), initial_weights(experiment)


def log_of(site: Site) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (site.folder / "private" / "sent.jsonl").read_text().splitlines()]


def sealing(order: EvaluateOrder, weights: Weights, site: Site, *, attempt: str = "0" * 32) -> SealOrder:
    """The order to seal among two other sites, whose keys are made here."""
    ask = KeyOrder(named_by_model(order.run, fingerprint(weights)), 2, "final test", attempt)
    keys = (answer_key(site, ask), *(SiteKey(name, public_key(new_secret())) for name in ("birch", "cedar")))
    return SealOrder(Terms(ask.run, 2, ask.purpose, ask.attempt, evaluation_directory(order), keys), order)


def test_what_is_told_in_the_clear_stands_in_the_log(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    order, weights = asked("counts", edges=((0.25, 0.5, 0.75),))
    report = answer_evaluate(site, order, weights)
    (line,) = log_of(site)
    told = report.parts["test"]
    assert (line["run"], line["round"], line["stage"], line["under_masks"]) == ("r", 2, "counts", False)
    assert line["parts"]["test"]["numbers"]["auc"] == told.auc
    assert line["parts"]["test"]["numbers"]["n_patients"] == told.n_patients
    assert line["parts"]["test"]["sums"].keys() == {"sums", "histograms"}
    assert line["parts"]["test"]["sums"]["histograms"] == 1 + 2 * 4
    assert line["sha256"] == sha256_bytes(TypeAdapter(EvaluateReport).dump_json(report))
    assert stat.S_IMODE((site.folder / "private" / "sent.jsonl").stat().st_mode) == 0o600
    answer_evaluate(site, asked("progress")[0], weights)
    assert [line["stage"] for line in log_of(site)] == ["counts", "progress"]
    assert log_of(site)[1]["parts"]["test"]["sums"] == {}


def test_what_is_told_under_masks_stands_in_the_log(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    order, weights = asked("first-pass")
    seal = sealing(order, weights, site)
    _, words = answer_seal(site, seal, weights)
    (line,) = log_of(site)
    assert (line["under_masks"], line["with"], line["stage"]) == (True, ["birch", "cedar"], "first-pass")
    assert line["sums"] == {"test.histogram.0.cases": 2 * 1024}
    assert line["sha256"] == sha256_bytes(words.astype("<u8").tobytes())


def test_nothing_is_sent_that_cannot_be_logged(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    (site.folder / "private" / "sent.jsonl").mkdir(parents=True)
    order, _ = asked("progress")
    with pytest.raises(
        RunFailed, match=r"its log of what is sent cannot be written \(IsADirectoryError\), so nothing is sent"
    ):
        log_report(site, order, EvaluateReport("ash", 0.0))


def test_a_site_that_keeps_its_sums_is_left_out_by_name(tmp_path: Path) -> None:
    """It tells its own numbers; in the first pass and in the pool it is one whose classes are suppressed."""
    site = opened(tmp_path / "ash", sends=["numbers", "masked-sums"])
    scores = np.tile([0.4, 0.6], (len(site), 1))
    for stage, changes in (("first-pass", {}), ("counts", {"edges": ((0.5,),)})):
        part = report_part(site, site.rows(), scores, asked(stage, **changes)[0])
        assert (part.auc, part.sums, part.why) == (0.5, None, "constant")
        (histogram,) = (ScoreHistogram.from_json(told) for told in part.histograms)
        assert (histogram.positives, histogram.negatives) == (None, None)
        assert histogram.bins == (len(FIXED) + 1 if stage == "first-pass" else 2)
        if stage == "first-pass":
            found = agree({"ash": [histogram]}, questions=(1,), positive_index=1, sensitivity=0.9)
            assert found.threshold is None
    placed = report_part(site, site.rows(), scores, asked("placements", placing=(None,))[0])
    assert (placed.influence, placed.logistic) == ((None,), None)


def told_by(part: PartReport) -> dict[str, Any]:
    return {name: value for name, value in part.__dict__.items() if not name.startswith("__") and value}


def test_a_site_that_keeps_its_numbers_tells_none(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", sends=["masked-sums"])
    scores = np.tile([0.4, 0.6], (len(site), 1))
    part = report_part(site, site.rows(), scores, asked("counts", edges=((0.5,),))[0])
    (histogram,) = (ScoreHistogram.from_json(told) for told in part.histograms)
    assert (histogram.positives, histogram.negatives) == (None, None)
    assert told_by(part).keys() == {"why", "histograms"}


def test_a_site_that_keeps_its_numbers_still_adds_to_the_sums(tmp_path: Path) -> None:
    """What it keeps stays there, and nothing else: it is in the pool, without a number of its own."""
    site, whole = opened(tmp_path / "ash", sends=["sums"]), opened(tmp_path / "birch")
    p = np.random.default_rng(0).random(len(site))
    scores = np.stack([1 - p, p], axis=1)
    order = asked("counts", edges=((0.25, 0.5, 0.75),))[0]
    part, all_told = (report_part(one, one.rows(), scores, order) for one in (site, whole))
    assert told_by(part).keys() == {"why", "sums", "histograms"}
    assert (part.why, part.histograms) == ("policy", all_told.histograms)
    clear = InClear(Nobody(), parse(Experiment, experiment_table([Path("ash")]), where="test"), {})
    assert clear.pooled({"ash": part}, order)[0].sites == ("ash",)
    progress = report_part(site, site.rows(), scores, asked("progress")[0])
    assert told_by(progress) == {"why": "policy"}
    few = replace(site, policy=replace(site.policy, smallest_group=100))
    assert told_by(report_part(few, few.rows(), scores, order)) == {"why": "policy"}


class Nobody:
    def evaluate(self, *_: object) -> Evaluated:
        raise AssertionError("a site was asked")

    train = exchange = evaluate


def test_a_site_that_seals_nothing_says_so(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", sends=["numbers", "sums"])
    order, weights = asked("first-pass")
    with pytest.raises(BadInput, match=r"site ash: its policy \(evaluation_sends\) has no masked-sums"):
        answer_seal(site, sealing(order, weights, site), weights)
    assert not (site.folder / "private" / "sent.jsonl").exists()

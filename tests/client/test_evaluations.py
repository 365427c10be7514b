"""How many evaluations a site answers: no more than its policy allows, over restarts,
and a request that came before once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.__main__ import main
from client.evaluations import count_evaluation, read_answered
from client.private_round import Custody
from client.sealing import answer_seal
from client.service import answer_evaluate, answer_query
from client.site import Site, load_site
from common.errors import EvaluationsExhausted, RunFailed
from tests.client.test_sent import asked, sealing
from tests.faults.small_sites import write_site


def opened(folder: Path, **policy: int) -> Site:
    if not folder.exists():
        write_site(folder, folder.name, seed=0, images=16)
        text = (folder / "site.toml").read_text(encoding="utf-8")
        told = "".join(f"{key} = {value}\n" for key, value in policy.items())
        (folder / "site.toml").write_text(text.replace("[policy]\n", f"[policy]\n{told}"), encoding="utf-8")
    return load_site(folder)


def ask(site: Site, numbers: Sequence[int], run: str = "r") -> None:
    order, weights = asked("progress")
    for number in numbers:
        count_evaluation(site.folder, site, replace(order, run=run, round=number), weights)


def test_beyond_the_limit_of_a_run_and_of_all_runs_nothing_is_answered(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", evaluations_per_run=2, evaluations_in_all=3)
    order, weights = asked("progress")
    first = answer_evaluate(site, order, weights)
    answer_evaluate(site, replace(order, round=3), weights)
    with pytest.raises(EvaluationsExhausted, match="site ash has answered 2 evaluations of run r, all that policy"):
        answer_evaluate(site, replace(order, round=4), weights)
    assert answer_evaluate(site, order, weights).parts == first.parts, "what was answered before is answered again"
    answer_evaluate(site, replace(order, run="other"), weights)
    with pytest.raises(EvaluationsExhausted, match="has answered 3 evaluations in all, which is what policy"):
        answer_evaluate(site, replace(order, run="third"), weights)
    assert len((site.folder / "private" / "sent.jsonl").read_text().splitlines()) == 4


def test_sums_under_masks_are_counted_too_and_anew_for_other_terms(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", evaluations_in_all=2)
    order, weights = asked("first-pass")
    for attempt in "01":
        order_to_seal = sealing(order, weights, site, attempt=attempt * 32)
        for _ in range(2):
            answer_seal(site, order_to_seal, weights)
    assert read_answered(site.folder).in_all == 2
    with pytest.raises(EvaluationsExhausted):
        answer_seal(site, sealing(order, weights, site, attempt="2" * 32), weights)


def test_the_same_request_is_counted_once_and_any_other_anew(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    order, weights = asked("progress")
    other = {name: array + 1 for name, array in weights.items()}
    for _ in range(2):
        for what, how in ((order, weights), (replace(order, threshold=0.25), weights), (order, other)):
            count_evaluation(site.folder, site, what, how)
    assert read_answered(site.folder).in_all == 3
    assert {run: len(requests) for run, requests in read_answered(site.folder).requests.items()} == {"r": 3}


def _ask_and_die(folder: Path) -> None:
    """Another process, which never ends in order."""
    ask(load_site(folder), range(4))
    os._exit(9)


def test_the_count_outlives_the_process_and_a_torn_line_counts(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", evaluations_per_run=5, evaluations_in_all=6)
    child = multiprocessing.get_context("spawn").Process(target=_ask_and_die, args=(site.folder,))
    child.start()
    child.join()
    assert (child.exitcode, read_answered(site.folder).in_all) == (9, 4)
    with (site.folder / "state" / "evaluations.jsonl").open("ab") as file:
        file.write(b'{"run": "r", "req')
    assert (read_answered(site.folder).damaged, read_answered(site.folder).in_all) == (1, 5)
    ask(site, [4])
    with pytest.raises(EvaluationsExhausted):
        ask(site, [5], run="other")


def _ask(folder: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        try:
            ask(load_site(folder), [number])
        except EvaluationsExhausted:
            return


def test_two_processes_do_not_count_past_each_other(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", evaluations_in_all=15)
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_ask, args=(site.folder, range(at, at + 10))) for at in (0, 100)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert read_answered(site.folder).in_all == 15


def test_what_cannot_be_written_down_is_not_answered(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    (site.folder / "state" / "evaluations.jsonl").mkdir(parents=True)
    order, weights = asked("progress")
    with pytest.raises(RunFailed, match=r"state/evaluations.jsonl cannot be read \(Is a directory\)"):
        answer_evaluate(site, order, weights)
    assert not (site.folder / "private" / "sent.jsonl").exists()


def test_a_held_out_site_answers_on_and_a_simulation_counts_apart(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", evaluations_in_all=0)
    order, weights = asked("progress")
    answer_evaluate(load_site(site.folder, role="held-out"), order, weights)
    with pytest.raises(EvaluationsExhausted, match="answered 0 evaluations in all"):
        answer_evaluate(site, order, weights)
    roomy = opened(tmp_path / "birch")
    answer_evaluate(roomy, order, weights, custody=Custody(tmp_path / "apart"))
    assert (read_answered(roomy.folder).in_all, read_answered(tmp_path / "apart" / "birch").in_all) == (0, 1)


def test_the_bound_is_told_to_the_coordinator_and_the_count_to_the_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = opened(tmp_path / "ash", evaluations_per_run=7, evaluations_in_all=9)
    assert answer_query(site).evaluations == (7, 9)
    assert answer_query(load_site(site.folder, role="held-out")).evaluations is None
    ask(site, [1, 2])
    ask(site, [1], run="pilot")
    assert main(["ledger", str(site.folder)]) == 0
    assert "3 of 9 that the policy allows in all, 7 for each run (pilot 1, r 2)" in capsys.readouterr().out
    assert main(["ledger", str(site.folder), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["evaluations"] == {"in_all": 3, "cap_in_all": 9, "cap_per_run": 7, "runs": {"pilot": 1, "r": 2}}

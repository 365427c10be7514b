"""Net benefit and the intervals of calibration points against slow counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from server.report.reading import read_run
from server.report.scores import CUTOFFS, curves, net_benefit
from tests.server.report_folder import Folder


def test_net_benefit_is_counted_case_by_case() -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.random(80) < 0.4, rng.integers(0, 21, 80) / 20
    for t, found in zip(CUTOFFS, net_benefit(truth, scores), strict=True):
        tp = sum(1 for y, p in zip(truth, scores, strict=True) if y and p >= t)
        fp = sum(1 for y, p in zip(truth, scores, strict=True) if not y and p >= t)
        assert found == pytest.approx(tp / 80 - fp / 80 * t / (1 - t))


def test_calling_all_positive_is_a_model_that_scores_one(tmp_path: Path) -> None:
    run = read_run(Folder(tmp_path / "run", seeds=2, cases=60).comparison(("federated",)).write())
    rows = tuple(r for r in run.rows if r.site == run.sites()[0] and r.protocol == "leave-one-center-out")
    found, absent = curves(rows, run.folder)
    assert (absent, found.binary) == (0, 2)
    share = found.share / 2
    truth = np.arange(1000) < round(1000 * share)
    expected = net_benefit(truth, np.ones(1000))
    assert [b for _, b in found.all_positive()] == pytest.approx(list(expected), abs=0.05)
    assert found.decisions()[0][1] == pytest.approx(share, abs=0.02)


def test_a_points_interval_is_wilsons_with_patients_as_trials(tmp_path: Path) -> None:
    """Two images a patient: by hand, from the file."""
    run = read_run(Folder(tmp_path / "run", seeds=1, cases=80).comparison(("federated",)).write())
    row = next(r for r in run.rows if r.predictions)
    lines = [line.split(",") for line in (run.folder / str(row.predictions)).read_text().splitlines()[1:]]
    found, _ = curves((row,), run.folder)
    for cell in found.reliability():
        index = min(int(cell.probability * 10), 9)
        here = [line for line in lines if min(int(float(line[3]) * 10), 9) == index]
        patients, hits = len({line[0] for line in here}), sum(line[2] == "1" for line in here)
        bounds = proportion_confint(hits / len(here) * patients, patients, method="wilson")
        assert (cell.low, cell.high) == pytest.approx(bounds)

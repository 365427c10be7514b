"""Net benefit and the intervals of calibration points against slow counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from common.decisions import benefit_reach, net_benefit
from server.report.reading import read_run
from server.report.scores import CUTOFFS, curves
from tests.server.report_folder import Folder


def test_net_benefit_is_counted_case_by_case() -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.random(80) < 0.4, rng.integers(0, 21, 80) / 20
    for t, found in zip(CUTOFFS, net_benefit(truth, scores, CUTOFFS), strict=True):
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
    expected = net_benefit(truth, np.ones(1000), CUTOFFS)
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


def test_the_band_of_net_benefit_is_the_patient_bootstraps() -> None:
    """Patients with one to five images that depend on each other; the closed form against 4,000 draws of patients."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(150), rng.integers(1, 6, 150))
    shared = rng.standard_normal(150)[patients]
    truth = rng.permutation(150)[patients] < 60
    scores = 1 / (1 + np.exp(-(shared + 0.5 * rng.standard_normal(len(patients)) + 1.2 * (truth - 0.5))))
    gain = np.where(scores[:, None] >= CUTOFFS, np.where(truth[:, None], 1.0, -CUTOFFS / (1 - CUTOFFS)), 0.0)
    sums = np.stack([gain[patients == who].sum(axis=0) for who in range(150)])
    cases = np.bincount(patients)
    draws = rng.multinomial(150, np.full(150, 1 / 150), 4000).astype(np.float64)
    drawn = draws @ sums / (draws @ cases)[:, None]
    reach = benefit_reach(truth, scores, patients, CUTOFFS)
    there = [9, 19, 29, 49]
    np.testing.assert_allclose(reach[there], 1.976 * drawn.std(axis=0)[there], rtol=0.06)
    alone = benefit_reach(truth, scores, np.arange(len(truth)), CUTOFFS)
    assert (alone[there] < 0.9 * reach[there]).all(), "images for patients would claim too much"


def test_the_band_covers_and_a_single_patient_has_none() -> None:
    rng = np.random.default_rng(4)
    inside = np.zeros(len(CUTOFFS))
    everybody = _drawn(rng, 40_000)
    true = net_benefit(everybody[0], everybody[1], CUTOFFS)
    for _ in range(300):
        truth, scores, patients = _drawn(rng, 80)
        inside += np.abs(net_benefit(truth, scores, CUTOFFS) - true) <= benefit_reach(truth, scores, patients, CUTOFFS)
    assert (inside[[9, 29, 49]] / 300 > 0.91).all()
    assert (inside[[9, 29, 49]] / 300 < 0.985).all()
    assert np.isinf(
        benefit_reach(np.array([True, False]), np.array([0.6, 0.3]), np.zeros(2, dtype=np.int64), CUTOFFS)
    ).all()


def _drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    patients = np.repeat(np.arange(count), rng.integers(1, 5, count))
    truth = (rng.random(count) < 0.4)[patients]
    x = rng.standard_normal(count)[patients] + rng.standard_normal(len(patients)) + 1.5 * (truth - 0.5)
    return truth, 1 / (1 + np.exp(-x)), patients

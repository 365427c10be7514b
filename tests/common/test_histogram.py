"""Cells hold enough patients, whatever the cases; pooled they give the AUC within their bound, a threshold,
net benefit.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from common.bins import FIXED, PLAIN_BINS, bin_of, equal_edges, in_few_digits, quantile_edges, share_of_bin
from common.calibration import CalibrationBins
from common.histogram import Cells, ScoreHistogram
from common.metrics import threshold_at_sensitivity
from common.pooled import Pool, share_out

Case = tuple[bool, float, int]
case = st.tuples(
    st.booleans(), st.sampled_from([0.0, 1e-300, 0.1, 0.2, 0.35, 0.5, 0.6, 0.9, 1 - 1e-9, 1.0]), st.integers(0, 12)
)
cases = st.lists(case, min_size=1, max_size=60)
EDGES = equal_edges(16)


def arrays(rows: list[Case]) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    labels, p, patients = zip(*rows, strict=True)
    return np.array(labels), np.array(p), np.array(patients)


@settings(deadline=None)
@given(cases, st.sampled_from([1, 2, 5]))
def test_no_cell_is_about_fewer_patients_than_allowed(rows: list[Case], smallest: int) -> None:
    labels, p, patients = arrays(rows)
    found = ScoreHistogram.of(labels, p, patients, edges=EDGES, smallest=smallest)
    index = bin_of(p, EDGES)
    for cells, which in ((found.positives, labels), (found.negatives, ~labels)):
        whose = set(patients[which].tolist())
        if 0 < len(whose) < smallest:
            assert cells is None
            continue
        assert cells is not None
        assert cells.images == which.sum()
        for start, end, count in zip(*cells.spans(16), strict=True):
            inside = which & (index >= start) & (index < end)
            assert count == inside.sum()
            assert smallest == 1 or not whose or len(set(patients[inside].tolist())) >= smallest


@settings(deadline=None)
@given(cases, st.sampled_from([1, 3]))
def test_json_is_faithful(rows: list[Case], smallest: int) -> None:
    found = ScoreHistogram.of(*arrays(rows), edges=EDGES, smallest=smallest)
    assert ScoreHistogram.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "cells", [{"starts": [0, 20], "counts": [1, 2]}, {"starts": [1], "counts": [1]}, {"starts": [0], "counts": [-1]}]
)
def test_cells_that_do_not_fit_are_refused(cells: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ScoreHistogram.from_json({"bins": 16, "positives": cells, "negatives": None})


@settings(deadline=None, max_examples=50)
@given(st.lists(cases, min_size=1, max_size=4), st.sampled_from([1, 3]))
def test_the_pooled_auc_is_within_its_bound(sites: list[list[Case]], smallest: int) -> None:
    told = [(ScoreHistogram.of(*arrays(rows), edges=EDGES, smallest=smallest), rows) for rows in sites]
    there = [(h, rows) for h, rows in told if h.positives is not None and h.negatives is not None]
    pool = Pool(tuple(h for h, _ in there), EDGES)
    labels = [label for _, rows in there for label, _, _ in rows]
    if all(labels) or not any(labels):
        assert (pool.auc, pool.auc_error_bound) == (None, None)
        return
    exact = roc_auc_score(labels, [p for _, rows in there for _, p, _ in rows])
    assert pool.auc is not None
    assert pool.auc_error_bound is not None
    assert abs(pool.auc - exact) <= (1 if smallest == 1 else 2) * pool.auc_error_bound + 1e-12


def test_unmerged_the_bound_is_half_the_share_of_pairs_in_one_bin() -> None:
    rng = np.random.default_rng(0)
    labels, p = rng.random(300) < 0.4, rng.random(300)
    pool = Pool((ScoreHistogram.of(labels, p, np.arange(300), edges=EDGES),), EDGES)
    index = bin_of(p, EDGES)
    together = (index[labels][:, None] == index[~labels][None, :]).mean()
    assert pool.auc_error_bound == pytest.approx(together / 2, abs=1e-12)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 5)), min_size=1, max_size=4)
)
def test_sharing_out_keeps_every_cells_images(sites: list[tuple[list[int], int]]) -> None:
    made = []
    for counts, step in sites:
        starts = tuple(range(0, len(counts) * (step + 1), step + 1))
        made.append(Cells(starts, tuple(counts)))
    rows = share_out(made, equal_edges(64))
    for row, cells in zip(rows, made, strict=True):
        assert (row >= 0).all()
        for start, end, count in zip(*cells.spans(64), strict=True):
            assert row[start:end].sum() == pytest.approx(count, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(cases, st.sampled_from([0.5, 0.9, 1.0]), st.sampled_from([1, 3]))
def test_a_threshold_from_cells_reaches_the_sensitivity(rows: list[Case], wanted: float, smallest: int) -> None:
    labels, p, patients = arrays(rows)
    told = ScoreHistogram.of(labels, p, patients, edges=FIXED, smallest=smallest)
    if told.positives is None or told.negatives is None:
        return
    binned, exact = Pool((told,), FIXED).threshold_at(wanted), threshold_at_sensitivity(labels, p, wanted)
    if exact is None:
        assert binned is None
        return
    assert binned is not None
    assert (p[labels] >= binned).mean() >= wanted
    assert binned <= exact
    if smallest == 1:
        assert bin_of(exact, FIXED) == bin_of(binned, FIXED)


def test_net_benefit_is_that_of_the_cases() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(4000) < 0.3
    p = 1 / (1 + np.exp(-rng.normal(size=4000) - 2 * labels + 1.5))
    edges = quantile_edges(np.bincount(bin_of(p, FIXED), minlength=len(FIXED) + 1), 1024)
    pool = Pool((ScoreHistogram.of(labels, p, np.arange(4000), edges=edges),), edges)
    for point in pool.net_benefit([0.1, 0.3, 0.5, 0.8]):
        t = point.threshold
        treated = p >= t
        slow = ((treated & labels).sum() - (treated & ~labels).sum() * t / (1 - t)) / 4000
        assert point.model == pytest.approx(slow, abs=1.5e-3)
        assert point.everybody == pytest.approx(labels.mean() - (~labels).mean() * t / (1 - t))


@settings(deadline=None)
@given(st.lists(st.floats(-600, 36), min_size=1, max_size=200, unique=True))
def test_edges_in_few_digits_are_as_many_and_nearly_there(logits: list[float]) -> None:
    edges = np.unique(expit(np.array(logits)))
    edges = edges[(edges > 0) & (edges < 1)]
    short = in_few_digits(edges)
    assert len(short) == len(edges)
    assert (np.diff(short) > 0).all()
    if len(edges) > 1:
        gap = np.diff(edges)
        narrow = np.minimum(np.append(gap[0], gap), np.append(gap, gap[-1]))
        assert (np.abs(short - edges) <= narrow / 20 * (1 + 1e-9)).all()


def test_edges_in_few_digits_are_short() -> None:
    edges = quantile_edges(
        np.bincount(bin_of(expit(np.random.default_rng(0).normal(size=3000)), FIXED), minlength=1024), 1024
    )
    assert len(json.dumps(in_few_digits(edges).tolist())) < 0.55 * len(json.dumps(edges.tolist()))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([PLAIN_BINS, 1024]), st.sampled_from([0.05, 1.0, 12.0]))
def test_quantile_bins_hold_about_equally_many_cases(seed: int, bins: int, factor: float) -> None:
    p = 1 / (1 + np.exp(-factor * np.random.default_rng(seed).normal(size=20_000)))
    edges = quantile_edges(np.bincount(bin_of(p, FIXED), minlength=len(FIXED) + 1), bins)
    assert (np.diff(edges) > 0).all()
    held = np.bincount(bin_of(p, edges), minlength=len(edges) + 1)
    inner = held[1:-1] / len(p) * bins
    assert np.quantile(inner, 0.95) < 2.5
    share = share_of_bin(p, edges)
    assert ((share >= 0) & (share <= 1)).all()
    assert abs(share.mean() - 0.5) < 0.05


def test_small_bins_of_calibration_are_merged() -> None:
    """Until each class in a bin is that of five patients, or of none."""
    labels, p = np.array([0] * 6 + [1] * 6), np.r_[np.full(5, 0.05), 0.2, 0.8, np.full(5, 0.95)]
    plain, merged = CalibrationBins.of(labels, p), CalibrationBins.of(labels, p, patients=np.arange(12), smallest=5)
    assert [count for count in plain.counts if count] == [5, 1, 1, 5]
    assert [count for count in merged.counts if count] == [12], "either way to part them leaves one alone"
    assert sum(merged.score_sums) == pytest.approx(sum(plain.score_sums))

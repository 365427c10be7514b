"""AUC against scikit-learn, its variance against a slow loop, its interval against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from common.auc import auc, clustered_auc, macro_auc, patient_auc, roc, score_interval

Cases = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]

cases = st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 6)), min_size=1, max_size=40)


def _arrays(rows: list[tuple[bool, int, int]]) -> Cases:
    labels, scores, patients = zip(*rows, strict=True)
    return np.array(labels), np.array(scores, dtype=np.float64), np.array(patients)


def simulated(rng: np.random.Generator, positives: int, negatives: int, *, truth: float, mixed: bool) -> Cases:
    """Patients with 1 to 6 images of intraclass correlation .5; `mixed` flips the label of 3 images in 10."""
    count = rng.integers(1, 7, positives + negatives)
    patients = np.repeat(np.arange(len(count)), count)
    labels = patients < positives
    if mixed:
        labels = labels ^ (rng.random(len(labels)) < 0.3)
    common = rng.standard_normal(len(count))[patients]
    scores = np.sqrt(0.5) * (common + rng.standard_normal(len(labels))) + np.sqrt(2) * norm.ppf(truth) * labels
    return labels, scores, patients


@given(cases)
def test_auc_is_scikit_learns(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = _arrays(rows)
    if labels.all() or not labels.any():
        assert auc(labels, scores) is None
    else:
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(cases)
def test_auc_knows_order_alone(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, patients = _arrays(rows)
    shuffled = np.random.default_rng(len(rows)).permutation(len(rows))
    whole = clustered_auc(labels, scores, patients)
    assert clustered_auc(labels, np.exp(scores), patients) == whole
    moved = clustered_auc(labels[shuffled], scores[shuffled], patients[shuffled])
    assert moved.why == whole.why
    assert auc(labels[shuffled], scores[shuffled]) == auc(labels, scores)
    if whole.auc is not None:
        assert auc(labels, -scores) == pytest.approx(1 - whole.auc, abs=1e-12)
        assert auc(np.tile(labels, 2), np.tile(scores, 2)) == pytest.approx(whole.auc, abs=1e-12)


def slow_variance(labels: NDArray[np.bool_], scores: NDArray[np.float64], patients: NDArray[np.int64]) -> float:
    """Obuchowski 1997, written as the paper's sums: structural components by image, then by cluster."""
    x, y = np.flatnonzero(labels), np.flatnonzero(~labels)
    m, n = len(x), len(y)
    psi = [[1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0 for j in y] for i in x]
    area = sum(map(sum, psi)) / (m * n)
    v10 = {i: sum(psi[a]) / n for a, i in enumerate(x)}
    v01 = {j: sum(psi[a][b] for a in range(m)) / m for b, j in enumerate(y)}
    clusters = sorted(set(patients.tolist()))
    s10 = s01 = s11 = 0.0
    for cluster in clusters:
        first = sum(v10[i] - area for i in x if patients[i] == cluster)
        second = sum(v01[j] - area for j in y if patients[j] == cluster)
        s10, s01, s11 = s10 + first**2, s01 + second**2, s11 + first * second
    i10, i01, i = len(set(patients[x])), len(set(patients[y])), len(clusters)
    s10, s01, s11 = s10 * i10 / ((i10 - 1) * m), s01 * i01 / ((i01 - 1) * n), s11 * i / (i - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@given(cases)
def test_variance_is_the_slow_loops(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, patients = _arrays(rows)
    found = clustered_auc(labels, scores, patients)
    if labels.all() or not labels.any():
        assert (found.auc, found.variance, found.why) == (None, None, "one-class")
    elif min(len(set(patients[labels])), len(set(patients[~labels]))) < 2:
        assert found.auc is not None
        assert (found.variance, found.low, found.high, found.why) == (None, None, None, "too-few")
    else:
        assert found.variance == pytest.approx(max(0.0, slow_variance(labels, scores, patients)), abs=1e-12)
        assert found.low is not None
        assert found.high is not None
        assert found.auc is not None
        assert 0 <= found.low <= found.auc <= found.high <= 1
        assert found.high - found.low > 1e-3


def test_one_image_a_patient_is_delong() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.random(60) < 0.4, rng.standard_normal(60)
    psi = (scores[labels][:, None] > scores[~labels]).astype(float)
    delong = psi.mean(1).var(ddof=1) / labels.sum() + psi.mean(0).var(ddof=1) / (~labels).sum()
    assert clustered_auc(labels, scores, np.arange(60)).variance == pytest.approx(delong, rel=1e-3, abs=0)


@pytest.mark.parametrize("scores", [[1.0] * 8 + [0.0] * 7, [0.0] * 8 + [1.0] * 7, [0.5] * 15])
def test_no_variance_still_has_width(scores: list[float]) -> None:
    found = clustered_auc([1] * 8 + [0] * 7, scores, np.arange(15))
    assert found.variance == 0
    assert found.low is not None
    assert found.high is not None
    assert found.auc is not None
    assert found.low <= found.auc <= found.high
    assert 0.15 < found.high - found.low < 0.7


def test_score_interval_is_symmetric_and_shrinks() -> None:
    low, high = score_interval(0.8, 20, 20)
    assert score_interval(0.2, 20, 20) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert score_interval(1.0, 200, 200)[0] > score_interval(1.0, 20, 20)[0] > 0.8
    # At the lower limit the distance is z standard errors: Newcombe's equation, solved.
    m = n = 20
    variance = low * (1 - low) / (m * n) * (1 + (m - 1) * ((1 - low) / (2 - low) + low / (1 + low)))
    assert (0.8 - low) / np.sqrt(variance) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("positives", "negatives", "truth"), [(8, 7, 0.85), (20, 40, 0.95), (60, 120, 0.85)])
def test_interval_covers(positives: int, negatives: int, truth: float, mixed: bool) -> None:
    rng = np.random.default_rng(positives)
    clustered = image = 0
    for _ in range(400):
        labels, scores, patients = simulated(rng, positives, negatives, truth=truth, mixed=mixed)
        found = clustered_auc(labels, scores, patients)
        naive = clustered_auc(labels, scores, np.arange(len(labels)))
        assert found.low is not None
        assert found.high is not None
        assert naive.low is not None
        assert naive.high is not None
        clustered += found.low <= truth <= found.high
        image += naive.low <= truth <= naive.high
    assert 0.92 <= clustered / 400 <= 0.98
    if not mixed:
        assert image / 400 < 0.90, "images taken for independent must cover too little"


def test_patient_auc_is_of_mean_scores() -> None:
    labels, scores, patients = [1, 1, 0, 0, 0], [0.9, 0.1, 0.6, 0.6, 0.2], ["b", "b", "a", "c", "c"]
    assert patient_auc(labels, scores, patients) == roc_auc_score([0, 1, 0], [0.6, 0.5, 0.4])
    assert patient_auc([1, 0], [0.2, 0.1], ["a", "a"]) is None


def test_macro_auc_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert macro_auc(labels, scores) == pytest.approx(expected, abs=1e-12)
    some = labels < 2
    parts = [roc_auc_score(labels[some] == k, scores[some, k]) for k in (0, 1)]
    assert macro_auc(labels[some], scores[some]) == pytest.approx(np.mean(parts), abs=1e-12)
    assert macro_auc(np.zeros(3, dtype=int), scores[:3]) is None


@given(cases)
def test_roc_is_scikit_learns(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = _arrays(rows)
    curve = roc(labels, scores)
    if labels.all() or not labels.any():
        assert curve is None
        return
    assert curve is not None
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(auc(labels, scores), abs=1e-12)
    assert {*zip(curve.fpr, curve.tpr, strict=True)} <= {*zip(fpr, tpr, strict=True)}
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    for x, y, threshold in zip(curve.fpr, curve.tpr, curve.thresholds, strict=True):
        assert ((scores >= threshold)[~labels].mean(), (scores >= threshold)[labels].mean()) == (x, y)


def test_bad_scores_are_named() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        auc([0, 1], [0.2, float("nan")])
    with pytest.raises(ValueError, match="one length"):
        auc([0, 1, 1], [0.2, 0.3])


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 99))
def test_saturated_scores(seed: int) -> None:
    labels, scores, patients = simulated(np.random.default_rng(seed), 20, 30, truth=0.9, mixed=True)
    scores = np.clip(scores, -0.5, 0.5)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = slow_variance(labels, scores, patients)
    assert clustered_auc(labels, scores, patients).variance == pytest.approx(expected, rel=1e-9)

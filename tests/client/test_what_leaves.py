"""What leaves a site in an evaluation: nothing about too few patients, and not much of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from client.evidence import report_part
from client.kept import keep_scores, kept_scores, scores_name
from client.measures import measure_cases, permitted
from client.site import Site, load_site
from common.bins import PLAIN_BINS, SECURE_BINS, equal_edges, with_edge
from common.calibration import ece
from common.config import Experiment
from common.histogram import ScoreHistogram
from common.influence import Others
from common.metrics import Confusion, EvaluationSums
from common.observed import ObservedExpected
from common.orders import EvaluateOrder, PartReport, Placing
from common.parsing import parse
from common.tasks import Task
from common.wire import to_config
from server.evidence import question_of
from server.rounds import evaluate_order
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site

LIMIT = 64 * 1024


def opened(folder: Path, *, images: int, smallest: int) -> Site:
    """A site of two images a patient, every patient a test patient, with its own policy."""
    write_site(folder, folder.name, seed=0, images=images, per_patient=2)
    text = (folder / "site.toml").read_text(encoding="utf-8")
    text = text.replace("smallest_group = 1", f"smallest_group = {smallest}")
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return replace(load_site(folder, role="held-out"), role="train")  # asked as if it trained, about all its cases


def order(stage: str, **changes: Any) -> EvaluateOrder:
    experiment = parse(Experiment, experiment_table([Path("ash")]), where="test")
    made = evaluate_order(experiment, {"test": ("test",)}, run="r", round_number=1, threshold=0.5)
    return EvaluateOrder(**{**made.__dict__, "stage": stage, **changes})


def scores_of(site: Site, seed: int = 0) -> NDArray[np.float64]:
    p = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(size=len(site)) - site.positive))
    return np.stack([1 - p, p], axis=1)


def told(site: Site, scores: NDArray[np.float64], stage: str, **changes: Any) -> PartReport:
    return report_part(site, site.rows(), scores, order(stage, **changes))


def test_a_stage_sends_what_it_says_and_no_more(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", images=64, smallest=5)
    scores = scores_of(site)
    edges = (tuple(equal_edges(PLAIN_BINS)),)
    progress, first = told(site, scores, "progress"), told(site, scores, "first-pass")
    counts = told(site, scores, "counts", edges=edges)
    for part in (progress, first, counts):
        assert part.auc == pytest.approx(roc_auc_score(site.positive, scores[:, 1]), abs=1e-12)
    assert (progress.sums, progress.histograms, progress.influence, progress.logistic) == (None, (), (), None)
    assert (first.sums, len(first.histograms)) == (None, 1)
    assert counts.sums is not None
    pool = question_of({"ash": _histogram(counts)}, edges[0]).pool
    placing = (Placing(0.5, pool.others(0)),)
    placed = told(site, scores, "placements", placing=placing)
    assert (placed.sums, placed.histograms) == (None, ())
    assert placed.influence[0] is not None


def _histogram(part: PartReport) -> Any:
    return ScoreHistogram.from_json(part.histograms[0])


def test_suppressed_is_neither_zero_nor_absent(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", images=32, smallest=9)
    scores = scores_of(site)
    small = told(site, scores, "counts", edges=(tuple(equal_edges(PLAIN_BINS)),))
    assert (small.n_patients, small.auc, small.auc_patient, small.calibration_slope) == (16, None, None, None)
    assert small.why == "suppressed"
    assert small.loss is not None
    assert small.histograms[0]["positives"] is None
    assert small.sums is not None
    assert (small.sums["confusion"], small.sums["suppressed"]) == (None, ("ash",))
    whole = opened(tmp_path / "birch", images=32, smallest=17)
    hidden = told(whole, scores, "counts", edges=(tuple(equal_edges(PLAIN_BINS)),))
    assert (hidden.n_images, hidden.n_patients, hidden.loss, hidden.sums, hidden.histograms) == (
        None,
        None,
        None,
        None,
        (),
    )
    assert hidden.why == "suppressed"
    negatives = np.flatnonzero(~site.positive)
    one = report_part(site, negatives, scores[negatives], order("counts", edges=(tuple(equal_edges(4)),)))
    assert one.why == "suppressed", "eight patients of nine that are needed"
    opener = opened(tmp_path / "cedar", images=32, smallest=8)
    one = report_part(opener, negatives, scores[negatives], order("counts", edges=(tuple(equal_edges(4)),)))
    assert (one.auc, one.why) == (None, "one-class")
    assert one.histograms[0]["positives"] == {"starts": [0], "counts": [0]}


def test_a_site_does_not_place_a_class_that_is_too_small_whatever_the_server_asks(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", images=32, smallest=9)
    pool = question_of({}, equal_edges(4)).pool
    assert pool.auc is None
    assert told(site, scores_of(site), "placements", placing=(Placing(0.5, Others()),)).influence == (None,)


def test_permitted_hides_what_is_about_a_small_class() -> None:
    labels, patients = np.array([1, 1, 0, 0, 0, 0]), np.arange(6)
    p = np.array([0.9, 0.4, 0.2, 0.3, 0.6, 0.1])
    found = measure_cases(labels, np.stack([1 - p, p], 1), patients, positive_index=1, threshold=0.5)
    same = permitted(found, labels, patients, positive_index=1, smallest=2)
    assert same == found
    cells = permitted(found, labels, patients, positive_index=1, smallest=2, called=p >= 0.5)
    assert (cells.sensitivity, cells.specificity, cells.auc, cells.why) == (None, None, found.auc, "small-cell")
    wide = permitted(found, labels, patients, positive_index=1, smallest=2, called=p >= 0.3)
    assert (wide.sensitivity, wide.specificity) == (found.sensitivity, found.specificity), "two of four; nobody missed"
    hidden = permitted(found, labels, patients, positive_index=1, smallest=3)
    assert (hidden.auc, hidden.sensitivity, hidden.ece, hidden.why) == (None, None, None, "suppressed")
    assert (hidden.specificity, hidden.brier, hidden.n_images) == (found.specificity, found.brier, 6)
    assert permitted(found, labels, patients, positive_index=1, smallest=7).n_images is None


def test_a_small_class_of_several_hides_the_macro_auc() -> None:
    labels, patients = np.array([0] * 4 + [1] * 4 + [2]), np.arange(9)
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 9)
    found = measure_cases(labels, scores, patients, positive_index=0, threshold=None)
    assert found.auc is not None
    assert permitted(found, labels, patients, positive_index=0, smallest=2).auc is None


def test_the_macro_auc_by_patient_does_not_heed_the_order_of_rows() -> None:
    """Patients with images of several classes: whichever comes first, a patient is of each class that it has."""
    rng = np.random.default_rng(3)
    patients, labels = np.repeat(np.arange(20), 3), rng.integers(0, 3, 60)
    scores = rng.dirichlet(np.ones(3), 60) + 0.3 * np.eye(3)[labels]
    scores /= scores.sum(axis=1, keepdims=True)
    found = set()
    for _ in range(5):
        order = rng.permutation(60)
        about = (labels[order], scores[order], patients[order])
        found.add(round(measure_cases(*about, positive_index=1, threshold=None).auc_patient or 0.0, 12))
    means = np.array([scores[patients == one].mean(axis=0) for one in range(20)])
    has = np.array([[(labels[patients == one] == k).any() for k in range(3)] for one in range(20)])
    expected = np.mean([roc_auc_score(has[:, k], means[:, k]) for k in range(3)])
    assert list(found) == pytest.approx([expected], abs=1e-9)


@pytest.mark.parametrize(("bins", "smallest"), [(PLAIN_BINS, 5), (SECURE_BINS, 1)])
def test_an_evaluation_is_at_most_64_kib(tmp_path: Path, bins: int, smallest: int) -> None:
    """Both directions, everything but the weights: a first pass, counts and placements of 4,000 images among 20,000."""
    site = opened(tmp_path / "ash", images=400, smallest=smallest)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(site), 4000)
    p = 1 / (1 + np.exp(-rng.normal(size=4000) - site.positive[rows]))
    scores = np.stack([1 - p, p], axis=1)
    edges = tuple(float(x) for x in np.quantile(p, np.arange(1, bins) / bins))
    sent, asked = 0, 0
    first, counts = order("first-pass"), order("counts", edges=(edges,))
    for message in (first, counts):
        sent += _bytes(report_part(site, rows, scores, message))
        asked += _bytes(message)
    told_by_one = _histogram(report_part(site, rows, scores, counts))
    pool = question_of({str(n): told_by_one for n in range(6)}, edges).pool
    last = order("placements", placing=(Placing(0.75, pool.others(0)),))
    sent += _bytes(report_part(site, rows, scores, last))
    asked += _bytes(last)
    print(f"{bins} bins, cells of {smallest}: {sent} bytes from the site, {asked} bytes to it")
    assert sent <= LIMIT / 2
    assert sent + asked <= LIMIT


@pytest.mark.parametrize("classes", [3, 8])
def test_an_evaluation_of_several_classes_sends_at_most_64_kib_in_clear(tmp_path: Path, classes: int) -> None:
    """What the site sends: a first pass, counts between 64 bins and placements of each class against the rest."""
    names = tuple(f"kind-{k}" for k in range(classes))
    site = replace(opened(tmp_path / "ash", images=400, smallest=5), task=Task("kind", names, names[1]))
    rng = np.random.default_rng(1)
    patients = rng.integers(0, 1000, 4000)
    site = replace(site, labels=patients % classes, positive=patients % classes == 1, patients=patients)
    many = dict.fromkeys((f"covariate-{n:02d}" for n in range(20)), tuple(f"level number {v % 8}" for v in range(4000)))
    levels = dict.fromkeys(many, tuple(f"level number {v}" for v in range(8)))
    site = replace(site, covariates=many, devices=(None,) * 4000, kinds=dict.fromkeys(many, "category"), levels=levels)
    rows = np.arange(4000)
    logits = 2 * rng.normal(size=(4000, classes)) + np.eye(classes)[site.labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    edges = tuple(tuple(np.quantile(p, np.arange(1, PLAIN_BINS) / PLAIN_BINS).tolist()) for p in scores.T)
    asked = {"task": site.task}
    first, counts = order("first-pass", **asked), order("counts", edges=edges, **asked)
    placing = tuple(Placing(0.75, Others()) for _ in range(classes))
    last = order("placements", placing=placing, **asked)
    reports = [report_part(site, rows, scores, message) for message in (first, counts, last)]
    assert reports[2].macro is not None
    assert reports[1].detail is not None
    assert 50 < len(reports[1].detail.groups) <= 60
    print(classes, "classes:", [_bytes(report) for report in reports], "bytes, of groups", _bytes(reports[1].detail))
    assert len(reports[0].by_class) == classes
    assert sum(map(_bytes, reports)) <= LIMIT


def _bytes(message: Any) -> int:
    return len(str(to_config(message)["json"]).encode())


def test_scores_are_kept_for_one_message(tmp_path: Path) -> None:
    weights = {"w": np.zeros(3, np.float32)}
    counts, placements = order("counts", edges=((0.5,),)), order("placements")
    name = scores_name(counts, weights, part="test", data_sha256="a")
    assert scores_name(placements, weights, part="test", data_sha256="a") == name
    others = [
        scores_name(counts, {"w": np.ones(3, np.float32)}, part="test", data_sha256="a"),
        scores_name(counts, weights, part="test", data_sha256="b"),
        scores_name(order("counts", parts={"test": ("val",)}), weights, part="test", data_sha256="a"),
    ]
    assert name not in others
    scores = np.random.default_rng(0).random((4, 2))
    keep_scores(tmp_path / "state", others[0], scores)
    keep_scores(tmp_path / "state", name, scores)
    assert [path.name for path in (tmp_path / "state").iterdir()] == [name]
    np.testing.assert_array_equal(kept_scores(tmp_path / "state", name, cases=4, take=False), scores)
    np.testing.assert_array_equal(kept_scores(tmp_path / "state", name, cases=4, take=True), scores)
    assert kept_scores(tmp_path / "state", name, cases=4, take=True) is None
    keep_scores(tmp_path / "state", name, scores)
    assert kept_scores(tmp_path / "state", name, cases=5, take=True) is None
    (tmp_path / "state" / name).write_bytes(b"torn")
    assert kept_scores(tmp_path / "state", name, cases=4, take=True) is None


def test_reports_are_json_without_nan(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", images=32, smallest=1)
    text = str(to_config(told(site, scores_of(site), "counts", edges=((0.5,),)))["json"])
    assert "NaN" not in text
    assert json.loads(text)["n_images"] == 32


def sums_of(seed: int, *, edges: tuple[float, ...], smallest: int) -> tuple[EvaluationSums, ScoreHistogram, Any]:
    """Sums, histogram and (labels, p) of 60 patients with an image each."""
    rng = np.random.default_rng(seed)
    labels = rng.random(60) < 0.5
    p = 1 / (1 + np.exp(-rng.normal(size=60) - 1.5 * labels + 0.75))
    patients = np.arange(60)
    sums = EvaluationSums.of(labels, p, patients, site="ash", threshold=0.4, smallest=smallest)
    counted = ScoreHistogram.of(labels, p, patients, edges=edges, smallest=smallest, threshold=0.4)
    return sums, counted, (labels, p)


def test_no_cell_of_sixty_patients_is_about_one_to_four() -> None:
    """Confusion matrix, calibration bins by class, histogram cells, and their parts on either side of the threshold."""
    edges = tuple(with_edge(equal_edges(PLAIN_BINS), 0.4).tolist())
    whole = 0
    for seed in range(300):
        sums, counted, (labels, p) = sums_of(seed, edges=edges, smallest=5)
        decided = sums.confusion
        assert decided is not None
        bins = sums.calibration
        cells = [bins.positives, np.subtract(bins.counts, bins.positives).tolist()]
        cells.append([cell for cell in (decided.tp, decided.fn, decided.fp, decided.tn) if cell is not None])
        for told, flag, above in ((counted.positives, True, decided.tp), (counted.negatives, False, decided.fp)):
            assert told is not None
            cells.append(list(told.counts))
            if above is None:
                continue
            cut = edges.index(0.4) + 1
            assert cut in told.starts, "the cells end at the threshold"
            from_cells = sum(n for start, n in zip(told.starts, told.counts, strict=True) if start >= cut)
            assert above == from_cells == (p[labels == flag] >= 0.4).sum()
            whole += 1
        assert not [cell for row in cells for cell in row if 0 < cell < 5]
        assert sum(bins.positives) == labels.sum()
    assert whole > 100, "most cells are large enough"


def test_decisions_that_cut_a_cell_are_kept_back(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", images=64, smallest=3)
    scores = scores_of(site)
    told = {
        edges: report_part(site, site.rows(), scores, order("counts", edges=(edges,))).sums
        for edges in ((0.3, 0.5, 0.7), (0.3, 0.51, 0.7))
    }
    at_an_edge, between = (EvaluationSums.from_json(sums or {}).confusion for sums in told.values())
    assert at_an_edge is not None
    assert at_an_edge.sensitivity is not None
    assert between == Confusion.kept_back()
    alone = opened(tmp_path / "birch", images=64, smallest=1)
    open_sums = report_part(alone, alone.rows(), scores_of(alone), order("counts", edges=((0.51,),))).sums
    decided = EvaluationSums.from_json(open_sums or {}).confusion
    assert decided is not None
    assert decided.tp is not None


def test_a_site_in_no_total_tells_what_its_counts_give(tmp_path: Path) -> None:
    """In a secure evaluation a training site keeps these for the total; cells of too few patients stay in both."""
    site = opened(tmp_path / "ash", images=64, smallest=1)
    scores, asked = scores_of(site), order("progress", edges=((0.3, 0.7),))
    secure = replace(asked, evaluation=replace(asked.evaluation, secure=True))
    within, apart = (report_part(site, site.rows(), scores, replace(secure, apart=flag)) for flag in (False, True))
    names = ("sensitivity", "specificity", "brier", "ece", "observed", "expected", "log_oe_variance")
    assert [getattr(within, name) for name in names] == [None] * 7
    assert (within.auc, within.why) == (apart.auc, None)
    ratio = ObservedExpected.of(site.positive, scores[:, 1], site.patients)
    assert [getattr(apart, name) for name in names[2:]] == pytest.approx(
        [
            np.square(scores[:, 1] - site.positive).mean(),
            ece(site.positive, scores[:, 1]),
            *(ratio.observed, ratio.expected, ratio.log_variance),
        ]
    )
    decided = Confusion.of(site.positive, scores[:, 1], threshold=0.5)
    assert (apart.sensitivity, apart.specificity) == (decided.sensitivity, decided.specificity)
    text = (site.folder / "site.toml").read_text(encoding="utf-8")
    (site.folder / "site.toml").write_text(text.replace("smallest_group = 1", "smallest_group = 15"), encoding="utf-8")
    wary = report_part(load_site(site.folder), site.rows(), scores, replace(secure, apart=True))
    assert (wary.sensitivity, wary.specificity, wary.why) == (None, None, "small-cell")
    assert wary.auc == apart.auc


def test_a_total_over_sites_that_keep_a_cell_back_is_kept_back() -> None:
    """Sites with few misses are those that keep them back: without them the total would be too low."""
    few = EvaluationSums.of(
        [1] * 12 + [0] * 12, [0.9] * 10 + [0.1] * 14, np.arange(24), site="ash", threshold=0.5, smallest=5
    )
    many = EvaluationSums.of(
        [1] * 12 + [0] * 12, [0.9] * 6 + [0.1] * 18, np.arange(24), site="elm", threshold=0.5, smallest=5
    )
    assert few.confusion == Confusion(None, 0, 12, None)
    assert many.confusion == Confusion(6, 0, 12, 6)
    total = (few + many).confusion
    assert total is not None
    assert (total.sensitivity, total.specificity) == (None, 1.0)
    assert EvaluationSums.from_json(json.loads(json.dumps(few.to_json()))) == few

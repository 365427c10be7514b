"""Federated numbers against central ones, coverage of the interval, errors of the paired test;
each over many data sets.
"""

from __future__ import annotations

__all__ = [
    "CLASSES",
    "MOST_SENT",
    "Agreement",
    "Coverage",
    "agreement",
    "coverage",
    "federated_auc",
    "interval_coverage",
    "paired_error",
    "paired_test",
    "sent_under_masks",
]

from dataclasses import dataclass, replace

import numpy as np

from common.auc import clustered_auc
from common.bins import PLAIN_BINS, SECURE_BINS, secure_bins
from common.blocks import total_length
from common.config import Evaluation, Experiment
from common.evaluation_blocks import evaluation_directory
from common.influence import Others
from common.logistic import Start
from common.orders import EvaluateOrder, Placing
from common.sums_orders import Sealed
from common.tasks import Task
from common.wire import pack, payload_bytes, words_array
from server.rounds import evaluate_order
from tests.federations import KINDS, from_sums, laid_together, paired, scored, with_truth
from tests.prove.finding import Finding

SMALLEST = 5
CLASSES, MOST_SENT = (2, 3, 4, 8), 64 * 1024
"""Numbers of classes whose evaluation is weighed, and the bytes that a site may send of one."""


@dataclass(frozen=True)
class Agreement:
    """Over data sets: root mean square and largest of the AUC's and of the standard error's error,
    and bounds that held.
    """

    auc: float
    auc_most: float
    error: float
    error_most: float
    held: int
    bound: float


def agreement(count: int, *, seed: int = 0) -> dict[str, Agreement]:
    """Federated against central: 1,024 bins with the first pass over the same cases,
    64 with it over val cases, 64 merged.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float, float]]] = {"1024": [], "64": [], "64 merged": []}
    for number in range(count):
        made = scored(rng, list(KINDS)[number % len(KINDS)])
        exact = clustered_auc(*laid_together(made.test))
        assert exact.auc is not None
        assert exact.variance is not None
        for name, bins, smallest, first in (
            ("1024", SECURE_BINS, 1, made.test),
            ("64", PLAIN_BINS, 1, made.val),
            ("64 merged", PLAIN_BINS, SMALLEST, made.val),
        ):
            sums, _ = from_sums(made.test, bins=bins, smallest=smallest, first=first, placed=bins == SECURE_BINS)
            told = sums.auc()
            assert told.auc is not None
            assert told.variance is not None
            assert sums.bound is not None
            error = float(np.sqrt(told.variance) - np.sqrt(exact.variance))
            found[name].append((told.auc - exact.auc, error, sums.bound))
    return {name: _agreement(np.array(rows)) for name, rows in found.items()}


def _agreement(rows: np.ndarray) -> Agreement:
    root = np.sqrt(np.square(rows).mean(axis=0))
    held = int((np.abs(rows[:, 0]) <= rows[:, 2] + 1e-12).sum())
    most = np.abs(rows).max(axis=0)
    return Agreement(float(root[0]), float(most[0]), float(root[1]), float(most[1]), held, float(rows[:, 2].mean()))


def sent_under_masks(classes: int = 2) -> int:
    """Bytes of numbers in the messages that one site sends of an evaluation under masks, of so many classes.

    They are of the histograms of val and of test cases, the counts and the placements.
    """
    names = ("benign", "malignant", *(f"other-{n}" for n in range(2, classes)))
    task = Task("lump", names, "malignant")
    experiment = Experiment(name="sent", task=task, evaluation=Evaluation(secure=True))
    order = evaluate_order(experiment, {"test": ("test",)}, run="sent", round_number=1, threshold=0.5)
    asked = len(task.questions)
    bins = secure_bins(asked)
    edges = tuple((np.arange(1, bins) / bins).tolist())
    start = Start(0.0, 1.0, 0.0)
    placing = [Placing(0.5, Others(), start if k == task.positive_index else None, whole=True) for k in task.questions]
    messages = (
        replace(order, stage="first-pass", parts={"val": ("val",)}),
        replace(order, stage="first-pass"),
        replace(order, stage="counts", edges=(edges,) * asked),
        replace(order, stage="placements", placing=tuple(placing)),
    )
    return sum(_sealed_bytes(message) for message in messages)


def _sealed_bytes(order: EvaluateOrder) -> int:
    words = np.zeros(total_length(evaluation_directory(order)), dtype=np.uint64)
    return payload_bytes(pack(Sealed("site-1", "0" * 64), words_array(words)))


def federated_auc(count: int = 300) -> Finding:
    """Five sites, some 659 patients and 2,000 images, a fifth each of five kinds of scores, two of them saturated."""
    found = agreement(count)
    told = "; ".join(
        f"{name} bins: AUC RMS {a.auc:.1e} (most {a.auc_most:.1e}), "
        f"standard error RMS {a.error:.1e} (most {a.error_most:.1e}), "
        f"within the bound {a.held}/{count} (mean bound {a.bound:.1e})"
        for name, a in found.items()
    )
    sent = {classes: sent_under_masks(classes) for classes in CLASSES}
    told += "; a site sends under masks " + ", ".join(f"{size / 1024:.1f} KiB of {k}" for k, size in sent.items())
    told += " classes"
    fine = found["1024"].auc <= 3e-5 and found["1024"].error_most <= 1e-6 and found["64"].auc <= 1e-3
    want = f"1024: AUC RMS ≤ 3e-5, standard error ≤ 1e-6 in each; 64: AUC RMS ≤ 1e-3; merged: {count} bounds hold"
    want += "; a site sends ≤ 64 KiB"
    return Finding(told, want, fine and found["64 merged"].held == count and max(sent.values()) <= MOST_SENT)


@dataclass(frozen=True)
class Coverage:
    """Shares of 95 % intervals that hold the true AUC: central, from sums, from merged sums,
    and of images for patients.
    """

    central: float
    sums: float
    merged: float
    naive: float


def coverage(count: int, *, seed: int = 0) -> Coverage:
    """Simulated federations of five sites with 1 to 6 images a patient."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(4)
    for _ in range(count):
        (sites,), truth = with_truth(rng)
        labels, p, whose = laid_together(sites)
        intervals = [
            clustered_auc(labels, p, whose),
            from_sums(sites, bins=SECURE_BINS, placed=True)[0].auc(),
            from_sums(sites, bins=PLAIN_BINS, smallest=SMALLEST)[0].auc(),
            clustered_auc(labels, p, np.arange(len(p))),
        ]
        hits += [i.low is not None and i.high is not None and i.low <= truth <= i.high for i in intervals]
    return Coverage(*(hits / count).tolist())


def interval_coverage(count: int = 1000) -> Finding:
    """The federated interval beside the image-level one, which takes the images of a patient for independent."""
    found = coverage(count)
    told = (
        f"central {found.central:.1%}, from sums {found.sums:.1%}, from merged sums {found.merged:.1%}, "
        f"image-level {found.naive:.1%}"
    )
    fine = all(0.93 <= share <= 0.97 for share in (found.central, found.sums, found.merged)) and found.naive < 0.93
    return Finding(told, f"93 to 97 % of {count} federations, image-level below", fine)


def paired_error(count: int, *, seed: int = 0) -> tuple[float, float]:
    """Shares of federations of two equally good models in which p ≤ .05: clustered, and of images for patients."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(2)
    for _ in range(count):
        models, _ = with_truth(rng, models=2, patients=(10, 30))
        images = [[(labels, p, np.arange(len(p))) for labels, p, _ in sites] for sites in models]
        found = [
            paired(models, bins=PLAIN_BINS, smallest=SMALLEST).difference(),
            paired(images, bins=PLAIN_BINS).difference(),
        ]
        wrong += [one.p is not None and one.p <= 0.05 for one in found]
    clustered, naive = (wrong / count).tolist()
    return clustered, naive


def paired_test(count: int = 5000) -> Finding:
    """Type-I error of the federated paired test at 5 %, cells merged; the image-level one beside it."""
    clustered, naive = paired_error(count)
    told = f"clustered {clustered:.2%}, image-level {naive:.2%}"
    return Finding(told, f"4 to 6 % of {count} federations, image-level above", 0.04 <= clustered <= 0.06 < naive)

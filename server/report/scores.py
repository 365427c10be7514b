"""From predictions files to ROC, reliability and decision curves.

A file that is not there is counted, and its curve left out.
"""

from __future__ import annotations

__all__ = [
    "CUTOFFS",
    "Cell",
    "Curves",
    "Predictions",
    "curves",
    "read_predictions",
    "roc",
]

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.calibration import wilson
from common.decisions import benefit_reach, net_benefit
from server.report.reading import Row

GRID = np.linspace(0.0, 1.0, 101)
BINS = 10
CUTOFFS = np.arange(1, 100) / 100
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """One-against-rest pairs of (is it this class?, probability), one for each class; binary tasks have one.

    `patients` (N,) are codes from 0.
    """

    pairs: tuple[tuple[NDArray[np.bool_], _Floats], ...]
    patients: NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """A cell of the reliability curve; its interval is Wilson's, with the cell's patients as the number of trials."""

    probability: float
    observed: float
    cases: float
    low: float
    high: float


@dataclass
class Curves:
    """Sums over models (seeds): `sensitivity` on GRID of 1 − specificity; BINS cells of (cases, probability, hits,
    distinct patients); `benefit` on CUTOFFS, the half-width of its 95 % interval in `reach`, and the `share` of
    positives, of the `binary` models alone.
    """

    models: int = 0
    binary: int = 0
    sensitivity: _Floats = field(default_factory=lambda: np.zeros(len(GRID)))
    cells: _Floats = field(default_factory=lambda: np.zeros((4, BINS)))
    benefit: _Floats = field(default_factory=lambda: np.zeros(len(CUTOFFS)))
    reach: _Floats = field(default_factory=lambda: np.zeros(len(CUTOFFS)))
    share: float = 0.0

    def mean_roc(self) -> list[tuple[float, float]]:
        """(1 − specificity, mean sensitivity), thinned to 101 points; the curve begins at the origin."""
        rise = self.sensitivity / self.models
        return [(0.0, 0.0), *((float(x), float(y)) for x, y in zip(GRID, rise, strict=True))]

    def reliability(self) -> list[Cell]:
        """The cells that hold a case."""
        return [
            Cell(float(p / n), float(e / n), float(n / self.models), *wilson(float(e / n * who), float(who)))
            for n, p, e, patients in self.cells.T
            if n > 0 and (who := patients / self.models)
        ]

    def decisions(self) -> list[tuple[float, float]]:
        """(threshold probability, mean net benefit); empty for a task of more classes."""
        if not self.binary:
            return []
        return [(float(t), float(b)) for t, b in zip(CUTOFFS, self.benefit / self.binary, strict=True)]

    def decision_band(self) -> list[tuple[float, float, float]]:
        """(threshold probability, lower, upper bound) of the net benefit, of a typical single model."""
        if not self.binary or not np.isfinite(self.reach).all():
            return []
        middle, reach = self.benefit / self.binary, self.reach / self.binary
        return [(float(t), float(b - r), float(b + r)) for t, b, r in zip(CUTOFFS, middle, reach, strict=True)]

    def all_positive(self) -> list[tuple[float, float]]:
        """(threshold probability, net benefit) of calling every case positive."""
        share = self.share / max(self.binary, 1)
        return [(float(t), float(share - (1 - share) * t / (1 - t))) for t in CUTOFFS] if self.binary else []


def read_predictions(path: Path) -> Predictions | None:
    """Read `patient,image,label,score` (or `score_<class>`); None where the file is absent or not of that form."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file))
        columns = {name: i for i, name in enumerate(header)}
        labels = [row[columns["label"]] for row in lines]
        names = [row[columns["patient"]] for row in lines]
        patients = np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)
        if "score" in columns:
            truth_of_positive = np.asarray(labels, dtype=str) == "1"
            return Predictions(((truth_of_positive, _column(lines, columns["score"])),), patients)
        named = {name.removeprefix("score_"): i for name, i in columns.items() if name.startswith("score_")}
        truth = np.asarray(labels, dtype=str)
        return Predictions(tuple((truth == name, _column(lines, i)) for name, i in named.items()), patients)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _column(lines: list[list[str]], index: int) -> _Floats:
    return np.array([float(row[index]) for row in lines], dtype=np.float64)


def roc(truth: NDArray[np.bool_], scores: _Floats) -> _Floats | None:
    """Sensitivity (101,) at each 1 − specificity of GRID, straight between tied scores; None with one class."""
    events, others = int(truth.sum()), int((~truth).sum())
    if not events or not others:
        return None
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    true_rate = np.cumsum(truth[order])[last_of_tie] / events
    false_rate = np.cumsum(~truth[order])[last_of_tie] / others
    # Where several points share an x, np.interp takes the last, which is the highest; between x it is the straight
    # line.
    rise: _Floats = np.interp(GRID, np.append(0.0, false_rate), np.append(0.0, true_rate))
    return rise


def curves(rows: tuple[Row, ...], folder: Path) -> tuple[Curves, int]:
    """Curves over the rows' predictions, and how many files could not be read.

    Each model apart: scores of two models are never ranked together.
    """
    total, absent = Curves(), 0
    for row in rows:
        path = _inside(folder, row.predictions)
        found = read_predictions(path) if path is not None else None
        if found is None:
            absent += 1
            continue
        rises = [rise for truth, scores in found.pairs if (rise := roc(truth, scores)) is not None]
        if not rises:
            continue
        total.models += 1
        total.sensitivity += np.mean(rises, axis=0)
        for truth, scores in found.pairs:
            total.cells += _cells(truth, scores, found.patients)
        if len(found.pairs) == 1:
            total.binary += 1
            total.benefit += net_benefit(*found.pairs[0], CUTOFFS)
            total.reach += benefit_reach(*found.pairs[0], found.patients, CUTOFFS)
            total.share += float(found.pairs[0][0].mean())
    return total, absent


def _inside(folder: Path, name: str | None) -> Path | None:
    """The file in the run folder; None for no name and for one that points out of the folder."""
    if not name:
        return None
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) else None


def _cells(truth: NDArray[np.bool_], scores: _Floats, patients: NDArray[np.int64]) -> _Floats:
    where = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    seen = np.unique(where * (int(patients.max()) + 1) + patients) // (int(patients.max()) + 1)
    return np.stack(
        [
            np.bincount(where, minlength=BINS).astype(np.float64),
            np.bincount(where, weights=scores, minlength=BINS),
            np.bincount(where, weights=truth.astype(np.float64), minlength=BINS),
            np.bincount(seen, minlength=BINS).astype(np.float64),
        ]
    )

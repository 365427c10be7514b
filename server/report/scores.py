"""From predictions files to ROC and reliability curves. A file that is not there is counted, and its curve left out."""

from __future__ import annotations

__all__ = ["Curves", "Predictions", "curves", "read_predictions", "roc"]

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.report.reading import Row

GRID = np.linspace(0.0, 1.0, 101)
BINS = 10
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predictions:
    """One-against-rest pairs of (is it this class?, probability), one for each class; binary tasks have one."""

    pairs: tuple[tuple[NDArray[np.bool_], _Floats], ...]


@dataclass
class Curves:
    """Sums over models (seeds): `sensitivity` on GRID of 1 − specificity, and BINS cells of (cases, probability, hits)."""

    models: int = 0
    sensitivity: _Floats = field(default_factory=lambda: np.zeros(len(GRID)))
    cells: _Floats = field(default_factory=lambda: np.zeros((3, BINS)))

    def mean_roc(self) -> list[tuple[float, float]]:
        """(1 − specificity, mean sensitivity), thinned to 101 points; the curve begins at the origin."""
        rise = self.sensitivity / self.models
        return [(0.0, 0.0), *((float(x), float(y)) for x, y in zip(GRID, rise, strict=True))]

    def reliability(self) -> list[tuple[float, float, float]]:
        """(mean probability, observed share, cases per model) of each cell that holds a case."""
        cases, probability, events = self.cells
        return [
            (float(p / n), float(e / n), float(n / self.models))
            for n, p, e in zip(cases, probability, events, strict=True)
            if n > 0
        ]


def read_predictions(path: Path) -> Predictions | None:
    """Read `patient,image,label,score` (or `score_<class>`); None where the file is absent or not of that form."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file))
        columns = {name: i for i, name in enumerate(header)}
        labels = [row[columns["label"]] for row in lines]
        if "score" in columns:
            return Predictions(((np.asarray(labels, dtype=str) == "1", _column(lines, columns["score"])),))
        named = {name.removeprefix("score_"): i for name, i in columns.items() if name.startswith("score_")}
        truth = np.asarray(labels, dtype=str)
        return Predictions(tuple((truth == name, _column(lines, i)) for name, i in named.items()))
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
    # Where several points share an x, np.interp takes the last, which is the highest; between x it is the straight line.
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
            total.cells += _cells(truth, scores)
    return total, absent


def _inside(folder: Path, name: str | None) -> Path | None:
    """The file in the run folder; None for no name and for one that points out of the folder."""
    if not name:
        return None
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) else None


def _cells(truth: NDArray[np.bool_], scores: _Floats) -> _Floats:
    where = np.clip((scores * BINS).astype(int), 0, BINS - 1)
    return np.stack(
        [
            np.bincount(where, minlength=BINS).astype(np.float64),
            np.bincount(where, weights=scores, minlength=BINS),
            np.bincount(where, weights=truth.astype(np.float64), minlength=BINS),
        ]
    )

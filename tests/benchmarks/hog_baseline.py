"""HOG + logistic regression on an experiment's crops and splits, leave-one-center-out, against a run's federated arm.

    python -m tests.benchmarks.hog_baseline runs/busbra --experiment configs/experiments/busbra.toml [--free-crop]
    [--json]

In each fold the training centers' train and test patients train, and their val patients choose the size of a HOG cell
and the strength of the regularisation: the held-out center chooses nothing. HOG sees the experiment's own crops; with
`--free-crop` val chooses the crop's margin for it as well, at 96 px. Dalal and Triggs 2005.
"""

from __future__ import annotations

__all__ = ["Candidate", "Fold", "choose", "compare", "main"]

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from client.cache import load_crops
from client.site import Site
from common.config import Crop, Experiment, load_experiment
from common.errors import BadInput, SonofedError
from common.randomness import derive
from server.statistics import Contrast, Scored, contrasts
from simulation.sources import open_sites

PROTOCOL = "leave-one-center-out"
FREE_SIZE, FREE_MARGINS = 96, (0.0, 0.1, 0.25)
CELLS, STRENGTHS = (8, 12, 16, 24), (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

Sites = Mapping[str, Site]
_SUMMARY = "HOG + logistic regression against the federated arm of a run, leave-one-center-out."


@dataclass(frozen=True)
class Candidate:
    """Hyper-parameters: margin of the crop, side of a HOG cell in px, inverse strength C of the L2 penalty."""

    margin: float
    cell: int
    strength: float


@dataclass(frozen=True)
class Fold:
    """A held-out center: what was chosen, the mean AUC over the training centers' val patients, the held-out AUC."""

    held_out: str
    chosen: Candidate
    val_auc: float
    auc: float


def candidates(margins: Sequence[float]) -> Iterator[Candidate]:
    """The grid over these margins of the crop."""
    for width in margins:
        for cell in CELLS:
            for strength in STRENGTHS:
                yield Candidate(width, cell, strength)


class Baseline:
    """HOG features of all sites, computed once for each margin and cell."""

    def __init__(self, sites: Sites, *, size: int) -> None:
        self.sites = sites
        self.size = size
        self.features = cache(self._features)
        self.fitted = cache(self._fitted)

    def _features(self, site: str, margin: float, cell: int) -> NDArray[np.float32]:
        crops = load_crops(self.sites[site], Crop(size=self.size, margin=margin))
        described = [hog(crop, orientations=9, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)) for crop in crops]
        return np.asarray(described, dtype=np.float32)

    def _fitted(self, held_out: str, candidate: Candidate) -> LogisticRegression:
        features, labels = [], []
        for name in self.trainers(held_out):
            rows = self.sites[name].rows("train", "test")
            features.append(self.features(name, candidate.margin, candidate.cell)[rows])
            labels.append(self.sites[name].positive[rows])
        model = LogisticRegression(C=candidate.strength, class_weight="balanced", max_iter=1000)
        return model.fit(np.concatenate(features), np.concatenate(labels))

    def trainers(self, held_out: str) -> list[str]:
        """The other centers."""
        return [name for name in self.sites if name != held_out]

    def scores(self, held_out: str, candidate: Candidate, site: str) -> NDArray[np.float64]:
        """Probabilities of the positive class for every image of `site`, (N,)."""
        features = self.features(site, candidate.margin, candidate.cell)
        return np.asarray(self.fitted(held_out, candidate).predict_proba(features)[:, 1], dtype=np.float64)

    def val_auc(self, held_out: str, candidate: Candidate) -> float:
        """The mean over the training centers of the AUC on their val patients."""
        areas = []
        for name in self.trainers(held_out):
            rows = self.sites[name].rows("val")
            areas.append(roc_auc_score(self.sites[name].positive[rows], self.scores(held_out, candidate, name)[rows]))
        return float(np.mean(areas))


def choose(baseline: Baseline, held_out: str, *, margins: Sequence[float]) -> tuple[Candidate, float]:
    """The candidate with the best val AUC of this fold, and that AUC; the first of the grid where several are best."""
    best = max(candidates(margins), key=lambda candidate: baseline.val_auc(held_out, candidate))
    return best, baseline.val_auc(held_out, best)


def compare(run: Path, experiment: Experiment, *, free_crop: bool = False) -> dict[str, Any]:
    """HOG's folds, the federated arm's AUC per center (mean over seeds), the paired contrasts per center and overall.

    Raises BadInput where the run has no federated leave-one-center-out rows or was made on other cases.
    """
    sites = {name: site for name, site in open_sites(experiment).items() if site.role == "train"}
    federated = _federated_scores(run, sites)
    baseline = Baseline(sites, size=FREE_SIZE if free_crop else experiment.crop.size)
    margins = FREE_MARGINS if free_crop else (experiment.crop.margin,)
    folds, scored = [], []
    for name, site in sites.items():
        chosen, val = choose(baseline, name, margins=margins)
        ours = baseline.scores(name, chosen, name)
        folds.append(Fold(name, chosen, val, float(roc_auc_score(site.positive, ours))))
        scores = {("federated", seed): [values] for seed, values in federated[name].items()}
        scores |= {("hog", seed): [ours] for seed in federated[name]}
        scored.append(Scored(site=name, labels=site.positive, patients=site.patients, scores=scores))
    found = contrasts(
        scored, [("federated", "hog")], protocol=PROTOCOL, rng=derive(0, "hog-baseline"), together="centers", draws=2000
    )
    return {
        "hog": [asdict(fold) for fold in folds],
        "hog_mean": float(np.mean([fold.auc for fold in folds])),
        "federated": {name: _mean_auc(sites[name], federated[name]) for name in sites},
        "federated_mean": float(np.mean([_mean_auc(sites[name], federated[name]) for name in sites])),
        "contrasts": [asdict(contrast) for contrast in found],
    }


def _mean_auc(site: Site, by_seed: Mapping[int, NDArray[np.float64]]) -> float:
    return float(np.mean([roc_auc_score(site.positive, scores) for scores in by_seed.values()]))


def _federated_scores(run: Path, sites: Sites) -> dict[str, dict[int, NDArray[np.float64]]]:
    """For each held-out center and seed the scores in the site's order."""
    try:
        rows = json.loads((run / "results.json").read_text(encoding="utf-8"))["rows"]
    except OSError:
        raise BadInput(f"{run}: no results.json in it; give the folder of a finished comparison") from None
    found: dict[str, dict[int, NDArray[np.float64]]] = {name: {} for name in sites}
    for row in rows:
        if (row["arm"], row["protocol"]) == ("federated", PROTOCOL) and row["site"] in sites:
            found[row["site"]][row["seed"]] = _read_scores(run / row["predictions"], sites[row["site"]])
    if missing := [name for name, seeds in found.items() if not seeds]:
        raise BadInput(f"{run}: no federated model was tested on {missing[0]}; run a comparison with that arm")
    return found


def _read_scores(path: Path, site: Site) -> NDArray[np.float64]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(f"{site.id}/{i + 1}", str(int(positive))) for i, positive in enumerate(site.positive)]
    if [(row["image"], row["label"]) for row in rows] != expected:
        raise BadInput(f"{path.name}: its cases are not those of site {site.id}; give the run's own experiment")
    return np.array([float(row["score"]) for row in rows])


def _text(found: dict[str, Any]) -> str:
    overall = Contrast(**found["contrasts"][-1])
    lines = [f"{'held out':<20} {'HOG':>7} {'federated':>10}   chosen on val"]
    for fold in found["hog"]:
        chosen = Candidate(**fold["chosen"])
        about = f"margin {chosen.margin:g}, cell {chosen.cell}, C {chosen.strength:g} (val AUC {fold['val_auc']:.3f})"
        held_out = fold["held_out"]
        lines.append(f"{held_out:<20} {fold['auc']:>7.4f} {found['federated'][held_out]:>10.4f}   {about}")
    lines.append(f"{'mean':<20} {found['hog_mean']:>7.4f} {found['federated_mean']:>10.4f}")
    interval = f"[{overall.low:+.4f}, {overall.high:+.4f}]"
    lines.append(f"federated − HOG: {overall.delta_auc:+.4f} {interval}, p = {overall.p:.3f}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command; exit 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hog_baseline", description=_SUMMARY)
    parser.add_argument("run", type=Path, help="the folder of a finished comparison")
    parser.add_argument("--experiment", type=Path, default=Path("configs/experiments/busbra.toml"))
    parser.add_argument("--free-crop", action="store_true", help="val chooses the crop's margin for HOG too, at 96 px")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    try:
        experiment = replace(load_experiment(options.experiment), held_out=())
        found = compare(options.run, experiment, free_crop=options.free_crop)
    except SonofedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found, indent=1) if options.json else _text(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What each attention part adds, on phantoms: `python -m tests.benchmarks.ablation [--seeds 3] [--json]`.

Trains the pooled model without attention, with one branch, and with both, on phantoms of one seed, and tests on every
case of phantoms of another seed; AUC differences against no attention, with the paired patient-and-seed bootstrap.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.evaluation import score
from client.service import site_crops, use_threads
from client.site import Site
from client.training import TrainingData, train
from common.config import Experiment, Source, load_experiment
from common.model import build_model
from common.randomness import derive, derive_seed
from server.statistics import Scored, contrasts
from simulation.phantom import write_phantom
from simulation.sources import open_sites

VARIANTS = ("none", "channel", "spatial", "full")
TRAIN_SEED, TEST_SEED = 100, 101


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ablation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    base = load_experiment(Path("configs/experiments/demo.toml"))
    base = replace(
        base, model=replace(base.model, weights=None), training=replace(base.training, head_rate=1.0)
    )  # from scratch everything learns at one rate
    known, fresh = _phantoms(base, TRAIN_SEED), _phantoms(base, TEST_SEED)
    use_threads(base.threads)
    data = _data(known, base)
    scored = {
        (variant, seed): _scores(variant, seed, base, data, fresh, options.epochs)
        for seed in range(options.seeds)
        for variant in VARIANTS
    }
    sites = [
        Scored(
            site=name,
            labels=site.positive,
            patients=site.patients,
            scores={key: [by_site[name]] for key, by_site in scored.items()},
        )
        for name, site in fresh.items()
    ]
    pairs = [(variant, "none") for variant in VARIANTS[1:]] + [("full", "channel"), ("full", "spatial")]
    found = contrasts(sites, pairs, protocol="fresh phantoms", rng=derive(0, "ablation"), together="cases")
    total = [contrast for contrast in found if contrast.site == "all"]
    for contrast in total:
        line = f"{contrast.a} − {contrast.b}: {contrast.delta_auc:+.4f} ({contrast.low:+.4f} to {contrast.high:+.4f})"
        print(json.dumps(contrast.__dict__) if options.json else line, flush=True)
    return 0


def _phantoms(base: Experiment, seed: int) -> dict[str, Site]:
    folder = Path(f"runs/ablation-phantoms-{seed}")
    if not folder.exists():
        write_phantom(folder, preset="lymphus", seed=seed, extra_centers=2)
    return open_sites(replace(base, sources=(Source(format="lymphus", path=str(folder)),)))


def _data(sites: dict[str, Site], base: Experiment) -> TrainingData:
    crops = np.concatenate([site_crops(site, base.crop) for site in sites.values()])
    return TrainingData(crops=crops, labels=np.concatenate([site.labels for site in sites.values()]), classes=2)


def _scores(
    variant: str, seed: int, base: Experiment, data: TrainingData, fresh: dict[str, Site], epochs: float
) -> dict[str, np.ndarray]:
    config = replace(base.model, attention=variant)
    model = build_model(config, task=base.task.name, classes=2, seed=derive_seed(seed, "weights"))
    steps = int(epochs * len(data.labels) / base.training.batch_size)
    train(model, data, base.training, steps=steps, progress=(0.0, 1.0), rng=derive(seed, "ablation"))
    print(f"trained {variant}, seed {seed}", file=sys.stderr, flush=True)
    return {name: score(model, site_crops(site, base.crop))[:, 1] for name, site in fresh.items()}


if __name__ == "__main__":
    sys.exit(main())

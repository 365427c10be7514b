"""Small experiments over small sites, as configuration tables and as files, for tests that run them."""

from __future__ import annotations

__all__ = ["COMPARISON", "command", "experiment_table", "merged", "write_experiment", "write_uneven_sites"]

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from tests.faults.small_sites import write_site

COMPARISON: dict[str, Any] = {"evaluation": {"draws": 50}, "comparison": {"pictures": 2}}
"""What a comparison needs on top of `experiment_table`: few draws, few pictures."""


def write_uneven_sites(parent: Path, sizes: Mapping[str, int] | None = None) -> list[Path]:
    """Sites of unequal size, two images of a patient, ids in the order of `sizes` (site id → images)."""
    sizes = sizes or {"ash": 32, "birch": 48, "cedar": 64}
    return [
        write_site(parent / name, name, seed=seed, images=images, per_patient=2)
        for seed, (name, images) in enumerate(sizes.items())
    ]


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """`first`, overruled by `second` at every depth; a value None takes the key out."""
    result = dict(first)
    for key, value in second.items():
        result[key] = merged(result.get(key) or {}, value) if isinstance(value, Mapping) else value
    return {key: value for key, value in result.items() if value is not None}


def experiment_table(sites: Sequence[Path], /, **changes: Any) -> dict[str, Any]:
    """A tiny experiment over site folders; `changes` overrule it at every depth."""
    table = {
        "name": "tiny",
        "task": {"name": "lump", "classes": ["benign", "malignant"], "positive": "malignant"},
        "sites": [{"path": str(site)} for site in sites],
        "threads": 1,
        "crop": {"size": 16},
        "model": {"backbone": "small"},
        "training": {"rounds": 2, "steps": 8, "batch_size": 4, "average": 0.5, "precision": "float32"},
    }
    return merged(table, changes)


def write_experiment(path: Path, sites: Sequence[Path], /, **changes: Any) -> Path:
    """`experiment_table` as a TOML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tomli_w.dumps(experiment_table(sites, **changes)), encoding="utf-8")
    return path


def command(room: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m room …` from the repository's root and wait for it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-m", room, *map(str, arguments)],
        cwd=Path(__file__).resolve().parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=options.pop("timeout", 240),
        **options,
    )

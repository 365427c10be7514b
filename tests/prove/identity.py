"""Federated full-batch SGD against pooled full-batch SGD, on larger sites than the test's."""

from __future__ import annotations

__all__ = ["float32", "float64"]

import tempfile
from pathlib import Path

from server.run import initial_weights
from tests.experiments import write_uneven_sites
from tests.prove.finding import Finding
from tests.simulation.test_identity import TOLERANCE, Precision, both_arms, experiment, plain_loop, relative

ROUNDS, MOVED = 20, 0.05


def float64() -> Finding:
    """Relative L2 between the arms, and to a plain loop, in double precision."""
    return _identity("float64")


def float32() -> Finding:
    """The same in single precision."""
    return _identity("float32")


def _identity(precision: Precision) -> Finding:
    with tempfile.TemporaryDirectory() as place:
        sites = write_uneven_sites(Path(place) / "sites", {"ash": 32, "birch": 64, "cedar": 160})
        asked = experiment(sites, precision, rounds=ROUNDS)
        found, start = both_arms(Path(place), asked), initial_weights(asked)
        loop = plain_loop(asked, start)
    worst = max(relative(found["federated"], found["pooled"]), relative(found["federated"], loop))
    moved = relative(found["federated"], start)
    want = f"relative L2 ≤ {TOLERANCE[precision]:g} after {ROUNDS} rounds that move the weights by ≥ {MOVED:.0%}"
    return Finding(worst, want, worst <= TOLERANCE[precision] and moved >= MOVED)

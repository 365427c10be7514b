"""Damaged sources through every importer, at the full count."""

from __future__ import annotations

__all__ = ["mutated_imports"]

from tests.faults.importer_fixtures import FIXTURES
from tests.faults.importer_mutations import run_batches
from tests.prove.finding import Finding

COUNT = 10_000


def mutated_imports() -> Finding:
    """How many of the damaged sources brought out anything but an error of our own, or left something behind."""
    found = run_batches(COUNT, seed=1_000_000)
    print(found, flush=True)
    want = f"0 of {COUNT} damaged sources of {len(FIXTURES)} kinds end otherwise than imported, BadInput or RunFailed"
    return Finding(len(found.failures), want, not found.failures and found.imports == COUNT)

"""Scores that a site keeps between the messages of one evaluation, so that no image is scored twice.

They lie in the site's state folder under a name that says which weights, cases and settings made them, and are taken
away by the message that needs them last. A file that is gone or torn only costs the scoring again.
"""

from __future__ import annotations

__all__ = ["keep_scores", "kept_scores", "scores_name"]

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from common.files import sha256_bytes, write_atomic
from common.orders import EvaluateOrder
from common.update import Weights
from common.weights import fingerprint


def scores_name(order: EvaluateOrder, weights: Weights, *, part: str, data_sha256: str) -> str:
    """The file name of one part's scores: everything that they depend on, and nothing else."""
    on = {"crop", "evaluation", "model", "run", "task", "threads", "training"}
    told = TypeAdapter(EvaluateOrder).dump_json(order, include=on)
    cases = ",".join((part, *order.parts[part]))
    named = b"|".join([told, *(each.encode() for each in (cases, data_sha256, fingerprint(weights)))])
    return f"scores-{sha256_bytes(named)[:32]}.npy"


def keep_scores(state: Path, name: str, scores: np.ndarray, *, beside: int = 0) -> None:
    """Keep scores (N, K) for the next message of the evaluation, and the last `beside` of those that lie there; those
    of evaluations that were never finished go.
    """
    there = sorted(state.glob("scores-*.npy"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for old in there[beside:]:
        old.unlink(missing_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, scores, allow_pickle=False)
    state.mkdir(exist_ok=True)
    write_atomic(state / name, buffer.getvalue())


def kept_scores(state: Path, name: str, *, cases: int, take: bool) -> np.ndarray | None:
    """The kept scores of this name, gone then if `take`; None where there are none for so many cases."""
    scores = None
    with suppress(OSError, ValueError, EOFError):
        scores = np.load(state / name, allow_pickle=False)
        if take:
            (state / name).unlink(missing_ok=True)
    return scores if scores is not None and scores.ndim == 2 and len(scores) == cases else None

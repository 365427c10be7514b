"""The site's own log of what its evaluations sent: one line of JSON for each answer, in `private/sent.jsonl`.

The site's own numbers stand there as they left. Sums are named with how many numbers each holds; the SHA-256 is that of
the report as JSON, or of the masked words, so that a copy of what left can be held against it. An answer that cannot be
logged is not sent.
"""

from __future__ import annotations

__all__ = ["log_report", "log_sealed"]

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from client.site import Site
from common.blocks import Words
from common.errors import RunFailed
from common.files import sha256_bytes
from common.orders import EvaluateOrder, EvaluateReport, PartReport
from common.sums_orders import Terms

_SUMS = ("sums", "histograms", "influence", "logistic", "looks", "shift_moments", "shift_sums")
_LOG = "sent.jsonl"


def log_report(site: Site, order: EvaluateOrder, report: EvaluateReport) -> None:
    """Note an evaluation report that is about to leave; RunFailed where it cannot be noted."""
    told = TypeAdapter(EvaluateReport).dump_json(report)
    parts = {name: _of_part(part) for name, part in report.parts.items()}
    _append(site, {**_about(order), "under_masks": False, "parts": parts, "sha256": sha256_bytes(told)})


def log_sealed(site: Site, order: EvaluateOrder, terms: Terms, words: Words) -> None:
    """Note sums that are about to leave under masks, and with whose they are added;
    RunFailed where it cannot be noted.
    """
    sums = {block.name: block.numbers for block in terms.directory}
    digest = sha256_bytes(words.astype("<u8").tobytes())
    about = {"under_masks": True, "with": [name for name in terms.sites if name != site.id]}
    _append(site, {**_about(order), **about, "sums": sums, "sha256": digest})


def _about(order: EvaluateOrder) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": now, "run": order.run, "round": order.round, "stage": order.stage}


def _of_part(part: PartReport) -> dict[str, Any]:
    plain = TypeAdapter(PartReport).dump_python(part, mode="json")
    numbers = {name: value for name, value in plain.items() if name not in _SUMS}
    return {"numbers": numbers, "sums": {name: size for name in _SUMS if (size := _numbers(plain[name]))}}


def _numbers(value: Any) -> int:
    """How many numbers some plain data hold."""
    match value:
        case bool() | str() | None:
            return 0
        case int() | float():
            return 1
        case {"kind": str(), "shape": [*shape], "text": str()}:
            return math.prod(shape)
        case Mapping():
            return sum(_numbers(one) for one in value.values())
        case Sequence():
            return sum(_numbers(one) for one in value)
    return 0


def _append(site: Site, line: Mapping[str, Any]) -> None:
    private = site.folder / "private"
    try:
        private.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(private / _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    except OSError as error:
        raise RunFailed(
            f"site {site.id}: its log of what is sent cannot be written ({type(error).__name__}), so nothing is sent; "
            "let the client write to private/"
        ) from error

"""The exceptions of sonofed, and what a command makes of them.

    SonofedError
    ├── BadInput    exit code 2: what was given cannot be used; nothing was changed
    └── RunFailed   exit code 1: the thing asked for was tried and failed
        ├── EvaluationsExhausted   a site has answered as many evaluations as its policy allows
        ├── LedgerExhausted   the privacy that the site allows does not last for what was asked
        └── LedgerRefused     the site's record of spent privacy cannot be trusted, or the request was answered before

A message is one line: what, where, the way out. It never holds a patient identifier, an original file name or a raw
path (the path that a person typed on the command line may be echoed).
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "EvaluationsExhausted",
    "LedgerExhausted",
    "LedgerRefused",
    "RunFailed",
    "SonofedError",
    "suggest",
]

import difflib
from collections.abc import Iterable


class SonofedError(Exception):
    """Whatever sonofed raises on purpose; `exit_code` is what a command returns."""

    exit_code = 1


class BadInput(SonofedError):
    """The input cannot be used: what, where, the way out."""

    exit_code = 2


class RunFailed(SonofedError):
    """The thing asked for was tried and failed."""

    exit_code = 1


class EvaluationsExhausted(RunFailed):
    """The site's policy allows no more evaluations of its patients."""


class LedgerExhausted(RunFailed):
    """What was asked would cost more ε than the site's policy allows."""


class LedgerRefused(RunFailed):
    """The ledger was rolled back, edited or is no longer whole, or this round was released before."""


def suggest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest known word, else the empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""

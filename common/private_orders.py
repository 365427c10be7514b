"""What server and site say to each other about privacy, beside an order and its answer."""

from __future__ import annotations

__all__ = ["CardOrder", "Head", "PrivateOrder", "PrivateReport"]

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from common.config import ImagePrivacy, PatientPrivacy, Positive
from common.privacy import Plan

_STRICT = ConfigDict(extra="forbid")
_NONE = "0" * 64


@checked(frozen=True, config=_STRICT)
class Head:
    """How many lines a ledger has, and the hash of the last; zeros before the first."""

    length: int = 0
    hash: str = _NONE


@checked(frozen=True, config=_STRICT)
class CardOrder:
    """How a site is to introduce itself: to a private run it tells nothing that follows from its true count."""

    private: bool = False


@checked(frozen=True, config=_STRICT)
class PrivateOrder:
    """Train with privacy. `name` is the run's own, no other run has it; `steps` are the site's in the whole run.

    `seen` is the head of the site's ledger that the server knows: an older ledger is refused.
    """

    privacy: PatientPrivacy | ImagePrivacy
    name: str
    steps: Positive
    seen: Head | None = None


@checked(frozen=True, config=_STRICT)
class PrivateReport:
    """What a private answer cost: `plan` is this round's, `epsilon` a patient's for all that the site ever released.

    `again`: the stored answer to a request that came twice. `insecure_demo`: draws were seeded, nobody is protected.
    """

    plan: Plan
    epsilon: float
    cap: float
    delta: float
    head: Head
    again: bool = False
    insecure_demo: bool = False

"""What server and sites say to each other to sum numbers under masks: keys, terms, who is ready, openings. Plain data.

An evaluation is named by `run` and `round`, each of its totals by a `purpose` too; each time that one is asked, an
`attempt` of its own (drawn by the server) brings new keys.
"""

from __future__ import annotations

__all__ = [
    "KeyOrder",
    "OpenOrder",
    "Opening",
    "Ready",
    "ReadyOrder",
    "SealOrder",
    "Sealed",
    "SiteKey",
    "Terms",
    "named_by_model",
    "statement",
]

import json
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from common.blocks import Block
from common.files import sha256_bytes
from common.orders import EvaluateOrder

_STRICT = ConfigDict(extra="forbid")
_Key = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Attempt = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
_Name = Annotated[str, Field(min_length=1, max_length=200)]


@checked(frozen=True, config=_STRICT)
class KeyOrder:
    """Make a key pair for one attempt of an evaluation, and tell the public half."""

    run: _Name
    round: int
    purpose: _Name
    attempt: _Attempt


@checked(frozen=True, config=_STRICT)
class SiteKey:
    """A site's public X25519 key (RFC 7748, 32 bytes) for one attempt, in hexadecimal.

    `signature`: by the key that the site is registered with, over `statement`; None where it has no such key.
    """

    site: _Name
    public: _Key
    signature: Annotated[str, Field(pattern="^[0-9a-f]{2,300}$")] | None = None


@checked(frozen=True, config=_STRICT)
class Terms:
    """What every site of one attempt must agree on to the byte: `keys` in the order of site ids, and what is summed."""

    run: _Name
    round: int
    purpose: _Name
    attempt: _Attempt
    directory: tuple[Block, ...]
    keys: tuple[SiteKey, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose numbers are summed."""
        return tuple(key.site for key in self.keys)

    @property
    def digest(self) -> str:
        """SHA-256 of the terms in one canonical form, hexadecimal."""
        return sha256_bytes(_canonical("sonofed sums, terms 1", TypeAdapter(Terms).dump_python(self, mode="json")))


@checked(frozen=True, config=_STRICT)
class SealOrder:
    """Evaluate as `evaluate` says, and send the numbers of `terms.directory` under masks."""

    terms: Terms
    evaluate: EvaluateOrder


@checked(frozen=True, config=_STRICT)
class Sealed:
    """Goes with a site's masked words; `terms` is the digest of the terms that they were masked under."""

    site: str
    terms: str


@checked(frozen=True, config=_STRICT)
class ReadyOrder:
    """Every site's words have arrived: say whether you could open the total of the attempt with these terms."""

    run: _Name
    round: int
    purpose: _Name
    terms: _Key


@checked(frozen=True, config=_STRICT)
class Ready:
    """The site still holds what it sealed under these terms, and would open them; no secret goes with it."""

    site: str
    terms: str


@checked(frozen=True, config=_STRICT)
class OpenOrder:
    """Every site is ready: take your own mask off the total of the attempt with these terms."""

    run: _Name
    round: int
    purpose: _Name
    terms: _Key


@checked(frozen=True, config=_STRICT)
class Opening:
    """The seed of a site's own mask, in hexadecimal: it opens the total, once every site has sent its own."""

    site: str
    terms: str
    seed: _Key


def named_by_model(run: str, fingerprint: str) -> str:
    """The name of a run as these orders have it: what is counted with some sites is this model,
    whoever runs it again.
    """
    return f"{run} {fingerprint}"


def statement(order: KeyOrder | Terms, *, site: str, public: str) -> bytes:
    """What a site signs: that this key is its own, for this attempt."""
    return _canonical("sonofed sums, key 1", [order.run, order.round, order.purpose, order.attempt, site, public])


def _canonical(what: str, value: Any) -> bytes:
    return json.dumps([what, value], sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

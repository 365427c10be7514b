"""Secure sums over Flower: the four messages of `server.secure_sums`, sent to the sites of a `FlowerFederation`."""

from __future__ import annotations

__all__ = ["Ask", "FlowerExchange"]

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from flwr.app import MessageType, RecordDict

from common.blocks import Words
from common.errors import BadInput, SonofedError
from common.orders import EvaluateOrder
from common.sums_orders import KeyOrder, Opening, OpenOrder, Ready, ReadyOrder, Sealed, SealOrder, SiteKey, Terms
from common.update import Weights
from common.wire import arrays_of, pack, unpack, words_of
from server.secure_sums import Answers

_T = TypeVar("_T")
_Told = TypeVar("_Told", Sealed, Ready, Opening)

Ask = Callable[[str, Mapping[str, RecordDict]], tuple[Mapping[str, RecordDict], Mapping[str, str]]]
"""Send a message of one type to each site; the contents of the replies, and why others gave none."""


class FlowerExchange:
    """The `Exchange` that evaluates as `order` says, with `weights`."""

    def __init__(self, ask: Ask, order: EvaluateOrder, weights: Weights) -> None:
        self._ask = ask
        self._order = order
        self._weights = weights

    def keys(self, sites: Collection[str], order: KeyOrder) -> Answers[SiteKey]:
        """Every site's public key for this attempt."""
        contents = {site: pack(order) for site in sites}
        return self._answers(f"{MessageType.QUERY}.sums_key", contents, lambda site, reply: _key(site, reply))

    def seal(self, terms: Terms) -> Answers[Words]:
        """Every site's sums under its masks."""
        arrays = arrays_of(self._weights)
        contents = {site: pack(SealOrder(terms, self._order), arrays) for site in terms.sites}
        digest = terms.digest
        return self._answers(
            f"{MessageType.EVALUATE}.sums_seal", contents, lambda site, reply: _sealed(site, reply, digest)
        )

    def ready(self, sites: Collection[str], order: ReadyOrder) -> Answers[Ready]:
        """That the sites still hold what they sealed."""
        contents = {site: pack(order) for site in sites}
        return self._answers(
            f"{MessageType.QUERY}.sums_ready", contents, lambda site, reply: _ready(site, reply, order.terms)
        )

    def open(self, sites: Collection[str], order: OpenOrder) -> Answers[Opening]:
        """The seeds of the sites' own masks."""
        contents = {site: pack(order) for site in sites}
        return self._answers(
            f"{MessageType.QUERY}.sums_open", contents, lambda site, reply: _opening(site, reply, order.terms)
        )

    def _answers(
        self, kind: str, contents: Mapping[str, RecordDict], read: Callable[[str, RecordDict], _T]
    ) -> Answers[_T]:
        replies, lost = self._ask(kind, contents)
        found, failures = {}, dict(lost)
        for site, reply in sorted(replies.items()):
            try:
                found[site] = read(site, reply)
            except SonofedError as error:
                failures[site] = str(error)
        return Answers(found, failures)


def _key(site: str, reply: RecordDict) -> SiteKey:
    key = unpack(SiteKey, reply)
    _require_same(site, key.site)
    return key


def _sealed(site: str, reply: RecordDict, digest: str) -> Words:
    _same_terms(Sealed, site, reply, digest, otherwise="its sums are sealed under other terms")
    return words_of(reply)


def _ready(site: str, reply: RecordDict, digest: str) -> Ready:
    return _same_terms(Ready, site, reply, digest, otherwise="it is ready for other terms")


def _opening(site: str, reply: RecordDict, digest: str) -> Opening:
    return _same_terms(Opening, site, reply, digest, otherwise="it opened other terms")


def _same_terms(kind: type[_Told], site: str, reply: RecordDict, digest: str, *, otherwise: str) -> _Told:
    """The reply of `site` itself about the terms of this `digest`; BadInput says `otherwise` where they are others."""
    told = unpack(kind, reply)
    _require_same(site, told.site)
    if told.terms != digest:
        raise BadInput(f"{otherwise}; run one release everywhere")
    return told


def _require_same(site: str, told: str) -> None:
    if site != told:
        raise BadInput(f"it answered as site {told}")

"""Sites in this process that take part in a secure sum with the client's real code, and what may go wrong between."""

from __future__ import annotations

__all__ = ["Sites", "honest_view"]

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from client.secure_sums import make_key, open_total, ready, seal
from common.blocks import Words
from common.errors import SonofedError
from common.masks import stream
from common.sums_orders import KeyOrder, Opening, OpenOrder, Ready, ReadyOrder, SiteKey, Terms
from server.secure_sums import Answers

_T = TypeVar("_T")


@dataclass
class Sites:
    """An `Exchange` over state folders below `base`. `lost[step]` says which sites do not answer each time that the
    step is asked (they do it, late); those in `unreached[step]` never hear of it. `missed`: who did not answer, and at
    which step.

    Everything that the server ever receives, answers that came too late included, is in `seen_seals` and
    `seen_openings`.
    """

    base: Path
    numbers: Mapping[str, Mapping[str, np.ndarray]]
    lost: dict[str, list[set[str]]] = field(default_factory=dict)
    unreached: dict[str, list[set[str]]] = field(default_factory=dict)
    missed: list[tuple[str, str]] = field(default_factory=list)
    keys_seen: list[KeyOrder] = field(default_factory=list)
    terms_seen: list[Terms] = field(default_factory=list)
    seen_seals: dict[tuple[str, str], Words] = field(default_factory=dict)
    seen_openings: dict[tuple[str, str], bytes] = field(default_factory=dict)
    tamper: Callable[[Terms, str], Terms] = lambda terms, _: terms
    about: Callable[[Terms], Collection[str] | None] = lambda _: None

    def state(self, site: str) -> Path:
        return self.base / site

    def keys(self, sites: Collection[str], order: KeyOrder) -> Answers[SiteKey]:
        self.keys_seen.append(order)
        return self._ask("keys", sites, lambda site: make_key(self.state(site), order, site=site))

    def seal(self, terms: Terms) -> Answers[Words]:
        self.terms_seen.append(terms)

        def sealed(site: str) -> Words:
            told = self.tamper(terms, site)
            about = self.about(told)
            words = seal(self.state(site), told, lambda: self.numbers[site], site=site, request="0" * 64, about=about)
            self.seen_seals[site, told.digest] = words
            return words

        return self._ask("seal", terms.sites, sealed)

    def ready(self, sites: Collection[str], order: ReadyOrder) -> Answers[Ready]:
        return self._ask("ready", sites, lambda site: ready(self.state(site), order, site=site))

    def open(self, sites: Collection[str], order: OpenOrder) -> Answers[Opening]:
        def opening(site: str) -> Opening:
            told = open_total(self.state(site), order, site=site)
            self.seen_openings[site, order.terms] = bytes.fromhex(told.seed)
            return told

        return self._ask("open", sites, opening)

    def _ask(self, step: str, sites: Collection[str], answer: Callable[[str], _T]) -> Answers[_T]:
        lost = self.lost[step].pop(0) if self.lost.get(step) else set()
        unreached = self.unreached[step].pop(0) if self.unreached.get(step) else set()
        replies, failures = {}, {}
        for site in sites:
            if site in unreached:
                failures[site] = "the node was lost (error 5)"
                continue
            try:
                reply = answer(site)
            except SonofedError as error:
                failures[site] = str(error)
                continue
            if site in lost:
                failures[site] = "the node was lost (error 5)"
            else:
                replies[site] = reply
        self.missed += [(step, site) for site in failures]
        return Answers(replies, failures)


def honest_view(sites: Sites, terms: Terms, site: str, *, known: Mapping[str, Words]) -> Words:
    """What the server sees of one site once the total is open: its words without its own mask, and without `known`
    masks.

    `known` are pair masks that other sites told it, by site.
    """
    words = sites.seen_seals[site, terms.digest]
    left = words - stream(sites.seen_openings[site, terms.digest], len(words))
    for other, mask in known.items():
        left = left - mask if other > site else left + mask
    return left

"""Sums that the server cannot take apart: ask for keys, tell everybody all of them, add what comes back sealed, ask
whether everybody is ready, open it.

Four messages to each site. Who drops out of one of the first three costs the attempt, and nothing else, for nobody has
taken a mask off yet: it is named, and the others are asked again without it, with new keys. What is left is a site that
says that it is ready and is gone when it should open, a few seconds later. It is asked three times. If it stays away,
the evaluation fails by name (`NotOpened`): the total stays sealed and nothing is revealed, but the others have opened
and are not counted with another roster, which would give that site's numbers away by subtraction. Once it is back, the
same sites can be asked anew. Shares of each site's seed among the others (Bonawitz et al. 2017) would close this window
at the price of a rule for how many of them may open for one that is silent, and of a second secret at every site; they
are not here. `common/masks.py` says what all this protects, and what not. Knows no Flower, only an `Exchange`.
"""

from __future__ import annotations

__all__ = ["Answers", "DroppedOut", "Exchange", "NotOpened", "TooFewLeft", "Totals", "secure_totals", "sum_once"]

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.blocks import Block, Words, decode
from common.errors import BadInput, RunFailed
from common.masks import SMALLEST_ROSTER, added, check_terms, opened
from common.sums_orders import KeyOrder, Opening, OpenOrder, Ready, ReadyOrder, SiteKey, Terms

_T = TypeVar("_T")
_OPENINGS = 3
"""How often a site is asked for its opening."""


@dataclass(frozen=True)
class Answers(Generic[_T]):
    """What sites answered, and why others did not."""

    replies: Mapping[str, _T]
    failures: Mapping[str, str] = field(default_factory=dict)


class Exchange(Protocol):
    """The sites, however they are reached. A reply that its site did not send for these terms is a failure."""

    def keys(self, sites: Collection[str], order: KeyOrder) -> Answers[SiteKey]: ...

    def seal(self, terms: Terms) -> Answers[Words]: ...

    def ready(self, sites: Collection[str], order: ReadyOrder) -> Answers[Ready]: ...

    def open(self, sites: Collection[str], order: OpenOrder) -> Answers[Opening]: ...


@dataclass(frozen=True)
class Totals:
    """The sums over `sites` by block, each (length,): int64 for counts, else float64.

    `failures`: who was left out, and why.
    """

    sites: tuple[str, ...]
    numbers: Mapping[str, NDArray[np.int64] | NDArray[np.float64]]
    failures: Mapping[str, str] = field(default_factory=dict)


class DroppedOut(RunFailed):
    """Sites that gave no key or no sealed sums in one attempt, or were not ready to open it; `failures` by site."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        super().__init__(
            f"the secure sum failed ({_listed(failures)}); ask again without {', '.join(sorted(failures))}"
        )


class NotOpened(RunFailed):
    """Sites that were ready to open the total and then did not, while others may have; `failures` by site.

    `sites`: everybody whose sums are in that total; `dropped`: who had dropped out of earlier attempts, and why.
    """

    def __init__(
        self, failures: Mapping[str, str], sites: Sequence[str], *, dropped: Mapping[str, str] | None = None
    ) -> None:
        self.failures, self.sites, self.dropped = dict(failures), tuple(sites), dict(dropped or {})
        missing, everybody = (", ".join(sorted(names)) for names in (failures, sites))
        before = f" (dropped out before: {_listed(dropped)})" if dropped else ""
        super().__init__(
            f"the secure sum is sealed, but not every site opened it ({_listed(failures)}){before}; nothing is "
            "revealed, and the others are not counted without it in this evaluation: evaluate the same sites again "
            f"({everybody}) when {missing} can be reached, or another model without it"
        )


class TooFewLeft(RunFailed):
    """So many sites dropped out that the others cannot hide one; no total was opened.
    `failures` by site, `left` there.
    """

    def __init__(self, failures: Mapping[str, str], left: Collection[str]) -> None:
        self.failures, self.left = dict(failures), tuple(sorted(left))
        super().__init__(
            f"a secure sum needs {SMALLEST_ROSTER} sites, and {len(left)} are left: {DroppedOut(failures)}"
        )


def _listed(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{site}: {why}" for site, why in sorted(failures.items()))


def secure_totals(
    exchange: Exchange, sites: Collection[str], directory: Sequence[Block], *, run: str, round_number: int, purpose: str
) -> Totals:
    """The totals over `sites`, asked again without those that drop out, as long as three are left.

    TooFewLeft, with everybody's reasons, where fewer are; NotOpened, likewise, where a site was ready and did not
    open; BadInput where there never were three.
    """
    left, failures = set(sites), dict[str, str]()
    while True:
        if failures and len(left) < SMALLEST_ROSTER:
            raise TooFewLeft(failures, left)
        try:
            found = sum_once(exchange, left, directory, run=run, round_number=round_number, purpose=purpose)
        except DroppedOut as lost:
            failures |= lost.failures
            left -= lost.failures.keys()
        except NotOpened as lost:
            raise NotOpened(lost.failures, lost.sites, dropped=failures) from None
        else:
            return Totals(found.sites, found.numbers, failures)


def sum_once(
    exchange: Exchange, sites: Collection[str], directory: Sequence[Block], *, run: str, round_number: int, purpose: str
) -> Totals:
    """One attempt, over all of `sites`: DroppedOut where one of them fails before anybody is asked to open.

    BadInput where the roster cannot hide a site; NotOpened where a site was ready and did not open the total.
    """
    _require_enough(sites)
    ask = KeyOrder(run, round_number, purpose, os.urandom(16).hex())
    keys = _whole(exchange.keys(sorted(sites), ask), sites)
    about: dict[str, Any] = {"run": run, "round": round_number, "purpose": purpose, "attempt": ask.attempt}
    terms = Terms(**about, directory=tuple(directory), keys=tuple(keys[site] for site in sorted(sites)))
    check_terms(terms)
    vectors = _whole(exchange.seal(terms), sites)
    sealed = added(vectors, terms)
    _require_ready(exchange, terms)
    seeds = _openings(exchange, terms)
    return Totals(terms.sites, decode(directory, opened(sealed, seeds, terms)))


def _require_enough(sites: Collection[str]) -> None:
    if len(sites) < SMALLEST_ROSTER:
        raise BadInput(
            f"{len(sites)} sites ({', '.join(sorted(sites)) or 'none'}) are too few for a secure sum: with fewer than "
            f"{SMALLEST_ROSTER} the total gives a site's numbers away; set evaluation.secure = false, or add sites"
        )


def _whole(answers: Answers[_T], sites: Collection[str]) -> Mapping[str, _T]:
    missing = sorted(set(sites) - answers.replies.keys())
    if missing:
        raise DroppedOut({site: answers.failures.get(site, "no answer") for site in missing})
    return answers.replies


def _require_ready(exchange: Exchange, terms: Terms) -> None:
    answers = exchange.ready(terms.sites, ReadyOrder(terms.run, terms.round, terms.purpose, terms.digest))
    late = {site: f"{why}, after it had sealed its sums" for site, why in answers.failures.items()}
    _whole(Answers(answers.replies, late), terms.sites)


def _openings(exchange: Exchange, terms: Terms) -> dict[str, bytes]:
    order = OpenOrder(terms.run, terms.round, terms.purpose, terms.digest)
    seeds: dict[str, bytes] = {}
    failures: Mapping[str, str] = {}
    for _ in range(_OPENINGS):
        answers = exchange.open([site for site in terms.sites if site not in seeds], order)
        seeds |= {site: bytes.fromhex(reply.seed) for site, reply in answers.replies.items()}
        failures = answers.failures
        if not set(terms.sites) - seeds.keys():
            return seeds
    missing = {site: failures.get(site, "no answer") for site in terms.sites if site not in seeds}
    raise NotOpened(missing, terms.sites)

"""A site's part in a secure sum: make a key, seal its numbers once, say that it is ready, open one total. What it must
remember is on its disk.

    state/sums/<purpose>.json      0600: the secrets of the current attempt at one purpose of an evaluation, then its
                                   answer, then whom it was counted with
    state/sums/<cases>.company     whom the same cases were counted with, for all purposes: `client.companies`

Flower starts a process for each message, so all steps read that one file, and all but the word that the site is ready
replace it. The private key goes when the numbers are sealed, in the same replacement that brings the answer; the answer
goes when the total is opened. A new attempt replaces the last one, on the disk before its key leaves: what was sealed
there can never be opened any more. The name of whom a site was counted with stays, on the disk before its opening
leaves: within one evaluation the same cases are never counted with others, under any purpose. So whatever a server
asks, and in whatever order, a site takes its mask off the sums of one roster only. A hospital that wants that all the
same removes the files.
"""

from __future__ import annotations

__all__ = ["make_key", "open_total", "ready", "seal"]

import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from client.companies import bind_company, refuse_other_company, require_company
from client.peers import check_peers, sign
from common.blocks import Words, encode
from common.errors import BadInput
from common.files import claimed, read_json, sha256_bytes, write_atomic
from common.masks import check_terms, new_secret, public_key, sealed
from common.parsing import parse
from common.sums_orders import KeyOrder, Opening, OpenOrder, Ready, ReadyOrder, SiteKey, Terms, statement

_FOLDER = "sums"
_FORGOTTEN_SECONDS = 86_400.0
"""After so long the secrets of an attempt that nobody finished go."""


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class _Kept:
    """What the site remembers of one purpose of an evaluation.

    `own`: seed of its own mask. `private` until the numbers are sealed under the terms `terms`; then `answer`, the
    sealed words (base64), to the request `request`, of `sites`, `about` which cases. `opened`: the total was opened;
    `counted`: with whom it ever was.
    """

    attempt: str
    own: str
    public: str
    private: str | None = None
    terms: str | None = None
    request: str | None = None
    sites: tuple[str, ...] = ()
    answer: str | None = None
    opened: bool = False
    counted: tuple[str, ...] | None = None
    about: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Evaluation:
    """Where one purpose of one site's evaluation is remembered."""

    path: Path
    site: str

    def read(self) -> _Kept | None:
        if not self.path.exists():
            return None
        return parse(_Kept, read_json(self.path), where=f"site {self.site}: state/{_FOLDER}")

    def write(self, kept: _Kept) -> None:
        write_atomic(self.path, TypeAdapter(_Kept).dump_json(kept), mode=0o600)


def make_key(state: Path, order: KeyOrder, *, site: str, signing: Path | None = None) -> SiteKey:
    """The public key of `site` for an attempt; asked again for the same attempt, the same key.

    `state`: the site's state folder. `signing`: the private key that the site is registered with, where it has one.
    """
    with _remembered(state, order, site=site) as evaluation:
        kept = evaluation.read()
        if kept is None or kept.attempt != order.attempt:
            private = new_secret()
            counted = kept.counted if kept else None
            kept = _Kept(order.attempt, new_secret().hex(), public_key(private), private.hex(), counted=counted)
            evaluation.write(kept)
        _forget_unfinished(evaluation.path.parent)
    signature = sign(signing, statement(order, site=site, public=kept.public)) if signing else None
    return SiteKey(site, kept.public, signature)


def seal(
    state: Path,
    terms: Terms,
    compute: Callable[[], Mapping[str, ArrayLike]],
    *,
    site: str,
    request: str,
    about: Collection[str] | None = None,
    peers: Path | None = None,
) -> Words:
    """The numbers that `compute` gives by block, sealed under the terms; they leave the site only as this.

    `request` is a SHA-256 of all that the numbers depend on. The same terms and request again get the stored answer,
    and `compute` is not called; any other is refused, since one mask never hides two vectors. `about`: names of the
    evaluations and cases that the numbers are of, each with one company (`client.companies`); all of the run's round
    where it is not said. `peers`: see `client.peers`. BadInput where the terms cannot hide the site, or it was already
    counted with others in this evaluation.
    """
    check_terms(terms)
    subjects = (f"{terms.run}, round {terms.round}",) if about is None else tuple(sorted(about))
    if peers is not None:
        check_peers(peers, terms, site=site)
    with _remembered(state, terms, site=site) as evaluation:
        kept = evaluation.read()
        if kept is None or kept.attempt != terms.attempt or kept.opened:
            raise BadInput(f"site {site}: no key is waiting for this attempt; ask for a new one")
        if kept.counted is not None:
            refuse_other_company(kept.counted, terms.sites, site=site)
        require_company(evaluation.path.parent, subjects, terms.sites, site=site)
        if kept.private is None:
            return _stored(kept, terms, site=site, request=request)
        words = encode(terms.directory, compute(), sites=len(terms.sites))
        secrets = (bytes.fromhex(kept.private), bytes.fromhex(kept.own))
        answer = sealed(words, site=site, private=secrets[0], own=secrets[1], terms=terms)
        text = b64encode(answer.astype("<u8").tobytes()).decode()
        told = replace(kept, private=None, terms=terms.digest, request=request, answer=text)
        evaluation.write(replace(told, sites=terms.sites, about=subjects))
        return answer


def ready(state: Path, order: ReadyOrder, *, site: str) -> Ready:
    """That the site still holds what it sealed under these terms; nothing changes, so asked again, the same.

    BadInput where it holds nothing under these terms: it sealed others, began a new attempt, or forgot an old one; and
    where it has since been counted with others.
    """
    with _remembered(state, order, site=site) as evaluation:
        kept = _holding(evaluation, order)
        require_company(evaluation.path.parent, kept.about, kept.sites, site=site)
        return Ready(site, order.terms)


def open_total(state: Path, order: OpenOrder, *, site: str) -> Opening:
    """The seed of the site's own mask, for the attempt that it sealed under these terms; asked again, the same.

    BadInput where it holds nothing under these terms, or has been counted with others since it sealed: two totals may
    wait sealed at a time, and the first to be opened decides.
    """
    with _remembered(state, order, site=site) as evaluation:
        kept = _holding(evaluation, order)
        if not kept.opened:
            bind_company(evaluation.path.parent, kept.about, kept.sites, site=site)
            kept = replace(kept, answer=None, opened=True, counted=kept.sites)
            evaluation.write(kept)
        return Opening(site, order.terms, kept.own)


def _holding(evaluation: _Evaluation, order: ReadyOrder | OpenOrder) -> _Kept:
    kept = evaluation.read()
    if kept is None or kept.terms != order.terms:
        raise BadInput(f"site {evaluation.site}: it has sealed nothing under these terms; ask for a new key")
    return kept


def _stored(kept: _Kept, terms: Terms, *, site: str, request: str) -> Words:
    if kept.terms != terms.digest or kept.request != request or kept.answer is None:
        raise BadInput(
            f"site {site}: its numbers of this attempt are sealed, and this asks for others under the same mask; ask "
            "for a new key"
        )
    return np.frombuffer(b64decode(kept.answer), dtype="<u8").astype(np.uint64)


@contextmanager
def _remembered(state: Path, order: KeyOrder | Terms | ReadyOrder | OpenOrder, *, site: str) -> Iterator[_Evaluation]:
    """The evaluation's file, for this process alone until the block ends."""
    folder = state / _FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = sha256_bytes("\0".join((order.run, str(order.round), order.purpose)).encode())[:32]
    busy = f"site {site}: another message of this evaluation is at work; ask again when it is done"
    with claimed(folder / f"{name}.lock", complaint=busy):
        yield _Evaluation(folder / f"{name}.json", site)


def _forget_unfinished(folder: Path) -> None:
    """Take away the secrets of attempts that began long ago and were never opened."""
    for path in folder.glob("*.json"):
        if time.time() - path.stat().st_mtime > _FORGOTTEN_SECONDS:
            old = _Evaluation(path, "")
            kept = old.read()
            if kept is not None and not kept.opened:
                bare = replace(kept, own="", private=None, answer=None, terms=None)
                old.write(bare) if kept.counted else path.unlink()

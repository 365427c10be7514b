"""Masks that cancel in the sum: the server adds what it cannot read, and sees the total alone. After Bonawitz et al.
2017.

    sealed_i = numbers_i + own_i + Σ_{j > i} pair_ij − Σ_{j < i} pair_ij        modulo 2⁶⁴
    total    = Σ sealed_i − Σ own_i

`pair_ij` is a ChaCha20 stream whose key follows by HKDF-SHA256 from the X25519 secret of sites i and j and from all
terms of the attempt (run, round, purpose, attempt, directory, every site's key): other terms, other masks, and sites
that were told different terms send noise that does not add up. `own_i` is a stream from 32 random bytes that the site
tells last, once all have said that they are ready to, and for one set of sites only. Without it, an answer that
arrives late could be had by subtraction: from the total with that site, the total without it. Every site of an attempt
must take its own mask off; one that has gone on to another attempt has lost the old mask, and one that has opened is
counted with no other company.

The rule of company: for one model's evaluation (run, model, round), a site opens totals over its val cases, its test
cases and its train cases each with one set of sites, whatever the purpose, the stage and the name of the message. A
total over several of these binds them all, and one of two models binds both models' evaluations and the pair's. The
set is on the site's disk before the first opening leaves (`client/companies.py`). So of two totals over the same cases
that differ in one site, at most one is ever opened. Val and test may have different sites: no case is in both. Another
model's evaluation may have other sites too, for a site may leave between models; but then the two are never compared
under masks.

Who is kept from what, plainly:
- A server that follows the protocol and keeps everything it receives learns the totals, and of single sites nothing;
  nor does anyone on the wire. The pair masks are as strong as X25519 and ChaCha20; no secret is ever at the server.
- Sites that tell the server their secrets take their own numbers out of the total: what is left is the sum over the
  others. A site is hidden only among at least two other sites that keep their secrets. So three sites are the least
  (with two, either total minus own gives the other).
- The server relays the keys. One that lies about them can put keys of its own in place of all others and read a site.
  Against that a site signs its key with the key it is registered with, and checks the others' signatures against keys
  that it got from those hospitals themselves (`client/peers.py`). Without these, trust in the server's relaying is
  needed.
- Totals are exact and without noise. Two evaluations of one model, with a site and without it, differ by that site's
  numbers: a site refuses that for one name of an evaluation (run, model, round); under another name it cannot know, and
  numbers that no model moves, such as cases by class, tell whenever a site joins or leaves. Nor can anyone check that a
  site's numbers are true, or tell which site's are not.
- A site that drops out costs the attempt, not the others' secrets: the others are asked again, with new keys. One that
  is lost in the seconds between saying that it is ready and opening costs the evaluation: the total stays sealed, and
  no other roster is counted (`server/secure_sums.py`).
"""

from __future__ import annotations

__all__ = ["SMALLEST_ROSTER", "added", "check_terms", "new_secret", "opened", "public_key", "sealed"]

import os
from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.blocks import Words, total_length
from common.errors import BadInput, RunFailed
from common.sums_orders import SiteKey, Terms

SMALLEST_ROSTER = 3

_PRIME = 2**255 - 19


def new_secret() -> bytes:
    """32 bytes from the operating system: a private key, or the seed of an own mask."""
    return os.urandom(32)


def public_key(private: bytes) -> str:
    """The public half of a private X25519 key, hexadecimal."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw().hex()


def check_terms(terms: Terms) -> None:
    """BadInput unless these terms can hide a site: three different sites, each once,
    each with a sound key of its own.
    """
    sites, keys = terms.sites, [key.public for key in terms.keys]
    if twice := {site for site in sites if sites.count(site) > 1}:
        raise BadInput(f"site {min(twice)} is in the roster twice; count each site once")
    if len(sites) < SMALLEST_ROSTER:
        raise BadInput(
            f"{len(sites)} sites ({', '.join(sites) or 'none'}) are too few for a secure sum: with fewer than "
            f"{SMALLEST_ROSTER} the total gives a site's numbers away; set evaluation.secure = false, or add sites"
        )
    if list(sites) != sorted(sites):
        raise BadInput("the roster is not in the order of site ids; run one release everywhere")
    for key in terms.keys:
        if keys.count(key.public) > 1:
            others = [other.site for other in terms.keys if other.public == key.public]
            raise BadInput(f"sites {' and '.join(others)} have the same key; each must make its own, ask again")
        _require_sound(key)
    total_length(terms.directory)


def _require_sound(key: SiteKey) -> None:
    """BadInput where a key is not in its one canonical form, or of low order: it would make every secret the same."""
    number = int.from_bytes(bytes.fromhex(key.public), "little")
    if number >= _PRIME:
        raise BadInput(f"site {key.site}: its public key is not a point's canonical form; run one release everywhere")
    _shared(X25519PrivateKey.generate(), key)


def _shared(private: X25519PrivateKey, key: SiteKey) -> bytes:
    """The secret with another site. RFC 7748, section 6.1: a point of low order shows as zeros."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(key.public)))
    except ValueError:
        raise BadInput(
            f"site {key.site}: its public key is of low order, so it hides nothing; ask again without it"
        ) from None


def sealed(words: Words, *, site: str, private: bytes, own: bytes, terms: Terms) -> Words:
    """A site's words under its own mask and one with every other site; `words` (total length,) stay as they are.

    BadInput where the terms cannot hide the site, have another key for it than its own, or not its number of words.
    """
    check_terms(terms)
    mine = {key.site: key.public for key in terms.keys}.get(site)
    if mine != public_key(private):
        raise BadInput(f"site {site}: the roster does not have the key that it made; ask it for a key again")
    if len(words) != total_length(terms.directory):
        raise BadInput(
            f"site {site}: {len(words)} numbers where the directory has other blocks; run one release everywhere"
        )
    result = words + stream(own, len(words))
    for key in terms.keys:
        if key.site != site:
            mask = pair_mask(private, key, site=site, terms=terms)
            result = result + mask if key.site > site else result - mask
    return result


def pair_mask(private: bytes, key: SiteKey, *, site: str, terms: Terms) -> Words:
    """The mask that `site` and the owner of `key` share under these terms; both compute the same."""
    shared = _shared(X25519PrivateKey.from_private_bytes(private), key)
    pair = "|".join(sorted((site, key.site)))
    derived = HKDF(SHA256(), 32, salt=bytes.fromhex(terms.digest), info=f"sonofed sums, pair 1|{pair}".encode())
    return stream(derived.derive(shared), total_length(terms.directory))


def stream(key: bytes, length: int) -> Words:
    """`length` words of the ChaCha20 stream (RFC 8439) of a key that is used for nothing else, from block 0."""
    encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * length)), dtype="<u8").astype(np.uint64)


def added(vectors: Mapping[str, Words], terms: Terms) -> Words:
    """The sum of every site's sealed words, still under all own masks;
    RunFailed names a site whose words are missing.
    """
    length = total_length(terms.directory)
    total = np.zeros(length, dtype=np.uint64)
    for site in _every(vectors, terms):
        if vectors[site].shape != (length,) or vectors[site].dtype != np.uint64:
            raise RunFailed(f"site {site} sent {vectors[site].shape} words, not {length}; run one release everywhere")
        total += vectors[site]
    return total


def opened(total: Words, seeds: Mapping[str, bytes], terms: Terms) -> Words:
    """The total itself, from what `added` gives and the seed of every site's own mask."""
    for site in _every(seeds, terms):
        total = total - stream(seeds[site], len(total))
    return total


def _every(there: Mapping[str, object], terms: Terms) -> tuple[str, ...]:
    if missing := [site for site in terms.sites if site not in there]:
        raise RunFailed(f"no total without {', '.join(missing)}; ask again without it")
    if strange := sorted(there.keys() - set(terms.sites)):
        raise RunFailed(f"site {strange[0]} is not in the roster; leave its answer out")
    return terms.sites

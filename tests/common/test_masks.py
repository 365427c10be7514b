"""Masks: known answers, cancellation, and keys and rosters that hide nothing."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.blocks import Block
from common.errors import BadInput, RunFailed
from common.masks import added, check_terms, new_secret, opened, pair_mask, public_key, sealed, stream
from common.sums_orders import SiteKey, Terms

P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]
"""The u of Curve25519's points of order 1, 2, 4 and 8 (RFC 7748's curve; its doubling formula gives them)."""


def secrets(*names: str) -> dict[str, bytes]:
    return {name: new_secret() for name in names}


def terms(private: dict[str, bytes], **changes: Any) -> Terms:
    keys = tuple(SiteKey(site, public_key(secret)) for site, secret in sorted(private.items()))
    about: dict[str, Any] = {"run": "r", "round": 1, "purpose": "test", "attempt": "0" * 32, "keys": keys}
    return Terms(**{**about, "directory": (Block("n", 5), Block("x", 2, 20)), **changes})


def hexadecimal(number: int) -> str:
    return number.to_bytes(32, "little").hex()


def block_of_chacha20(key: bytes, counter: int) -> bytes:
    """One block with a nonce of zeros, written from RFC 8439, section 2.3."""
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, 0, 0, 0]
    x = list(start)

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for (i, j, k), by in zip(((a, b, d), (c, d, b)) * 2, (16, 12, 8, 7), strict=True):
            x[i] = (x[i] + x[j]) % 2**32
            turned = x[k] ^ x[i]
            x[k] = (turned << by | turned >> 32 - by) % 2**32

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16I", *((a + b) % 2**32 for a, b in zip(x, start, strict=True)))


def test_the_stream_is_chacha20() -> None:
    assert block_of_chacha20(bytes(32), 0).hex().startswith("76b8e0ada0f13d90405d6ae55386bd28")  # RFC 8439, A.1
    key = new_secret()
    expected = b"".join(block_of_chacha20(key, counter) for counter in range(4))
    np.testing.assert_array_equal(stream(key, 27), np.frombuffer(expected, "<u8")[:27])


def test_two_sites_derive_one_mask_and_the_sum_is_exact() -> None:
    private = secrets("ash", "birch", "cedar", "yew")
    agreed, rng = terms(private), np.random.default_rng(0)
    words = {site: rng.integers(2**64, size=7, dtype=np.uint64) for site in private}
    own = {site: new_secret() for site in private}
    vectors = {s: sealed(words[s], site=s, private=private[s], own=own[s], terms=agreed) for s in private}
    total = opened(added(vectors, agreed), own, agreed)
    np.testing.assert_array_equal(total, sum(words.values(), np.zeros(7, np.uint64)))
    keys = {key.site: key for key in agreed.keys}
    np.testing.assert_array_equal(
        pair_mask(private["ash"], keys["yew"], site="ash", terms=agreed),
        pair_mask(private["yew"], keys["ash"], site="yew", terms=agreed),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"},
        {"round": 2},
        {"purpose": "val"},
        {"attempt": "1" * 32},
        {"directory": (Block("n", 5), Block("x", 2, 21))},
        {"directory": (Block("m", 5), Block("x", 2, 20))},
        {"directory": (Block("n", 7),)},
        {"roster": "yew"},
        {"roster": "oak"},
        {"roster": "signature"},
    ],
)
def test_whatever_changes_in_the_terms_changes_every_mask(changes: dict[str, Any]) -> None:
    private = secrets("ash", "birch", "cedar", "yew")
    plain = terms(private)
    match changes.pop("roster", None):
        case "yew":
            changes = {"keys": plain.keys[:3]}
        case "oak":
            changes = {"keys": (*plain.keys[:3], SiteKey("yew", public_key(new_secret())))}
        case "signature":
            changes = {"keys": (*plain.keys[:3], replace(plain.keys[3], signature="00"))}
    other = replace(plain, **changes)
    masks = [pair_mask(private["ash"], plain.keys[1], site="ash", terms=t) for t in (plain, other)]
    assert not np.any(masks[0] == masks[1])


@pytest.mark.parametrize("number", [*LOW_ORDER, P, P + 1, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1])
def test_a_key_that_makes_no_secret_is_refused_by_site_and_server(number: int) -> None:
    private = secrets("ash", "birch", "cedar")
    good = terms(private)
    bad = replace(good, keys=(good.keys[0], SiteKey("birch", hexadecimal(number)), good.keys[2]))
    expected = "site birch: its public key is (of low order|not a point's canonical form)"
    with pytest.raises(BadInput, match=expected):
        check_terms(bad)
    with pytest.raises(BadInput, match=expected):
        sealed(np.zeros(7, np.uint64), site="ash", private=private["ash"], own=bytes(32), terms=bad)


def test_the_low_order_keys_are_of_low_order() -> None:
    """Doubled three times they are the point at infinity, or its twin of order two:
    x = 0 in projective form or z = 0.
    """
    for u in LOW_ORDER:
        x, z = u, 1
        for _ in range(3):
            plus, minus = (x + z) ** 2 % P, (x - z) ** 2 % P
            x, z = plus * minus % P, (plus - minus) * (minus + 121666 * (plus - minus)) % P
        assert z == 0


def test_rosters_that_hide_nobody() -> None:
    private = secrets("ash", "birch", "cedar", "yew")
    good = terms(private)
    a, b, c, y = good.keys
    check_terms(good)
    for keys, expected in [
        ((a, b), "2 sites .ash, birch. are too few for a secure sum"),
        ((), "0 sites .none. are too few"),
        ((a, b, b), "site birch is in the roster twice"),
        ((a, b, replace(c, site="birch")), "site birch is in the roster twice"),
        ((a, b, replace(c, public=a.public)), "sites ash and cedar have the same key"),
        ((b, a, c), "not in the order of site ids"),
    ]:
        with pytest.raises(BadInput, match=expected) as caught:
            check_terms(replace(good, keys=keys))
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="site ash: the roster does not have the key that it made"):
        sealed(np.zeros(7, np.uint64), site="ash", private=private["yew"], own=bytes(32), terms=good)
    with pytest.raises(BadInput, match="site oak: the roster does not have the key"):
        sealed(np.zeros(7, np.uint64), site="oak", private=private["yew"], own=bytes(32), terms=good)
    with pytest.raises(BadInput, match="site yew: 6 numbers where the directory has other blocks"):
        sealed(np.zeros(6, np.uint64), site="yew", private=private["yew"], own=bytes(32), terms=good)
    assert y.site == "yew"


def test_no_total_is_made_of_fewer_or_other_answers() -> None:
    agreed = terms(secrets("ash", "birch", "cedar"))
    vectors = {site: np.zeros(7, np.uint64) for site in agreed.sites}
    with pytest.raises(RunFailed, match="no total without birch"):
        added({site: words for site, words in vectors.items() if site != "birch"}, agreed)
    with pytest.raises(RunFailed, match="site oak is not in the roster"):
        added({**vectors, "oak": vectors["ash"]}, agreed)
    with pytest.raises(RunFailed, match=r"site ash sent \(6,\) words, not 7"):
        added({**vectors, "ash": np.zeros(6, np.uint64)}, agreed)

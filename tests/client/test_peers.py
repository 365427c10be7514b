"""Signed keys: a site that knows the other hospitals' keys sends nothing to a server that puts its own in their
place.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from client.peers import check_peers, sign
from client.secure_sums import make_key, seal
from common.blocks import Block
from common.errors import BadInput
from common.masks import new_secret, public_key
from common.sums_orders import KeyOrder, SiteKey, Terms, statement

NAMES = ("ash", "birch", "cedar")
ORDER = KeyOrder("r", 1, "test", "a" * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Registered key pairs of every hospital, as `ssh-keygen -t ecdsa -b 384` writes them, and of a stranger."""
    for name in (*NAMES, "stranger"):
        write_pair(tmp_path / name, ec.generate_private_key(ec.SECP384R1()))
    return tmp_path


def write_pair(path: Path, private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    public = private.public_key()
    path.with_suffix(".pub").write_bytes(
        public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b" someone@there\n"
    )


def peers_of(keys: Path, *names: str) -> Path:
    folder = keys / "peers"
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.pub").write_bytes((keys / f"{name}.pub").read_bytes())
    return folder


def terms_of(keys: Path, base: Path) -> Terms:
    made = tuple(make_key(base / name, ORDER, site=name, signing=keys / name) for name in NAMES)
    return Terms("r", 1, "test", "a" * 32, (Block("n", 2),), made)


def test_keys_that_the_hospitals_signed_are_taken(keys: Path) -> None:
    terms = terms_of(keys, keys / "state")
    peers = peers_of(keys, "birch", "cedar")
    check_peers(peers, terms, site="ash")
    numbers = {"n": np.array([1, 2])}
    assert len(seal(keys / "state" / "ash", terms, lambda: numbers, site="ash", request="0" * 64, peers=peers)) == 2


def test_without_the_folder_keys_are_taken_as_told(keys: Path) -> None:
    terms = Terms("r", 1, "test", "a" * 32, (Block("n", 2),), tuple(SiteKey(name, "1" * 64) for name in NAMES))
    check_peers(keys / "nothing", terms, site="ash")


@pytest.mark.parametrize(
    "lie", ["unsigned", "own key, old signature", "signed by a stranger", "another attempt", "as birch"]
)
def test_a_server_that_lies_about_a_key_gets_nothing(keys: Path, lie: str) -> None:
    terms = terms_of(keys, keys / "state")
    peers = peers_of(keys, "birch", "cedar")
    mine = public_key(new_secret())
    cedar = terms.keys[2]
    match lie:
        case "unsigned":
            bad = SiteKey("cedar", mine)
        case "own key, old signature":
            bad = replace(cedar, public=mine)
        case "signed by a stranger":
            bad = SiteKey("cedar", mine, sign(keys / "stranger", statement(ORDER, site="cedar", public=mine)))
        case "another attempt":
            other = replace(ORDER, attempt="b" * 32)
            bad = replace(cedar, signature=sign(keys / "cedar", statement(other, site="cedar", public=cedar.public)))
        case _:
            bad = replace(cedar, signature=sign(keys / "cedar", statement(ORDER, site="birch", public=cedar.public)))
    told = replace(terms, keys=(*terms.keys[:2], bad))

    def never() -> dict[str, np.ndarray]:
        raise AssertionError("computed for a liar")

    with pytest.raises(BadInput, match=r"key of cedar came unsigned|not signed by peers/cedar\.pub") as caught:
        seal(keys / "state" / "ash", told, never, site="ash", request="0" * 64, peers=peers)
    assert "\n" not in str(caught.value)
    (kept,) = (keys / "state" / "ash" / "sums").glob("*.json")
    assert json.loads(kept.read_text())["answer"] is None


def test_a_hospital_that_is_not_known_or_whose_file_is_damaged(keys: Path) -> None:
    terms = terms_of(keys, keys / "state")
    peers = peers_of(keys, "birch")
    with pytest.raises(BadInput, match=r"its peers/ has no cedar\.pub; ask that hospital for it, not the coordinator"):
        check_peers(peers, terms, site="ash")
    for damaged in (b"nonsense", b"", (keys / "cedar").read_bytes()):
        (peers / "cedar.pub").write_bytes(damaged)
        with pytest.raises(BadInput, match=r"peers/cedar\.pub is no EC key in OpenSSH form"):
            check_peers(peers, terms, site="ash")
    write_pair(keys / "other", ed25519.Ed25519PrivateKey.generate())
    (peers / "cedar.pub").write_bytes((keys / "other.pub").read_bytes())
    with pytest.raises(BadInput, match=r"peers/cedar\.pub is no EC key"):
        check_peers(peers, terms, site="ash")


def test_a_signing_key_that_cannot_be_read(keys: Path) -> None:
    for path in (keys / "missing", keys / "ash.pub"):
        with pytest.raises(BadInput, match="registered key cannot be read"):
            sign(path, b"x")

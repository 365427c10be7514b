"""Whose key is whose, without trust in the server: sites sign their keys, and check each other's signatures.

A site that has a folder `peers/` in its site folder asks of every other site a signature by the key in
`peers/<site>.pub`: the same OpenSSH public key that the site registered with, but got from that hospital and not from
the coordinator. A site without that folder takes the keys as the server tells them.
"""

from __future__ import annotations

__all__ = ["check_peers", "sign"]

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384

from common.errors import BadInput
from common.sums_orders import SiteKey, Terms, statement

_HOW = ec.ECDSA(SHA384())


def sign(key: Path, content: bytes) -> str:
    """A signature by the site's registered key (EC, OpenSSH form), hexadecimal; BadInput where it cannot be read."""
    try:
        private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise BadInput("this site's registered key cannot be read; start the client again with --key")
    return private.sign(content, _HOW).hex()


def check_peers(folder: Path, terms: Terms, *, site: str) -> None:
    """BadInput where `folder` (the site's `peers/`) is there and does not vouch for the key of every other site."""
    if not folder.is_dir():
        return
    for key in terms.keys:
        if key.site != site:
            _check(folder, key, terms, site=site)


def _check(folder: Path, key: SiteKey, terms: Terms, *, site: str) -> None:
    named = next((path for path in folder.glob("*.pub") if path.stem == key.site), None)
    if named is None:
        raise BadInput(f"site {site}: its peers/ has no {key.site}.pub; ask that hospital for it, not the coordinator")
    if key.signature is None:
        raise BadInput(f"site {site}: the key of {key.site} came unsigned; start the client there with --key")
    try:
        public = serialization.load_ssh_public_key(named.read_bytes())
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise ValueError(named.name)
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise BadInput(
            f"site {site}: peers/{named.name} is no EC key in OpenSSH form; ask that hospital again"
        ) from None
    try:
        public.verify(bytes.fromhex(key.signature), statement(terms, site=key.site, public=key.public), _HOW)
    except (InvalidSignature, ValueError):
        raise BadInput(
            f"site {site}: the key that came as {key.site}'s is not signed by peers/{named.name}; somebody between may "
            "be reading along, so nothing was sent: ask that hospital"
        ) from None

"""Keys and certificates: the coordinator's own CA, the server's certificate, and key pairs that name sites.

STATE/
├── ca.crt        goes to every hospital
├── ca.key        0600; signs server certificates only
├── server.pem    and server.key, 0600
└── keys/         0700; <site>.key and <site>.pub of trials on one machine
"""

from __future__ import annotations

__all__ = ["Certificates", "certificates", "check_public_key", "key_pair", "public_key_file", "write_private"]

import ipaddress
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import BadInput
from common.files import write_atomic

_CA_DAYS = 3650
_SERVER_DAYS = 730
_RENEW_DAYS = 30
_ALWAYS = ("127.0.0.1", "localhost")
"""The SuperLink's own executor speaks to it by 127.0.0.1."""


@dataclass(frozen=True)
class Certificates:
    """The files that a TLS server needs."""

    ca: Path
    server: Path
    key: Path


def certificates(state: Path, *, hosts: tuple[str, ...] = ()) -> Certificates:
    """The CA and the server certificate in `state`, made where they are missing.

    The server certificate names 127.0.0.1, localhost, this machine and `hosts`; it is issued again when a name is
    missing or it ends within 30 days. The CA stays, since hospitals hold it.
    """
    made = Certificates(state / "ca.crt", state / "server.pem", state / "server.key")
    names = tuple(dict.fromkeys((*_ALWAYS, socket.gethostname(), *hosts)))
    if not made.ca.exists():
        _make_authority(state)
    if not (made.key.exists() and _serves(made, names)):
        _make_server(state, made, names)
    return made


def _make_authority(state: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sonofed coordinator")])
    usage = _key_usage(signs_certificates=True)
    builder = _certificate(name, name, key, days=_CA_DAYS).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    signed = builder.add_extension(usage, critical=True).sign(key, hashes.SHA384())
    write_private(state / "ca.key", _pem(key))
    write_atomic(state / "ca.crt", signed.public_bytes(serialization.Encoding.PEM))


def _make_server(state: Path, made: Certificates, names: tuple[str, ...]) -> None:
    authority = _authority_key(state)
    issuer = x509.load_pem_x509_certificate(made.ca.read_bytes())
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sonofed server")])
    signed = (
        _certificate(subject, issuer.subject, key, days=_SERVER_DAYS, authority=authority)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(authority, hashes.SHA384())
    )
    write_private(made.key, _pem(key))
    write_atomic(made.server, signed.public_bytes(serialization.Encoding.PEM))


def _authority_key(state: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key((state / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        raise BadInput(f"{state / 'ca.key'}: cannot be read; restore it, or start with another --state") from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    authority: ec.EllipticCurvePrivateKey | None = None,
) -> x509.CertificateBuilder:
    """What every certificate of ours has: names, dates, identifiers. An hour of slack for clocks that run behind."""
    now = datetime.now(UTC)
    signer = (authority or key).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _serves(made: Certificates, names: tuple[str, ...]) -> bool:
    """Whether the server certificate is ours, names everything in `names` and lasts."""
    try:
        certificate = x509.load_pem_x509_certificate(made.server.read_bytes())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(made.ca.read_bytes()))
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # missing, damaged, of another CA: in each case a new one is due
        return False
    lasting = certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=_RENEW_DAYS)
    return lasting and all(_general_name(name) in named for name in names)


def key_pair(folder: Path, name: str) -> Path:
    """A new EC P-384 key pair in OpenSSH form, `<name>.key` (0600) and `<name>.pub`; returns the private key's path.

    BadInput where the key exists already: who lost a key gets a new name for it, nobody overwrites one.
    """
    path = folder / f"{name}.key"
    if path.exists():
        raise BadInput(f"{path}: exists already; use it, or move it away to make another")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP384R1())
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_atomic(public_key_file(path), public + f" {name}\n".encode())
    write_private(path, key.private_bytes(*encoding))
    return path


def public_key_file(key: Path) -> Path:
    """Where `key_pair` keeps the public half."""
    return key.with_suffix(".pub")


def check_public_key(path: Path) -> None:
    """BadInput where the file is no EC public key in OpenSSH form."""
    way_out = "give the .pub file of an EC P-384 key (ssh-keygen -t ecdsa -b 384)"
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except OSError:
        raise BadInput(f"{path}: cannot be read; {way_out}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadInput(f"{path}: not a public key in OpenSSH form; {way_out}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BadInput(f"{path}: another kind of key; {way_out}")


def write_private(path: Path, content: bytes) -> None:
    """Write a secret that only its owner may read, at no moment readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

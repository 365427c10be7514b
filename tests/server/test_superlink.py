"""The server's keys and certificates, and what it refuses before anything starts."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from common.errors import BadInput
from server.certificates import certificates, check_public_key, key_pair, public_key_file
from server.superlink import new_site_key, register_site, running, start_superlink


def test_first_start_makes_secrets_that_only_the_owner_reads(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    for secret in (made.key, tmp_path / "ca.key", key_pair(tmp_path / "keys", "tal")):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert not any(b"PRIVATE" in path.read_bytes() for path in (made.ca, made.server))


def test_certificates_stay_unless_a_name_is_missing(tmp_path: Path) -> None:
    first = {path: path.read_bytes() for path in vars(certificates(tmp_path)).values()}
    assert {path: path.read_bytes() for path in vars(certificates(tmp_path)).values()} == first
    again = certificates(tmp_path, hosts=("10.0.0.5", "fl.example.org"))
    assert again.ca.read_bytes() == first[again.ca]
    assert again.server.read_bytes() != first[again.server]
    named = x509.load_pem_x509_certificate(again.server.read_bytes()).extensions
    names = named.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "fl.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "10.0.0.5"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}


def test_a_damaged_server_certificate_is_issued_again(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    made.server.write_bytes(made.server.read_bytes()[:100])
    x509.load_pem_x509_certificate(certificates(tmp_path).server.read_bytes())


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_strict_tls_accepts_the_server_by_its_names(tmp_path: Path, name: str) -> None:
    assert handshake(tmp_path, tmp_path, name) is None


def test_strict_tls_refuses_another_name_and_another_ca(tmp_path: Path) -> None:
    assert "match" in str(handshake(tmp_path / "a", tmp_path / "a", "elsewhere.example.org"))
    certificates(tmp_path / "b")
    assert "verify failed" in str(handshake(tmp_path / "a", tmp_path / "b", "localhost"))


def handshake(server: Path, client: Path, name: str) -> Exception | None:
    """Connect over TLS to a server with the keys of `server`, trusting the CA of `client`; what went wrong."""
    made = certificates(server)
    inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    inside.load_cert_chain(made.server, made.key)
    outside = ssl.create_default_context(cafile=str(client / "ca.crt"))
    outside.verify_flags |= ssl.VERIFY_X509_STRICT
    one, other = socket.socketpair()

    def serve() -> None:
        with one:
            try:
                inside.wrap_socket(one, server_side=True).close()
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with other, outside.wrap_socket(other, server_hostname=name):
            return None
    except ssl.SSLError as error:
        return error
    finally:
        thread.join()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    key = key_pair(tmp_path, "tal")
    content = key.read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        key_pair(tmp_path, "tal")
    assert key.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"ssh-ed25519 AAAA x", b"nonsense"])
def test_what_is_no_public_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tal.pub"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"not a public key|another kind of key"):
        check_public_key(path)


def test_a_private_key_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    key = key_pair(tmp_path, "tal")
    check_public_key(public_key_file(key))
    with pytest.raises(BadInput, match="not a public key"):
        check_public_key(key)


def test_registering_needs_a_site_id_a_key_and_a_running_server(tmp_path: Path) -> None:
    public = public_key_file(key_pair(tmp_path, "tal"))
    with pytest.raises(BadInput, match="is no site id"):
        register_site(tmp_path, "Dr. Tal/../x", public)
    with pytest.raises(BadInput, match="no server runs"):
        register_site(tmp_path, "tal", public)
    with pytest.raises(BadInput, match="no server runs"):
        new_site_key(tmp_path / "state", "tal")
    assert not (tmp_path / "state" / "keys").exists()


def test_a_server_that_left_its_note_behind_is_not_taken_for_running(tmp_path: Path) -> None:
    certificates(tmp_path)
    (tmp_path / "superlink.json").write_text('{"address": "127.0.0.1:1", "pid": 1}')
    with pytest.raises(BadInput, match="does not answer"):
        running(tmp_path)


def test_a_taken_port_and_a_taken_folder_are_bad_input(tmp_path: Path) -> None:
    import fcntl

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="cannot listen on"):
            start_superlink(tmp_path, port=taken.getsockname()[1])
    assert not (tmp_path / "ca.key").exists()
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="runs from this folder already"):
            start_superlink(tmp_path, port=1)

"""The hospital's client: Flower's SuperNode, which asks the coordinator for work and runs only what is
installed here.
"""

from __future__ import annotations

__all__ = ["start_client"]

import json
import re
import socket
import ssl
import sys
import time
from pathlib import Path

from client.site import load_site
from common.errors import BadInput, RunFailed
from common.processes import Foreground, flower_environment, free_port, signals_as_interrupt

_REJOIN_SECONDS = 65.0
"""After an unclean stop the server counts a node as connected for 60 s more, and refuses it as long (Flower: 305)."""
_NOT_ACTIVATED = (
    "the coordinator does not know this key, or another client uses it; send the coordinator the .pub file to register"
)
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):(\d{1,5})")


def start_client(
    site: Path, *, superlink: str, ca: Path, key: Path, state: Path | None = None, insecure_demo: bool = False
) -> int:
    """Connect the site folder `site` to the coordinator and serve it in the foreground until Ctrl-C or SIGTERM; 0 then.

    Nothing listens to the outside: the client polls. While the coordinator is away it waits; after an unclean stop it
    comes back by itself. `insecure_demo` seeds the draws of private training: a demonstration that repeats. `state`
    (default: the site's own state folder) holds Flower's home and the log. BadInput where the site, `superlink`
    (host:port), the certificate or the key cannot be used; RunFailed where the coordinator refuses the site.
    """
    about = load_site(site)
    host, port = _address(superlink)
    _check_certificate(ca)
    _check_key(key)
    _meet(host, port, ca=ca)
    home = (state or about.state) / "flower"
    home.mkdir(parents=True, exist_ok=True)
    command = _command(site, superlink=superlink, ca=ca, key=key, demo=insecure_demo)
    node = _Node(about.id, home, command, hidden=(home, site))
    if insecure_demo:
        _say(f"site {about.id}: INSECURE DEMO: coins and noise come from a seed; privacy protects nobody here")
    try:
        with signals_as_interrupt():
            _say(f"site {about.id}: connecting to {superlink}")
            while node.serve():
                _say(f"site {about.id}: the server still counts the last connection; again in {_REJOIN_SECONDS:g} s")
                time.sleep(_REJOIN_SECONDS)
    except KeyboardInterrupt:
        _say(f"site {about.id}: client stopped")
        return 0
    raise RunFailed(f"site {about.id}: the coordinator ended the connection; {node.log} says more")


class _Node:
    """One SuperNode after another; what their lines tell a person, and why each ended.

    The file `connected` stands while the server may count this node as connected; whoever finds it at the start was not
    ended cleanly the last time. Its log may be shown to others, so the folders in `hidden` do not stand in it.
    """

    def __init__(self, site_id: str, home: Path, command: list[str], *, hidden: tuple[Path, ...] = ()) -> None:
        self.site_id = site_id
        self.log = home / "supernode.log"
        self._home = home
        self._command = command
        self._hidden = hidden
        self._mark = home / "connected"
        self._refused = ""
        self._last = ""
        self._round = ""

    def serve(self) -> bool:
        """Run a SuperNode to its end; whether to come back after a while. RunFailed where that makes no sense."""
        self._refused = self._last = ""
        environment = flower_environment(self._home)
        child = Foreground(
            self._command, environment=environment, log=self.log, on_line=self._hear, hidden=self._hidden
        )
        try:
            with child:
                code = child.wait()
        finally:
            if child.poll() == 0:
                self._mark.unlink(missing_ok=True)
        if self._refused == _NOT_ACTIVATED and self._mark.exists():
            self._mark.unlink()
            return True
        if self._refused:
            raise RunFailed(f"site {self.site_id}: {self._refused}")
        if code is not None and code < 0:
            return True
        if code:
            raise RunFailed(f"site {self.site_id}: the client ended by itself ({self._last}); {self.log} says more")
        return False

    def _hear(self, line: str) -> None:
        text = re.sub(r"^(INFO|WARNING|ERROR) *: *", "", line).strip()
        self._last = text or self._last
        if text.startswith("SuperNode ID:"):
            self._mark.touch()
            _say(f"site {self.site_id}: connected")
        elif found := re.match(r"\[RUN \d+(?:, ROUND (\d+))?\]", text):
            self._round = found.group(1) or ""
        elif found := re.match(r"Receiving: (\w+) message", text):
            where = f" of round {self._round}" if self._round not in ("", "0") else ""
            _say(f"site {self.site_id}: {found.group(1)} message{where}")
        elif text.startswith("[code: 2004]"):
            self._refused = _NOT_ACTIVATED
        elif "401 Unauthorized" in text:
            self._refused = "the coordinator refused the signature; set this machine's clock (NTP) and check --key"


def _command(site: Path, *, superlink: str, ca: Path, key: Path, demo: bool = False) -> list[str]:
    more = " insecure-demo=true" if demo else ""
    return [
        "flower-supernode",
        *("--root-certificates", str(ca.resolve()), "--superlink", superlink),
        *("--auth-supernode-private-key", str(key.resolve())),
        *("--node-config", f"site={_quoted(site)} key={_quoted(key)}{more}"),
        *("--host", "127.0.0.1", "--port", str(free_port())),
    ]


def _quoted(path: Path) -> str:
    return json.dumps(str(path.resolve()), ensure_ascii=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _address(superlink: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(superlink)
    if not found or not 0 < int(found.group(2)) < 65536:
        raise BadInput(f"--superlink {superlink}: not HOST:PORT; give it as the coordinator told you, without https://")
    return found.group(1).strip("[]"), int(found.group(2))


def _meet(host: str, port: int, *, ca: Path) -> None:
    """Look at the server's certificate once: Flower itself would try for ever without saying what is wrong."""
    context = ssl.create_default_context(cafile=str(ca))
    try:
        with (
            socket.create_connection((host, port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            pass
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message.rstrip(".")
        raise BadInput(
            f"--ca {ca}: does not vouch for {host}:{port} ({why}); ask the coordinator for both again"
        ) from None
    except OSError:
        _say(f"no answer from {host}:{port} yet; waiting for it")


def _check_certificate(ca: Path) -> None:
    from cryptography import x509

    way_out = "give the ca.crt that the coordinator sent"
    try:
        x509.load_pem_x509_certificate(ca.read_bytes())
    except OSError:
        raise BadInput(f"--ca {ca}: cannot be read; {way_out}") from None
    except ValueError:
        raise BadInput(f"--ca {ca}: not a certificate in PEM form; {way_out}") from None


def _check_key(key: Path) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    way_out = "give this site's private EC P-384 key without a passphrase (ssh-keygen -t ecdsa -b 384)"
    try:
        private = serialization.load_ssh_private_key(key.read_bytes(), password=None)
    except OSError:
        raise BadInput(f"--key {key}: cannot be read; {way_out}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadInput(f"--key {key}: not a private key in OpenSSH form; {way_out}") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP384R1):
        raise BadInput(f"--key {key}: another kind of key; {way_out}")

"""The server that hospitals' clients connect to: Flower's SuperLink over TLS, with registered keys only.

STATE/                 0700
├── ca.crt, server.*   server/certificates.py
├── superlink.json     where it listens, while it runs
├── superlink.db       registered sites and runs; outlives restarts
├── superlink.log      everything that Flower says
├── flower/            FLWR_HOME
├── sites/             the public keys that were let in, by site id
└── runs/              run names → run folders, so that no path travels
"""

from __future__ import annotations

__all__ = ["new_site_key", "register_site", "running", "start_superlink"]

import ipaddress
import os
import re
import socket
import sys
import time
from pathlib import Path

from common.errors import BadInput, RunFailed
from common.files import claimed, read_json, write_atomic, write_json
from common.processes import Foreground, flower_environment, signals_as_interrupt
from server.certificates import Certificates, certificates, check_public_key, key_pair, public_key_file
from server.control import Control

RUNS = "runs"
SITES = "sites"
_ABOUT = "superlink.json"
_LOG = "superlink.log"
_SITE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_READY_SECONDS = 60.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "": "127.0.0.1"}


def start_superlink(state: Path, *, port: int, host: str = "127.0.0.1", names: tuple[str, ...] = ()) -> int:
    """Run the server in the foreground until Ctrl-C or SIGTERM; 0 then.

    On the first start it makes the CA and the server certificate; `names` are further host names or addresses by which
    clients reach this machine. BadInput where the port is taken or another server uses `state`; RunFailed where the
    server ends by itself, and `superlink.log` says why.
    """
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    busy = f"{state}: a server runs from this folder already; stop it or choose another --state"
    with claimed(state / ".lock", complaint=busy):
        _check_port(host, port)
        hosts = names if host in _EVERYWHERE else (*names, host)
        files = certificates(state, hosts=hosts)
        control = Control(state / "flower", f"{_EVERYWHERE.get(host, host)}:{port}", files.ca)
        control.prepare()
        (state / RUNS).mkdir(exist_ok=True)
        environment = flower_environment(
            control.home,
            SONOFED_RUNS=str((state / RUNS).resolve()),
            SONOFED_HEADS=str((state / "ledger-heads.json").resolve()),
        )
        command = _command(state, files, host=host, port=port)
        try:
            with signals_as_interrupt(), Foreground(command, environment=environment, log=state / _LOG) as child:
                _await_ready(child, control, state)
                write_json(state / _ABOUT, {"address": control.address, "pid": os.getpid()})
                _announce(state, host, port)
                child.wait()
        except KeyboardInterrupt:
            print("server stopped", file=sys.stderr)
            return 0
        finally:
            (state / _ABOUT).unlink(missing_ok=True)
        raise RunFailed(f"the server ended by itself; {state / _LOG} says why")


def _command(state: Path, files: Certificates, *, host: str, port: int) -> list[str]:
    return [
        "flower-superlink",
        *("--host", host, "--port", str(port)),
        *("--ssl-ca-certfile", str(files.ca), "--ssl-certfile", str(files.server), "--ssl-keyfile", str(files.key)),
        "--enable-supernode-auth",
        *("--database", str(state / "superlink.db")),
        "--disable-runtime-dependency-installation",
    ]


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise BadInput(f"cannot listen on {host}:{port} ({why}); choose another --port or --host") from None


def _await_ready(child: Foreground, control: Control, state: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RunFailed(f"the server did not start; {state / _LOG} says why")
        if control.alive():
            return
        time.sleep(0.3)
    raise RunFailed(f"the server did not answer within {_READY_SECONDS:g} s; {state / _LOG} says why")


def _announce(state: Path, host: str, port: int) -> None:
    shown = socket.gethostname() if host in _EVERYWHERE else host
    lines = [
        f"server listens on {host}:{port}",
        f"  CA certificate for the hospitals: {state / 'ca.crt'}",
        f"  let a site in:       python -m server register SITE-ID --public-key SITE.pub --state {state}",
        f"  the hospital starts: python -m client start SITE --superlink {shown}:{port} --ca ca.crt --key SITE.key",
    ]
    print("\n".join(lines), flush=True)
    if not _is_loopback(host):
        print(
            f"warning: whoever reaches {host}:{port} with the CA certificate can list sites and submit runs; put a "
            "reverse proxy in front that passes only /v1/fleet/ and /health, and keep this server on 127.0.0.1",
            file=sys.stderr,
            flush=True,
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def running(state: Path) -> Control:
    """The server that runs from `state`; BadInput where none does."""
    way_out = f"start it: python -m server start --state {state}"
    if not (state / _ABOUT).exists():
        raise BadInput(f"{state}: no server runs from this folder; {way_out}")
    control = Control(state / "flower", str(read_json(state / _ABOUT)["address"]), state / "ca.crt")
    if not control.alive():
        raise BadInput(f"{state}: the server at {control.address} does not answer; {way_out}")
    return control


def register_site(state: Path, site_id: str, public_key: Path) -> None:
    """Let the owner of `public_key` in as `site_id`; again with the same key changes nothing.

    BadInput on a wrong id or key, or an id that another key has; RunFailed where the server refuses.
    """
    if not _SITE_ID.fullmatch(site_id):
        raise BadInput(f"{site_id!r} is no site id: small letters, digits and dashes, such as tal or center-1")
    check_public_key(public_key)
    control = running(state)
    known, content = state / SITES / f"{site_id}.pub", public_key.read_bytes()
    if known.exists() and known.read_bytes().split()[:2] != content.split()[:2]:
        raise BadInput(f"site {site_id} is registered with another key; give the new key a new site id")
    if not known.exists():
        control.register(public_key, site_id)
        write_atomic(known, content)


def new_site_key(state: Path, site_id: str) -> Path:
    """Make a key pair in `state/keys` and register it, for a trial on one machine; the private key's path.

    A hospital makes its key itself and sends the public half alone.
    """
    if not _SITE_ID.fullmatch(site_id):
        raise BadInput(f"{site_id!r} is no site id: small letters, digits and dashes, such as tal or center-1")
    running(state)
    key = key_pair(state / "keys", site_id)
    try:
        register_site(state, site_id, public_key_file(key))
    except BaseException:
        key.unlink()
        public_key_file(key).unlink()
        raise
    return key

"""The hospital's client refuses, in one line, what cannot work, and reads what Flower says."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from handmade import write_site

from client.supernode import _Node, start_client
from common.errors import BadInput, RunFailed
from common.processes import Foreground
from server.certificates import certificates, key_pair, public_key_file


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    made = certificates(tmp_path / "state")
    return {"site": write_site(tmp_path / "site"), "ca": made.ca, "key": key_pair(tmp_path / "keys", "hand-made")}


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:99999", "https://host:1", "ho st:1", "host:1/x"])
def test_an_address_must_be_host_and_port(given: dict[str, Path], address: str) -> None:
    with pytest.raises(BadInput, match="not HOST:PORT"):
        start_client(given["site"], superlink=address, ca=given["ca"], key=given["key"])


def test_files_that_do_not_fit_are_refused(given: dict[str, Path], tmp_path: Path) -> None:
    def start(**other: Path) -> None:
        use = {**given, **other}
        start_client(use["site"], superlink="127.0.0.1:1", ca=use["ca"], key=use["key"])

    with pytest.raises(BadInput, match="no site folder"):
        start(site=tmp_path)
    with pytest.raises(BadInput, match=r"--ca .*cannot be read"):
        start(ca=tmp_path / "absent")
    with pytest.raises(BadInput, match=r"--ca .*not a certificate"):
        start(ca=given["key"])
    with pytest.raises(BadInput, match=r"--key .*cannot be read"):
        start(key=tmp_path / "absent")
    with pytest.raises(BadInput, match=r"--key .*not a private key"):
        start(key=public_key_file(given["key"]))


def test_a_server_of_another_ca_is_refused_at_once(given: dict[str, Path], tmp_path: Path) -> None:
    other = certificates(tmp_path / "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.server, other.key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                context.wrap_socket(server.accept()[0], server_side=True)
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BadInput, match="does not vouch for"):
            start_client(given["site"], superlink=address, ca=given["ca"], key=given["key"])
        thread.join(timeout=5)


SCRIPTS = {
    "unknown": 'echo "INFO :      Starting"; echo "[code: 2004] Failed to activate SuperNode."; exit 1',
    "connected-then-killed": 'echo "INFO :      SuperNode ID: 5"; sleep 0.3; kill -9 $$',
    "clock": "echo \"Client error '401 Unauthorized' for url\"; exit 1",
    "ended": 'echo "INFO :      SuperNode ID: 5"; exit 0',
    "broken": 'echo "no such option"; exit 2',
}


def node(tmp_path: Path, script: str) -> _Node:
    return _Node("tal", tmp_path, ["sh", "-c", SCRIPTS[script]])


def test_an_unknown_key_ends_the_client_unless_it_was_connected_before(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="does not know this key"):
        node(tmp_path, "unknown").serve()
    assert node(tmp_path, "connected-then-killed").serve() is True
    assert node(tmp_path, "unknown").serve() is True
    with pytest.raises(RunFailed, match="does not know this key"):
        node(tmp_path, "unknown").serve()


@pytest.mark.parametrize(("script", "why"), [("clock", "clock"), ("broken", "no such option")])
def test_other_ends_say_why(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(RunFailed, match=why):
        node(tmp_path, script).serve()


def test_the_log_does_not_say_where_the_site_lies(tmp_path: Path) -> None:
    site = tmp_path / "a patient's folder"
    command = ["sh", "-c", f'echo "installed to {site}/state/flower/apps, from {site}"']
    assert _Node("tal", site / "state/flower", command, hidden=(site, site / "state/flower")).serve() is False
    assert (site / "state/flower/supernode.log").read_text() == "installed to …/apps, from …\n"


def test_a_clean_end_leaves_no_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert node(tmp_path, "ended").serve() is False
    assert not (tmp_path / "connected").exists()
    assert "site tal: connected" in capsys.readouterr().err


def test_leaving_the_block_ends_a_descendant_in_its_own_session(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {note}; trap \"\" TERM; sleep 60' & sleep 60"
    environment = {"PATH": "/usr/bin:/bin"}
    import common.processes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.processes, "_POLITE_SECONDS", 0.5)
        with Foreground(["sh", "-c", script], environment=environment, log=tmp_path / "log"):
            while not (note.exists() and note.read_text().strip()):
                pass
    stat = Path("/proc") / note.read_text().strip() / "stat"
    assert not stat.exists() or " Z " in stat.read_text()

"""A SuperLink and SuperNodes on loopback over TLS with registered keys, each a process of its own."""

from __future__ import annotations

__all__ = ["Deployment", "await_true", "child_of", "deployment_in", "marked", "run_in_process"]

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.processes import free_port
from server.superlink import new_site_key
from tests.faults.small_sites import CLIENT, SERVER

MARK = f"SONOFED_TEST_{os.getpid()}"


@dataclass
class Deployment:
    """Processes by name, each with a file of what it said."""

    base: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.base / "state"

    def start(self, name: str, command: list[str]) -> None:
        with self._log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.base, env={**os.environ, MARK: "1"}
            )

    def start_client(self, name: str, site: Path, *, port: int | None = None) -> None:
        """Register the site's key, and start its client; `port` is another one than the server's, where one relays."""
        key = new_site_key(self.state, name)
        files = ["--ca", str(self.state / "ca.crt"), "--key", str(key)]
        self.start(name, [*CLIENT, "start", str(site), "--superlink", f"127.0.0.1:{port or self.port}", *files])

    def said(self, name: str) -> str:
        return self._log(name).read_text()

    def await_line(self, name: str, line: str, *, seconds: float = 120) -> None:
        await_true(lambda: line in self.said(name), seconds=seconds, what=lambda: f"{name}: {self.said(name)}")

    def _log(self, name: str) -> Path:
        return self.base / f"{name}.out"


@contextmanager
def deployment_in(base: Path, *, port: int | None = None) -> Iterator[Deployment]:
    """A server that listens, with its state below `base`.

    In the end every process stops by itself, and none is left.
    """
    made = Deployment(base, port or free_port())
    try:
        made.start("server", [*SERVER, "start", "--state", str(made.state), "--port", str(made.port)])
        made.await_line("server", "listens on")
        yield made
    finally:
        for process in reversed(made.processes.values()):
            process.terminate()
        codes = {name: process.wait(timeout=60) for name, process in made.processes.items()}
    assert codes == dict.fromkeys(made.processes, 0)
    await_true(lambda: not marked(MARK), seconds=15, what=lambda: f"left behind: {marked(MARK)}")


def await_true(condition: Callable[[], bool], *, seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def marked(variable: str) -> list[str]:
    """The command lines of living processes whose environment holds `variable`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{variable}=".encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def child_of(pid: int) -> int:
    """The SuperNode that the client `pid` started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"flower-supernode" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("the client has no SuperNode")


def run_in_process(folder: Path, sites: list[Path], *, train: bool = True) -> None:
    """The prepared run, over the in-process grid."""
    from client.app import app as client_app
    from server.app import app as server_app
    from simulation.grid import run_locally

    run_locally(server_app, client_app, sites, {"run-folder": str(folder), "train": train})

"""Flower's commands as child processes: their environment, and a foreground that never leaves an orphan behind."""

from __future__ import annotations

__all__ = ["Foreground", "flower_command", "flower_environment", "free_port", "signals_as_interrupt"]

import ctypes
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_PR_SET_PDEATHSIG = 1
_MARK = "SONOFED_CHILD"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_POLITE_SECONDS = 12.0
"""Flower's processes force their own end 5 s after a signal, their children a little later."""


def flower_command(name: str) -> str:
    """The path of a command of this environment, such as `flwr`: not whatever else the PATH offers."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def flower_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a Flower command: no telemetry, no look for updates, nothing installed at run time, own home.

    Flower starts its own children by name, so this interpreter's folder comes first in the PATH.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **os.environ,
        "PATH": path,
        "FLWR_HOME": str(home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt as Ctrl-C does, so that one way of stopping cleans up for both.

    Outside the main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Foreground:
    """A child in a session of its own, whose lines go to a log file and to `on_line`, polls of its web server left out.

    `with Foreground(command, environment=…, log=…) as child: code = child.wait()`. Leaving the block ends the child: a
    polite SIGTERM, then SIGKILL to its process group and, on Linux, to every descendant, also those that went to
    sessions of their own; they are known by a mark in their environment. Linux: it gets SIGTERM too when this process
    dies. Of folders in `hidden` the lines keep nothing but three dots.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        on_line: Callable[[str], None] | None = None,
        hidden: Sequence[Path] = (),
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._on_line = on_line
        self._hidden = sorted((str(folder.resolve()) for folder in hidden), key=len, reverse=True)
        self._mark = f"{_MARK}_{os.getpid()}_{secrets.token_hex(8)}"
        self._process = subprocess.Popen(
            [flower_command(command[0]), *command[1:]],
            env={**environment, self._mark: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Foreground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group's too."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the exit code; None when `timeout` seconds passed before."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout=2.0)
        return code

    def end(self) -> None:
        """End the child and all of its descendants; a no-op on what has ended."""
        with suppress(ProcessLookupError):
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                if self.wait(_POLITE_SECONDS) is None:
                    os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + _POLITE_SECONDS
        while (left := _descendants(self._mark)) and time.monotonic() < deadline:
            time.sleep(0.2)
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(timeout=2.0)

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with self._log.open("ab", buffering=0) as log, stream:
            for raw in stream:
                line = _COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip()
                if "uvicorn.access" in line and line.endswith(" 200"):
                    continue
                for folder in self._hidden:
                    line = line.replace(folder, "…")
                log.write(f"{line}\n".encode())
                if self._on_line:
                    self._on_line(line)


def _descendants(mark: str) -> list[int]:
    """Processes with the variable `mark` in their environment; none where the system has no /proc."""
    found, wanted = [], f"{mark}=".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    library: Any = ctypes.CDLL(None)

    def arrange() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange

"""The SuperLink's control API, spoken through the `flwr` command: register sites, start, watch and stop runs."""

from __future__ import annotations

__all__ = ["Control", "Progressing", "write_thin_app"]

import http.client
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import BadInput, RunFailed
from common.files import write_atomic
from common.processes import flower_command, flower_environment

_CONNECTION = "sonofed"
_COMMAND_SECONDS = 60.0

_THIN_APP = """\
# Nothing but names: every machine runs the code that it installed itself.
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "sonofed-run"
version = "0.1.0"
description = "One sonofed run"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "sonofed"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
run-folder = ""
run = "federated"
train = true
final = true
"""


def write_thin_app(folder: Path) -> Path:
    """A Flower app of one pyproject.toml: the bundle that travels holds no code."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "pyproject.toml", _THIN_APP.encode())
    return folder


@dataclass(frozen=True)
class Progressing:
    """Where a run stands, as Flower sees it: `status` is pending, starting, running or finished:…"""

    status: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether Flower has done with the run; that it says `completed` means little."""
        return self.status.startswith("finished")


@dataclass(frozen=True)
class Control:
    """A SuperLink at `address` (host:port); `ca` is the certificate to check it with, None: plain HTTP on loopback."""

    home: Path
    address: str
    ca: Path | None

    def prepare(self) -> None:
        """Write the connection where `flwr` looks for it."""
        import tomli_w

        about: dict[str, Any] = {"address": self.address}
        about |= {"insecure": True} if self.ca is None else {"root-certificates": str(self.ca.resolve())}
        content = tomli_w.dumps({"superlink": {"default": _CONNECTION, _CONNECTION: about}})
        write_atomic(self.home / "config.toml", content.encode())

    def alive(self) -> bool:
        """Whether the SuperLink answers."""
        scheme = "http" if self.ca is None else "https"
        try:
            context = None if self.ca is None else ssl.create_default_context(cafile=str(self.ca))
            with urllib.request.urlopen(f"{scheme}://{self.address}/health", timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
            return False

    def register(self, public_key: Path, site: str) -> None:
        """Let the key in, under the site's name. RunFailed where the SuperLink refuses."""
        self._flwr("supernode", "register", str(public_key), _CONNECTION, "--name", site, "--format", "json")

    def start(self, app: Path, options: Mapping[str, str | bool], *, engine: Mapping[str, float] | None = None) -> str:
        """Start a run of `app`; its number. `engine` are settings of the simulation engine."""
        command = ["run", str(app), _CONNECTION, "--format", "json"]
        command += ["--run-config", " ".join(f"{name}={json.dumps(value)}" for name, value in options.items())]
        if engine:
            command += ["--federation-config", " ".join(f"{name}={value}" for name, value in engine.items())]
        return str(self._flwr(*command)["run-id"])

    def look(self, run: str) -> Progressing:
        """Where a run stands."""
        answer = self._flwr("list", _CONNECTION, "--run-id", run, "--format", "json")
        return Progressing(str(answer["runs"][0]["status"]), str(answer["runs"][0]["status-details"]))

    def stop(self, run: str) -> None:
        """Stop a run; one that has ended is left alone."""
        if not self.look(run).finished:
            self._flwr("stop", run, _CONNECTION, "--format", "json")

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [flower_command("flwr"), *arguments],
                env=flower_environment(self.home),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise BadInput("the command flwr is missing; install sonofed's pinned requirements (make setup)") from None
        except subprocess.TimeoutExpired:
            raise RunFailed(f"the server at {self.address} did not answer within {_COMMAND_SECONDS:g} s") from None
        answer = _last_object(done.stdout)
        if done.returncode or answer is None or answer.get("success") is False:
            raise RunFailed(f"the server at {self.address} refused ({_reason(answer, done.stderr)})")
        return answer


def _last_object(text: str) -> dict[str, Any] | None:
    """The JSON object in a command's output, which may have lines of text before it."""
    start = text.find("{")
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:]) if start >= 0 else (None, 0)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _reason(answer: Mapping[str, Any] | None, errors: str) -> str:
    said = str((answer or {}).get("error-message") or errors)
    lines: Sequence[str] = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"

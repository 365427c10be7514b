"""The import graph is the trust boundary."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("common", "client", "server", "simulation")


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_the_one_of_this_repository(room: str) -> None:
    assert Path(str(importlib.import_module(room).__file__)).parent == ROOT / room


def test_the_contracts_hold() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("server.app", ("PIL", "openpyxl", "client", "simulation", "opacus")),
        ("client.app", ("server", "simulation", "ray")),
        ("common.cli", ("torch", "numpy", "flwr", "pydantic")),
        ("common.errors", ("torch", "numpy", "flwr", "pydantic")),
        ("common.files", ("torch", "numpy", "flwr", "pydantic")),
        ("common.config", ("torch", "flwr")),
        ("common.privacy", ("torch", "flwr", "scipy", "dp_accounting")),
        ("client.spending", ("torch", "flwr", "scipy", "dp_accounting")),
    ],
)
def test_what_a_module_must_not_bring_in(module: str, never: tuple[str, ...]) -> None:
    """At run time too, where the graph of import-linter allows a detour."""
    program = (
        "import importlib, sys; importlib.import_module(sys.argv[1]); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program, module], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(never) & set(done.stdout.split()) == set()

"""Help of every command: an example, no torch, at once."""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("simulation", "client", "server")
HEAVY = {"torch", "torchvision", "flwr", "numpy", "pandas", "sklearn", "scipy", "PIL", "pydantic", "ray"}
PROGRAM = """
import contextlib, importlib, io, sys
main = importlib.import_module(sys.argv[1] + ".__main__").main
said = io.StringIO()
with contextlib.redirect_stdout(said):
    try:
        main(sys.argv[2:])
    except SystemExit as end:
        assert end.code == 0, end.code
print(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
print(said.getvalue())
"""


def commands(room: str) -> list[str]:
    """The names of a room's commands, read off its parser."""
    import importlib

    found: list[str] = []
    real = argparse.ArgumentParser.parse_args

    def reading(parser: argparse.ArgumentParser, *_: object) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found.extend(action.choices)
        raise SystemExit(0)

    argparse.ArgumentParser.parse_args = reading  # type: ignore[assignment,method-assign]
    try:
        with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(f"{room}.__main__").main(["--help"])
    finally:
        argparse.ArgumentParser.parse_args = real  # type: ignore[method-assign]
    return found


def help_of(room: str, *arguments: str) -> tuple[set[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, room, *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded, _, text = done.stdout.partition("\n")
    return set(loaded.split()), text


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_help_lists_its_commands_and_loads_nothing_heavy(room: str) -> None:
    loaded, text = help_of(room)
    assert loaded & HEAVY == set()
    assert len(commands(room)) >= 2
    for name in commands(room):
        assert name in text


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in ROOMS for name in commands(room)])
def test_a_commands_help_has_an_example_and_loads_nothing_heavy(room: str, name: str) -> None:
    loaded, text = help_of(room, name)
    assert loaded & HEAVY == set()
    assert f"example: python -m {room} {name}" in " ".join(text.split())

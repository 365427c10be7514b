"""What every command shares: exit codes, one line for an error, help with an example."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import pytest

from common.cli import add_json, command, guarded, parser, show
from common.errors import BadInput, RunFailed, suggest


def run(handler: Callable[[argparse.Namespace], int], *arguments: str) -> int:
    top, commands = parser("room", "What the room is for.")
    add_json(command(commands, "do", "do a thing", "python -m room do", handler))
    return guarded(top, ["do", *arguments])


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def handler(_: argparse.Namespace) -> int:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadInput("a.toml: no such file"), 2, "error: a.toml: no such file\n"),
        (RunFailed("nobody learned"), 1, "error: nobody learned\n"),
        (KeyboardInterrupt(), 130, "stopped; what was finished is kept\n"),
        (BrokenPipeError(), 1, ""),
        (OSError(28, "No space left on device", "/secret/path"), 1, "error: No space left on device"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(said)
    assert shown.err.count("\n") == (1 if said else 0)
    assert "secret" not in shown.err


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


def test_done_is_zero_and_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    def handler(options: argparse.Namespace) -> int:
        show({"ε": 1.5}, as_json=options.json, text="ε is 1.5")
        return 0

    assert run(handler) == 0
    assert capsys.readouterr().out == "ε is 1.5\n"
    assert run(handler, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ε": 1.5}


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(lambda _: 0, "--help")
    assert caught.value.code == 0
    assert "example: python -m room do" in capsys.readouterr().out


def test_suggestions() -> None:
    assert suggest("nu", ["mu", "kind"]) == " (did you mean mu?)"
    assert suggest("zzz", ["mu", "kind"]) == ""

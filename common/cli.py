"""What every command line of sonofed shares: help with an example, --json, exit codes, one line for an error.

Only the standard library is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

__all__ = ["Commands", "add_json", "command", "guarded", "parser", "show"]

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common.errors import SonofedError

Commands = Any
Handler = Callable[[argparse.Namespace], int]


def parser(room: str, what: str) -> tuple[argparse.ArgumentParser, Commands]:
    """The parser of `python -m room`, and where its commands are added."""
    top = argparse.ArgumentParser(prog=f"python -m {room}", description=what)
    return top, top.add_subparsers(title="commands", metavar="COMMAND", required=True)


def command(commands: Commands, name: str, what: str, example: str, handler: Handler) -> argparse.ArgumentParser:
    """Add one command; `handler` gets the parsed options and returns the exit code."""
    made: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what, epilog=f"example: {example}")
    made.set_defaults(handler=handler)
    return made


def add_json(made: argparse.ArgumentParser) -> None:
    """Add --json to a command that prints a result."""
    made.add_argument("--json", action="store_true", help="print the result as JSON")


def guarded(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse and run; an error of sonofed's own becomes one line on standard error and its exit code."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    options = top.parse_args(arguments)
    try:
        return int(options.handler(options))
    except SonofedError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:  # its own text would name a file
        print(f"error: {error.strerror or type(error).__name__}; check disk space and permissions", file=sys.stderr)
        return 1


def show(value: Any, *, as_json: bool, text: str) -> None:
    """Print a result: JSON for a machine, `text` for a person."""
    print(json.dumps(value, ensure_ascii=False, indent=1) if as_json else text)

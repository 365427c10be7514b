"""What a proof finds, and proofs that are tests run by pytest."""

from __future__ import annotations

__all__ = ["ROOT", "Finding", "Proof", "by_pytest"]

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finding:
    """`value` was measured, `want` says in words what is asked of it, `holds` whether it is so."""

    value: float | str
    want: str
    holds: bool


Proof = Callable[[], Finding]


def by_pytest(test: str, *, want: str, value: float | None = None, **environment: str) -> Finding:
    """Run one test, `file::name`; `value` is what stands in the table where it passes, else the last error that it told
    of: where a test shows the traceback of a process, that process's own.
    """
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=3600", test]
    done = subprocess.run(
        line, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]
    told = [line[1:].strip() for line in done.stdout.splitlines() if line.startswith("E ")]
    complaint = next((line for line in reversed(told) if "Error: " in line), (told or [last])[0])
    passed = done.returncode == 0 and "passed" in last and "skipped" not in last
    return Finding(value if passed and value is not None else complaint, want, passed)

"""What privacy costs in seconds: a round's passage through the ledger, and finding the noise for an ε."""

from __future__ import annotations

__all__ = ["calibrate_seconds", "gate_seconds"]

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[2]

_IMPORTS = """
import sys, time
from pathlib import Path
import dp_accounting, scipy.optimize
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant
from client.ledger import Account, Request, opened
from common.privacy import Plan, calibrate, delta_of, epsilon
"""

_GATE = """
plans = [Plan(1.3, 64 / 300, 5), Plan(1.6, 64 / 300, 5), Plan(2.1, 32 / 300, 9)]
number = int(sys.argv[1])
account = Account(Path(sys.argv[2]) / "tal", "tal", 60.0, delta_of(300))
began = time.perf_counter()
with opened(account) as ledger:
    plan = plans[number % 3]
    ledger.require_room(plan)
    ledger.release(Request("run", number, "a" * 64), plan, lambda: bytes(4_000_000))
print(time.perf_counter() - began)
"""

_CALIBRATE = """
began = time.perf_counter()
calibrate(float(sys.argv[1]), delta=delta_of(180), sampling_rate=64 / 180, steps=120)
print(time.perf_counter() - began)
"""


def gate_seconds() -> Row:
    """The median of rounds after 40 others with three kinds of noise, each in a process of its own as in a hospital."""
    with tempfile.TemporaryDirectory() as folder:
        _fill(folder, rounds=40)
        seconds = sorted(_seconds(_GATE, str(number), folder) for number in range(40, 47))
    ours = seconds[len(seconds) // 2]
    return Row(
        "gate-seconds", ours, ours, 0.2, "s", "one round after 40, fresh process, imports excluded, answer of 4 MB"
    )


def calibrate_seconds() -> Row:
    """The slowest of ε = 1, 3, 8, each the median of three processes."""
    each = [sorted(_seconds(_CALIBRATE, epsilon) for _ in range(3))[1] for epsilon in ("1", "3", "8")]
    return Row(
        "calibrate-seconds", max(each), max(each), 2.0, "s", "180 patients, 120 steps, the slowest of ε = 1, 3, 8"
    )


def _fill(folder: str, *, rounds: int) -> None:
    loop = _GATE.replace("\n", "\n    ").replace("int(sys.argv[1])", "number")
    _seconds(f"for number in range({rounds}):\n    {loop}", "0", folder)


def _seconds(program: str, *arguments: str) -> float:
    """What the program prints last, in a new process with one thread."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS + program, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.splitlines()[-1])

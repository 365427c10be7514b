"""kill -9 of real private rounds at random moments:
nothing leaves unrecorded, nothing is spent twice, the run goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("SONOFED_KILLS", "3"))


def test_real_rounds_killed_at_random_moments(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.client.round_driver", str(tmp_path), str(KILLS), "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == KILLS
    assert found["twice"] == 0

"""What patients' privacy rests on, at full count: the account, the ledger under kills, the clipped sum."""

from __future__ import annotations

__all__ = ["account_agrees", "clipped_sum", "ledger_killed"]

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.ledger import Account, Request, opened
from tests.client.test_ledger import kill
from tests.common.test_privacy import draw_plans, prv
from tests.prove.finding import Finding, by_pytest

PLANS, KILLS = 50, 1000


def account_agrees() -> Finding:
    """Random plans through a ledger, in rounds, closed and opened between them, against Opacus's PRV accountant."""
    worst = 0.0
    for seed in range(PLANS):
        plans, delta = draw_plans(seed)
        rng = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory() as folder:
            account = Account(Path(folder) / "tal", "tal", 1e6, delta)
            for number, plan in enumerate(plans):
                cut = int(rng.integers(1, plan.steps))
                for part, steps in enumerate((cut, plan.steps - cut)):
                    with opened(account) as ledger:
                        request = Request("run", 2 * number + part, "a" * 64)
                        found = ledger.release(request, replace(plan, steps=steps), bytes)
        worst = max(worst, abs(found.epsilon / prv(plans, delta, error=0.003 * found.epsilon) - 1))
    return Finding(worst, f"relative distance ≤ .01 for each of {PLANS} plans, over rounds and restarts", worst <= 0.01)


def ledger_killed() -> Finding:
    """Nothing released goes unrecorded, no cap is crossed, no chain breaks; the value is how often a round was spent twice."""
    with tempfile.TemporaryDirectory() as folder:
        found = kill(Path(folder), KILLS, 1)
    want = f"{KILLS} kills, recorded spend ≥ real spend after each, at most one round spent twice"
    return Finding(found["twice"], want, found["kills"] == KILLS and found["twice"] <= 1)


def clipped_sum() -> Finding:
    """The property of the test, with many more examples."""
    test = "tests/client/test_private_training.py::test_no_patient_moves_the_sum_further_than_the_clip"
    want = "500 drawn cases: no patient moves the sum by more than C(1 + 1e-5)"
    return by_pytest(test, want=want, value=500, SONOFED_EXAMPLES="500")

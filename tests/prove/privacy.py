"""What patients' privacy rests on, at full count: the account, the ledger under kills, the clipped sum."""

from __future__ import annotations

__all__ = [
    "account_agrees",
    "audit_finds_bugs",
    "audit_spares",
    "clipped_sum",
    "deployed",
    "image_drawn_back",
    "ledger_killed",
    "membership",
    "nominal_constants",
    "round_killed",
]

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.ledger import Account, Request, opened
from tests.client.test_ledger import kill
from tests.common.test_privacy import draw_plans, prv
from tests.prove.finding import Finding, by_pytest
from tests.prove.planted import BUGS, CANARIES, game

PLANS, KILLS, ROUND_KILLS = 50, 1000, 20
SPARED, PLANTED, INVERTED = 20, 10, 5


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
    """Nothing released goes unrecorded, no cap is crossed, no chain breaks;
    the value is how often a round was spent twice.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = kill(Path(folder), KILLS, 1)
    want = f"{KILLS} kills, recorded spend ≥ real spend after each, at most one round spent twice"
    return Finding(found["twice"], want, found["kills"] == KILLS and found["twice"] <= 1)


def clipped_sum() -> Finding:
    """The property of the test, with many more examples."""
    test = "tests/client/test_private_training.py::test_no_patient_moves_the_sum_further_than_the_clip"
    want = "500 drawn cases: no patient moves the sum by more than C(1 + 1e-5)"
    return by_pytest(test, want=want, value=500, SONOFED_EXAMPLES="500")


def round_killed() -> Finding:
    """Whole rounds, training included."""
    return by_pytest(
        "tests/faults/test_private_kill.py::test_real_rounds_killed_at_random_moments",
        want=f"{ROUND_KILLS} kills of real rounds: what left is recorded, no round is spent twice, the run goes on",
        value=ROUND_KILLS,
        SONOFED_KILLS=str(ROUND_KILLS),
    )


def nominal_constants() -> Finding:
    """n against n ± 1 patients, in the mechanism and in everything that a run tells."""
    mechanism = by_pytest(
        "tests/client/test_private_training.py::test_one_patient_more_or_less_changes_no_constant", want="", value=1
    )
    if not mechanism.holds:
        return mechanism
    return by_pytest(
        "tests/simulation/test_private_run.py::test_one_patient_more_or_less_changes_nothing_that_is_public",
        want="every constant of the mechanism and every public event are the same with one patient fewer",
        value=1,
    )


def deployed() -> Finding:
    """Two private runs over a SuperLink and three SuperNodes."""
    return by_pytest(
        "tests/faults/test_deployment.py::test_a_private_run_charges_each_hospitals_own_ledger",
        want="each hospital's ledger holds both runs, and the server remembers its head",
        value=1,
    )


def audit_spares() -> Finding:
    """The largest bound that audits of the real mechanism find, made for ε = 1."""
    worst = max(game(1.0, seed) for seed in range(SPARED))
    return Finding(round(worst, 3), f"< 1 in each of {SPARED} seeds, {CANARIES} canary patients", worst < 1)


def audit_finds_bugs() -> Finding:
    """In how many of ten seeds the bound exceeds ε = 1, by planted bug."""
    hits = {name: sum(game(1.0, seed, bug) > 1 for seed in range(PLANTED)) for name, bug in BUGS.items()}
    found = sum(count >= 9 for count in hits.values())
    told = "; ".join(f"{name} {count}" for name, count in hits.items())
    return Finding(f"{found} of {len(BUGS)}: {told}", f"≥ 5 bugs found in ≥ 9 of {PLANTED} seeds", found >= 5)


def membership() -> Finding:
    """LiRA on heads over features of 2,048 phantoms: true positives at 1 % false ones, without and with privacy."""
    from common.config import PatientPrivacy
    from simulation.audit.heads import private_heads
    from simulation.audit.membership import attack, train_heads
    from tests.prove.utility import phantom_pool

    pool = phantom_pool(2_048)
    plain = attack(pool, lambda inside: train_heads(pool, inside), seed=0)
    private = attack(pool, lambda inside: private_heads(pool, inside, PatientPrivacy(epsilon=8.0)), seed=0)
    want = "≥ 1,000 non-members, 32 shadows; TPR at 1 % FPR lower with patient ε = 8 than without"
    held = min(plain.others, private.others) >= 1_000 and private.tpr < plain.tpr
    return Finding(f"{plain.tpr:.3f} without, {private.tpr:.3f} with privacy", want, held)


def image_drawn_back() -> Finding:
    """Gradient inversion without privacy: one image, one step, small CNN; the median similarity over phantoms."""
    from common.randomness import derive
    from simulation.audit.heads import resized
    from simulation.audit.inversion import SIDE, invert, own_gradient, small_model
    from simulation.phantom.lump import draw_lump

    found = []
    for seed in range(INVERTED):
        lump = draw_lump(derive(seed, "inversion"))
        truth, label = resized(lump.image, SIDE), int(lump.signs.malignant)
        model = small_model(seed=seed)
        found.append(invert(model, own_gradient(model, truth, label), label, truth=truth, seed=seed).similarity)
    middle = float(np.median(found))
    told = ", ".join(f"{each:.2f}" for each in found)
    return Finding(f"{middle:.3f} ({told})", f"median SSIM ≥ .7 over {INVERTED} phantoms", middle >= 0.7)

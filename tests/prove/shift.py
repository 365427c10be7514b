"""The shift panel: false alarms, power, the right cause, its p against permutation; and repair without labels."""

from __future__ import annotations

__all__ = ["bootstrap_agrees", "repair", "shift_cause", "shift_null", "shift_power"]

import numpy as np

from tests.prove.finding import Finding
from tests.repair_trials import SHIFTS, cost_without_shift, recovered
from tests.shift_trials import PLANTED, bootstrap_and_permutation, false_alarms, planted

NULL_RUNS, RUNS, DATA_SETS, CENTERS_ALIKE, CENTERS_SHIFTED = 1000, 200, 200, 100, 20


def shift_null() -> Finding:
    """Panels of five centers alike, 100 patients each."""
    rate = false_alarms(NULL_RUNS)
    return Finding(rate, f"a verdict other than none in .03 to .07 of {NULL_RUNS} panels", 0.03 <= rate <= 0.07)


def shift_power() -> Finding:
    """One of five centers of 300 patients differs."""
    found = {what: planted(what, RUNS)[0] for what in PLANTED}
    told = ", ".join(f"{what}: {share:.3f}" for what, share in found.items())
    asked = [share for what, share in found.items() if PLANTED[what][3] != "case mix"]
    return Finding(told, f"≥ .90 of {RUNS} runs for gain, gamma, speckle length and prevalence", min(asked) >= 0.90)


def shift_cause() -> Finding:
    """That the right cause is named, and alone."""
    found = {what: planted(what, RUNS) for what in PLANTED}
    told = ", ".join(
        f"{what}: {right:.3f} (others accused {accused:.3f})" for what, (_, right, accused) in found.items()
    )
    return Finding(told, f"≥ .90 of {RUNS} runs", min(right for _, right, _ in found.values()) >= 0.90)


def bootstrap_agrees() -> Finding:
    """Mean absolute difference of the multiplier bootstrap's p and the permutation's, by axis."""
    pairs = [bootstrap_and_permutation(run) for run in range(DATA_SETS)]
    apart = np.mean([np.abs(boot - exact) for boot, exact in pairs], axis=0)
    told = ", ".join(
        f"{axis} {value:.4f}" for axis, value in zip(("acquisition", "prevalence", "case mix"), apart, strict=True)
    )
    want = f"mean |difference| ≤ .02 over {DATA_SETS} data sets, mean over axes"
    return Finding(f"{apart.mean():.4f} ({told})", want, float(apart.mean()) <= 0.02)


def repair() -> Finding:
    """Intensity repair at centers shifted as in the panel's trials and by more, and where nothing is wrong."""
    shares = {what: recovered(what, CENTERS_SHIFTED) for what in SHIFTS}
    cost = cost_without_shift(CENTERS_ALIKE)
    mean, most = float(cost.mean()), float(np.quantile(cost, 0.95))
    told = "; ".join(f"{what}: lost {lost:.4f}, recovered {share:.2f}" for what, (lost, share) in shares.items())
    holds = min(share for _, share in shares.values()) >= 0.5 and mean <= 0.005 and most <= 0.01
    want = "recovers ≥ .5 of the loss; without shift mean cost ≤ .005, 95th percentile ≤ .01"
    return Finding(f"{told}; without shift mean {mean:.4f}, 95th percentile {most:.4f}", want, holds)

"""Centers: a machine, a case mix, a habit.

**Shift 0** is one machine *and* one case mix for every center, and no habit: cases of two centers are then
exchangeable. **Shift 1** is each center's own machine and Table 1's own case mix. In between and beyond, all of it
moves together in a straight line.

**Habit** is a confounder put in on purpose. In real data an operator changes the setting with what he expects: a node
that looks bad is looked at with more depth and gain, or with a harder picture. Here two latent variables of the setting
(`Machine.set_for_depth` and `set_for_contrast`) have mean +habit in malignant and −habit in benign nodes. The signs of
the four named centers are all different, so that a model from one center that leans on the setting is misled elsewhere,
whereas a model from several centers learns not to. A center's own test set does not show this. The strength is a choice
of this phantom and not an estimate from any hospital.
"""

from __future__ import annotations

__all__ = ["EXTRA_CASES", "Center", "lymphus_centers"]

from dataclasses import dataclass, fields, replace

from common.randomness import derive
from simulation.phantom.features import TABLE_1, CaseMix, blend_mix
from simulation.phantom.machines import COMMON_MACHINE, MACHINES, FrameSize, Machine, blend, random_machine

COUNTS = {1: (99, 81), 2: (76, 82)}
"""Benign and malignant cases of LymphUs's centers."""
EXTRA_CASES = (80, 80)
"""Benign and malignant cases of each further center."""
HABIT_SIGNS = ((1, 1), (-1, -1), (1, -1), (-1, 1))
"""Signs of the habits in depth and in contrast; center 5 begins again at the first."""
HABIT = 1.0
"""Strength of a habit at shift 1, in usual variations of the setting."""


@dataclass(frozen=True, slots=True)
class Center:
    """One center of the phantom.

    number: 1, 2, …. benign, malignant: how many cases. machine: what it scans with. mix: case mix by malignancy.
    depth_habit, contrast_habit: see the module.
    """

    number: int
    benign: int
    malignant: int
    machine: Machine
    mix: dict[bool, CaseMix]
    depth_habit: float
    contrast_habit: float


def lymphus_centers(*, seed: int, shift: float, extra: int, patients: int | None) -> tuple[Center, ...]:
    """LymphUs's two centers and `extra` further ones, at the given shift.

    patients: cases of each center, in its own proportion of classes; None for as many as the article has.
    """
    return tuple(_center(number, seed=seed, shift=shift, patients=patients) for number in range(1, 3 + extra))


def _center(number: int, *, seed: int, shift: float, patients: int | None) -> Center:
    benign, malignant = COUNTS.get(number, EXTRA_CASES)
    if patients is not None:
        benign = min(max(round(patients * benign / (benign + malignant)), 1), patients - 1)
        malignant = patients - benign
    own = MACHINES[number - 1] if number <= len(MACHINES) else _further_machine(seed, number)
    common = _common_mix()
    mix = {bad: blend_mix(common[bad], TABLE_1.get(number, common)[bad], shift=shift) for bad in (False, True)}
    depth, contrast = (shift * HABIT * sign for sign in HABIT_SIGNS[(number - 1) % len(HABIT_SIGNS)])
    return Center(number, benign, malignant, blend(COMMON_MACHINE, own, shift=shift), mix, depth, contrast)


def _common_mix() -> dict[bool, CaseMix]:
    """Halfway between the two centers of Table 1."""
    return {
        bad: CaseMix(
            *(
                (getattr(TABLE_1[1][bad], field.name) + getattr(TABLE_1[2][bad], field.name)) / 2
                for field in fields(CaseMix)
            )
        )
        for bad in (False, True)
    }


def _further_machine(seed: int, number: int) -> Machine:
    """A machine for a center beyond those with a name: any, but with pixels and frames like theirs."""
    rng = derive(seed, "phantom", "lymphus", "machine", number)
    return replace(
        random_machine(rng),
        name=f"Further machine {number}",
        pixel_mm=float(rng.uniform(0.056, 0.078)),
        frame=FrameSize(width=(300, 440, 640), height=(280, 410, 600)),
    )

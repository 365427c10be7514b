"""Which side of the split a patient is on: the official one, else 60/20/20, drawn once, stratified by label."""

from __future__ import annotations

__all__ = ["draw_sides", "sides_of"]

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from client.importers.case import Case, Collection
from client.site import SPLITS
from common.errors import BadInput
from common.randomness import derive

_SHARES = np.array([0.6, 0.2, 0.2])


def sides_of(collection: Collection, *, split_seed: int) -> dict[str, str]:
    """The side of each patient, by original id.

    Official where every case has one. Raises BadInput where only some have, or a patient is on two sides.
    """
    official = [case.split for case in collection.cases]
    if all(side is None for side in official):
        return draw_sides(_patient_labels(collection), seed=split_seed, site=collection.site)
    sides: dict[str, tuple[str, Case]] = {}
    for case in collection.cases:
        if case.split not in SPLITS:
            raise BadInput(f"{case.where}: official split {case.split!r} is none of {', '.join(SPLITS)}")
        side, first = sides.setdefault(case.patient, (case.split, case))
        if side != case.split:
            raise BadInput(
                f"{case.where}: a patient on two sides of the split ({case.split} here, {side} at {first.where}); "
                "put all images of a patient on one side"
            )
    return {patient: side for patient, (side, _) in sides.items()}


def _patient_labels(collection: Collection) -> dict[str, int]:
    """Each patient's stratum in source order: the last class, in the task's order, that any of the images shows."""
    index = {name: code for code, name in enumerate(collection.task.classes)}
    labels: dict[str, int] = {}
    for case in collection.cases:
        labels[case.patient] = max(index[case.label], labels.get(case.patient, 0))
    return labels


def draw_sides(labels: Mapping[str, int], *, seed: int, site: str) -> dict[str, str]:
    """Draw 60/20/20 of the patients in each stratum; `labels` maps patients, in source order, to strata.

    The draw depends on the order and on `seed` and `site`, not on what patients are called. In each stratum a side gets
    its share to within one patient, and what rounding leaves over goes where the whole site lacks most.
    """
    rng = derive(seed, "split", site)
    patients = np.array(list(labels), dtype=object)
    strata = np.array(list(labels.values()), dtype=np.int64)
    sides: dict[str, str] = {}
    lacking = np.zeros(len(SPLITS))
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        counts = _allocate(len(members), lacking)
        lacking += _SHARES * len(members) - counts
        order = np.repeat(SPLITS, counts)
        sides.update({patients[member]: str(side) for member, side in zip(members, order, strict=True)})
    return {patient: sides[patient] for patient in labels}


def _allocate(n: int, lacking: npt.NDArray[np.float64]) -> list[int]:
    """How many of `n` patients go to each side: its share rounded down or up; up where share and lack add to most."""
    share = _SHARES * n
    down = np.floor(share + 1e-9).astype(np.int64)
    want = np.where(share - down > 1e-9, share - down + lacking, -np.inf)
    for side in np.argsort(-want, kind="stable")[: n - int(down.sum())]:
        down[side] += 1
    return [int(count) for count in down]

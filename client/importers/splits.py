"""Which side of the split a patient is on: the official one, else 60/20/20, drawn once, stratified by label.

Where the official split knows its test patients but not who trains and who validates, the rest is drawn 75/25.
"""

from __future__ import annotations

__all__ = ["DEVELOPMENT", "completed_split", "draw_sides", "sides_of"]

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from client.importers.case import Case, Collection
from client.site import SPLITS
from common.errors import BadInput
from common.randomness import derive

DEVELOPMENT = "development"
"""A case's split where it is no test case and the official split says no more: train or val, to be drawn."""

_SHARES = (0.6, 0.2, 0.2)
_DEVELOPMENT_SHARES = (0.75, 0.25, 0.0)


def sides_of(collection: Collection, *, split_seed: int) -> dict[str, str]:
    """The side of each patient, by original id.

    Official where every case has one; who is in DEVELOPMENT is drawn to train or val. Raises BadInput where only some
    cases have a side, or a patient is on two.
    """
    official = [case.split for case in collection.cases]
    if all(side is None for side in official):
        return draw_sides(_patient_labels(collection), seed=split_seed, site=collection.site)
    sides: dict[str, tuple[str, Case]] = {}
    for case in collection.cases:
        if case.split is None:
            raise BadInput(f"{case.where}: no official split, which other images have; give all images one, or none")
        if case.split not in (*SPLITS, DEVELOPMENT):
            raise BadInput(f"{case.where}: official split {case.split!r} is none of {', '.join(SPLITS)}")
        side, first = sides.setdefault(case.patient, (case.split, case))
        if side != case.split:
            raise BadInput(
                f"{case.where}: a patient on two sides of the split ({case.split} here, {side} at {first.where}); "
                "put all images of a patient on one side"
            )
    official_sides = {patient: side for patient, (side, _) in sides.items()}
    open_to_draw = {p: label for p, label in _patient_labels(collection).items() if official_sides[p] == DEVELOPMENT}
    drawn = draw_sides(open_to_draw, seed=split_seed, site=collection.site, shares=_DEVELOPMENT_SHARES)
    return official_sides | drawn


def completed_split(cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """The cases of an official split without train or without val, the other of the two turned into DEVELOPMENT.

    Gives the notes that say so, too; the official test side is never touched.
    """
    sides = {case.split for case in cases}
    if len(sides & {"train", "val"}) != 1:
        return list(cases), []
    there, lacking = ("train", "val") if "train" in sides else ("val", "train")
    note = (
        f"the official split gives no {lacking} case: its {there} patients are drawn to train (75 %) and val (25 %) by "
        "the split seed; its test patients stay test"
    )
    return [replace(case, split=DEVELOPMENT) if case.split == there else case for case in cases], [note]


def _patient_labels(collection: Collection) -> dict[str, int]:
    """Each patient's stratum in source order: the last class, in the task's order, that any of the images shows."""
    index = {name: code for code, name in enumerate(collection.task.classes)}
    labels: dict[str, int] = {}
    for case in collection.cases:
        labels[case.patient] = max(index[case.label], labels.get(case.patient, 0))
    return labels


def draw_sides(
    labels: Mapping[str, int], *, seed: int, site: str, shares: tuple[float, float, float] = _SHARES
) -> dict[str, str]:
    """Draw `shares` of the patients in each stratum to train, val and test; `labels` maps patients, in source order.

    The draw depends on the order and on `seed` and `site`, not on what patients are called. In each stratum a side gets
    its share to within one patient, and what rounding leaves over goes where the whole site lacks most.
    """
    rng = derive(seed, "split", site)
    patients = np.array(list(labels), dtype=object)
    strata = np.array(list(labels.values()), dtype=np.int64)
    sides: dict[str, str] = {}
    share, lacking = np.array(shares), np.zeros(len(SPLITS))
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        counts = _allocate(share * len(members), lacking)
        lacking += share * len(members) - counts
        order = np.repeat(SPLITS, counts)
        sides.update({patients[member]: str(side) for member, side in zip(members, order, strict=True)})
    return {patient: sides[patient] for patient in labels}


def _allocate(share: npt.NDArray[np.float64], lacking: npt.NDArray[np.float64]) -> list[int]:
    """How many patients go to each side: its `share` of them rounded down or up;
    up where share and lack add to most.
    """
    n = round(float(share.sum()))
    down = np.floor(share + 1e-9).astype(np.int64)
    want = np.where(share - down > 1e-9, share - down + lacking, -np.inf)
    for side in np.argsort(-want, kind="stable")[: n - int(down.sum())]:
        down[side] += 1
    return [int(count) for count in down]

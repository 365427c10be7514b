"""Which contrasts a comparison reports, and which scores go into each."""

from __future__ import annotations

__all__ = ["contrast_all"]

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.influence import Difference
from common.randomness import derive
from server.statistics import Contrast, Scored, Together, contrasts
from simulation.federated import federated_difference, federated_from_local
from simulation.plan import IN_FEDERATION, LEAVE_ONE_OUT

if TYPE_CHECKING:
    from simulation.evidence import Cases, Judge

_AGAINST = ("pooled", "local", "ensemble")
_Key = tuple[str, int]
_Vectors = dict[_Key, list[NDArray[np.float64]]]


def contrast_all(cases: Cases, judges: Sequence[Judge]) -> list[Contrast]:
    """Federated − pooled, − local and − ensemble under both protocols, by site and at `all`; of macro AUCs with more
    than two classes.

    "Local" is the site's own model in-federation (its `all` is the mean over sites), and every other center's model in
    leave-one-center-out. One set of draws serves all contrasts of a protocol.
    """
    found: list[Contrast] = []
    for protocol in (LEAVE_ONE_OUT, IN_FEDERATION):
        mine = [judge for judge in judges if judge.protocol == protocol]
        arms = {judge.arm for judge in mine}
        if "federated" not in arms:
            continue
        against = [arm for arm in _AGAINST if arm in arms]
        told = contrasts(
            [_scored(cases, mine, protocol, site) for site in cases.trainers],
            [("federated", arm) for arm in against],
            protocol=protocol,
            rng=derive(cases.experiment.seed, "contrasts", protocol),
            together=tuple(_together(protocol, arm) for arm in against),
            draws=cases.experiment.evaluation.draws,
        )
        for arm in against:
            here = [one for one in told if one.b == arm]
            found += _with_sums(here, cases, mine, arm) if protocol == IN_FEDERATION else here
    return found


def _together(protocol: str, arm: str) -> Together:
    """One ranking of all cases where both arms are one model for all sites; else the mean over centers."""
    return "cases" if protocol == IN_FEDERATION and arm != "local" else "centers"


def _with_sums(told: Sequence[Contrast], cases: Cases, judges: Sequence[Judge], arm: str) -> list[Contrast]:
    """The contrasts, that of `all` with the paired test from sums beside it."""
    ours, theirs = ([judge for judge in judges if judge.arm == name] for name in ("federated", arm))
    if arm == "local":
        sums = federated_from_local(cases, ours, theirs)
    else:
        sums = federated_difference(cases, ours, theirs)
    return [_beside(one, sums) if one.site == "all" else one for one in told]


def _beside(one: Contrast, sums: Difference) -> Contrast:
    return replace(
        one, delta_federated=sums.delta, low_federated=sums.low, high_federated=sums.high, p_federated=sums.p
    )


def _scored(cases: Cases, judges: Sequence[Judge], protocol: str, site: str) -> Scored:
    task = cases.experiment.task
    column = task.positive_index if len(task.classes) == 2 else slice(None)
    vectors: _Vectors = {}
    rows = np.arange(0)
    for judge in judges:
        if not _speaks_at(judge, protocol, site):
            continue
        rows = cases.tested(judge, site)
        vectors.setdefault((judge.arm, judge.seed), []).append(cases.scores(judge, site)[rows, column])
    here = cases.sites[site]
    labels = here.positive[rows] if len(task.classes) == 2 else here.labels[rows]
    return Scored(site=site, labels=labels, patients=here.patients[rows], scores=vectors)


def _speaks_at(judge: Judge, protocol: str, site: str) -> bool:
    if protocol == LEAVE_ONE_OUT:
        return judge.held_out == site if judge.arm != "local" else site not in judge.trained_on
    return judge.arm != "local" or judge.trained_on == (site,)

"""How the federated models do in groups of a center's patients, as the center itself would tell."""

from __future__ import annotations

__all__ = ["subgroup_rows"]

from typing import TYPE_CHECKING

from client.subgroups import Cases as Scored
from client.subgroups import covariates_of, groups, measure_groups
from server.results import Subgroup, as_subgroup

if TYPE_CHECKING:
    from simulation.evidence import Cases, Judge


def subgroup_rows(cases: Cases, judge: Judge, site: str, threshold: float | None) -> list[Subgroup]:
    """Every group of the center that its policy lets out, for one judge; none where a covariate makes no two groups.

    What rests on a class of fewer than `client.subgroups.FEWEST` patients, or than the policy lets out, is None, and so
    is the count.
    """
    here, tested = cases.sites[site], cases.tested(judge, site)
    scored = Scored(here, tested, cases.scores(judge, site)[tested], threshold)
    return [
        as_subgroup(group, arm=judge.arm, protocol=judge.protocol, seed=judge.seed, site=site)
        for covariate, values in covariates_of(here).items()
        for group in measure_groups(scored, covariate, groups(here, tested, values))
    ]

"""From what sites told beyond a row of numbers (`common.detail_orders`) to the columns and groups of `results.json`."""

from __future__ import annotations

__all__ = ["covariates_left_out", "detail_columns", "groups_absent", "subgroups_of"]

from collections.abc import Mapping
from typing import Any

from common.config import Experiment
from common.orders import PartReport
from server.results import Subgroup, as_subgroup


def detail_columns(part: PartReport) -> dict[str, Any]:
    """A row's intervals of calibration, and its decision curve, or why it has none."""
    told = part.detail
    curve = told.decisions if told is not None else ()
    return {
        "calibration_slope_low": part.calibration_slope_low,
        "calibration_slope_high": part.calibration_slope_high,
        "calibration_intercept_low": part.calibration_intercept_low,
        "calibration_intercept_high": part.calibration_intercept_high,
        "net_benefit": curve,
        "net_benefit_why": None if curve else told.decisions_why if told is not None else _why_silent(part),
    }


def subgroups_of(parts: Mapping[str, PartReport], experiment: Experiment) -> list[Subgroup]:
    """The groups that sites told, by site id, covariate and level."""
    protocol, seed = experiment.protocol, experiment.seed
    found = [
        as_subgroup(group, arm="federated", protocol=protocol, seed=seed, site=site)
        for site, part in parts.items()
        if part.detail is not None
        for group in part.detail.groups
    ]
    return sorted(found, key=lambda group: (group.site, group.covariate, group.level))


def groups_absent(parts: Mapping[str, PartReport]) -> dict[str, str]:
    """By site that told no group: why."""
    found = {}
    for site, part in sorted(parts.items()):
        if part.detail is None:
            found[site] = _why_silent(part)
        elif not part.detail.groups:
            found[site] = part.detail.groups_why or "no-groups"
    return found


def covariates_left_out(parts: Mapping[str, PartReport]) -> dict[str, dict[str, str]]:
    """By site that told groups, and covariate that has none there: why."""
    told = {site: part.detail for site, part in sorted(parts.items()) if part.detail is not None and part.detail.groups}
    return {site: dict(sorted(detail.left_out.items())) for site, detail in told.items() if detail.left_out}


def _why_silent(part: PartReport) -> str:
    """Why a site told no detail: nothing of it leaves, or it is in a secure total."""
    return (part.why or "policy") if part.n_images is None else "in-total"

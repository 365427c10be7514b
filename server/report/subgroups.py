"""Groups of a center's patients, as the run gives them: a mean over seeds in each cell."""

from __future__ import annotations

__all__ = ["SubgroupRow", "subgroup_table", "subgroups_untold"]

from dataclasses import dataclass

from server.report.estimates import reason
from server.report.numbers import DASH, count, decimal, interval, mean
from server.report.reading import Run
from server.report.sentence import lead_arm, lead_protocol
from server.report.tables import Cell
from server.results import Subgroup


@dataclass(frozen=True)
class SubgroupRow:
    """One group; `first` opens the center's block of `span` rows, `shared` tells that patients are in others too."""

    site: str
    first: bool
    span: int
    covariate: str
    level: str
    shared: bool
    patients: str
    images: str
    positive: str
    auc: Cell
    sensitivity: Cell
    specificity: Cell

    @property
    def untold(self) -> str:
        """Why none of the three numbers is there, where it is one reason; else empty."""
        reasons = {cell.why for cell in (self.auc, self.sensitivity, self.specificity)}
        return reasons.pop() if len(reasons) == 1 else ""


def subgroup_table(run: Run) -> list[SubgroupRow]:
    """The leading arm's groups under the leading protocol, by center, covariate and level."""
    arm, protocol = lead_arm(run), lead_protocol(run)
    grouped: dict[tuple[str, str, str], list[Subgroup]] = {}
    for group in run.subgroups:
        if (group.arm, group.protocol) == (arm, protocol):
            grouped.setdefault((group.site, group.covariate, group.level), []).append(group)
    sites = [site for site, _, _ in sorted(grouped)]
    made: list[SubgroupRow] = []
    for (site, covariate, level), members in sorted(grouped.items()):
        first = not made or made[-1].site != site
        one = members[0]
        made.append(
            SubgroupRow(
                site, first, sites.count(site), covariate, level, one.shares_patients,
                count(one.n_patients), count(one.n_images), count(one.n_positive),
                _auc(members), _cell(members, "sensitivity"), _cell(members, "specificity"),
            )
        )  # fmt: skip
    return made


def subgroups_untold(run: Run) -> list[tuple[str, str]]:
    """(reason in words, who told no group for it: centers, and covariates of others), in order of reason."""
    by_reason: dict[str, list[str]] = {}
    for site, why in sorted(run.subgroups_absent.items()):
        by_reason.setdefault(reason(why), []).append(site)
    for site, left_out in sorted(run.subgroups_left_out.items()):
        for why in sorted(set(left_out.values())):
            names = " and ".join(sorted(name for name, cause in left_out.items() if cause == why))
            by_reason.setdefault(reason(why), []).append(f"{site} by {names}")
    return [(why, ", ".join(sites)) for why, sites in sorted(by_reason.items())]


def _auc(members: list[Subgroup]) -> Cell:
    cell = _cell(members, "auc")
    low, high = mean(m.auc_low for m in members), mean(m.auc_high for m in members)
    return Cell(cell.shown, small="" if low is None else interval(low, high), why=cell.why)


def _cell(members: list[Subgroup], name: str) -> Cell:
    value = mean(getattr(member, name) for member in members)
    if value is None:
        return Cell(DASH, why=reason(next((m.why for m in members if m.why), None)))
    return Cell(decimal(value))

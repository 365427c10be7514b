"""From rows (one for each seed, and for local one for each model) to what the report shows.

The rule, which the page's glossary repeats: a number is the mean over seeds, and for the arm local over the other
centers' models as well; its interval is the mean of their lower and of their upper bounds: that of a typical model.
"""

from __future__ import annotations

__all__ = ["Estimate", "WHY", "contrast", "estimate", "prediction", "reason", "why_not", "worst_first"]

from dataclasses import dataclass

from server.centers import Meta
from server.report.numbers import interval, mean
from server.report.reading import ALL, LEAVE_ONE_OUT, Row, Run
from server.statistics import Contrast

WHY = {
    "suppressed": "suppressed: fewer patients than the center's policy lets out",
    "small-cell": "kept back: too few patients were called positive, or were not, for the center's policy",
    "one-class": "the cases are all of one class",
    "too-few": "too few cases",
    "few-of-a-class": "too few patients of a class",
    "complement": "kept back, since another group’s number would follow from it",
    "overlap": "kept back, since numbers about a few patients would follow from groups of another covariate",
    "no-groups": "no declared covariate makes two groups of enough patients",
    "not-declared": "nobody at the center has said which names of groups may leave it ([levels] in its site.toml)",
    "too-long": "the covariate's name is longer than a message holds",
    "too-many": "more groups than one message holds",
    "few-between": "too few patients lie between any two thresholds for the center’s policy",
    "in-total": "told as part of the total over all centers alone",
    "secure": "summed under masks: only the total over centers was told",
    "policy": "the center's policy does not let it out",
    "uncounted": "a center was lost before the test cases of all centers were counted: no number without it",
    "unplaced": "a center was lost between the counts and the placements: no interval from counts alone",
    "private-training": "the sums that it needs are in no privacy budget",
    "masked-only": "the sums that it needs are not asked for where sums leave under masks",
    "no-answer": "the center gave no answer that can be read",
    "no-comparison": "no other center can be compared with it",
    "no-reference": "no training center told the sums that it needs",
    "other-crops": "the training centers' crops are of another size",
    "no-batch-norm": "the model has no batch normalisation",
    "unknown-shares": "the class shares of training are not known",
    "coarse": "cells too coarse for an interval",
    "one-center": "one center: nothing to compare it with",
    "two-centers": "two centers: no degree of freedom is left to predict a third",
    "constant": "every score is the same, so no slope can be estimated",
    "no-threshold": "no threshold could be locked: no validation case is positive",
    "from-sums": "only sums left the sites, so what needs single predictions is not known",
    "separated": "the scores separate the classes completely, so no slope can be estimated",
}


@dataclass(frozen=True)
class Estimate:
    """AUC of an arm at a site: mean over `rows`, its interval, every row's own value in `each`, and why it is None."""

    arm: str
    protocol: str
    site: str
    auc: float | None
    low: float | None
    high: float | None
    each: tuple[float, ...]
    rows: tuple[Row, ...]
    why: str | None

    @property
    def bound(self) -> float | None:
        """The largest error of an AUC that is from sums; None where it is exact."""
        return mean(row.auc_federated_bound for row in self.rows if row.from_sums)

    def value(self, name: str) -> float | None:
        """Mean over the rows of another measure, such as `brier`, where it exists."""
        return mean(getattr(row, name) for row in self.rows)


def estimate(run: Run, arm: str, protocol: str, site: str) -> Estimate | None:
    """The arm at the site (or `all`); None where the run holds nothing about it."""
    rows = _speaking(tuple(r for r in run.rows if (r.arm, r.protocol, r.site) == (arm, protocol, site)))
    if not rows and site == ALL and protocol == LEAVE_ONE_OUT:
        return _mean_of_centers(run, arm)
    if not rows:
        return None
    there = [row for row in rows if row.auc is not None]
    bounded = bool(there) and all(row.auc_low is not None and row.auc_high is not None for row in there)
    return Estimate(
        arm,
        protocol,
        site,
        mean(row.auc for row in there),
        mean(row.auc_low for row in there) if bounded else None,
        mean(row.auc_high for row in there) if bounded else None,
        tuple(row.auc for row in there if row.auc is not None),
        rows,
        None if there else reason(rows[0].why),
    )


def _speaking(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows that stand for their arm: in leave-one-center-out local models are strangers, else the site's own.

    In-federation at a site that trains nobody, every hospital's model is a stranger, and all of them speak.
    """
    if not rows or rows[0].arm != "local" or rows[0].site == ALL:
        return rows
    own = tuple(row for row in rows if row.site in row.trained_on)
    if rows[0].protocol == LEAVE_ONE_OUT:
        return tuple(row for row in rows if row not in own)
    return own or rows


def _mean_of_centers(run: Run, arm: str) -> Estimate | None:
    """The mean over centers where the run gives no row for `all`; it has no interval."""
    parts = [e for site in run.sites(LEAVE_ONE_OUT) if (e := estimate(run, arm, LEAVE_ONE_OUT, site)) is not None]
    if not parts or any(part.auc is None for part in parts):
        return None
    return Estimate(arm, LEAVE_ONE_OUT, ALL, mean(p.auc for p in parts), None, None, (), (), None)


def worst_first(run: Run, arm: str, protocol: str) -> list[str]:
    """The protocol's sites, the lowest AUC of `arm` first; sites without one come last."""
    found = {site: estimate(run, arm, protocol, site) for site in run.sites(protocol)}
    ranked = {site: e.auc if e is not None and e.auc is not None else 2.0 for site, e in found.items()}
    return sorted(ranked, key=lambda site: (ranked[site], site))


def contrast(run: Run, b: str, protocol: str, site: str) -> Contrast | None:
    """Federated minus `b` at the site, as the run gives it."""
    wanted = ("federated", b, protocol, site)
    return next((c for c in run.contrasts if (c.a, c.b, c.protocol, c.site) == wanted), None)


def reason(why: str | None) -> str:
    """Why a number is not there, in words."""
    return WHY.get(why, why) if why else "not computed in this run"


def why_not(found: Meta) -> str:
    """Why there is no prediction interval, in words."""
    return reason(found.why)


def prediction(found: Meta | None) -> str:
    """A sentence about a new center; empty where nothing is known."""
    if found is None or found.estimate is None:
        return ""
    if found.prediction_low is None:
        return f"For a new center there is no 95 % prediction interval ({why_not(found)})."
    note = f"{found.k} centers: {found.note}" if found.note else f"{found.k} centers"
    bounds = interval(found.prediction_low, found.prediction_high)
    return f"95 % prediction interval of the AUC at a new center: {bounds} ({note})."

"""The card of a center: how far it lies from the others, along what, what that did, and what to do."""

from __future__ import annotations

__all__ = ["Along", "ShiftCard", "make_cards"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from common.shift import DESCRIPTORS, ShiftReference, ShiftSums
from server.repairs import Repaired
from server.results import Row
from server.shift import AXES, Comparison, compare_centers
from server.shift_features import Classifier, Frechet, classify, frechet_distance
from server.shift_performance import Performance, listed, performance_at, plain, what_it_did, which_model


@dataclass(frozen=True)
class Along:
    """One descriptor: the center's mean less the reference's in standard deviations of patients, and its z."""

    name: str
    difference: float
    z: float


@dataclass(frozen=True)
class ShiftCard:
    """One center. `p` is adjusted over all centers and axes, by axis and the smallest of them; sentences are whole.

    `or_other`: the one center left to compare with, where it may as well be that one which differs. `shares` and
    `shares_reference` of each class among patients; `along` the three descriptors that differ most. `discrepancy` is
    the squared maximum mean discrepancy of the features; 95 % of draws without shift stay below `discrepancy_usual`.
    `why` tells why there is no comparison, and then nothing but the site and, where it is known, its number of patients
    is there.
    """

    site: str
    n_patients: int | None
    against: tuple[str, ...] = ()
    or_other: str | None = None
    verdict: str | None = None
    causes: tuple[str, ...] = ()
    p: float | None = None
    p_by_axis: Mapping[str, float] | None = None
    along: tuple[Along, ...] = ()
    shares: tuple[float, ...] = ()
    shares_reference: tuple[float, ...] = ()
    discrepancy: float | None = None
    discrepancy_usual: float | None = None
    classifier: Classifier | None = None
    frechet: Frechet | None = None
    performance: Performance = field(default_factory=Performance)
    how_far: str = ""
    along_what: str = ""
    what_it_did: str = ""
    which_model: str = ""
    what_to_do: str = ""
    why: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def make_cards(
    sites: Mapping[str, ShiftSums],
    reference: ShiftReference,
    *,
    rng: np.random.Generator,
    positive: int = 1,
    against: Sequence[str] | None = None,
    rows: Sequence[Row] = (),
    trained: Collection[str] = (),
    repairs: Sequence[Repaired] = (),
) -> tuple[ShiftCard, ...]:
    """The panel's cards in the order of site ids; `positive` is the class whose share the sentences tell.

    `rows` say what the shift did, `trained` names centers with patients in the training of the model whose features are
    compared. Where a card advises a repair without labels, it says what `repairs` measured of it at the center.
    """
    found = compare_centers(sites, reference, rng=rng, against=against)
    return tuple(
        _card(
            found[name],
            _or_other(found, name),
            sites,
            reference,
            rng,
            positive,
            performance_at(name, found[name].against, rows),
            name in trained,
            [one for one in repairs if one.site == name],
        )
        for name in sorted(found)
    )


def _or_other(found: Mapping[str, Comparison], site: str) -> str | None:
    """The other of two centers that are left, both of them called different: nothing tells which of them is."""
    mine = found[site]
    other = found.get(mine.against[0]) if len(mine.against) == 1 else None
    if other is None or other.against != (site,) or not (mine.causes and other.causes):
        return None
    return other.site


def _card(
    found: Comparison,
    or_other: str | None,
    sites: Mapping[str, ShiftSums],
    reference: ShiftReference,
    rng: np.random.Generator,
    positive: int,
    performance: Performance,
    trained: bool,
    repairs: Sequence[Repaired],
) -> ShiftCard:
    site, where = sites[found.site], reference.coordinates
    others = {name: sites[name] for name in found.against}
    shares = site.mean[where.classes]
    elsewhere = shares - found.difference[where.classes]
    along = _along(found, reference)
    classifier = classify(site, list(others.values()), reference)
    return ShiftCard(
        site=found.site,
        n_patients=site.patients,
        against=found.against,
        or_other=or_other,
        verdict=found.verdict,
        causes=found.causes,
        p=min(found.adjusted.values()),
        p_by_axis={axis: found.adjusted[axis] for axis in AXES},
        along=along,
        shares=tuple(shares.tolist()),
        shares_reference=tuple(elsewhere.tolist()),
        discrepancy=found.statistic["case mix"],
        discrepancy_usual=found.usual_discrepancy,
        classifier=classifier,
        frechet=frechet_distance(site, others, reference, rng=rng),
        performance=performance,
        how_far=_how_far(found, classifier, or_other),
        along_what=_along_what(found, along, float(shares[positive]), float(elsewhere[positive])),
        what_it_did=what_it_did(performance, found.against),
        which_model=which_model(performance, trained=trained),
        what_to_do=f"{_WHAT_TO_DO[found.verdict]}{_measured(found.verdict, repairs, positive)}",
    )


def _along(found: Comparison, reference: ShiftReference) -> tuple[Along, ...]:
    which = reference.coordinates.descriptors
    z, difference = found.z[which], found.difference[which]
    return tuple(
        Along(DESCRIPTORS[i], float(difference[i]), float(z[i])) for i in np.argsort(-np.abs(z), kind="stable")[:3]
    )


def _how_far(found: Comparison, classifier: Classifier, or_other: str | None) -> str:
    smallest = min(found.adjusted.values())
    p = "p < .001" if smallest < 0.001 else f"p = {smallest:.3f}".replace("0.", ".")
    differs = "differs from" if found.causes else "cannot be told from"
    which = " No third center is left: the data cannot tell which of the two differs." if or_other else ""
    return (
        f"{found.site} {differs} {listed(found.against)} ({p} over all centers and axes); beyond what acquisition "
        "explains, a linear classifier of the features tells its patients from theirs with AUC "
        f"{plain(classifier.auc)}.{which}"
    )


def _along_what(found: Comparison, along: Sequence[Along], share: float, elsewhere: float) -> str:
    told = []
    if "acquisition" in found.causes:
        first = along[0]
        way = "higher" if first.difference > 0 else "lower"
        told.append(f"beside the lesions its {first.name} is {plain(abs(first.difference))} SD {way}")
    if "prevalence" in found.causes:
        told.append(f"{share:.0%} of its patients are positive, elsewhere {elsewhere:.0%}")
    if "case mix" in found.causes:
        told.append("its lesions look different to the model although the tissue beside them does not")
    if not told:
        return "Along nothing beyond what chance gives."
    joined = "; ".join(told)
    return f"{joined[0].upper()}{joined[1:]}."


_WHAT_TO_DO = {
    "acquisition": "Look at the machine's presets, and read the results of intensity and amplitude harmonisation "
    "beside the unrepaired ones before the model is used here.",
    "prevalence": "Recalibrate for this center's prevalence before probabilities are used; the order of cases, and so "
    "the AUC, is not touched.",
    "case mix": "Look at what kinds of lesions are seen here and validate by subgroup; no recalibration without labels "
    "mends this.",
    "none": "Nothing for shift; a small shift may still be there where patients are few.",
}


_REPAIRS = {"acquisition": ("intensity", "amplitude"), "prevalence": ("prior",)}


def _measured(verdict: str, repairs: Sequence[Repaired], positive: int) -> str:
    """What the advised repairs gave here, with a space before it; empty where none was measured."""
    unrepaired = next((one for one in repairs if one.repair == "none"), None)
    advised = [one for one in repairs if one.repair in _REPAIRS.get(verdict, ())]
    told = [found for one in advised if (found := _gave(one, unrepaired, positive))]
    return f" Measured here: {listed(told)}." if told else ""


def _gave(one: Repaired, unrepaired: Repaired | None, positive: int) -> str:
    if one.repair == "prior":
        return _recalibrated(one, unrepaired, positive)
    if one.delta_auc is None:
        return ""
    reach = ""
    if one.delta_low is not None and one.delta_high is not None:
        reach = f" ({plain(one.delta_low, places=3)} to {plain(one.delta_high, places=3)})"
    return f"{one.repair} harmonisation changes AUC by {plain(one.delta_auc, places=3)}{reach}"


def _recalibrated(one: Repaired, unrepaired: Repaired | None, positive: int) -> str:
    was = unrepaired.calibration_intercept if unrepaired else None
    if one.prior is None or one.calibration_intercept is None or was is None:
        return ""
    moved = f"{plain(was)} to {plain(one.calibration_intercept)}"
    return (
        f"the answers imply that {one.prior[positive]:.0%} are positive; recalibration to it moves the intercept from "
        f"{moved}"
    )

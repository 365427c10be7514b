"""The answer in one sentence, true to its numbers: an interval that holds 0 is never called a difference."""

from __future__ import annotations

__all__ = ["answer", "lead_arm", "lead_protocol", "reservations"]

from server.centers import INFORMATIVE
from server.report.estimates import Estimate, contrast, estimate, prediction, worst_first
from server.report.numbers import at_most, decimal, interval, precision_for, span
from server.report.reading import ALL, ARMS, IN_FEDERATION, LEAVE_ONE_OUT, Run
from server.statistics import Contrast

_AGAINST = {"pooled": "pooling the data", "local": "a model trained in one hospital"}
_OWN = {"pooled": "pooling the data", "local": "each hospital's own model"}


def lead_arm(run: Run) -> str | None:
    """The arm that the report is about: federated, or the next one that the run has."""
    return next(iter(run.arms()), None)


def lead_protocol(run: Run) -> str | None:
    """The protocol that the first table shows: leave-one-center-out where the run has it."""
    return next(iter(run.protocols), None)


def answer(run: Run) -> str:
    """One sentence: how well, how sure, where worst, and against pooled and local training."""
    arm, protocol = lead_arm(run), lead_protocol(run)
    if arm is None or protocol is None:
        return "This run holds no result yet."
    if protocol == LEAVE_ONE_OUT:
        return _unseen(run, arm)
    outside = _outside(run, arm)
    return _outside_sentence(run, arm, outside) if outside else _inside(run, arm)


def _unseen(run: Run, arm: str) -> str:
    """Leave-one-center-out: every center in turn is the one never seen."""
    sites = worst_first(run, arm, LEAVE_ONE_OUT)
    place, places = run.places(sites)
    start = f"At {_a(place)} it has never seen, the {arm} model"
    whole = estimate(run, arm, LEAVE_ONE_OUT, ALL)
    if whole is None or whole.auc is None:
        known = _known(run, arm, LEAVE_ONE_OUT, sites)
        return f"{start} has no AUC that can be averaged over {places}{_because(whole)}{known}."
    inner = [f"mean of {len(sites)} {places}, each left out in turn"] if len(sites) > 1 else []
    inner += [_sure_of(whole, len(sites), place, places), *_worst(run, arm, LEAVE_ONE_OUT), _ahead(run, arm, sites)]
    text = f"{start} reaches AUC {decimal(whole.auc)} ({'; '.join(inner)})"
    return text + _comparisons(run, arm, LEAVE_ONE_OUT, _AGAINST) + "."


def _inside(run: Run, arm: str) -> str:
    """In-federation only: nothing was held out, and the sentence says so."""
    sites = worst_first(run, arm, IN_FEDERATION)
    start = f"At the {run.places(sites)[1]} that trained it, the {arm} model"
    whole = estimate(run, arm, IN_FEDERATION, ALL)
    if whole is None and len(sites) == 1:
        whole = estimate(run, arm, IN_FEDERATION, sites[0])
    closing = "; no center was held out, so this says nothing about a center it has never seen."
    if whole is None or whole.auc is None:
        known = _known(run, arm, IN_FEDERATION, sites)
        return f"{start} has no AUC over all test patients{_because(whole)}{known}{closing}"
    told = [] if whole.bound is None else [f"from sums, {at_most(whole.bound)}"]
    inner = [*told, _sure(whole), *_worst(run, arm, IN_FEDERATION)]
    text = f"{start} reaches AUC {decimal(whole.auc)} on test patients ({'; '.join(inner)})"
    return text + _comparisons(run, arm, IN_FEDERATION, _OWN) + closing


def _outside(run: Run, arm: str) -> list[Estimate]:
    """Estimates at the sites that no training patient came from, in a run that is not leave-one-center-out."""
    held = sorted({r.site for r in run.rows if r.arm == arm and r.held_out and r.site != ALL})
    found = [e for site in held if (e := estimate(run, arm, IN_FEDERATION, site)) is not None]
    return sorted(found, key=lambda e: (e.auc is None, e.auc or 0.0, e.site))


def _outside_sentence(run: Run, arm: str, outside: list[Estimate]) -> str:
    parts = [
        f"AUC {decimal(e.auc)} at {e.site} ({_sure(e)})" if e.auc is not None else f"no AUC at {e.site} ({e.why})"
        for e in outside
    ]
    place, places = run.places(e.site for e in outside)
    which = _a(place) if len(parts) == 1 else places
    return f"At {which} it has never seen, the {arm} model reaches {_listed(parts)}."


def _sure(e: Estimate) -> str:
    return "no interval" if e.low is None else f"95 % interval {interval(e.low, e.high)}"


def _sure_of(e: Estimate, count: int, place: str, places: str) -> str:
    """The interval, and whose chance it holds: the centers are taken as they are."""
    if e.low is None:
        return _sure(e)
    return f"{_sure(e)} over the patients of {f'these {count} {places}' if count > 1 else f'this {place}'}"


def _ahead(run: Run, arm: str, sites: list[str]) -> str:
    """Where the AUC of a further center would lie, or that these are too few to tell."""
    found = run.across(arm, "auc")
    number, (place, places) = found.k if found else len(sites), run.places(sites)
    if number < INFORMATIVE:
        few = f"{number} {places} are" if number != 1 else f"one {place} is"
        return f"{few} too few to tell where a further one would lie"
    if found is None or found.prediction_low is None:
        return f"where a further {place} would lie is not known"
    reach = interval(found.prediction_low, found.prediction_high)
    return f"95 % prediction interval for a further {place} {reach}"


def _worst(run: Run, arm: str, protocol: str) -> list[str]:
    sites = worst_first(run, arm, protocol)
    worst = estimate(run, arm, protocol, sites[0]) if len(sites) > 1 else None
    if worst is None or worst.auc is None:
        return []
    return [f"worst {run.places(sites)[0]} {worst.site} at {decimal(worst.auc)}"]


def _known(run: Run, arm: str, protocol: str, sites: list[str]) -> str:
    """What is known center by center where the mean is not."""
    found = [(site, estimate(run, arm, protocol, site)) for site in sites]
    parts = [f"{decimal(e.auc)} at {site}" for site, e in found if e is not None and e.auc is not None]
    return f"; it reaches {_listed(parts)}" if parts else ""


def _because(e: Estimate | None) -> str:
    return f" ({e.why})" if e is not None and e.why else ""


def _comparisons(run: Run, arm: str, protocol: str, names: dict[str, str]) -> str:
    if arm != "federated":
        return "; there is no federated model to compare with it"
    there = [(b, contrast(run, b, protocol, ALL)) for b in names]
    parts = [_clause(c, names[b]) for b, c in there if c is not None and c.delta_auc is not None]
    absent = [names[b] for b, c in there if c is None or c.delta_auc is None]
    text = f", {_listed(parts)}" if parts else ""
    return text + (f"; it was not compared with {_listed(absent, 'or')}" if absent else "")


def _clause(c: Contrast, other: str) -> str:
    """`.06 above X (95 % interval .02 to .10)`, or that the data cannot show a difference."""
    assert c.delta_auc is not None
    places = precision_for(c.low, c.high) if c.low is not None and c.high is not None else precision_for(c.delta_auc)
    size = decimal(abs(c.delta_auc), places=places)
    way = "above" if c.delta_auc > 0 else "below"
    if c.low is None or c.high is None:
        return f"{size} {way} {other} (no interval, so it may be chance)"
    bounds = span(c.low, c.high, places=places)
    if c.low <= 0 <= c.high:
        return f"with no demonstrable difference from {other} ({decimal(c.delta_auc, places=places)}; {bounds})"
    unsure = f"; p {decimal(c.p, places=3)}, borderline" if c.p is not None and c.p >= 0.05 else ""
    return f"{size} {way} {other} ({bounds}{unsure})"


def _a(place: str) -> str:
    return f"an {place}" if place[0] in "aeiou" else f"a {place}"


def _listed(parts: list[str], word: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def reservations(run: Run) -> list[str]:
    """What a reader must keep in mind next to the sentence."""
    arm, protocol = lead_arm(run), lead_protocol(run)
    if arm is None or protocol is None:
        return []
    notes, sites = [], run.sites(protocol)
    if run.artificial:
        notes.append(
            f"Artificial sites: {_listed(sorted(run.artificial))}; cut from one center, not real centers. Between them "
            "no machine and no practice differs, so they say little about a real center."
        )
    if protocol == LEAVE_ONE_OUT:
        place, places = run.places(sites)
        whose = f"these {len(sites)} {places}" if len(sites) > 1 else f"this {place}"
        notes.append(f"The interval is about the patients of {whose}; another center may lie outside it.")
        notes += [note] if (note := prediction(run.across(arm, "auc"))) else []
    seeds = len(run.seeds)
    notes.append(
        "One seed: how much the result changes when training is repeated is not known."
        if seeds == 1
        else f"Means over {seeds} seeds; each seed is a light dot in the figures."
    )
    looks = run.setting("evaluation", "looks")
    if isinstance(looks, int):
        times = {1: "once", 2: "twice"}.get(looks, f"{looks} times")
        notes.append(
            f"Held-out results of these data had been looked at {times} before this run, and choices made after a look "
            "make numbers too good."
            if looks
            else "Held-out results of these data had never been looked at before this run."
        )
    gone = [a for a in ARMS if a not in run.arms()]
    if gone:
        notes.append(f"Not in this run: {_listed(gone)}.")
    return notes

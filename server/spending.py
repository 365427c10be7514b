"""What a run cost each site's patients, from the records alone: ε by round, for `results.json` and the report."""

from __future__ import annotations

__all__ = ["SiteSpending", "Spending", "spending"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.config import Experiment, HospitalPrivacy
from common.privacy import Plan, epsilon
from server.hospital_noise import hospital_plan
from server.private_rounds import image_privacy, is_private


@dataclass(frozen=True)
class SiteSpending:
    """One model's cost at one site. `epsilon`: a patient's, after each round that the site was in; `rounds`: which
    these are.

    `image_epsilon`: an image's, after all of them, where the image is the unit. Other models and earlier runs are not
    in it.
    """

    run: str
    site: str
    rounds: tuple[int, ...]
    epsilon: tuple[float, ...]
    delta: float
    noise_multiplier: float
    sampling_rate: float
    steps: int
    image_epsilon: float | None = None


@dataclass(frozen=True)
class Spending:
    """What a run says of privacy: the unit, which parameters trained, and the sites' spending.

    `together`: a patient's ε at each site for all models of the run, where there are several. `insecure_demo`: draws
    were seeded, so that no number here protects anyone.
    """

    unit: str
    trains: str | None
    clip: float
    insecure_demo: bool
    sites: tuple[SiteSpending, ...]
    together: Mapping[str, float]


def spending(events: Iterable[Mapping[str, Any]], experiment: Experiment) -> Spending | None:
    """From the events of training; None where the experiment asks for no privacy."""
    privacy = experiment.privacy
    if isinstance(privacy, HospitalPrivacy):
        return _of_hospitals(privacy, experiment, events)
    if not is_private(privacy):
        return None
    told = [event for event in events if event["event"] == "train" and event.get("privacy")]
    keys = sorted({(str(event["run"]), str(event["site"])) for event in told})
    by_image = image_privacy(privacy)
    sites = tuple(
        _of_site(run, site, [e for e in told if (e["run"], e["site"]) == (run, site)], by_image=by_image)
        for run, site in keys
    )
    return Spending(
        unit=privacy.kind,
        trains=privacy.trains,
        clip=privacy.clip,
        insecure_demo=any(event["privacy"]["insecure_demo"] for event in told),
        sites=sites,
        together=_together(told) if len({run for run, _ in keys}) > 1 else {},
    )


def _of_site(run: str, site: str, events: list[Mapping[str, Any]], *, by_image: bool) -> SiteSpending:
    plans, delta = [_plan(event) for event in events], float(events[0]["privacy"]["delta"])
    alone = [Plan(p.noise_multiplier, p.sampling_rate, p.steps) for p in plans]
    return SiteSpending(
        run=run,
        site=site,
        rounds=tuple(int(event["round"]) for event in events),
        epsilon=tuple(round(epsilon(plans[: i + 1], delta=delta), 4) for i in range(len(plans))),
        delta=delta,
        noise_multiplier=plans[0].noise_multiplier,
        sampling_rate=plans[0].sampling_rate,
        steps=sum(plan.steps for plan in plans),
        image_epsilon=round(epsilon(alone, delta=delta), 4) if by_image else None,
    )


def _plan(event: Mapping[str, Any]) -> Plan:
    return Plan(**event["privacy"]["plan"])


def _together(events: list[Mapping[str, Any]]) -> dict[str, float]:
    found = {}
    for site in sorted({str(event["site"]) for event in events}):
        own = [event for event in events if event["site"] == site]
        found[site] = round(epsilon([_plan(e) for e in own], delta=float(own[0]["privacy"]["delta"])), 4)
    return found


def _of_hospitals(privacy: HospitalPrivacy, experiment: Experiment, events: Iterable[Mapping[str, Any]]) -> Spending:
    events = list(events)
    runs = sorted({str(event["run"]) for event in events if event["event"] == "train"})
    rounds, found = experiment.training.rounds, []
    for run in runs:
        sites = len({e["site"] for e in events if e["event"] == "site" and e["run"] == run and not e["held_out"]})
        plan, delta = hospital_plan(privacy, sites=sites, rounds=rounds)
        costs = [epsilon([Plan(plan.noise_multiplier, 1.0, n + 1)], delta=delta) for n in range(rounds)]
        told = tuple(round(cost, 4) for cost in costs)
        numbers = tuple(range(1, rounds + 1))
        found.append(SiteSpending(run, "every site", numbers, told, delta, plan.noise_multiplier, 1.0, rounds))
    return Spending("hospital", None, privacy.clip, False, tuple(found), {})

"""What privacy cost, for the page: a table and a curve of ε by round, what it does not count,
and the stamp of a demo.
"""

from __future__ import annotations

__all__ = ["STAMP", "Cost", "PrivacySection", "privacy_notes", "privacy_section", "privacy_sentence"]

from dataclasses import dataclass

from markupsafe import Markup

from common.page.drawing import group, line, path, svg, text
from server.report.reading import Run
from server.spending import SiteSpending

STAMP = "INSECURE DEMO: sampling and noise came from the experiment's seed. Nobody's privacy is protected by this run."
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 300.0, 92.0, 34.0, 18.0
_UNITS = {
    "patient": "Every patient at every training site is hidden",
    "image": "Every image is hidden; a patient with several pays for all of them, and ε below is the patient's",
    "hospital": "Every hospital is hidden from the other hospitals, not from the server",
}


@dataclass(frozen=True)
class Cost:
    """A row: one model at one site."""

    run: str
    site: str
    epsilon: str
    image: str
    delta: str
    sigma: str
    rate: str
    steps: int
    ledger: str
    curve: Markup


@dataclass(frozen=True)
class PrivacySection:
    """The section's words and rows."""

    unit: str
    trains: str
    rows: tuple[Cost, ...]
    together: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    stamp: str


def privacy_section(run: Run) -> PrivacySection | None:
    """None where the run asked for no privacy."""
    spent = run.privacy
    if spent is None:
        return None
    several = len({cost.run for cost in spent.sites}) > 1
    return PrivacySection(
        unit=f"{_UNITS.get(spent.unit, spent.unit)}. Gradients were clipped to the norm {spent.clip:g}",
        trains={"all": "all parameters", "last-stage": "the last stage and the heads", "head": "the heads alone"}.get(
            spent.trains or "", ""
        ),
        rows=tuple(_cost(run, cost, several=several) for cost in spent.sites),
        together=tuple((site, f"{value:.2f}") for site, value in spent.together.items()),
        notes=tuple(privacy_notes(run)),
        stamp=STAMP if spent.insecure_demo else "",
    )


def privacy_sentence(run: Run) -> str | None:
    """One sentence for the model card; None without privacy."""
    spent = run.privacy
    if spent is None or not spent.sites:
        return None
    dearest = max(spent.sites, key=lambda cost: cost.epsilon[-1])
    image = f" ({dearest.image_epsilon:.2f} an image)" if dearest.image_epsilon is not None else ""
    who = "hospital" if spent.unit == "hospital" else "patient"
    sentence = f"{spent.unit} level; at most ε = {dearest.epsilon[-1]:.2f} of a {who}{image} at δ = {dearest.delta:.2g}"
    return f"{sentence}. {STAMP}" if spent.insecure_demo else sentence


def privacy_notes(run: Run) -> list[str]:
    """What the numbers do not say."""
    spent = run.privacy
    if spent is None:
        return []
    notes = ["ε is that of this run alone. What a hospital's patients have paid in all stands in its own ledger."]
    if spent.unit != "hospital":
        notes.append("A patient who was treated in two of these hospitals pays both: their ε and δ add up.")
    notes.append(
        "Not counted in ε: numbers about val, test and held-out patients (AUC, counts, calibration), which no training "
        f"saw before they were reported, and how long a site takes to answer. {_bounds(run)}"
    )
    if len(run.arms()) > 1 and spent.unit != "hospital":
        notes.append("Only the federated arm trained with privacy; the other arms show what it cost.")
    return notes


def _bounds(run: Run) -> str:
    """How many evaluations the training sites let leave."""
    if not run.limits:
        return "Each training site's policy bounds how many evaluations leave it."
    told = "; ".join(
        f"{site} at most {each:,} of one run and {most:,} in all" for site, (each, most) in run.limits.items()
    )
    return f"Each training site's policy bounds how many evaluations leave it: {told}."


def _cost(run: Run, cost: SiteSpending, *, several: bool) -> Cost:
    told = run.ledgers.get((cost.run, cost.site))
    return Cost(
        run=cost.run if several else "",
        site=cost.site,
        epsilon=f"{cost.epsilon[-1]:.2f}",
        image="" if cost.image_epsilon is None else f"{cost.image_epsilon:.2f} an image",
        delta=f"{cost.delta:.2g}",
        sigma=f"{cost.noise_multiplier:.3g}",
        rate=f"{cost.sampling_rate:.3f}",
        steps=cost.steps,
        ledger=f"{told.epsilon:.2f} of {told.cap:g}" if told else "–",
        curve=_curve(cost),
    )


def _curve(cost: SiteSpending) -> Markup:
    """ε by round."""
    top, last = max(cost.epsilon), max(cost.rounds)
    points = [(0.0, 0.0), *((float(r), e) for r, e in zip(cost.rounds, cost.epsilon, strict=True))]
    right, height = _WIDTH - 8, _HEIGHT - _BOTTOM - 6
    places = [(_LEFT + (right - _LEFT) * r / last, 6 + height * (1 - e / top)) for r, e in points]
    return svg(
        line(_LEFT, 6 + height, right, 6 + height, class_="grid"),
        group(path(places, class_="line"), class_="arm federated"),
        text(_LEFT - 4, 10, f"{top:.2f}", anchor="end", class_="tick"),
        text(_LEFT - 4, 8 + height, "0", anchor="end", class_="tick"),
        text(right, _HEIGHT - 4, f"round {last}", anchor="end", class_="tick"),
        width=_WIDTH,
        height=_HEIGHT,
        title=f"ε by round at {cost.site}",
    )

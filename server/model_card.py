"""`model_card.md`: a page about the models of a run, made from the run folder alone. Mitchell et al. 2019."""

from __future__ import annotations

__all__ = ["write_model_card"]

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.files import write_atomic
from server.report.estimates import estimate, worst_first
from server.report.numbers import DASH, count, decimal, interval, mean
from server.report.privacy import privacy_notes, privacy_sentence
from server.report.reading import ALL, IN_FEDERATION, LEAVE_ONE_OUT, Run, read_run
from server.report.sentence import answer, lead_arm, reservations


def write_model_card(run: Path) -> Path:
    """Write RUN/model_card.md and return its path; BadInput where `results.json` is missing or not as agreed."""
    path = run / "model_card.md"
    write_atomic(path, ("\n".join(_card(read_run(run))).rstrip() + "\n").encode())
    return path


def _card(run: Run) -> Iterable[str]:
    yield from (f"# {_safe(run.setting('name') or 'model')}", "", _safe(answer(run)), "")
    yield from (f"- {_safe(note)}" for note in reservations(run))
    yield from ("", "## What it is", "")
    yield from _what(run)
    yield from ("", "## Meant for", "")
    yield (
        "Research on training across hospitals. It is no medical device, and nobody should be treated by what it says."
    )
    yield from ("", "## Trained on", "")
    yield from _trained_on(run)
    for protocol in run.protocols:
        yield from ("", f"## Results, {protocol}", "")
        yield from _results(run, protocol)
    yield from ("", "## Limits", "")
    yield from _limits(run)
    yield from ("", "## Made by", "")
    yield from _made_by(run)


def _what(run: Run) -> Iterable[str]:
    task, model = run.setting("task") or {}, run.setting("model") or {}
    classes = ", ".join(str(name) for name in task.get("classes", ())) or DASH
    yield (
        f"- Task: {_safe(task.get('name', DASH))}; classes {_safe(classes)}; positive "
        f"{_safe(task.get('positive', DASH))}."
    )
    parts = [f"{key} {value}" for key, value in model.items() if isinstance(value, str)]
    yield f"- Model: attention CNN {'(' + _safe(', '.join(parts)) + ')' if parts else ''}."
    yield (
        f"- Strategy: {_safe(run.setting('strategy', 'kind') or DASH)}; seeds {', '.join(map(str, run.seeds)) or DASH}."
    )
    yield f"- Budget of each final model: {count(run.budget.sample_gradients)} sample gradients."
    told = privacy_sentence(run)
    yield (
        f"- Differential privacy: {_safe(told) if told else 'not applied; images stay at the sites, updates are sent'}."
    )


def _trained_on(run: Run) -> Iterable[str]:
    roles = run.setting("sites")
    known = (
        [site for site in roles if isinstance(site, dict) and "id" in site] if isinstance(roles, list | tuple) else []
    )
    if not known:
        known = [{"id": site} for site in run.sites()]
    for site in known:
        digest = run.provenance.data.get(str(site["id"]))
        mark = f"; data SHA-256 {digest[:12]}…" if digest else ""
        kind = "; artificial, cut from one center" if site["id"] in run.artificial else ""
        yield f"- {_safe(site['id'])}: {_safe(site.get('role', 'tested'))}{kind}{_safe(mark)}"


def _results(run: Run, protocol: str) -> Iterable[str]:
    arms = run.arms(protocol)
    yield _line(["Center", "Patients", *(f"{arm} AUC (95 % interval)" for arm in arms)])
    yield _line(["---"] + ["---:"] * (len(arms) + 1))
    lead = lead_arm(run) or "federated"
    whole = "mean of centers" if protocol == LEAVE_ONE_OUT else "all cases together"
    for number, site in enumerate([*worst_first(run, lead, protocol), ALL]):
        found = [estimate(run, arm, protocol, site) for arm in arms]
        first = next((e for e in found if e is not None), None)
        rows = first.rows if first is not None else ()
        marks = ["worst"] if number == 0 and len(run.sites(protocol)) > 1 else []
        marks += ["artificial"] if site in run.artificial else []
        name = whole if site == ALL else f"{site} ({', '.join(marks)})" if marks else site
        cells = [DASH if e is None or e.auc is None else f"{decimal(e.auc)} ({interval(e.low, e.high)})" for e in found]
        yield _line([name, count(mean(row.n_patients for row in rows)), *cells])


def _limits(run: Run) -> Iterable[str]:
    if LEAVE_ONE_OUT not in run.protocols:
        yield "- No center was left out in turn: how it does at a new center is not known from this run."
    elif IN_FEDERATION in run.protocols or run.protocols:
        yield f"- Tested at {len(run.sites(LEAVE_ONE_OUT))} left-out centers only; another center may differ more."
    yield "- The threshold is set on training centers; at a new center sensitivity and specificity may both differ."
    yield "- Probabilities are not recalibrated to a center's share of positive cases."
    yield from (f"- Privacy: {_safe(note)}" for note in privacy_notes(run))


def _made_by(run: Run) -> Iterable[str]:
    p = run.provenance
    dirty = " with uncommitted changes" if p.dirty else ""
    yield (
        f"- Commit {_safe(p.commit or DASH)}{dirty}; {_safe(p.processor or DASH)}, {_safe(p.device or DASH)}, threads "
        f"{p.threads or DASH}."
    )
    versions = ", ".join(f"{name} {version}" for name, version in p.versions.items())
    yield f"- {_safe(versions or DASH)}"
    yield "- Everything else: report.html in the same folder."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_safe(cell) for cell in cells) + " |"


def _safe(value: object) -> str:
    """Words that are neither HTML nor Markdown's marks, on one line."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return "".join(f"\\{mark}" if mark in "|[]`*\\" else mark for mark in text)

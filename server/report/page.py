"""Puts the parts together and renders the page: a pure function of the run folder, without clock and chance."""

from __future__ import annotations

__all__ = ["render"]

import re
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

from common.page import render_page
from common.page.drawing import element, hover_texts, marker
from server.report.absence import absences, failures
from server.report.across import across_rows
from server.report.appearance import descriptor_panels, histogram_panels
from server.report.cards import cards
from server.report.classes import class_names, class_rows
from server.report.curves import CenterCurves, center_curves, curves_untold
from server.report.differences import differences, no_contrast
from server.report.estimates import estimate
from server.report.forest import forest
from server.report.glossary import GLOSSARY, OF_TWO_MODELS
from server.report.learning import learning_panels
from server.report.numbers import count, duration
from server.report.pictures import galleries
from server.report.privacy import privacy_section
from server.report.reading import IN_FEDERATION, LEAVE_ONE_OUT, Run
from server.report.repairs import repair_rows
from server.report.sentence import answer, lead_arm, lead_protocol, reservations
from server.report.subgroups import subgroup_table, subgroups_untold
from server.report.sums import sums_decision, sums_rows
from server.report.tables import calibration_rows, contrast_rows, lead_rows, matrix_rows, measure_rows
from server.report.tripod import checklist

_PROTOCOLS = {
    LEAVE_ONE_OUT: ("unseen", "At a center it has never seen", "leave-one-center-out"),
    IN_FEDERATION: ("inside", "Inside the federation", "in-federation"),
}


def render(run: Run) -> str:
    """The whole page as HTML."""
    template = files("server.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return render_page(template, **_context(run))


def _context(run: Run) -> dict[str, Any]:
    curves = {protocol: center_curves(run, protocol) for protocol in run.protocols}
    learning = learning_panels(run)
    shown, unreadable = galleries(run.folder)
    files_absent = sum(center.absent for found in curves.values() for center in found)
    missing = absences(run, files_absent=files_absent, learning=bool(learning), pictures=bool(shown))
    matrix, shown_differences = matrix_rows(run), differences(run)
    terms = GLOSSARY | (OF_TWO_MODELS if shown_differences.models else {})
    return {
        "name": str(run.setting("name") or run.folder.name),
        "question": _question(run),
        "answer": _emphasised(answer(run)),
        "reservations": reservations(run),
        "artificial": sorted(run.artificial),
        "facts": _facts(run),
        "lead": lead_arm(run),
        "deployed": run.deployed,
        "lead_protocol": lead_protocol(run),
        "protocols": [_protocol(run, protocol, curves[protocol]) for protocol in run.protocols],
        "across": across_rows(run),
        "sums": sums_rows(run),
        "sums_decision": sums_decision(run),
        "differences": shown_differences,
        "no_contrast": no_contrast(run),
        "hover_texts": hover_texts,
        "cards": cards(run),
        "repairs": repair_rows(run),
        "checklist": checklist(run),
        "subgroups": subgroup_table(run),
        "subgroups_untold": subgroups_untold(run),
        "matrix": matrix if len(matrix) > 1 else [],
        "matrix_columns": run.sites(LEAVE_ONE_OUT) or run.sites(),
        "learning": learning,
        "learning_arms": [
            arm for arm in run.arms() if any(f'class="arm {arm}"' in picture for _, _, picture in learning)
        ],
        "histograms": histogram_panels(run),
        "descriptors": descriptor_panels(run),
        "galleries": shown,
        "privacy": privacy_section(run),
        "budget": _budget(run),
        "budget_each": count(run.budget.sample_gradients),
        "provenance": _provenance(run),
        "config_text": run.config_text,
        "missing": missing + unreadable,
        "failures": failures(run),
        "glossary": {key: entry for key, entry in terms.items() if key != "artificial" or run.artificial},
        "keys": {arm: _key(arm) for arm in run.arms()},
    }


def _question(run: Run) -> str:
    classes, positive = run.setting("task", "classes"), run.setting("task", "positive")
    if not isinstance(classes, list | tuple) or not classes:
        return ""
    if len(classes) == 2 and positive in classes:
        return f"{positive} against {next(c for c in classes if c != positive)}"
    return ", ".join(str(c) for c in classes)


def _emphasised(sentence: str) -> Markup:
    """The sentence with its first AUC in bold."""
    return Markup(re.sub(r"(AUC (?:\.\d+|1\.00))", r"<strong>\1</strong>", str(escape(sentence)), count=1))


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """(value, what it counts, glossary key) of the strip under the sentence."""
    protocol, arm = lead_protocol(run), lead_arm(run)
    facts = []
    if protocol is not None and arm is not None:
        sites = run.sites(protocol)
        found = [e.rows[0] for site in sites if (e := estimate(run, arm, protocol, site)) is not None]
        facts = [
            (str(len(sites)), f"{run.places(sites)[len(sites) != 1]} tested", "centers"),
            (_total([row.n_patients for row in found]), "test patients", "patients"),
            (_total([row.n_images for row in found]), "test images", "images"),
        ]
    looks = run.setting("evaluation", "looks")
    facts.append((str(len(run.seeds)), "seed" if len(run.seeds) == 1 else "seeds", "seeds"))
    facts.append((str(looks) if isinstance(looks, int) else "–", "earlier looks at these held-out results", "looks"))
    return facts


def _total(values: list[int | None]) -> str:
    there = [value for value in values if value is not None]
    return count(sum(there)) if there and len(there) == len(values) else "–"


def _protocol(run: Run, protocol: str, curves: list[CenterCurves]) -> dict[str, Any]:
    key, title, name = _PROTOCOLS[protocol]
    if protocol == LEAVE_ONE_OUT and set(run.sites(protocol)) <= run.artificial:
        title = "At an artificial site it has never seen"
    return {
        "id": key,
        "key": key,
        "title": title,
        "name": name,
        "arms": run.arms(protocol),
        "whole": "mean" if protocol == LEAVE_ONE_OUT else "together",
        "table": [r for r in lead_rows(run, protocol) if not r.whole or any(c.shown != "–" for c in r.arms)],
        "forest": forest(run, protocol),
        "classes": class_rows(run, protocol),
        "class_names": class_names(run, protocol),
        "measures": measure_rows(run, protocol),
        "calibration": calibration_rows(run, protocol),
        "contrasts": contrast_rows(run, protocol),
        "curves": [center for center in curves if (center.decision if run.deployed else center.roc) is not None],
        "untold": curves_untold(curves),
    }


def _budget(run: Run) -> list[tuple[str, str, str, str]]:
    """(arm, sample gradients in all, times the federated arm's, seconds of training where the records have them)."""
    base = run.budget.per_arm.get("federated")
    made = []
    for arm in (*run.arms(), *(a for a in sorted(run.budget.per_arm) if a not in run.arms())):
        total = run.budget.per_arm.get(arm)
        ratio = f"{total / base:.2f}×" if total is not None and base else "–"
        seconds = [model.seconds for model in run.models if model.arm == arm]
        made.append((arm, count(total), ratio, duration(sum(seconds)) if seconds else "–"))
    return made


def _provenance(run: Run) -> list[tuple[str, str]]:
    p = run.provenance
    state = " with uncommitted changes" if p.dirty else ""
    pairs = [
        ("seeds", ", ".join(str(seed) for seed in run.seeds) or "–"),
        ("commit", f"{p.commit}{state}" if p.commit else "–"),
        ("processor", p.processor or "–"),
        ("device", p.device or "–"),
        ("threads", str(p.threads) if p.threads is not None else "–"),
        ("versions", ", ".join(f"{name} {version}" for name, version in p.versions.items()) or "–"),
    ]
    pairs += [(f"model {name}, SHA-256", digest) for name, digest in p.models.items()]
    return pairs + [(f"data of {site}, SHA-256", digest) for site, digest in p.data.items()]


def _key(arm: str) -> Markup:
    """The arm's marker, for legends."""
    return Markup('<span class="key arm {}">{}</span>').format(
        arm, element("svg", marker(arm, 7, 7, size=5), viewBox="0 0 14 14", aria_hidden="true", class_="figure")
    )

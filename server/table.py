"""A run's result as a few lines for a person at a terminal, and as plain data for a machine."""

from __future__ import annotations

__all__ = ["summary"]

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.files import read_json
from server.paired import FIRST
from server.records import read_records


def summary(run: Path) -> tuple[str, dict[str, Any]]:
    """A table of AUC by arm and site (mean over seeds; the worst center is marked), and the same as data.

    Sites that failed on the way are named below it.
    """
    results = read_json(run / "results.json")
    lines: list[str] = []
    table: list[dict[str, Any]] = []
    for protocol in ("leave-one-center-out", "in-federation"):
        rows = [row for row in results["rows"] if row["protocol"] == protocol]
        if rows:
            lines += ["", *_block(protocol, rows, table)]
    for contrast in results["contrasts"]:
        if contrast["a"] == FIRST:
            lines.append(_paired_line(contrast))
        elif contrast["site"] == "all" and contrast["delta_auc"] is not None:
            lines.append(_contrast_line(contrast))
    artificial = results["provenance"].get("artificial_sites", [])
    if artificial:
        lines.append(f"artificial sites, cut from one center and not real centers: {', '.join(artificial)}")
    if privacy := results.get("privacy"):
        lines += _privacy_lines(privacy)
    failures = {e["site"]: e["why"] for e in read_records(run / "records.jsonl") if e["event"] == "failure"}
    lines += [f"site {site} failed: {why}" for site, why in sorted(failures.items())]
    value = {"run": str(run), "table": table, "contrasts": results["contrasts"], "failures": failures}
    if artificial:
        value["artificial_sites"] = artificial
    if privacy:
        value["privacy"] = privacy
    return "\n".join(lines).strip(), value


def _privacy_lines(privacy: dict[str, Any]) -> Iterable[str]:
    """ε of each site, the dearest model's; an image's beside it where the image is the unit."""
    dearest: dict[str, dict[str, Any]] = {}
    for cost in privacy["sites"]:
        if cost["site"] not in dearest or cost["epsilon"][-1] > dearest[cost["site"]]["epsilon"][-1]:
            dearest[cost["site"]] = cost
    for site, cost in sorted(dearest.items()):
        image = "" if cost["image_epsilon"] is None else f" ({cost['image_epsilon']:.2f} an image)"
        who = "hospital" if privacy["unit"] == "hospital" else "patient"
        yield f"{site}: ε = {cost['epsilon'][-1]:.2f} of a {who}{image}, δ = {cost['delta']:.2g}"
    if privacy["together"]:
        yield "all models together: " + ", ".join(f"{site} {e:.2f}" for site, e in sorted(privacy["together"].items()))
    if privacy["insecure_demo"]:
        yield "INSECURE DEMO: sampling and noise came from the seed; nobody's privacy is protected by this run"


def _block(protocol: str, rows: list[dict[str, Any]], table: list[dict[str, Any]]) -> Iterable[str]:
    sites = [*sorted({row["site"] for row in rows} - {"all"}), "all"]
    arms = [arm for arm in ("federated", "pooled", "ensemble", "local") if any(row["arm"] == arm for row in rows)]
    width = max(10, *(len(site) for site in sites)) + 2
    yield f"AUC, {protocol} (mean over seeds)"
    yield " " * 12 + "".join(site.rjust(width) for site in sites)
    for arm in arms:
        means = {site: _mean(row["auc"] for row in rows if row["arm"] == arm and row["site"] == site) for site in sites}
        known = {site: value for site, value in means.items() if value is not None and site != "all"}
        worst = min(known, key=lambda site: known[site]) if known else None
        table.append({"protocol": protocol, "arm": arm, "auc": means, "worst": worst})
        cells = ("–" if (v := means[site]) is None else f"{v:.3f}{'*' if site == worst else ' '}" for site in sites)
        yield arm.ljust(12) + "".join(cell.rjust(width) for cell in cells)


def _contrast_line(contrast: dict[str, Any]) -> str:
    interval = (
        ""
        if contrast["low"] is None
        else f" ({contrast['low']:+.3f} to {contrast['high']:+.3f}, p = {contrast['p']:.3f})"
    )
    return f"{contrast['a']} − {contrast['b']}, {contrast['protocol']}: {contrast['delta_auc']:+.3f}{interval}"


def _paired_line(contrast: dict[str, Any]) -> str:
    """Two models at one site, or at all."""
    if contrast["delta_auc"] is None:
        return f"{contrast['a']} − {contrast['b']}, {contrast['site']}: – ({contrast['why']})"
    bound = contrast["bound_federated"]
    off = "" if bound is None else f", from sums, off by {bound:.4f} at most"
    why = f" ({contrast['why']})" if contrast["why"] else ""
    return f"{_contrast_line(contrast)}{why}, {contrast['site']}{off}"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

"""What the report says of shift and of sums alone: cards, AUC with its largest error,
the paired test beside the bootstrap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.page.drawing import Scale
from server.report import write_report
from server.report.decision import _within
from tests.server.report_folder import Folder
from tests.server.test_report import Page

_AXES = {"acquisition": 0.0004, "prevalence": 0.4, "case mix": 0.7}
_CARD: dict[str, Any] = {
    "site": "u-systems", "n_patients": 240, "against": ["ge-logiq-5"], "verdict": "acquisition",
    "causes": ["acquisition", "prevalence"], "p": 0.0004, "p_by_axis": _AXES,
    "along": [{"name": "mean gray", "difference": -1.2, "z": -9.0}],
    "shares": [0.6, 0.4], "shares_reference": [0.7, 0.3], "discrepancy": 0.012,
    "classifier": {"auc": 0.71, "p": 0.02}, "frechet": {"distance": 2.5, "usual": 1.1, "p": 0.005},
    "how_far": "It differs <b>much</b>.", "along_what": "Mean gray.", "what_it_did": "AUC fell.", "what_to_do": "Look.",
}  # fmt: skip


def read(root: Path, *, shift: list[dict[str, Any]] | None = None, **of_all: Any) -> tuple[str, Page]:
    folder = Folder(root, seeds=1).comparison()
    for row in folder.rows:
        if (row["site"], row["protocol"]) == ("all", "in-federation"):
            row |= of_all
    for one in folder.contrasts:
        if (one["site"], one["protocol"]) == ("all", "in-federation"):
            one |= {"delta_federated": -0.0125, "low_federated": -0.03, "high_federated": 0.004, "p_federated": 0.16}
    run = folder.write()
    results = json.loads((run / "results.json").read_text())
    results["shift"] = shift or []
    (run / "results.json").write_text(json.dumps(results))
    html = write_report(run).read_text(encoding="utf-8")
    return html, Page(html)


def test_a_center_that_differs_comes_first_and_one_with_too_few_says_so(tmp_path: Path) -> None:
    none = _CARD | {"site": "a-site", "verdict": "none", "causes": [], "p_by_axis": dict.fromkeys(_AXES, 1.0)}
    few = {"site": "b-site", "n_patients": 9, "why": "too-few"}
    html, page = read(tmp_path, shift=[none, few, _CARD])
    places = [html.index(f'data-site="{site}"') for site in ("u-systems", "a-site", "b-site")]
    assert places == sorted(places)
    words = " ".join(" ".join(page.words).split())
    assert "acquisition and prevalence" in words
    assert "no shift shown" in words
    assert "texture by center" not in words
    assert "Shift cards: u-systems differs." in words
    assert "not compared: fewer patients than a comparison needs" in words
    assert "p < .001" in words
    assert "−1.20 SD, z −9.0" in words
    assert "share malignant 40 %, elsewhere 30 %" in words
    assert "2.50; without shift below 1.10, p .005" in words
    assert "<b>much</b>" not in html


def test_two_centers_that_only_have_each_other_share_the_verdict(tmp_path: Path) -> None:
    pair = [_CARD | {"site": site, "or_other": other} for site, other in (("a-site", "b-site"), ("b-site", "a-site"))]
    _, page = read(tmp_path, shift=[*pair, _CARD])
    words = " ".join(" ".join(page.words).split())
    assert "acquisition and prevalence, here or at b-site" in words
    assert "Shift cards: u-systems differs and a-site or b-site differs, the data cannot tell which." in words


def test_without_cards_the_page_says_so(tmp_path: Path) -> None:
    html, _ = read(tmp_path)
    assert 'id="cards"' not in html
    assert "There are no shift cards" in html


@pytest.mark.parametrize(("bound", "coarse"), [(0.004, False), (0.2, True)])
def test_sums_are_shown_with_their_largest_error(tmp_path: Path, bound: float, coarse: bool) -> None:
    """An interval narrower than the error of its middle would claim too much:
    it is left out, in the paired test too.
    """
    told = {
        "auc_federated": 0.8123,
        "auc_federated_bound": bound,
        "auc_federated_low": 0.77,
        "auc_federated_high": 0.85,
    }
    sites = {"auc_mean_of_sites": 0.79, "auc_mean_of_sites_low": 0.74, "auc_mean_of_sites_high": 0.84}
    _, page = read(tmp_path, **told, **sites, suppressed=["u-systems"])
    rows = page.tables["sums", "in-federation"][1:]
    assert [row[0].strip() for row in rows] == ["Federated", "Pooled", "Local", "Ensemble"]
    for row in rows:
        assert row[1].split() == (".812 cells too coarse for an interval" if coarse else ".812 .770–.850").split()
        assert row[2] == f"{bound:.4f}".removeprefix("0")
        assert row[4].split() == [".790", ".740–.840"]
        assert row[5] == "u-systems"
    paired = {row[0]: row[-1].split() for row in page.tables["contrasts", "in-federation"] if row[1].startswith("All")}
    exact = ["−.013", "−.030", "to", ".004,", "p", ".160"]
    assert paired == {"pooled": ["–", "cells", "too", "coarse"] if coarse else exact, "local": exact}


@pytest.mark.parametrize(("bound", "why"), [(0.18, "coarse"), (0.004, "from-sums")])
def test_what_a_deployed_run_knows_from_sums_is_not_called_exact(tmp_path: Path, bound: float, why: str) -> None:
    """No prediction left a site: the AUC of all cases is the one from sums, and says how far it may be off."""
    folder, ends = Folder(tmp_path, seeds=1), ({} if why == "coarse" else {"auc_low": 0.77, "auc_high": 0.85})
    for site in folder.sites:
        folder.row("federated", "in-federation", 0, site, folder.sites)
    told = {"auc": 0.81, "auc_low": None, "auc_high": None, "auc_federated": 0.81, "auc_federated_bound": bound} | ends
    folder.row("federated", "in-federation", 0, "all", folder.sites, **told, why=why, auc_federated_why=why)
    html = write_report(folder.write()).read_text(encoding="utf-8")
    page = Page(html)
    shown = f"{bound}".removeprefix("0")
    (row,) = page.tables["sums", "in-federation"][1:]
    assert row[1].split()[0] == ".810"
    assert row[3].split() == ["–", "no", "prediction", "left", "a", "site"]
    for table in ("lead", "measures"):
        whole = next(cells for cells in page.tables[table, "in-federation"] if cells[0].startswith("All cases"))
        assert f"from sums, ± {shown}" in " ".join(" ".join(whole).split())
    assert f"AUC .81</strong> on test patients (from sums, ± {shown}; " in html


def test_a_decision_curve_from_sums_is_drawn_and_said(tmp_path: Path) -> None:
    """Means over seeds of the rows' points; share .4 gives the frame its top; no band, and why."""
    points = [
        {"threshold": t / 20, "model": 0.4 - 0.3 * t / 20, "everybody": 0.4 - 0.6 * t / (20 - t)} for t in range(1, 20)
    ]
    html, page = read(tmp_path, auc_federated=0.8, net_benefit=points)
    words = " ".join("".join(page.words).split())
    assert "Net benefit over all centers" in html
    assert "federated, net benefit: .37 at .1, .34 at .2, .31 at .3, .25 at .5" in words
    assert "No intervals: they would need sums by patient at every threshold probability" in words
    assert "Net benefit over all centers" not in read(tmp_path / "without", auc_federated=0.8)[0]


def test_a_line_that_leaves_the_frame_is_not_drawn_along_its_edge() -> None:
    y = Scale(-0.1, 0.4, 206.0, 6.0)
    parts = _within([(0.0, 0.3), (0.2, 0.1), (0.4, -0.3), (0.6, -0.3), (0.8, 0.1), (1.0, 0.0)], y)
    assert [len(part) for part in parts] == [3, 3]
    assert parts[0][-1][1] == parts[1][0][1] == y(-0.1)
    assert parts[0][-1][0] == pytest.approx(34 + 200 * 0.3)
    assert parts[1][0][0] == pytest.approx(34 + 200 * 0.7)
    assert _within([(0.0, -1.0), (1.0, -1.0)], y) == []

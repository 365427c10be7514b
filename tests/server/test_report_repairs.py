"""The report's table of repairs: the unrepaired row first, a reason where there is none, nowhere else on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.report import write_report
from tests.server.report_folder import SITES, Folder
from tests.server.test_report import Page

_ABOUT: dict[str, Any] = {"arm": "federated", "protocol": "leave-one-center-out", "seed": 0, "site": SITES[0],
                          "trained_on": list(SITES[1:]), "why": None}  # fmt: skip
_ROWS: list[dict[str, Any]] = [
    {"repair": "none", "auc": 0.81, "auc_low": 0.7, "auc_high": 0.9, "brier": 0.17, "calibration_slope": 0.5,
     "calibration_intercept": -0.75},
    {"repair": "intensity", "auc": 0.84, "delta_auc": 0.0312, "delta_low": 0.0101, "delta_high": 0.05, "p": 0.004,
     "brier": 0.15, "reference": list(SITES[1:])},
    {"repair": "batch-statistics", "why": "no-batch-norm"},
    {"repair": "prior", "auc": 0.81, "delta_auc": 0.0, "delta_low": 0.0, "delta_high": 0.0, "p": 1.0, "brier": 0.16,
     "prior": [0.45, 0.55]},
    {"repair": "of-a-later-release", "auc": 0.99, "brier": 0.01},
]  # fmt: skip


def read(root: Path, repairs: list[dict[str, Any]]) -> tuple[str, Page]:
    folder = Folder(root, seeds=1).comparison()
    for row in folder.rows:
        row |= {"observed": 30}
    run = folder.write()
    results = json.loads((run / "results.json").read_text())
    results["repairs"] = [_ABOUT | row for row in repairs]
    (run / "results.json").write_text(json.dumps(results))
    html = write_report(run).read_text(encoding="utf-8")
    return html, Page(html)


def test_repairs_stand_below_the_unrepaired_row(tmp_path: Path) -> None:
    html, page = read(tmp_path, _ROWS)
    body = [[" ".join(cell.split()) for cell in line] for line in page.tables["repairs", ""][1:]]
    assert body == [
        [SITES[0], "Unrepaired", ".81 .70–.90", "", "", ".170", ".50", "−.75", ""],
        ["Intensity harmonised", ".84", "+.031 .010 to .050", ".004", ".150", "–", "–", ""],
        ["Batch statistics adapted", "– the model has no batch normalisation"],
        ["Prior recalibrated", ".81", ".000 .000 to .000", "1.000", ".160", "–", "–", ".55 observed .25"],
    ]
    assert "A repair is never used in the tables above" in html
    without, _ = read(tmp_path / "without", [])
    assert 'id="repairs"' not in without
    assert "Repair without labels was not measured" in without


def test_no_other_table_of_results_knows_of_repairs(tmp_path: Path) -> None:
    _, with_them = read(tmp_path / "with", _ROWS)
    _, without = read(tmp_path / "without", [])
    del with_them.tables["repairs", ""]
    for page in (with_them, without):
        del page.tables["tripod", ""]  # says that there are such
    assert with_them.tables == without.tables

"""The TRIPOD+AI table says what the page shows, and what only people know it leaves to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server.report.reading import read_run
from server.report.tripod import checklist
from tests.server.report_folder import SITES, Folder


def answers(root: Path, *, crop: dict[str, Any] | None = None, **results: Any) -> dict[str, str]:
    run = Folder(root, seeds=1).comparison().write(**({} if crop is None else {"crop": crop}))
    (run / "results.json").write_text(json.dumps(json.loads((run / "results.json").read_text()) | results))
    return {row.item: row.answer for row in checklist(read_run(run))}


def repaired(repair: str, why: str | None = None) -> dict[str, Any]:
    about = {"arm": "federated", "protocol": "leave-one-center-out", "seed": 0, "trained_on": list(SITES[1:])}
    return about | {"site": SITES[0], "repair": repair, "why": why, "auc": None if why else 0.8}


def test_a_recalibration_on_the_page_is_not_denied(tmp_path: Path) -> None:
    tried = [repaired("none"), repaired("prior"), repaired("batch-statistics", "no-batch-norm")]
    found = answers(tmp_path / "tried", repairs=tried)
    assert "not updated" not in found["12f"] + found["24"]
    assert "beside the unrepaired result: prior recalibrated; see Repair without labels" in found["12f"]
    assert found["24"] == "See Repair without labels."
    for number, repairs in enumerate(([], [repaired("none"), repaired("batch-statistics", "no-batch-norm")])):
        found = answers(tmp_path / str(number), repairs=repairs)
        assert found["12f"] == found["24"] == "None: the models were not updated or recalibrated after evaluation."


def test_a_crop_around_the_lesion_rests_on_what_somebody_drew(tmp_path: Path) -> None:
    lesion = answers(tmp_path / "lesion", crop={"region": "lesion", "size": 64})
    assert "A mask or box" in lesion["9b"]
    assert "alone" not in lesion["9b"]
    assert lesion["9c"].endswith("Who drew it, and what they knew: the authors must state.")
    frame = answers(tmp_path / "frame", crop={"region": "frame", "size": 64})
    assert frame["9b"].startswith("The image alone")
    assert frame["9c"] == ""
    assert answers(tmp_path / "unknown")["9b"] == ""


def test_results_by_group_are_results_and_no_fairness_method(tmp_path: Path) -> None:
    group = {"arm": "federated", "protocol": "leave-one-center-out", "seed": 0, "site": SITES[0], "covariate": "sex",
             "level": "f", "n_images": 40, "n_patients": 30, "n_positive": 9, "auc": 0.8}  # fmt: skip
    found = answers(tmp_path / "with", subgroups=[group])
    assert found["14"] == ""
    assert found["23a"].endswith("By group: see Groups of patients. Why these groups: the authors must state.")
    assert "group" not in answers(tmp_path / "without")["23a"]

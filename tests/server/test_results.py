"""`results.json` and the terminal's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import BadInput
from common.files import read_json
from common.provenance import provenance
from server.results import Row, write_results
from server.table import summary
from tests.conftest import Compared

CONTRACT = {
    *("arm", "protocol", "seed", "site", "held_out", "trained_on", "predictions", "n_images", "n_patients"),
    *("auc", "auc_low", "auc_high", "auc_patient", "sensitivity", "specificity", "calibration_slope"),
    *("calibration_intercept", "brier", "ece", "why"),
}


def row(arm: str, site: str, auc: float | None, protocol: str = "leave-one-center-out", seed: int = 0) -> Row:
    numbers = (auc, None, None, None, auc, None, None, None, None, None, None, None)
    return Row(arm, protocol, seed, site, True, ("x",), None, 3, 2, *numbers, None if auc else "one-class")


def write(folder: Path, rows: list[Row]) -> Path:
    about = provenance(threads=1, data={})
    return write_results(folder, config={}, budget={}, provenance=about, rows=rows, contrasts=[])


def test_rows_have_the_contracts_keys_and_absence_is_null(tmp_path: Path) -> None:
    document = read_json(write(tmp_path, [row("federated", "ash", None)]))
    assert document.keys() == {"config", "budget", "provenance", "rows", "contrasts", "meta", "subgroups"}
    assert document["rows"][0].keys() >= CONTRACT
    assert document["rows"][0]["auc"] is None


def test_a_number_that_is_none_of_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write(tmp_path, [row("federated", "ash", float("nan"))])
    assert not (tmp_path / "results.json").exists()


def test_the_table_marks_the_worst_center_of_the_means_over_seeds(tmp_path: Path) -> None:
    areas = {("ash", 0): 0.6, ("ash", 1): 0.9, ("birch", 0): 0.7, ("birch", 1): 0.7, ("all", 0): 0.65, ("all", 1): 0.8}
    write(tmp_path, [row("federated", site, auc, seed=seed) for (site, seed), auc in areas.items()])
    text, value = summary(tmp_path)
    assert value["table"][0]["worst"] == "birch"
    assert value["table"][0]["auc"] == pytest.approx({"ash": 0.75, "birch": 0.7, "all": 0.725})
    assert "0.700*" in text
    assert "0.750*" not in text


def test_the_table_shows_a_dash_for_what_is_absent(tmp_path: Path) -> None:
    write(tmp_path, [row("local", "ash", None), row("local", "birch", 0.5), row("local", "all", None)])
    assert "–" in summary(tmp_path)[0]


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"results\.json is missing"):
        summary(tmp_path)


def test_a_comparisons_document_is_complete(compared: Compared) -> None:
    document = compared.results
    assert document.keys() == {
        "config",
        "budget",
        "provenance",
        "rows",
        "contrasts",
        "meta",
        "subgroups",
        "shift",
        "repairs",
    }
    assert document["provenance"].keys() == {*("commit", "dirty", "versions", "processor", "device", "threads", "data")}
    assert set(document["provenance"]["data"]) == {"ash", "birch", "cedar", "yew"}
    assert all(entry.keys() >= CONTRACT for entry in document["rows"])
    for contrast in document["contrasts"]:
        assert contrast.keys() >= {"a", "b", "protocol", "site", "delta_auc", "low", "high", "p"}
    assert [site["id"] for site in document["config"]["sites"]] == ["ash", "birch", "cedar", "yew"]
    text, _ = summary(compared.run)
    assert "federated − pooled" in text

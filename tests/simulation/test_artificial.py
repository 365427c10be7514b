"""Artificial sites: from site.toml over the wire to results.json, the report, the model card and the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.manifest import load_manifest
from client.service import answer_query
from client.site import load_site
from common.config import Experiment
from common.errors import BadInput
from common.files import read_json
from common.parsing import parse
from server.model_card import write_model_card
from server.table import summary
from simulation.compare import compare
from simulation.run import run
from simulation.sources import open_sites
from tests.experiments import COMPARISON, experiment_table, write_uneven_sites

SAID = "cut from one center, not real centers"


def sites(tmp_path: Path, *artificial: str) -> list[Path]:
    folders = write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 32, "oak": 32})
    for folder in folders:
        if folder.name in artificial:
            text = (folder / "site.toml").read_text(encoding="utf-8")
            (folder / "site.toml").write_text(f"artificial = true\n{text}", encoding="utf-8")
    return folders


def asked(folders: list[Path], **changes: object) -> Experiment:
    return parse(Experiment, experiment_table(folders, **changes), where="test")


def test_a_run_says_which_sites_are_artificial(tmp_path: Path) -> None:
    folders = sites(tmp_path, "ash", "birch")
    assert [answer_query(load_site(folder)).artificial for folder in folders] == [True, True, False]
    page = run(asked(folders), tmp_path / "run").read_text(encoding="utf-8")
    assert read_json(tmp_path / "run/results.json")["provenance"]["artificial_sites"] == ["ash", "birch"]
    assert f"Artificial sites: ash and birch; {SAID}" in page
    assert page.count('class="badge quiet"><span class="term"') >= 2
    card = write_model_card(tmp_path / "run").read_text(encoding="utf-8")
    assert "- ash: train; artificial, cut from one center" in card
    assert "- oak: train; data" in card
    text, value = summary(tmp_path / "run")
    assert "artificial sites, cut from one center and not real centers: ash, birch" in text
    assert value["artificial_sites"] == ["ash", "birch"]


def test_a_comparison_of_artificial_sites_calls_none_of_them_a_center(tmp_path: Path) -> None:
    folders = sites(tmp_path, "ash", "birch", "oak")
    changes = COMPARISON | {"comparison": {"pictures": 0, "arms": ["federated"]}}
    page = compare(asked(folders, **changes), tmp_path / "run").read_text(encoding="utf-8")
    assert read_json(tmp_path / "run/results.json")["provenance"]["artificial_sites"] == ["ash", "birch", "oak"]
    assert "At an artificial site it has never seen, the" in page
    assert "mean of 3 artificial sites, each left out in turn" in page
    assert "At a center it has never seen" not in page
    assert "ash (artificial)" in page
    assert SAID in page


def test_natural_sites_are_called_nothing_else(tmp_path: Path) -> None:
    page = run(asked(sites(tmp_path)), tmp_path / "run").read_text(encoding="utf-8")
    assert "artificial" not in page.lower()
    assert "artificial_sites" not in read_json(tmp_path / "run/results.json")["provenance"]
    assert not load_manifest(tmp_path / "sites/ash").artificial


def test_a_margin_in_millimetres_needs_every_sites_spacing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"site ash: cases.csv row 2: no spacing_mm, which crop.margin_mm needs"):
        open_sites(asked(sites(tmp_path), crop={"margin_mm": 5}))

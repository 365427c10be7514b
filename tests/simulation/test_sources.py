"""An experiment's data: site folders, data sets imported on demand, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from common.config import Experiment
from common.errors import BadInput
from common.parsing import parse
from simulation import sources
from simulation.sources import open_sites
from tests.experiments import experiment_table, write_uneven_sites


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    return write_uneven_sites(tmp_path / "sites", {"birch": 16, "ash": 16})


def asked(folders: list[Path], **changes: Any) -> Experiment:
    return parse(Experiment, experiment_table(folders, **changes), where="test")


def test_sites_come_by_id_whatever_their_order(sites: list[Path]) -> None:
    assert list(open_sites(asked(sites))) == list(open_sites(asked(sites[::-1]))) == ["ash", "birch"]


def test_roles_can_be_tightened_by_the_experiment(sites: list[Path]) -> None:
    assert open_sites(asked(sites, held_out=["ash"]))["ash"].role == "held-out"
    table = experiment_table(sites)
    table["sites"][0]["role"] = "held-out"
    assert {name: site.role for name, site in open_sites(parse(Experiment, table, where="t")).items()} == {
        "ash": "train",
        "birch": "held-out",
    }


def test_what_is_refused(sites: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="names no data"):
        open_sites(asked([]))
    with pytest.raises(BadInput, match="site ash is named twice"):
        open_sites(asked([*sites, sites[1]]))
    with pytest.raises(BadInput, match="no site is called oak; known are ash, birch"):
        open_sites(asked(sites, held_out=["oak"]))
    with pytest.raises(BadInput, match="no site folder"):
        open_sites(asked([tmp_path / "none"]))
    with pytest.raises(BadInput, match="site birch: its task is lump with classes benign, malignant"):
        open_sites(asked(sites, task={"classes": ["malignant", "benign"]}))


@pytest.fixture
def imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Imports, counted: the importer is replaced by one that writes two small sites."""
    calls: list[Path] = []

    def importing(_format: str, source: Path, parent: Path, **_: Any) -> list[Any]:
        assert not any((parent / name).exists() for name in ("ash", "birch")), "as import_site, it overwrites nothing"
        calls.append(source)
        write_uneven_sites(parent, {"ash": 16, "birch": 16})
        return [type("Summary", (), {"site": name})() for name in ("ash", "birch")]

    monkeypatch.setattr(sources, "import_site", importing)
    monkeypatch.setenv("SONOFED_CACHE", str(tmp_path / "cache"))
    return calls


def from_source(path: Path) -> Experiment:
    return asked([], sources=[{"format": "lymphus", "path": str(path)}])


def test_a_source_is_imported_once_and_again_when_it_changes(tmp_path: Path, imports: list[Path]) -> None:
    archive = tmp_path / "center.zip"
    archive.write_bytes(b"first")
    assert list(open_sites(from_source(archive))) == ["ash", "birch"]
    open_sites(from_source(archive))
    assert len(imports) == 1
    archive.write_bytes(b"changed")
    open_sites(from_source(archive))
    assert len(imports) == 2


def test_archives_that_differ_in_name_alone_are_two(tmp_path: Path, imports: list[Path]) -> None:
    for name in ("one.zip", "two.zip"):
        (tmp_path / name).write_bytes(b"same")
        os.utime(tmp_path / name, ns=(10**18, 10**18))
        open_sites(from_source(tmp_path / name))
    assert len(imports) == 2


def test_an_import_that_stops_half_way_is_made_again(
    tmp_path: Path, imports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "center.zip"
    archive.write_bytes(b"first")

    def stopping(_format: str, _source: Path, parent: Path, **_: Any) -> list[Any]:
        write_uneven_sites(parent, {"ash": 16})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sources, "import_site", stopping)
        with pytest.raises(KeyboardInterrupt):
            open_sites(from_source(archive))
    assert list(open_sites(from_source(archive))) == ["ash", "birch"]
    assert len(imports) == 1


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder; it is relative to the working directory"):
        open_sites(from_source(tmp_path / "none.zip"))

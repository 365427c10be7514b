"""`simulation run`: one federated run, its folder, going on after a kill, and how it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.files import claimed, read_json, sha256_bytes
from common.weights import fingerprint, load
from server.records import read_records
from simulation.__main__ import main
from tests.experiments import write_experiment, write_uneven_sites


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    return write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 48, "cedar": 32})


def run(config: Path, out: Path, *more: str) -> int:
    return main(["run", str(config), "--out", str(out), *more])


def test_a_run_twice_gives_the_same_bytes(tmp_path: Path, sites: list[Path]) -> None:
    config = write_experiment(tmp_path / "tiny.toml", sites, held_out=["cedar"])
    for name in ("one", "two"):
        assert run(config, tmp_path / name) == 0
    for name in ("results.json", "config.toml", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    rows = read_json(tmp_path / "one" / "results.json")["rows"]
    assert {row["site"]: row["held_out"] for row in rows} == {
        "ash": False, "birch": False, "cedar": True, "all": False
    }  # fmt: skip
    assert all(row["trained_on"] == ["ash", "birch"] for row in rows)
    assert (tmp_path / "one" / "report.html").stat().st_size > 1000


def test_another_seed_gives_other_weights_but_the_same_split(tmp_path: Path, sites: list[Path]) -> None:
    for seed in (0, 1):
        assert run(write_experiment(tmp_path / f"{seed}.toml", sites, seed=seed), tmp_path / str(seed)) == 0
    assert fingerprint(load(tmp_path / "0" / "model.safetensors")) != fingerprint(
        load(tmp_path / "1" / "model.safetensors")
    )
    counts = [[row["n_images"] for row in read_json(tmp_path / name / "results.json")["rows"]] for name in "01"]
    assert counts[0] == counts[1]


def test_leave_one_center_out_tests_the_held_out_center_only(tmp_path: Path, sites: list[Path]) -> None:
    """The training centers' test patients have trained: a number on them would be dressed up."""
    config = write_experiment(tmp_path / "a.toml", sites, held_out=["birch"], protocol="leave-one-center-out")
    assert run(config, tmp_path / "run") == 0
    rows = read_json(tmp_path / "run" / "results.json")["rows"]
    assert [(row["site"], row["n_images"]) for row in rows] == [("birch", 48)]


def test_a_folder_in_use_is_left_alone(tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    config = write_experiment(tmp_path / "tiny.toml", sites)
    assert run(config, tmp_path / "run") == 0
    before = _bytes(tmp_path / "run")
    assert run(config, tmp_path / "run") == 2
    assert "not empty; add --resume to go on" in capsys.readouterr().err
    assert run(write_experiment(tmp_path / "b.toml", sites, seed=7), tmp_path / "run", "--resume") == 2
    assert "another configuration" in capsys.readouterr().err
    assert main(["compare", str(config), "--out", str(tmp_path / "run")]) == 2
    assert _bytes(tmp_path / "run") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("…")
    assert run(config, tmp_path / "mine", "--resume") == 2
    assert run(config, tmp_path / "mine" / "thesis.txt", "--resume") == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("verb", ["run", "compare"])
def test_a_folder_that_another_process_works_in(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    config = write_experiment(tmp_path / "tiny.toml", sites)
    with claimed(tmp_path / "run" / ".lock", complaint="of the test itself"):
        assert main([verb, str(config), "--out", str(tmp_path / "run")]) == 2
    assert "another process works in this folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_run_in_which_nobody_learned_fails_and_names_the_sites(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for site in sites:
        _damage(site)
    assert run(write_experiment(tmp_path / "tiny.toml", sites), tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no site trained" in error
    for site in sites:
        assert f"{site.name}: site {site.name}: cases.csv row 2: its image is not what was imported" in error
    assert str(tmp_path) not in error
    events = read_records(tmp_path / "run" / "records.jsonl")
    assert (events[-1]["event"], events[-1]["ok"], events[-1]["exit_code"]) == ("end", False, 1)
    assert not (tmp_path / "run" / "results.json").exists()


def test_one_site_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _damage(sites[1])
    assert run(write_experiment(tmp_path / "tiny.toml", sites), tmp_path / "run") == 0
    assert "site birch failed: site birch: cases.csv row 2" in capsys.readouterr().out
    events = read_records(tmp_path / "run" / "records.jsonl")
    assert {event["site"] for event in events if event["event"] == "train"} == {"ash", "cedar"}
    assert set(events[-1]["failures"]) == {"birch"}
    assert {row["site"] for row in read_json(tmp_path / "run" / "results.json")["rows"]} == {"ash", "cedar", "all"}


def test_a_comparison_does_not_go_on_without_a_site(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A federated arm that lost a site is no fair arm: it fails by name, and starts anew once the site is well."""
    comparison = {"arms": ["federated"], "protocols": ["in-federation"], "pictures": 0}
    config = write_experiment(tmp_path / "tiny.toml", sites, comparison=comparison, evaluation={"draws": 20})
    assert main(["compare", str(config), "--out", str(tmp_path / "whole")]) == 0
    from client import service

    real = service.load_crops

    def failing(site: object, crop: object) -> object:
        if getattr(site, "id", "") == "birch" and failing.calls > 2:  # type: ignore[attr-defined]
            raise OSError(5, "the disk is gone")
        failing.calls += 1  # type: ignore[attr-defined]
        return real(site, crop)  # type: ignore[arg-type]

    failing.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(service, "load_crops", failing)
    assert main(["compare", str(config), "--out", str(tmp_path / "torn")]) == 1
    said = capsys.readouterr().err
    assert "federated/in-federation/seed-0: site birch failed: OSError at the site" in said
    monkeypatch.undo()
    assert main(["compare", str(config), "--out", str(tmp_path / "torn")]) == 0
    one, other = (tmp_path / name / "results.json" for name in ("whole", "torn"))
    assert one.read_bytes() == other.read_bytes()


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, sites: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"rounds": 4, "steps": 12, "average": 0.5}
    config = write_experiment(tmp_path / "tiny.toml", sites, training=training, evaluation={"select": "best"})
    assert run(config, tmp_path / "whole") == 0
    from server import rounds

    real, stops = rounds.store, iter([True, False, True])

    def stopping(*arguments: object, **named: object) -> None:
        if next(stops, False):
            raise KeyboardInterrupt
        real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(rounds, "store", stopping)
    assert run(config, tmp_path / "torn") == 130
    assert run(config, tmp_path / "torn", "--resume") == 130
    assert run(config, tmp_path / "torn", "--resume") == 0
    for name in ("results.json", "model.safetensors"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def _damage(site: Path) -> None:
    image = site / "images" / "000000.png"
    image.write_bytes(image.read_bytes()[:50])


def _bytes(folder: Path) -> dict[str, str]:
    return {str(path): sha256_bytes(path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}

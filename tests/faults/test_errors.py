"""Mistakes at the command line: one line on standard error, exit 2, nothing half-written, no traceback."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from common.files import sha256_bytes
from simulation.__main__ import main
from tests.experiments import command, write_experiment, write_uneven_sites


def edit(site: Path, row: int, **values: str) -> None:
    with (site / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[row - 2].update(values)
    with (site / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def truncate(site: Path) -> None:
    """The second picture loses its end; its checksum is that of what is left, so that only decoding can tell."""
    path = site / "images" / "000001.png"
    path.write_bytes(path.read_bytes()[:-60])
    edit(site, 3, image_sha256=sha256_bytes(path.read_bytes()))


def other_classes(site: Path) -> None:
    text = (site / "site.toml").read_text(encoding="utf-8")
    (site / "site.toml").write_text(text.replace('"benign", "malignant"', '"benign", "malignant", "cyst"'))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a patient on two sides": (
        lambda site: edit(site, 2, split="test"),
        "site birch: cases.csv row 4: a patient on two sides of the split (train here, test in row 2)",
    ),
    "a missing picture": (
        lambda site: (site / "images" / "000002.png").unlink(),
        "site birch: cases.csv row 4: its image is missing",
    ),
    "a missing mask": (
        lambda site: edit(site, 3, mask="masks/000001.png", mask_sha256="0" * 64),
        "site birch: cases.csv row 3: its mask is missing",
    ),
    "a truncated picture": (truncate, "site birch: cases.csv row 3: image"),
    "another set of classes": (other_classes, "site birch: its task is lump with classes benign, malignant, cyst"),
    "a label of no class": (lambda site: edit(site, 2, label="bening"), "(did you mean benign?)"),
    "a path out of the folder": (lambda site: edit(site, 2, image="../ash/images/000000.png"), "lies outside the site"),
    "an unknown key": (
        lambda site: (site / "site.toml").write_text("nominal_patient = 3\n" + (site / "site.toml").read_text()),
        "nominal_patient: unexpected key (did you mean nominal_patients?)",
    ),
    "no site at all": (lambda site: (site / "site.toml").unlink(), "no site folder (site.toml is missing)"),
}


@pytest.mark.parametrize("how", list(BROKEN))
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_a_broken_site_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, verb: str) -> None:
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 32})
    damage, said = BROKEN[how]
    damage(sites[1])
    out = tmp_path / "run"
    code = main([verb, str(write_experiment(tmp_path / "tiny.toml", sites)), "--out", str(out)])
    shown, error = capsys.readouterr()
    if verb == "run" and how == "a truncated picture":  # the site itself finds it: it is named, and the other goes on
        assert code == 0
        assert f"site birch failed: {said}" in shown
        return
    assert said in error
    assert code == 2
    assert error.count("\n") == 1
    assert not (out / "results.json").exists()
    assert how == "a truncated picture" or not out.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"strategy": {"kind": "fedprox", "nu": 1}},
            "tiny.toml: strategy.fedprox.nu: unexpected key (did you mean mu?)",
        ),
        ({"training": {"steps": 3, "rounds": 2}}, "1 steps a round are too few for 2 sites"),
        ({"training": {"steps": 1, "rounds": 2}}, "1 steps cannot be divided over 2 rounds"),
        ({"held_out": ["ash", "birch"]}, "every site is held out; at least one must train"),
        ({"held_out": ["oak"]}, "held_out: no site is called oak; known are ash, birch"),
        ({"model": {"weights": "none.safetensors"}}, "none.safetensors: no such"),
        ({"sites": None}, "the experiment names no data"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "compare"])
def test_a_configuration_that_cannot_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], said: str, verb: str
) -> None:
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 16, "birch": 16})
    config = write_experiment(tmp_path / "tiny.toml", sites, **changes)
    assert main([verb, str(config), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_no_traceback_reaches_the_terminal(tmp_path: Path) -> None:
    """The same through a process of its own, as a person sees it."""
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 16})
    config = write_experiment(tmp_path / "tiny.toml", sites, modle={"backbone": "small"})
    done = command("simulation", "run", config, "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: tiny.toml: modle: unexpected key (did you mean model?)\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("room", "arguments"),
    [
        ("server", ["report", "{folder}/nowhere"]),
        ("server", ["report", "{config}"]),
        ("client", ["import", "lymphus", "{config}", "--out", "{folder}/mine"]),
        ("client", ["import", "limphus", "{config}", "--out", "{folder}/mine"]),
        ("simulation", ["compare", "{config}", "--out", "{folder}/mine", "--seeds", "0"]),
        ("simulation", ["compare", "{config}", "--out", "{folder}/mine", "--arms", "swarm"]),
        ("simulation", ["compare", "{config}", "--out", "{config}"]),
        ("simulation", ["run", "{folder}/none.toml", "--out", "{folder}/mine"]),
        ("server", ["run", "{config}", "--out", "{folder}/mine"]),
        ("server", ["evaluate", "{config}", "{config}", "--out", "{folder}/mine"]),
        ("server", ["evaluate", "{folder}/none", "{config}", "--out", "{folder}/mine"]),
    ],
)
def test_each_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], room: str, arguments: list[str]
) -> None:
    config = write_experiment(tmp_path / "tiny.toml", write_uneven_sites(tmp_path / "sites", {"ash": 32}))
    filled = [argument.format(config=config, folder=tmp_path) for argument in arguments]
    assert importlib.import_module(f"{room}.__main__").main(filled) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "mine").exists()

"""Privacy in the round loop: spent, shown and recorded before anything leaves,
and nothing that follows from a count.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from client.ledger import read_entries
from client.manifest import load_manifest
from client.service import open_site
from client.spending import account_of
from common.files import read_json
from common.privacy import epsilon
from common.weights import fingerprint, load
from server.records import read_records
from simulation.__main__ import main
from tests.experiments import COMPARISON, write_experiment, write_uneven_sites

PRIVACY: dict[str, Any] = {
    "privacy": {"kind": "patient", "noise_multiplier": 2.0, "patients_per_step": 4},
    "training": {"class_weights": False, "augmentation": "none"},
}


@pytest.fixture
def sites(tmp_path: Path) -> list[Path]:
    return write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 48})


def run(tmp_path: Path, sites: list[Path], name: str = "run", *more: str, **changes: Any) -> Path:
    """A private run that ends well; its folder."""
    config = write_experiment(tmp_path / f"{name}.toml", sites, **{**PRIVACY, **changes})
    assert main(["run", str(config), "--out", str(tmp_path / name), *more]) == 0
    return tmp_path / name


def entries(site: Path) -> list[Any]:
    return list(read_entries(account_of(site, load_manifest(site))))


def test_every_round_is_in_the_sites_ledger_and_epsilon_in_results_and_report(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path, sites)
    told = read_json(folder / "results.json")["privacy"]
    assert (told["unit"], told["insecure_demo"], [s["site"] for s in told["sites"]]) == (
        "patient",
        False,
        ["ash", "birch"],
    )
    for site, spent in zip(sites, told["sites"], strict=True):
        lines = entries(site)
        plans = [line.plan for line in lines]
        assert [line.request.round for line in lines] == [1, 2]
        expected = [epsilon(plans[: n + 1], delta=1 / 120) for n in range(2)]
        assert spent["epsilon"] == pytest.approx(expected, abs=1e-4)
        assert [line.epsilon for line in lines] == pytest.approx(expected)
    trained = [event for event in read_records(folder / "records.jsonl") if event["event"] == "train"]
    assert {event["loss"] for event in trained} == {event["seconds"] for event in trained} == {None}
    assert {event["privacy"]["ledger"] for event in trained} == {1, 2}
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert 'id="privacy"' in page
    assert "INSECURE" not in page
    assert "pays both" in page
    assert f"{told['sites'][0]['epsilon'][-1]:.2f}" in page
    capsys.readouterr()
    assert main_client(["ledger", str(sites[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon"] == pytest.approx(told["sites"][0]["epsilon"][-1], abs=1e-4)


def main_client(arguments: list[str]) -> int:
    from client.__main__ import main

    return main(arguments)


def test_two_runs_add_up_and_the_cap_ends_the_third(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, sites, "one")
    spent = [entries(site)[-1].epsilon for site in sites]
    run(tmp_path, sites, "two")
    assert [entries(site)[-1].epsilon > before * 1.2 for site, before in zip(sites, spent, strict=True)] == [True] * 2
    for site in sites:
        text = (site / "site.toml").read_text().replace("[policy]", "[policy]\nepsilon_cap = 1.0")
        (site / "site.toml").write_text(text)
    open_site.cache_clear()
    before = [len(entries(site)) for site in sites]
    config = write_experiment(tmp_path / "three.toml", sites, **PRIVACY)
    assert main(["run", str(config), "--out", str(tmp_path / "three")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: round 1: no site trained: ash: site ash has spent ε=")
    assert "of 1.00; one more round needs" in error
    assert [len(entries(site)) for site in sites] == before


def test_a_demonstration_repeats_and_says_on_every_page_that_it_protects_nobody(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one = run(tmp_path, sites, "one", "--insecure-demo")
    assert "INSECURE DEMO" in capsys.readouterr().out
    two = run(tmp_path, sites, "two", "--insecure-demo")
    three = run(tmp_path, sites, "three")
    prints = [fingerprint(load(folder / "model.safetensors")) for folder in (one, two, three)]
    assert prints[0] == prints[1] != prints[2]
    assert (one / "results.json").read_bytes() == (two / "results.json").read_bytes()
    assert "INSECURE DEMO" in (one / "report.html").read_text(encoding="utf-8")
    assert "INSECURE" not in (three / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main_client(["ledger", str(sites[0])]) == 0
    assert "INSECURE DEMO: the noise of line 1, 2, 3, 4 came from a seed" in capsys.readouterr().out


@pytest.mark.parametrize("trains", ["last-stage", "head"])
def test_only_what_is_to_train_changes_and_travels(tmp_path: Path, sites: list[Path], trains: str) -> None:
    folder = run(tmp_path, sites, privacy={**PRIVACY["privacy"], "trains": trains}, model={"gradients": True})
    after = load(folder / "model.safetensors")
    from server.run import initial_weights, open_run

    before = initial_weights(open_run(folder)[0])
    moved = {name for name in after if (after[name] != before[name]).any()}
    wanted = (
        ("heads.", "gradients.")
        if trains == "head"
        else ("trunk.conv4", "trunk.bn4", "attention.", "heads.", "gradients.")
    )
    assert moved <= {name for name in after if name.startswith(wanted)}
    assert {name for name in after if name.startswith("heads.")} <= moved
    sent = [event["bytes"] for event in read_records(folder / "records.jsonl") if event["event"] == "train"]
    assert max(sent) < sum(array.nbytes for array in after.values()) / (1 if trains == "last-stage" else 10)


def test_image_level_privacy_always_shows_the_patients_epsilon(tmp_path: Path, sites: list[Path]) -> None:
    privacy = {
        "kind": "image",
        "epsilon": 1.0,
        "images_per_step": 4,
        "images_per_patient": 2,
        "patients_per_step": None,
    }
    folder = run(tmp_path, sites, privacy={**privacy, "noise_multiplier": None})
    (spent, _) = read_json(folder / "results.json")["privacy"]["sites"]
    assert spent["image_epsilon"] == pytest.approx(1.0, abs=0.02)
    assert spent["epsilon"][-1] > 1.6 * spent["image_epsilon"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{spent['epsilon'][-1]:.2f}" in page
    assert f"{spent['image_epsilon']:.2f} an image" in page


def test_one_patient_more_or_less_changes_nothing_that_is_public(tmp_path: Path, sites: list[Path]) -> None:
    """Take one training patient out of a site: every order, report and record says the same, the weights apart."""
    other = [Path(shutil.copytree(site, tmp_path / "fewer" / site.name)) for site in sites]
    table = (other[0] / "cases.csv").read_text().splitlines(keepends=True)
    gone = next(line.split(",")[3] for line in table if ",train," in line)
    (other[0] / "cases.csv").write_text("".join(line for line in table if gone not in line))
    told = []
    for name, group in (("all", sites), ("less", other)):
        shutil.rmtree(tmp_path / "sites" / "state", ignore_errors=True)
        folder = run(tmp_path, group, name, "--insecure-demo")
        kept = ("site", "train", "round")
        events = [event for event in read_records(folder / "records.jsonl") if event["event"] in kept]
        drop = ("time", "norm", "seconds")
        told.append([{key: value for key, value in event.items() if key not in drop} for event in events])
    assert told[0] == told[1]
    assert len(told[0]) >= 8


def test_a_comparison_with_privacy_keeps_a_ledger_for_each_model(tmp_path: Path, sites: list[Path]) -> None:
    changes = {**COMPARISON, "comparison": {"pictures": 1, "arms": ["federated", "pooled", "local"]}}
    config = write_experiment(tmp_path / "compare.toml", sites, **{**PRIVACY, **changes})
    assert main(["compare", str(config), "--out", str(tmp_path / "run"), "--insecure-demo"]) == 0
    told = read_json(tmp_path / "run" / "results.json")["privacy"]
    assert {spent["run"] for spent in told["sites"]} == {
        "federated/in-federation/seed-0", "federated/without-ash/seed-0", "federated/without-birch/seed-0"
    }  # fmt: skip
    assert told["together"]["ash"] > max(spent["epsilon"][-1] for spent in told["sites"] if spent["site"] == "ash")
    assert not [site for site in sites if (site / "state" / "ledger.jsonl").exists()]
    assert "all models together" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "INSECURE DEMO" in (tmp_path / "run" / "model_card.md").read_text(encoding="utf-8")
    assert main(["compare", str(config), "--out", str(tmp_path / "run"), "--insecure-demo"]) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"privacy": {"kind": "hospital", "noise_multiplier": 2.0}}, "needs 50 training sites or more, and here are 2"),
        ({"training": {"class_weights": True}}, "training.class_weights tells how many"),
        ({"model": {"dropout": 0.2}}, "model.dropout draws for a whole batch"),
        (
            {"privacy": {"patients_per_step": 40}},
            "site ash: privacy.patients_per_step is 40, but the site nominally has 12",
        ),
        ({"privacy": {"epsilon": 8.0}}, "privacy: say how much noise: either noise_multiplier or epsilon"),
        (
            {"privacy": {"kind": "patients"}},
            "privacy.kind: 'patients' is none of none, patient, image, hospital (did you",
        ),
    ],
)
def test_what_cannot_be_private_is_one_clear_line(
    tmp_path: Path, sites: list[Path], changes: dict[str, Any], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {key: {**PRIVACY.get(key, {}), **value} for key, value in changes.items()}
    if changes.get("privacy", {}).get("kind") == "hospital":
        asked = changes
    config = write_experiment(tmp_path / "bad.toml", sites, **{**PRIVACY, **asked})
    assert main(["run", str(config), "--out", str(tmp_path / "bad")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error
    assert not (tmp_path / "bad").exists()


def test_a_site_that_requires_privacy_never_trains_without(
    tmp_path: Path, sites: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = (sites[0] / "site.toml").read_text().replace("[policy]", "[policy]\nprivacy_required = true")
    (sites[0] / "site.toml").write_text(text)
    config = write_experiment(tmp_path / "plain.toml", sites)
    assert main(["run", str(config), "--out", str(tmp_path / "plain")]) == 2
    assert "site ash: its policy requires privacy; set privacy.kind = 'patient'" in capsys.readouterr().err
    run(tmp_path, sites)


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_site_whose_number_nobody_declared_does_not_train_with_privacy(
    tmp_path: Path, sites: list[Path], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (sites[1] / "site.toml").read_text()
    (sites[1] / "site.toml").write_text("nominal_declared = false\n" + text)
    config = write_experiment(tmp_path / "private.toml", sites, **PRIVACY)
    assert main([command, str(config), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "site birch: nominal_patients was rounded from its true count" in error
    assert not entries(sites[0])

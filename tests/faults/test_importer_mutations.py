"""Damaged sources through every importer: only BadInput and RunFailed come out, and nothing is left behind."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common.errors import BadInput
from tests.faults import importer_mutations
from tests.faults.importer_fixtures import FIXTURES, Fixture
from tests.faults.importer_mutations import batch, run_batches

COUNT = 500


def test_damaged_sources_give_errors_of_our_own() -> None:
    found = run_batches(COUNT, seed=1)
    print(found)
    assert found.failures == []
    assert found.imports == COUNT
    assert len(found.kinds) >= 20
    for name in FIXTURES:
        counts = found.outcomes[name]
        assert counts.get("BadInput", 0) >= 5, name  # the damage is felt,
        assert counts.get("imported", 0) >= 5, name  # and does not break everything


def test_sources_hold_the_same_bytes_whenever_they_are_built(tmp_path: Path) -> None:
    """Zips count in steps of two seconds, and chance never gives the same twice."""
    first = {name: built(fixture, tmp_path / "first" / name) for name, fixture in FIXTURES.items()}
    time.sleep(2.1)
    again = {name: built(fixture, tmp_path / "again" / name) for name, fixture in FIXTURES.items()}
    assert [name for name in FIXTURES if first[name] != again[name]] == []


def built(fixture: Fixture, folder: Path) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    fixture.build(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leaky(_format: str, source: Path, parent: Path, **_options: object) -> list[object]:
    (parent.parent / "stray").write_text("x")
    (parent / "s").mkdir(parents=True, exist_ok=True)
    (parent / "s/site.toml").write_text("x")
    if source.name == "valid":
        return []
    raise BadInput("two\nlines")


def crashing(*_: object, **_options: object) -> list[object]:
    raise IndexError("no")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (leaky, "the message is not one line; something beside the target; a failed import left ['s']"),
        (crashing, "IndexError: no"),
    ],
)
def test_the_harness_sees_what_an_importer_does_wrong(
    monkeypatch: pytest.MonkeyPatch, broken: object, says: str
) -> None:
    def build(folder: Path) -> Path:
        (folder / "x").write_bytes(b"0123456789" * 20)
        return folder / "x"

    monkeypatch.setattr(importer_mutations, "FIXTURES", {"broken": Fixture("broken", build)})
    monkeypatch.setattr(importer_mutations, "import_site", broken)
    monkeypatch.setattr(importer_mutations, "_undamaged", lambda *_: None)
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    found = batch(3, names=["broken"])
    assert len(found.failures) == 3
    assert all(says in failure for failure in found.failures)

"""The runner of proofs: what it writes, and that a failure is a failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.files import read_json
from tests.prove.__main__ import main
from tests.prove.finding import Finding


def broken() -> Finding:
    raise ZeroDivisionError("nothing")


PROOFS = {
    "good": lambda: Finding(0.5, "≤ 1", True),
    "bad": lambda: Finding(2.0, "≤ 1", False),
    "broken": broken,
}


def test_entries_are_those_of_the_contract_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "prove.json"
    assert main(["good"], path=path, proofs=PROOFS) == 0
    assert main([], path=path, proofs=PROOFS) == 1
    assert main(["good"], path=path, proofs=PROOFS) == 0
    entries = read_json(path)
    assert [(e["name"], e["holds"]) for e in entries] == [("good", True), ("bad", False), ("broken", False)]
    assert all(entry.keys() == {"name", "value", "want", "holds", "seconds"} for entry in entries)
    assert entries[2]["value"] == "ZeroDivisionError: nothing"


def test_an_unknown_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["goof"], path=tmp_path / "prove.json", proofs=PROOFS) == 2
    assert "no proof is called goof (did you mean good?)" in capsys.readouterr().out
    assert not (tmp_path / "prove.json").exists()

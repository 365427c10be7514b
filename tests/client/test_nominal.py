"""The nominal number of patients: declared by a person,
never a consequence of the true count where privacy is asked for.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from client.__main__ import main
from client.check import check_site
from client.importers import import_site
from client.service import answer_query
from client.site import Site, load_site
from common.config import ImportOptions
from common.errors import BadInput
from common.private_orders import CardOrder
from tests.client.test_importers_folder import two_classes

PRIVATE = CardOrder(private=True)
COMPLAINT = (
    "site ours: nominal_patients was rounded from its true count, which privacy must not let out; in its site.toml"
)


def imported(folder: Path, *, each: int, nominal: int | None = None) -> Site:
    """A site of 2 · `each` patients of one image."""
    two_classes(folder / "in", each=each)
    options = ImportOptions(site="ours", nominal_patients=nominal)
    (summary,) = import_site("folder", folder / "in", folder / "out", options=options)
    return load_site(summary.folder)


def test_what_was_rounded_from_the_count_does_not_leave_a_private_site(tmp_path: Path) -> None:
    site = imported(tmp_path, each=6)
    assert (site.nominal_patients, site.nominal_declared) == (10, False)
    assert answer_query(site).patients == 10
    with pytest.raises(BadInput, match=COMPLAINT):
        answer_query(site, PRIVATE)
    text = (site.folder / "site.toml").read_text(encoding="utf-8")
    text = text.replace("privacy_required = false", "privacy_required = true")
    (site.folder / "site.toml").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=COMPLAINT):
        answer_query(load_site(site.folder))
    (site.folder / "site.toml").write_text(text.replace("declared = false", "declared = true"), encoding="utf-8")
    assert answer_query(load_site(site.folder), PRIVATE).patients == 10


def test_one_patient_more_at_the_edge_of_rounding_changes_nothing_that_is_told(tmp_path: Path) -> None:
    """14 and 16 patients would round to 10 and 20."""
    rounded = [imported(tmp_path / f"rounded-{each}", each=each).nominal_patients for each in (7, 8)]
    assert rounded == [10, 20]
    told = []
    for each in (7, 8):
        site = imported(tmp_path / f"declared-{each}", each=each, nominal=40)
        card = asdict(answer_query(site, PRIVATE))
        told.append({key: value for key, value in card.items() if key != "data_sha256"})
    assert told[0] == told[1]
    assert (told[0]["patients"], told[0]["images"]) == (40, {})


def test_an_import_takes_the_number_and_writes_it_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_classes(tmp_path / "in")
    line = ["import", "folder", str(tmp_path / "in"), "--site", "ours", "--out", str(tmp_path / "out")]
    assert main([*line, "--nominal-patients", "40"]) == 0
    told = tomllib.loads((tmp_path / "out/ours/site.toml").read_text(encoding="utf-8"))
    assert (told["nominal_patients"], told["nominal_declared"]) == (40, True)
    assert main([*line[:-1], str(tmp_path / "none"), "--nominal-patients", "0"]) == 2
    assert "nominal_patients" in capsys.readouterr().err


def test_the_check_says_what_is_missing_and_does_not_let_the_proposal_out(tmp_path: Path) -> None:
    checked = check_site(imported(tmp_path, each=6).folder)
    assert "nominal-proposed" in {finding.topic for finding in checked.findings}
    assert checked.summary()["nominal_patients"] == "suppressed"
    assert "nominal-proposed" not in json.dumps(checked.summary())

"""What may leave: no small number, none that can be reckoned back, and no token of the site."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.__main__ import main
from client.check import check_site
from client.check.suppression import ALL, Cell, cells_over, hidden_cells
from tests.client.handmade import edit_cases
from tests.client.speckled import SPECKLED_TOML, replace_image, speckle, write_speckled

CLASSES, SIDES = ("a", "b"), ("train", "val", "test")
VIEWS = ((True, True), (True, False), (False, True), (False, False))
BASES = list(itertools.product(CLASSES, SIDES))


@cache
def tables(most: int) -> tuple[np.ndarray, dict[Cell, np.ndarray]]:
    """Every table of 0..`most`, and the sums of each cell that could be published."""
    levels = np.arange(most + 1, dtype=np.uint8)
    grids = np.stack(np.meshgrid(*[levels] * len(BASES), indexing="ij"), -1).reshape(-1, len(BASES))
    cells = itertools.product((*CLASSES, ALL), (*SIDES, ALL))
    inside = {cell: [all(n in (ALL, p) for n, p in zip(cell, b, strict=True)) for b in BASES] for cell in cells}
    return grids, {cell: grids[:, chosen].sum(1, dtype=np.uint8) for cell, chosen in inside.items()}


def possible(shown: Mapping[Cell, int | None], cell: Cell, most: int) -> set[int]:
    """Every number that `cell` may be: all tables of 0..`most` are tried; None in `shown` is hidden, at least 1."""
    grids, summed = tables(most)
    fits = np.ones(len(grids), dtype=bool)
    for other, number in shown.items():
        fits &= summed[other] >= 1 if number is None else summed[other] == number
    return set(summed[cell][fits].tolist())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=6, max_size=6), st.integers(2, 4))
def test_no_small_cell_can_be_reckoned_back(numbers: list[int], smallest: int) -> None:
    counts = dict(zip(BASES, numbers, strict=True))
    cells = cells_over(counts, VIEWS)
    hidden = hidden_cells([counts], VIEWS, smallest=smallest)
    shown = {cell: None if cell in hidden else number for cell, number in cells.items()}
    for cell, number in cells.items():
        if 0 < number < smallest:
            assert cell in hidden
            dark = {other: None if count else 0 for other, count in cells.items()}
            least = min(possible(dark, cell, 8))
            assert possible(shown, cell, 8) >= set(range(least, smallest + 1)), (cell, number)
        if number == 0:
            assert cell not in hidden


def test_no_cell_is_hidden_without_need() -> None:
    plenty = dict.fromkeys(BASES, 9)
    assert hidden_cells([plenty], VIEWS, smallest=5) == set()
    assert hidden_cells([{**plenty, ("a", "val"): 2}], VIEWS, smallest=1) == set()


def test_images_do_not_betray_patients() -> None:
    """Were images shown where patients are hidden, one image would mean one patient."""
    patients = {**dict.fromkeys(BASES, 4), ("a", "val"): 1}
    images = {**dict.fromkeys(BASES, 5), ("a", "val"): 1}
    hidden = hidden_cells([patients, images], VIEWS, smallest=3)
    cells = cells_over(images, VIEWS)
    shown = {cell: None if cell in hidden else number for cell, number in cells.items()}
    assert possible(shown, ("a", "val"), 9) >= {1, 2, 3}


def counts_of(told: dict[str, Any]) -> dict[Cell, Any]:
    return {(row["class"], row["split"], row["device"]): row["patients"] for row in told["counts"]}


def test_suppressed_zero_and_absent_are_three_things(tmp_path: Path) -> None:
    site = write_speckled(tmp_path / "speckled")
    for row in (8, 9, 18, 19):
        edit_cases(site, row, label="benign")
    told = check_site(site).summary()
    cells = counts_of(told)
    assert cells[("malignant", "val", ALL)] == 0
    assert cells[("malignant", "test", ALL)] == "suppressed"
    assert ("malignant", "exam", ALL) not in cells
    assert cells[("malignant", "train", ALL)] in (6, "suppressed")


def test_a_big_site_is_told_in_full(tmp_path: Path) -> None:
    site = write_speckled(tmp_path / "speckled", toml=SPECKLED_TOML + "[policy]\nsmallest_group = 2\n")
    told = check_site(site).summary()
    cells = counts_of(told)
    assert cells[("benign", "train", ALL)] == 6
    assert cells[(ALL, ALL, ALL)] == 20
    assert {"measure": "width (px)", "class": "benign", "quartiles": [150, 150, 150]} in told["spread"]
    assert told["calipers"] == [{"class": "benign", "patients": 0}, {"class": "malignant", "patients": 0}]


@pytest.mark.parametrize("patients", [1, 4, 16])
def test_numbers_in_findings_are_suppressed_too(tmp_path: Path, patients: int) -> None:
    """Of 20 patients: 1 and 4 are few, 16 leave 4."""
    site = write_speckled(tmp_path / "speckled", toml=SPECKLED_TOML)
    for row in range(2, 2 + patients):
        edit_cases(site, row, image_sha256="0" * 64)
    (found,) = [entry for entry in check_site(site).summary()["findings"] if entry["topic"] == "checksum"]
    assert found["patients"] == "suppressed"


def test_the_summary_holds_no_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folder, pseudonyms, files, devices, covariates and a stray file are tokens;
    the site's own id and classes are not.
    """
    tokens = [f"tok{n:09d}" for n in range(5)]
    site = write_speckled(tmp_path / tokens[0], prefix=tokens[1])
    for row in range(2, 22):
        edit_cases(site, row, device=tokens[2] + "ab"[row % 2], age=tokens[3])
    (site / "images" / f"{tokens[4]}.png").write_bytes(b"x")
    for name in ("images", "masks"):
        for row in range(2, 22):
            new = f"{name}/{tokens[4]}{row}.png"
            (site / name / f"{row - 2:06d}.png").rename(site / new)
            edit_cases(site, row, **{name[:-1]: new})
    edit_cases(site, 10, box="900 1 2 2")
    assert main(["check", str(site), "--json"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert not any(token in said.out + said.err for token in tokens)
    assert not any(row["patients"] in range(1, 5) for row in told["counts"] if row["patients"] != "suppressed")
    assert "row" not in {key for entry in told["findings"] for key in entry}
    assert {"device 1", "device 2"} <= {row["device"] for row in told["counts"]}
    text = (site / "private/check.html").read_text(encoding="utf-8")
    assert tokens[1] not in text


def test_the_nominal_number_does_not_betray_a_hidden_total(tmp_path: Path) -> None:
    texts = []
    for nominal in ("20", "50"):
        site = write_speckled(tmp_path / nominal / "speckled", toml=SPECKLED_TOML.replace("50", nominal))
        told = check_site(site).summary()
        texts.append({key: value for key, value in told.items() if key != "nominal_patients"})
    assert texts[0] == texts[1]


def test_copies_keep_their_number_small(tmp_path: Path) -> None:
    site = write_speckled(tmp_path / "speckled")
    edit_cases(site, 10, **replace_image(site, 10, speckle(0)))
    entries = {entry["topic"]: entry for entry in check_site(site).summary()["findings"]}
    assert entries["copies-across-splits"]["patients"] == "suppressed"
    assert entries["copies-across-splits"]["level"] == "error"

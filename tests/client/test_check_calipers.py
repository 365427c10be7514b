"""Calipers: drawn ones are suspected, speckle is not, and one class with more of them is a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from client.check import check_site
from client.check.calipers import SUSPICIOUS, calipers
from client.importers import import_site
from client.site import load_site
from tests.client.handmade import edit_cases
from tests.client.speckled import replace_image, speckle, write_speckled

PLACES = ((40, 60), (95, 75))


def crosses(gray: np.ndarray, *, arm: int = 5, width: int = 1, value: int = 255, diagonal: bool = False) -> np.ndarray:
    image = Image.fromarray(gray)
    draw = ImageDraw.Draw(image)
    for x, y in PLACES:
        ends = ((-arm, -arm, arm, arm), (-arm, arm, arm, -arm)) if diagonal else ((-arm, 0, arm, 0), (0, -arm, 0, arm))
        for a, b, c, d in ends:
            draw.line((x + a, y + b, x + c, y + d), fill=value, width=width)
    return np.asarray(image)


def dots(gray: np.ndarray, *, step: tuple[int, int] = (7, 3), number: int = 9) -> np.ndarray:
    changed = gray.copy()
    for k in range(number):
        y, x = 40 + k * step[1], 45 + k * step[0]
        changed[y - 2 : y + 3, x - 2 : x + 3] = np.minimum(changed[y - 2 : y + 3, x - 2 : x + 3], 120)
        changed[y, x] = 255
    return changed


def dark(seed: int) -> np.ndarray:
    return (speckle(seed) * 0.6).astype(np.uint8)


@pytest.mark.parametrize(
    "kind",
    [{"arm": 4}, {"arm": 5}, {"arm": 8}, {"width": 2}, {"width": 3, "arm": 6}, {"value": 210}, {"diagonal": True}],
    ids=str,
)
def test_drawn_crosses_are_suspected_and_found(kind: dict[str, int]) -> None:
    hits = 0
    for seed in range(20):
        suspicion = calipers(crosses(dark(seed), **kind))  # type: ignore[arg-type]
        near = [any(abs(row - y) <= 2 and abs(column - x) <= 2 for row, column in suspicion.marks) for x, y in PLACES]
        hits += suspicion.score >= SUSPICIOUS and any(near)
    assert hits >= 18


@pytest.mark.parametrize("step", [(7, 3), (8, 0), (0, 8), (5, 5)])
def test_a_row_of_dots_is_suspected(step: tuple[int, int]) -> None:
    assert sum(calipers(dots(dark(seed), step=step)).score >= SUSPICIOUS for seed in range(10)) >= 9


def test_speckle_is_not_suspected() -> None:
    assert [seed for seed in range(150) if calipers(speckle(seed)).score >= SUSPICIOUS] == []


def test_phantoms_are_not_suspected(tmp_path: Path) -> None:
    write = pytest.importorskip("simulation.phantom.write")
    write.write_phantom(tmp_path / "in", preset="lymphus", seed=8, extra_centers=0, patients=8)
    for summary in import_site("lymphus", tmp_path / "in", tmp_path / "out"):
        site = load_site(summary.folder)
        scores = [calipers(np.asarray(Image.open(site.folder / name))).score for name in site.images]
        assert max(scores) < SUSPICIOUS


@pytest.mark.parametrize(
    "gray", [np.zeros((40, 40)), np.full((9, 9), 255), np.ones((1, 1)), np.ones((3, 300))], ids=str
)
def test_small_and_flat_images_give_nothing(gray: np.ndarray) -> None:
    assert calipers(gray.astype(np.uint8)).score == 0


@pytest.mark.parametrize(("rows", "topic"), [(range(3, 22, 2), "calipers-tell-class"), (range(2, 22), "calipers")])
def test_calipers_in_one_class_are_a_warning(tmp_path: Path, rows: range, topic: str) -> None:
    site = write_speckled(tmp_path / "speckled")
    for row in rows:
        edit_cases(site, row, **replace_image(site, row, crosses(dark(row - 2), value=240)))
    checked = check_site(site)
    found = [finding for finding in checked.findings if finding.topic.startswith("calipers")]
    assert [finding.topic for finding in found] == [topic]
    assert len(found[0].cases) >= len(rows) - 2
    assert set(found[0].cases) <= {row - 2 for row in rows}

"""Near copies: the pair search against brute force, copies that are found, strangers that are not accused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from client.check.perceptual import ALIKE, RADIUS, close_pairs, fingerprint, likeness
from client.importers import import_site
from client.site import load_site
from tests.client.speckled import speckle

Gray = np.ndarray


def brute_force(hashes: list[int], radius: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= radius
    }


def searched(hashes: list[int], radius: int) -> list[tuple[int, int]]:
    blocks = close_pairs(np.array(hashes, dtype=np.uint64), radius=radius)
    return [(int(i), int(j)) for block in blocks for i, j in block]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_pair_search_equals_brute_force(data: st.DataObject) -> None:
    """Hashes come in families a few flipped bits apart, so that distances lie around the radius."""
    heads = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=14)
    hashes = [
        head ^ sum(1 << bit for bit in set(data.draw(flips)))
        for head in heads
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    radius = data.draw(st.integers(0, 11))
    pairs = searched(hashes, radius)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_force(hashes, radius)


def test_many_equal_hashes_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.check.perceptual._BLOCK", 100)
    assert len(searched([7] * 60, RADIUS)) == 60 * 59 // 2


def reencoded(gray: Gray) -> Gray:
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def brightened(gray: Gray) -> Gray:
    return np.clip(gray * 1.1 + 8, 0, 255).astype(np.uint8)


def shifted(gray: Gray) -> Gray:
    return np.pad(gray, ((1, 0), (1, 0)), mode="edge")[:-1, :-1]


def shrunk(gray: Gray) -> Gray:
    image = Image.fromarray(gray)
    return np.asarray(image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.BILINEAR))


def alike(one: Gray, other: Gray) -> bool:
    """As the check decides: close hashes, then correlated miniatures."""
    a, b = fingerprint(Image.fromarray(one)), fingerprint(Image.fromarray(other))
    return (a.hash ^ b.hash).bit_count() <= RADIUS and likeness(a.miniature, b.miniature) >= ALIKE


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Gray]:
    write = pytest.importorskip("simulation.phantom.write")
    folder = tmp_path_factory.mktemp("phantoms")
    write.write_phantom(folder / "in", preset="lymphus", seed=3, extra_centers=0, patients=16)
    sites = [load_site(summary.folder) for summary in import_site("lymphus", folder / "in", folder / "out")]
    return [np.asarray(Image.open(site.folder / name)) for site in sites for name in site.images]


@pytest.mark.parametrize("change", [reencoded, brightened, shifted, shrunk])
def test_changed_copies_are_found(phantoms: list[Gray], change: object) -> None:
    assert callable(change)
    assert all(alike(gray, change(gray)) for gray in phantoms)
    assert all(alike(gray, change(gray)) for gray in (speckle(seed, width=300, height=260) for seed in range(12)))


def test_strangers_are_not_accused(phantoms: list[Gray]) -> None:
    """496 pairs of phantoms of one machine's layout, 1,770 pairs of speckle."""
    for pictures in (phantoms, [speckle(seed) for seed in range(60)]):
        prints = [fingerprint(Image.fromarray(gray)) for gray in pictures]
        likely = [likeness(a.miniature, b.miniature) for place, a in enumerate(prints) for b in prints[place + 1 :]]
        assert max(likely) < ALIKE - 0.1


def test_a_flat_picture_is_like_nothing() -> None:
    flat = np.full((32, 32), 7, dtype=np.uint8)
    assert likeness(flat, flat) == 0.0


REAL = Path(__file__).parents[2].parent / "shared/data/busbra/Images"


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/busbra is absent")
def test_real_images_of_different_patients_are_not_alike() -> None:
    paths = sorted(REAL.glob("*.png"))[:120]
    patients = [path.stem.split("-")[0] for path in paths]
    prints = [fingerprint(Image.open(path).convert("L")) for path in paths]
    for i, j in searched([p.hash for p in prints], RADIUS):
        if patients[i] != patients[j]:
            assert likeness(prints[i].miniature, prints[j].miniature) < ALIKE

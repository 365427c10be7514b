"""Named randomness: the name decides, and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.randomness import derive, derive_seed

names = st.lists(st.text(st.characters(exclude_characters="\x1f")) | st.integers(), max_size=4)


@given(st.integers(0, 2**40), names)
def test_the_same_name_gives_the_same_draws(seed: int, name: list[str | int]) -> None:
    assert derive_seed(seed, *name) == derive_seed(seed, *name)
    assert 0 <= derive_seed(seed, *name) < 2**63
    assert np.array_equal(derive(seed, *name).random(4), derive(seed, *name).random(4))


@given(st.tuples(st.integers(0, 5), names), st.tuples(st.integers(0, 5), names))
def test_another_name_gives_other_draws(a: tuple[int, list[str | int]], b: tuple[int, list[str | int]]) -> None:
    same = a[0] == b[0] and [(type(n), n) for n in a[1]] == [(type(n), n) for n in b[1]]
    assert (derive_seed(a[0], *a[1]) == derive_seed(b[0], *b[1])) == same


def test_a_number_and_its_text_are_two_names() -> None:
    assert derive_seed(0, 1) != derive_seed(0, "1")
    assert derive_seed(0, "ab", "c") != derive_seed(0, "a", "bc")


def test_values_do_not_change_between_releases() -> None:
    """Stored runs continue bit for bit only while these stay."""
    digest = hashlib.sha256(b"int:0\x1fstr:site\x1fstr:tal\x1fstr:round\x1fint:3").digest()
    assert derive_seed(0, "site", "tal", "round", 3) == int.from_bytes(digest[:8], "big") // 2 == 6151438808666352701


def test_global_state_is_neither_read_nor_changed() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    first = derive(1, "a").random(3)
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[arg-type]
    np.random.seed(4)
    assert np.array_equal(first, derive(1, "a").random(3))

"""Numbers as words modulo 2⁶⁴: sums are those of Python's own integers,
what cannot be summed is refused in one line.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.blocks import Block, decode, encode, total_length
from common.errors import BadInput

COUNTS, REAL = Block("counts", 3), Block("real", 2, 40)


@st.composite
def several_sites(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    sites, length = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    limit = (2**63 - 1) // sites
    return [draw(st.lists(st.integers(-limit, limit), min_size=length, max_size=length)) for _ in range(sites)], length


@given(several_sites())
@settings(max_examples=60, deadline=None)
def test_counts_up_to_the_limit_add_without_wrapping(drawn: tuple[list[list[int]], int]) -> None:
    rows, length = drawn
    block = (Block("n", length),)
    total = sum((encode(block, {"n": np.array(row)}, sites=len(rows)) for row in rows), np.zeros(length, np.uint64))
    assert decode(block, total)["n"].tolist() == [sum(column) for column in zip(*rows, strict=True)]


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=9), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_real_sums_are_off_by_half_a_step_for_each_site(values: list[float], bits: int) -> None:
    block = (Block("x", 1, bits),)
    total = sum((encode(block, {"x": [value]}, sites=len(values)) for value in values), np.zeros(1, np.uint64))
    exact = sum(map(Fraction, values))
    steps, rounding = len(values) * Fraction(1, 2 ** (bits + 1)), abs(exact) * Fraction(1, 2**52)
    assert abs(Fraction(float(decode(block, total)["x"][0])) - exact) <= steps + rounding


@given(st.data(), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_counts_that_share_words_add_apart(data: st.DataObject, sites: int, length: int) -> None:
    limit = (2**31 - 1) // sites
    small = st.lists(st.integers(0, limit) | st.just(limit), min_size=2 * length, max_size=2 * length)
    rows = [data.draw(small) for _ in range(sites)]
    block = (Block("n", length, paired=True),)
    total = sum((encode(block, {"n": np.array(row)}, sites=sites) for row in rows), np.zeros(length, np.uint64))
    assert decode(block, total)["n"].tolist() == [sum(column) for column in zip(*rows, strict=True)]
    for wrong, said in ((limit + 1, "beyond"), (-1, "not below 0")):
        with pytest.raises(BadInput, match=said):
            encode(block, {"n": np.array([*rows[0][1:], wrong])}, sites=sites)


@pytest.mark.parametrize("sites", [1, 2, 3, 5, 1000])
def test_the_limit_is_sharp(sites: int) -> None:
    limit = (2**63 - 1) // sites
    for edge in (limit, -limit):
        assert decode((Block("n", 1),), encode((Block("n", 1),), {"n": np.array([edge])}, sites=sites))["n"] == edge
    for beyond in (limit + 1, -limit - 1):
        with pytest.raises(BadInput, match=r"block n: a number is beyond ±.* fits with 0 bits"):
            encode((Block("n", 1),), {"n": np.array([beyond])}, sites=sites)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"counts": [1, 2, 3]}, "block real: asked and counted blocks differ"),
        ({"counts": [1, 2, 3], "real": [0, 0], "more": [1]}, "block more: asked and counted blocks differ"),
        ({"counts": [1, 2], "real": [0, 0]}, r"block counts holds \(2,\), not 3 numbers"),
        ({"counts": [[1, 2, 3]], "real": [0, 0]}, r"block counts holds \(1, 3\), not 3 numbers"),
        ({"counts": [1.0, 2, 3], "real": [0, 0]}, "block counts: counts must be whole"),
        ({"counts": [True, True, True], "real": [0, 0]}, "block counts: counts must be whole"),
        ({"counts": [1, 2, 3], "real": [0, np.nan]}, "block real: a number is not finite"),
        ({"counts": [1, 2, 3], "real": [0, -np.inf]}, "block real: a number is not finite"),
        ({"counts": [1, 2, 3], "real": [0, 1e7]}, r"block real: a number is beyond ±2.8e\+06"),
        ({"counts": [1, 2, 3], "real": [0, -1e308]}, "block real: a number is beyond"),
    ],
)
def test_what_cannot_be_summed_is_refused_in_one_line(numbers: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput, match=expected) as caught:
        encode((COUNTS, REAL), numbers, sites=3)
    assert "\n" not in str(caught.value)


def test_a_name_twice_or_nothing_at_all() -> None:
    with pytest.raises(BadInput, match="block counts is in the directory twice"):
        total_length((COUNTS, REAL, COUNTS))
    with pytest.raises(BadInput, match="a directory of 0 numbers"):
        total_length(())

"""Named blocks of numbers laid end to end as whole numbers modulo 2⁶⁴, so that sums over sites are exact.

A count travels as it is; a real number as a whole multiple of 2^−`bits`, rounded to the nearest. Every site's numbers
stay below (2⁶³ − 1) / sites, so that no total can wrap around: what is larger is refused before anything is sent. The
total of a real number is off by at most sites × 2^−(bits + 1). Small counts travel two to a word, each below 2³¹ /
sites.
"""

from __future__ import annotations

__all__ = ["Block", "Words", "decode", "encode", "total_length"]

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.errors import BadInput

Words = NDArray[np.uint64]

_LARGEST = 2**63 - 1
_LARGEST_HALF = 2**31 - 1
_LONGEST = 1 << 20


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Block:
    """`length` words called `name`: counts where `bits` is 0, else real numbers in steps of 2^−`bits`.

    `paired`: twice as many counts from 0 up, the second half of them in the upper halves of the words.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
    length: Annotated[int, Field(ge=1, le=_LONGEST)]
    bits: Annotated[int, Field(ge=0, le=52)] = 0
    paired: bool = False

    @property
    def numbers(self) -> int:
        """How many numbers the words hold."""
        return 2 * self.length if self.paired else self.length


def total_length(directory: Sequence[Block]) -> int:
    """How many words the blocks take; BadInput where a name comes twice, or they are none, or too many."""
    names = [block.name for block in directory]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"block {min(twice)} is in the directory twice; give each block its own name")
    length = sum(block.length for block in directory)
    if not 0 < length <= _LONGEST:
        raise BadInput(f"a directory of {length} numbers; between 1 and {_LONGEST} can be summed at once")
    return length


def encode(directory: Sequence[Block], numbers: Mapping[str, ArrayLike], *, sites: int) -> Words:
    """One site's numbers by block, each (block.numbers,), as words (total length,).

    BadInput where blocks are missing, strange or of another length, and where a number is not finite, not whole though
    it is a count, or so large that the sum over `sites` sites might not fit.
    """
    total_length(directory)
    if odd := {block.name for block in directory} ^ numbers.keys():
        raise BadInput(f"block {min(odd)}: asked and counted blocks differ; run one release everywhere")
    return np.concatenate([_words(block, np.asarray(numbers[block.name]), sites) for block in directory])


def decode(directory: Sequence[Block], words: Words) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
    """The numbers by block: int64 for counts, float64 for real numbers."""
    ends = np.cumsum([block.length for block in directory])[:-1]
    signed = np.split(words.view(np.int64), ends)
    return {block.name: _numbers(block, part) for block, part in zip(directory, signed, strict=True)}


def _numbers(block: Block, part: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.float64]:
    if block.paired:
        return np.concatenate([part & 0xFFFFFFFF, part >> 32])
    return part.copy() if block.bits == 0 else np.ldexp(part.astype(np.float64), -block.bits)


def _words(block: Block, values: NDArray[np.generic], sites: int) -> Words:
    if values.shape != (block.numbers,):
        raise BadInput(
            f"block {block.name} holds {values.shape}, not {block.numbers} numbers; run one release everywhere"
        )
    if block.paired:
        return _pairs(block, values, sites).view(np.uint64)
    return (_counts(block, values, sites) if block.bits == 0 else _steps(block, values, sites)).view(np.uint64)


def _counts(block: Block, values: NDArray[np.generic], sites: int) -> NDArray[np.int64]:
    if values.dtype.kind not in "iu":
        raise BadInput(f"block {block.name}: counts must be whole numbers; give real numbers a block with bits")
    _require_range(block, (int(values.min()), int(values.max())), limit=_LARGEST // sites, sites=sites)
    return values.astype(np.int64)


def _pairs(block: Block, values: NDArray[np.generic], sites: int) -> NDArray[np.int64]:
    if values.dtype.kind not in "iu" or int(values.min()) < 0:
        raise BadInput(f"block {block.name}: counts that travel two to a word must be whole and not below 0")
    _require_range(block, (0, int(values.max())), limit=_LARGEST_HALF // sites, sites=sites)
    low, high = np.split(values.astype(np.int64), 2)
    return low + (high << 32)


def _steps(block: Block, values: NDArray[np.generic], sites: int) -> NDArray[np.int64]:
    real = values.astype(np.float64)
    if not np.isfinite(real).all():
        raise BadInput(f"block {block.name}: a number is not finite; did training diverge?")
    with np.errstate(over="ignore"):
        steps = np.rint(np.ldexp(real, block.bits))
    _require_range(block, (float(steps.min()), float(steps.max())), limit=_LARGEST // sites, sites=sites)
    return steps.astype(np.int64)


def _require_range(block: Block, ends: tuple[float, float], *, limit: int, sites: int) -> None:
    if max(-ends[0], ends[1]) > limit:
        raise BadInput(
            f"block {block.name}: a number is beyond ±{limit / 2**block.bits:.3g}, the most whose sum over {sites} "
            f"sites fits with {block.bits} bits after the point; send it with fewer"
        )

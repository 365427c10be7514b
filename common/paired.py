"""Two models in one message, and what a site tells of the difference of their AUCs: three numbers."""

from __future__ import annotations

__all__ = ["SentDifference", "apart", "side_by_side"]

import math
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.errors import BadInput
from common.influence import Difference
from common.update import Weights

_SIDES = ("first/", "second/")
_Finite = Annotated[float, Field(allow_inf_nan=False)]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class SentDifference:
    """AUC of the first model − AUC of the second on a site's own cases: `delta` in [-1, 1], its standard `error`, and
    the `degrees` of freedom of the t law behind interval and p. What is not told is None and `why` says why.
    """

    delta: Annotated[_Finite, Field(ge=-1, le=1)] | None = None
    error: Annotated[_Finite, Field(ge=0)] | None = None
    degrees: Annotated[_Finite, Field(ge=1)] | None = None
    why: str | None = None

    @classmethod
    def of(cls, found: Difference) -> SentDifference:
        """What of a paired test is sent."""
        if found.delta is None or found.error is None:
            return cls(found.delta, why=found.why)
        return cls(found.delta, found.error, found.degrees if math.isfinite(found.degrees) else None, found.why)

    @property
    def difference(self) -> Difference:
        """The paired test with its interval and p."""
        if self.delta is None or self.error is None:
            return Difference(self.delta, None, None, None, None, self.why or "too-few")
        return Difference.of(self.delta, self.error, math.inf if self.degrees is None else self.degrees)


def side_by_side(first: Weights, second: Weights) -> Weights:
    """Both models' tensors under one roof, as `apart` takes them."""
    return {
        side + name: array for side, one in zip(_SIDES, (first, second), strict=True) for name, array in one.items()
    }


def apart(both: Weights) -> tuple[Weights, Weights]:
    """The inverse of `side_by_side`; BadInput where a tensor belongs to neither model, or one has none."""
    first, second = (
        {name.removeprefix(side): array for name, array in both.items() if name.startswith(side)} for side in _SIDES
    )
    if len(first) + len(second) < len(both) or not first or not second:
        raise BadInput("message: not two models side by side; run one release everywhere")
    return first, second

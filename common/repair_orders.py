"""What server and sites say to each other about repair without labels: sums of looks, the order to mend, what it gave.

Training sites tell how their crops look, in sums that add; the server hands the total to centers that did not train,
and each mends its own pictures and answers by it and sends how the mended answers do. Plain data, no picture.
"""

from __future__ import annotations

__all__ = ["KINDS", "Kind", "LooksSums", "Repair", "RepairOrder"]

from typing import Annotated, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.harmonisation import AmplitudeSums, GrayCounts, low_frequencies

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Kind = Literal["none", "intensity", "amplitude", "batch-statistics", "prior"]
KINDS: Final[tuple[Kind, ...]] = ("none", "intensity", "amplitude", "batch-statistics", "prior")
"""`none` first: what is mended stands beside what is not."""

_Count = Annotated[int, Field(ge=0)]
_Sum = Annotated[float, Field(ge=0)]


@checked(frozen=True, config=_STRICT)
class LooksSums:
    """How crops of `size` pixels a side look. They add over sites that crop alike.

    `gray`: pixels of the tissue beside lesions by gray value, (256,); `amplitude`: Σ |Fourier transform| over `images`
    crops at the low frequencies that are harmonised, in the order of `low_frequencies(size)`. Finer frequencies stay at
    the site.
    """

    size: Annotated[int, Field(ge=16, le=1024)]
    images: Annotated[int, Field(ge=1)]
    gray: tuple[_Count, ...]
    amplitude: tuple[_Sum, ...]

    def __post_init__(self) -> None:
        wanted = int(low_frequencies(self.size).sum())
        if (len(self.gray), len(self.amplitude)) != (256, wanted):
            raise ValueError(f"looks of {self.size} pixels a side are 256 gray values and {wanted} amplitudes")

    @classmethod
    def of(cls, gray: GrayCounts, amplitude: AmplitudeSums) -> LooksSums:
        """From the sums of some crops."""
        size = amplitude.total.shape[0]
        low = amplitude.total[low_frequencies(size)]
        return cls(size, amplitude.images, tuple(gray.counts.tolist()), tuple(low.tolist()))

    def __add__(self, other: LooksSums) -> LooksSums:
        return LooksSums.of(self.gray_counts + other.gray_counts, self.amplitude_sums + other.amplitude_sums)

    @property
    def gray_counts(self) -> GrayCounts:
        """For `gray_curve`."""
        return GrayCounts(np.array(self.gray, dtype=np.int64))

    @property
    def amplitude_sums(self) -> AmplitudeSums:
        """For `amplitude_gain`; 0 at the frequencies that stayed behind, which no gain reads."""
        total = np.zeros((self.size, self.size // 2 + 1))
        total[low_frequencies(self.size)] = self.amplitude
        return AmplitudeSums(self.images, total)


@checked(frozen=True, config=_STRICT)
class RepairOrder:
    """Mend without labels, and say how the mended answers do.

    `looks`: those of the training sites together, or None and `looks_why`. `shares`: what share of each class the model
    takes for granted, in the order of classes, or empty and `shares_why`.
    """

    looks: LooksSums | None = None
    looks_why: str | None = None
    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    shares_why: str | None = None


@checked(frozen=True, config=_STRICT)
class Repair:
    """How a center's cases fare after one repair; `none` is how they fare as they are. Labels judged, and mended
    nothing.

    `delta_auc` is the AUC less the unrepaired one, with the interval and p of the test that pairs both by patient.
    `prior`: the share of each class that the answers imply, in the order of classes. A number that does not exist is
    None, and `why` says why the first of them does not; with more than two classes AUCs are macro one-against-rest.
    """

    repair: Kind
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    delta_auc: float | None = None
    delta_low: float | None = None
    delta_high: float | None = None
    p: float | None = None
    brier: float | None = None
    calibration_slope: float | None = None
    calibration_intercept: float | None = None
    prior: tuple[float, ...] | None = None
    why: str | None = None

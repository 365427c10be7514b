"""Score histograms by class: they add across sites, give the AUC of all cases within a known error, and a threshold."""

from __future__ import annotations

__all__ = ["ScoreHistogram"]

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from common.calibration import LOGIT_LIMIT


@dataclass(frozen=True)
class ScoreHistogram:
    """Cases by class, each (bins,), over bins of equal width in logit(p) from −`LOGIT_LIMIT` to `LOGIT_LIMIT`.

    The outer bins also hold what lies beyond. A bin holds its lower edge.
    """

    positives: tuple[int, ...]
    negatives: tuple[int, ...]

    @classmethod
    def zero(cls, *, bins: int = 1024) -> ScoreHistogram:
        """No cases."""
        return cls((0,) * bins, (0,) * bins)

    @classmethod
    def of(cls, labels: ArrayLike, p: ArrayLike, *, bins: int = 1024) -> ScoreHistogram:
        """Count some cases: labels (N,) are 0/1, `p` (N,) the probability of the positive class."""
        positive, score = np.asarray(labels).astype(np.bool_), np.asarray(p, dtype=np.float64)
        if not np.isfinite(score).all():
            raise ValueError("a probability is not a finite number; did training diverge?")
        index = np.searchsorted(_edges(bins)[1:], score, side="right")
        by_class = (np.bincount(index[which], minlength=bins) for which in (positive, ~positive))
        return cls(*(tuple(count.tolist()) for count in by_class))

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        if len(self.positives) != len(other.positives):
            raise ValueError(
                f"{len(self.positives)} and {len(other.positives)} histogram bins do not add; use one number"
            )
        return ScoreHistogram(
            tuple(a + b for a, b in zip(self.positives, other.positives, strict=True)),
            tuple(a + b for a, b in zip(self.negatives, other.negatives, strict=True)),
        )

    @property
    def auc(self) -> float | None:
        """AUC of all cases, ties in a bin counted half, in [0, 1]; None if a class is absent."""
        positive, negative = np.array(self.positives), np.array(self.negatives)
        pairs = int(positive.sum()) * int(negative.sum())
        if not pairs:
            return None
        below = np.cumsum(negative) - negative
        return float((positive @ below + positive @ negative / 2) / pairs)

    @property
    def auc_error_bound(self) -> float | None:
        """The exact AUC is within this of `auc`: half the share of (positive, negative) pairs that share a bin."""
        positive, negative = np.array(self.positives), np.array(self.negatives)
        pairs = int(positive.sum()) * int(negative.sum())
        return float(positive @ negative / pairs / 2) if pairs else None

    def threshold_at(self, sensitivity: float = 0.90) -> float | None:
        """The largest bin edge t at which `p >= t` still finds `sensitivity` of the positives; None without positives.

        At most one bin (.023 in logit at 1,024 bins) below the exact threshold; 0 where only every case is enough.
        """
        total = sum(self.positives)
        if not total:
            return None
        found = np.cumsum(self.positives[::-1])[::-1] / total
        return float(_edges(len(self.positives))[np.flatnonzero(found >= sensitivity)[-1]])

    def to_json(self) -> dict[str, Any]:
        """Plain data: `{"positives": [...], "negatives": [...]}`."""
        return {"positives": list(self.positives), "negatives": list(self.negatives)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ScoreHistogram:
        """The inverse of `to_json`."""
        return cls(tuple(map(int, data["positives"])), tuple(map(int, data["negatives"])))


def _edges(bins: int) -> NDArray[np.float64]:
    """The bins' lower edges as probabilities, (bins,); the first bin begins at 0."""
    edge = expit(np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, bins + 1)[:-1])
    edge[0] = 0.0
    return np.asarray(edge, dtype=np.float64)

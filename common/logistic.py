"""Calibration slope and intercept of all sites' cases from sums: a start from the pooled histogram, then one exact
step.

The server fits the recalibration logit P(label) = a + b x, x = logit(p) clipped to ±`LOGIT_LIMIT`, to the histogram and
sends (a, b). Each site answers with derivatives of its log likelihood there, up to the third, which add; the server
takes the maximum of the expansion. The error of the start enters with its cube.
"""

from __future__ import annotations

__all__ = ["LogisticSums", "Start", "start_from"]

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from common.bins import logit_edges
from common.calibration import LOGIT_LIMIT, Estimate, fit_logistic, logits
from common.errors import RunFailed

Floats = NDArray[np.float64]

_STEPS = 50
_STEEPEST = 200.0
"""Where the histogram's classes are separated, the start stays finite."""
_FAR = 1.0
"""An expansion is not trusted where it moves the cases' logits by more than this, root mean square."""


@dataclass(frozen=True)
class Start:
    """Where sites expand: the fit with slope (`a`, `b`), and the intercept `alone` of the fit with slope 1."""

    a: float
    b: float
    alone: float


@dataclass(frozen=True)
class LogisticSums:
    """Derivatives of the log likelihood at `start`, over `cases` cases of which `positives` are positive.

    `slope`: Σ of r, rx, w, wx, wx², t, tx, tx², tx³ with r = label − μ, w = μ(1 − μ), t = w(1 − 2μ), μ = P(label);
    `intercept`: Σ of r, w, t with slope 1.
    """

    start: Start
    cases: int
    positives: int
    slope: tuple[float, ...]
    intercept: tuple[float, ...]

    @classmethod
    def of(cls, labels: ArrayLike, p: ArrayLike, *, start: Start) -> LogisticSums:
        """A site's sums: labels (N,) 0/1, `p` (N,) in [0, 1]."""
        label, x = np.asarray(labels).astype(np.float64), logits(np.asarray(p, dtype=np.float64))
        r, w, t = _derivatives(label, start.a + start.b * x)
        slope = (r, r * x, w, w * x, w * x**2, t, t * x, t * x**2, t * x**3)
        intercept = _derivatives(label, start.alone + x)
        return cls(start, len(label), int(label.sum()), _sums(slope), _sums(intercept))

    def __add__(self, other: LogisticSums) -> LogisticSums:
        if self.start != other.start:
            raise RunFailed("calibration sums at two starts do not add; ask all sites again with one")
        return LogisticSums(
            self.start,
            self.cases + other.cases,
            self.positives + other.positives,
            tuple(a + b for a, b in zip(self.slope, other.slope, strict=True)),
            tuple(a + b for a, b in zip(self.intercept, other.intercept, strict=True)),
        )

    @property
    def calibration_slope(self) -> Estimate:
        """As `common.calibration.calibration_slope`; `separated` also where the expansion has no maximum near the
        start.
        """
        if self.positives in (0, self.cases):
            return Estimate(None, "one-class")
        r, rx, w, wx, wxx, t, tx, txx, txxx = self.slope
        gradient, hessian = np.array([r, rx]), np.array([[w, wx], [wx, wxx]])
        third = np.array([[[t, tx], [tx, txx]], [[tx, txx], [txx, txxx]]])
        step = _maximum(gradient, hessian, third)
        return Estimate(None, "separated") if step is None else Estimate(self.start.b + float(step[1]))

    @property
    def calibration_intercept(self) -> Estimate:
        """As `common.calibration.calibration_intercept`."""
        if self.positives in (0, self.cases):
            return Estimate(None, "one-class")
        r, w, t = self.intercept
        step = _maximum(np.array([r]), np.array([[w]]), np.array([[[t]]]))
        return Estimate(None, "separated") if step is None else Estimate(self.start.alone + float(step[0]))

    def to_json(self) -> dict[str, Any]:
        """Plain data for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LogisticSums:
        """The inverse of `to_json`. Raises RunFailed where it is not what `to_json` writes."""
        try:
            slope, intercept = (tuple(map(float, data[name])) for name in ("slope", "intercept"))
            if (len(slope), len(intercept)) != (9, 3) or not np.isfinite([*slope, *intercept]).all():
                raise ValueError("sums")
            return cls(Start(**data["start"]), int(data["cases"]), int(data["positives"]), slope, intercept)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunFailed(f"calibration sums cannot be read ({error}); do all sites run the same release?") from error


def start_from(positives: Floats, negatives: Floats, edges: ArrayLike) -> Start:
    """The fits to a pooled histogram, images by bin (B,); a bin's images lie in its middle in logit.

    Beyond the outermost edges they lie as far out as an exponential tail that halves over the neighbouring bin.
    """
    whole = np.clip(logit_edges(edges), -LOGIT_LIMIT, LOGIT_LIMIT)
    x = (whole[:-1] + whole[1:]) / 2
    if len(x) > 2:
        x[0] = whole[1] - (whole[2] - whole[1]) / np.log(2)
        x[-1] = whole[-2] + (whole[-2] - whole[-3]) / np.log(2)
    x = np.tile(np.clip(x, -LOGIT_LIMIT, LOGIT_LIMIT), 2)
    label, weight = np.repeat([1.0, 0.0], len(positives)), np.concatenate([positives, negatives])
    if not positives.sum() or not negatives.sum():
        return Start(0.0, 1.0, 0.0)
    there = weight > 0
    x, label, weight = x[there], label[there], weight[there]
    a, b = fit_logistic(np.column_stack([np.ones_like(x), x]), np.zeros_like(x), label, weight)
    (alone,) = fit_logistic(np.ones((len(x), 1)), x, label, weight)
    return Start(*(float(np.clip(value, -_STEEPEST, _STEEPEST)) for value in (a, b, alone)))


def _maximum(gradient: Floats, hessian: Floats, third: Floats) -> Floats | None:
    """The root near 0 of gradient − hessian d − third d d / 2; None where there is none within `_FAR`."""
    step = np.zeros_like(gradient)
    for _ in range(_STEPS):
        residual = gradient - hessian @ step - (third @ step) @ step / 2
        slope = hessian + third @ step
        if np.linalg.cond(slope) > 1e12:
            return None
        change = np.linalg.solve(slope, residual)
        step = step + change
        if not step @ hessian @ step <= _FAR**2 * hessian[0, 0]:
            return None
        if np.abs(change).max() <= 1e-12 * (1 + np.abs(step).max()):
            break
    return step


def _derivatives(label: Floats, linear: Floats) -> tuple[Floats, Floats, Floats]:
    mean = expit(linear)
    weight = mean * (1 - mean)
    return label - mean, weight, weight * (1 - 2 * mean)


def _sums(terms: Sequence[Floats]) -> tuple[float, ...]:
    return tuple(float(term.sum()) for term in terms)

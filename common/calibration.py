"""Do probabilities mean what they say? Calibration slope and intercept, Brier score, ECE and the reliability curve.

Labels (N,) are 0/1 or Boolean; `p` (N,) is the probability of the positive class in [0, 1]. Logits are clipped to
±`LOGIT_LIMIT` (p within 6e-6 of 0 or 1), so that one saturated probability cannot decide a slope.
"""

from __future__ import annotations

__all__ = [
    "LOGIT_LIMIT",
    "CalibrationBins",
    "Estimate",
    "ReliabilityBin",
    "brier",
    "calibration_intercept",
    "calibration_slope",
    "ece",
    "fit_logistic",
    "logits",
    "reliability",
    "wilson",
]

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, logit, ndtri, stdtrit

from common.groups import runs_of

Floats = NDArray[np.float64]

LOGIT_LIMIT = 12.0


@dataclass(frozen=True)
class Estimate:
    """A number, or None and why: `one-class`, `separated` (the best is infinite), `constant` (all p are the same).

    `low`, `high`: its 95 % interval, where patients were named and there are enough of them.
    """

    value: float | None
    why: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CalibrationBins:
    """Cases, Σ p and Σ label over equal-width bins of p on [0, 1] (1 falls in the last bin). They add across sites."""

    counts: tuple[int, ...]
    score_sums: tuple[float, ...]
    positives: tuple[int, ...]

    @classmethod
    def zero(cls, *, bins: int = 15) -> CalibrationBins:
        """No cases."""
        return cls((0,) * bins, (0.0,) * bins, (0,) * bins)

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        p: ArrayLike,
        *,
        bins: int = 15,
        patients: ArrayLike | None = None,
        smallest: int = 1,
    ) -> CalibrationBins:
        """The sums of some cases.

        Neighbouring bins are put into the fullest of them until each class in a bin has `smallest` of the `patients`
        (N,) or none; the ECE is then one of coarser bins.
        """
        label, score = _cases(labels, p)
        index = np.minimum((score * bins).astype(np.int64), bins - 1)
        if patients is not None:
            index = _merged(index, np.asarray(patients), label, bins=bins, smallest=smallest)
        sums = [np.bincount(index, weights=weights, minlength=bins) for weights in (None, score, label)]
        return cls(
            tuple(int(x) for x in sums[0]), tuple(float(x) for x in sums[1]), tuple(round(float(x)) for x in sums[2])
        )

    def __add__(self, other: CalibrationBins) -> CalibrationBins:
        if len(self.counts) != len(other.counts):
            raise ValueError(f"{len(self.counts)} and {len(other.counts)} calibration bins do not add; use one number")
        return CalibrationBins(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(a + b for a, b in zip(self.score_sums, other.score_sums, strict=True)),
            tuple(a + b for a, b in zip(self.positives, other.positives, strict=True)),
        )

    @property
    def ece(self) -> float | None:
        """Expected calibration error in [0, 1]: the cases' mean |mean p − share positive| of their bin. Guo 2017."""
        total = sum(self.counts)
        if not total:
            return None
        return float(np.abs(np.subtract(self.score_sums, self.positives)).sum() / total)


@dataclass(frozen=True)
class ReliabilityBin:
    """One point of a reliability curve: mean p against the observed share of positives, with its 95 % Wilson interval.

    The interval counts images as independent. In an empty bin the four numbers are None.
    """

    low: float
    high: float
    count: int
    mean: float | None
    observed: float | None
    observed_low: float | None
    observed_high: float | None


def brier(labels: ArrayLike, p: ArrayLike) -> float | None:
    """Mean squared distance between p and the label, in [0, 1], 0 the best; None without cases. Brier 1950."""
    label, score = _cases(labels, p)
    return float(np.square(score - label).mean()) if len(score) else None


def ece(labels: ArrayLike, p: ArrayLike, *, bins: int = 15) -> float | None:
    """Expected calibration error over equal-width bins, in [0, 1]; None without cases."""
    return CalibrationBins.of(labels, p, bins=bins).ece


def reliability(labels: ArrayLike, p: ArrayLike, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """The reliability curve over equal-width bins, empty bins included."""
    sums = CalibrationBins.of(labels, p, bins=bins)
    edge = np.linspace(0, 1, bins + 1).tolist()
    points = []
    for k, (count, score, hit) in enumerate(zip(sums.counts, sums.score_sums, sums.positives, strict=True)):
        if count:
            points.append(ReliabilityBin(edge[k], edge[k + 1], count, score / count, hit / count, *wilson(hit, count)))
        else:
            points.append(ReliabilityBin(edge[k], edge[k + 1], 0, None, None, None, None))
    return tuple(points)


def wilson(successes: float, trials: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion of `trials` ≥ 1 independent trials, in [0, 1]. Wilson 1927."""
    z2 = float(ndtri((1 + confidence) / 2)) ** 2
    share = successes / trials
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(0.0, float(center - reach)), min(1.0, float(center + reach))


def calibration_slope(labels: ArrayLike, p: ArrayLike, patients: ArrayLike | None = None) -> Estimate:
    """The slope b of logit P(label) = a + b logit(p), maximum likelihood; 1 is ideal, below 1 p is too extreme.

    Cox 1958; Van Calster et al. 2019. `separated` where a threshold on p splits the classes: no finite b is the best.
    With `patients` (N,) an interval by patient (`_interval`).
    """
    label, score = _cases(labels, p)
    x = logits(score)
    if label.all() or not label.any():
        return Estimate(None, "one-class")
    if x.min() == x.max():
        return Estimate(None, "constant")
    below, above = x[label == 0], x[label == 1]
    if below.max() <= above.min() or above.max() <= below.min():
        return Estimate(None, "separated")
    design, offset = np.column_stack([np.ones_like(x), x - x.mean()]), np.zeros_like(x)
    found = fit_logistic(design, offset, label)
    return Estimate(float(found[1]), None, *_interval(design, offset, label, found, patients))


def calibration_intercept(labels: ArrayLike, p: ArrayLike, patients: ArrayLike | None = None) -> Estimate:
    """The intercept a of logit P(label) = a + logit(p), slope fixed at 1; 0 is ideal, above 0 means p is too low.

    "Calibration in the large" on the logit scale. Van Calster et al. 2019. With `patients` (N,) an interval by patient
    (`_interval`).
    """
    label, score = _cases(labels, p)
    if label.all() or not label.any():
        return Estimate(None, "one-class")
    x = logits(score)
    design = np.ones((len(x), 1))
    found = fit_logistic(design, x, label)
    return Estimate(float(found[0]), None, *_interval(design, x, label, found, patients))


def _interval(
    design: Floats, offset: Floats, label: Floats, found: Floats, patients: ArrayLike | None
) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the last of the coefficients `found` (k,), images of one patient counted as one draw.

    The sandwich of Liang and Zeger 1986 over the P patients' sums of scores, times P/(P − 1), and t with one degree of
    freedom less than the patients of the rarer class. Over 1,000 simulated centers each of 20, 40, 80 and 300 patients
    with 1 to 4 images it covers 95 % (slope) and 95 to 98 % (intercept). None without patients, with fewer than two of
    a class, or where the information is singular.
    """
    if patients is None:
        return None, None
    code = np.unique(np.asarray(patients), return_inverse=True)[1]
    number, fewest = int(code.max()) + 1, min(len(np.unique(code[label == flag])) for flag in (0, 1))
    mean = expit(offset + design @ found)
    information = design.T @ (design * (mean * (1 - mean))[:, None])
    if fewest < 2 or not np.linalg.cond(information) < 1e12:
        return None, None
    pulls = np.column_stack([np.bincount(code, weights=column * (label - mean)) for column in design.T])
    along = np.linalg.solve(information, pulls.T)[-1]
    reach = float(stdtrit(fewest - 1, 0.975)) * np.sqrt(number / (number - 1) * float(along @ along))
    return float(found[-1] - reach), float(found[-1] + reach)


def _merged(
    index: NDArray[np.int64], patients: NDArray[Any], label: Floats, *, bins: int, smallest: int
) -> NDArray[np.int64]:
    """Each case's bin after merging, (N,)."""
    starts = runs_of(index, patients, total=bins, smallest=smallest, classes=label)
    count, run = np.bincount(index, minlength=bins), np.searchsorted(starts, np.arange(bins), side="right") - 1
    fullest = np.array([np.flatnonzero(run == r)[np.argmax(count[run == r])] for r in range(len(starts))])
    return np.asarray(fullest[run[index]], dtype=np.int64)


def fit_logistic(design: Floats, offset: Floats, label: Floats, weight: Floats | None = None) -> Floats:
    """Logistic regression by Newton: `design` (N, k), offset, label and weight (N,) to coefficients (k,).

    A step is halved until the (concave) likelihood does not fall.
    """
    weight = np.ones_like(label) if weight is None else weight
    beta = np.zeros(design.shape[1])
    likelihood = _likelihood(offset, label, weight)
    for _ in range(100):
        mean = expit(offset + design @ beta)
        gradient = design.T @ (weight * (label - mean))
        information = design.T @ (design * (weight * mean * (1 - mean))[:, None])
        step = np.linalg.lstsq(information, gradient, rcond=None)[0]
        for _ in range(60):
            proposal = _likelihood(offset + design @ (beta + step), label, weight)
            if proposal >= likelihood:
                break
            step = step / 2
        else:
            return beta
        beta = beta + step
        likelihood = proposal
        if np.abs(step).max() <= 1e-12 * (1 + np.abs(beta).max()):
            return beta
    return beta


def _likelihood(linear: Floats, label: Floats, weight: Floats) -> float:
    return float((weight * log_expit(np.where(label == 1, linear, -linear))).sum())


def logits(p: Floats) -> Floats:
    """logit(p), clipped to ±`LOGIT_LIMIT`."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(logit(p), -LOGIT_LIMIT, LOGIT_LIMIT), dtype=np.float64)


def _cases(labels: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    """Labels as 0.0 and 1.0, and probabilities."""
    label, score = np.asarray(labels).astype(np.bool_).astype(np.float64), np.asarray(p, dtype=np.float64)
    if label.shape != score.shape or score.ndim != 1:
        raise ValueError(f"labels {label.shape} and probabilities {score.shape} must be two vectors of one length")
    if not ((score >= 0) & (score <= 1)).all():
        raise ValueError("a probability is outside [0, 1] or not a number; did training diverge?")
    return label, score

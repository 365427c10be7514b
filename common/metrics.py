"""Metrics that add across sites: `sum(parts, EvaluationSums.zero())` is what one site with all cases would have sent.

Integers add in any order; the float sums (`brier`, `loss_sum`, bins of p) are added in the order of site ids.
"""

from __future__ import annotations

__all__ = ["BrierSum", "Confusion", "EvaluationSums", "threshold_at_sensitivity"]

from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.calibration import CalibrationBins
from common.errors import RunFailed
from common.groups import large_enough


@dataclass(frozen=True)
class Confusion:
    """Cases by label and by decision at one threshold: predicted positive is `score >= threshold`.

    Both numbers of a class are None where one of them is about too few patients to leave its site. So is a total with
    it: a total over the other sites would leave out just those where the model is seldom wrong.
    """

    tp: int | None
    fp: int | None
    tn: int | None
    fn: int | None

    @classmethod
    def zero(cls) -> Confusion:
        """No cases."""
        return cls(0, 0, 0, 0)

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        scores: ArrayLike,
        *,
        threshold: float,
        patients: ArrayLike | None = None,
        smallest: int = 1,
    ) -> Confusion:
        """Count some cases; labels (N,) are 0/1, scores (N,). With `patients` (N,) a cell of at least one and fewer
        than `smallest` of them keeps its class back; a cell of none hides nobody.
        """
        positive, called = np.asarray(labels).astype(np.bool_), np.asarray(scores) >= threshold
        whose = np.arange(len(positive)) if patients is None else np.asarray(patients)
        cells: dict[bool, tuple[int, int] | tuple[None, None]] = {}
        for flag in (True, False):
            yes, no = (positive == flag) & called, (positive == flag) & ~called
            told = patients is None or all(large_enough(whose[cell], smallest) for cell in (yes, no))
            cells[flag] = (int(yes.sum()), int(no.sum())) if told else (None, None)
        (tp, fn), (fp, tn) = cells[True], cells[False]
        return cls(tp, fp, tn, fn)

    def __add__(self, other: Confusion) -> Confusion:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Confusion(*(None if a is None or b is None else a + b for a, b in pairs))

    @classmethod
    def kept_back(cls) -> Confusion:
        """Nothing of it may leave."""
        return cls(None, None, None, None)

    @property
    def sensitivity(self) -> float | None:
        """Share of positives called positive, in [0, 1]; None without positives, or where they are kept back."""
        return _share(self.tp, self.fn)

    @property
    def specificity(self) -> float | None:
        """Share of negatives called negative, in [0, 1]; None without negatives, or where they are kept back."""
        return _share(self.tn, self.fp)


@dataclass(frozen=True)
class BrierSum:
    """Σ (p − label)² over `count` cases."""

    squares: float
    count: int

    @classmethod
    def zero(cls) -> BrierSum:
        """No cases."""
        return cls(0.0, 0)

    @classmethod
    def of(cls, labels: ArrayLike, p: ArrayLike) -> BrierSum:
        """Sum over some cases; labels (N,) are 0/1, `p` (N,) the probability of the positive class."""
        error = np.asarray(p, dtype=np.float64) - np.asarray(labels).astype(np.bool_)
        return cls(float(error @ error), len(error))

    def __add__(self, other: BrierSum) -> BrierSum:
        return BrierSum(self.squares + other.squares, self.count + other.count)

    @property
    def value(self) -> float | None:
        """The Brier score, in [0, 1]; None without cases."""
        return self.squares / self.count if self.count else None


@dataclass(frozen=True, kw_only=True)
class EvaluationSums:
    """Sums about one model and one part of the cases. `loss_sum` is None where the loss was not measured.

    `sites` names who is in it: one site twice or two thresholds do not add. `confusion` is at `threshold`; both are
    None before a threshold is locked. Where a site has a class with some patients, but fewer than its policy lets out,
    its `confusion`, `calibration` and `by_patient` are suppressed: the site is named in `suppressed` and missing from
    their totals. A class of `confusion` with a cell of too few patients is kept back too. `by_patient`: Σ o², Σ oe,
    Σ e² over patients, o a patient's positive images and e the sum of their p.
    """

    sites: tuple[str, ...]
    n_images: int
    n_patients: int
    loss_sum: float | None
    threshold: float | None
    confusion: Confusion | None
    brier: BrierSum
    calibration: CalibrationBins
    suppressed: tuple[str, ...] = ()
    by_patient: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def zero(cls) -> EvaluationSums:
        """No site: the neutral element of `+`."""
        return cls(
            sites=(),
            n_images=0,
            n_patients=0,
            loss_sum=None,
            threshold=None,
            confusion=None,
            brier=BrierSum.zero(),
            calibration=CalibrationBins.zero(),
        )

    @classmethod
    def of(
        cls,
        labels: ArrayLike,
        p: ArrayLike,
        patients: ArrayLike,
        *,
        site: str,
        threshold: float | None = None,
        loss_sum: float | None = None,
        smallest: int = 1,
    ) -> EvaluationSums:
        """A site's sums: labels (N,) are 0/1, `p` (N,) the probability of the positive class, `patients` (N,) names.

        `smallest`: numbers about fewer patients do not leave the site.
        """
        positive, whose = np.asarray(labels).astype(np.bool_), np.asarray(patients)
        told = all(large_enough(whose[which], smallest) for which in (positive, ~positive))
        counted = told and threshold is not None
        return cls(
            sites=(site,),
            n_images=len(positive),
            n_patients=len(np.unique(whose)),
            loss_sum=loss_sum,
            threshold=threshold,
            confusion=(
                Confusion.of(labels, p, threshold=float(threshold or 0), patients=whose, smallest=smallest)
                if counted
                else None
            ),
            brier=BrierSum.of(labels, p),
            calibration=(
                CalibrationBins.of(labels, p, patients=whose, smallest=smallest) if told else CalibrationBins.zero()
            ),
            suppressed=() if told else (site,),
            by_patient=_by_patient(positive, np.asarray(p, dtype=np.float64), whose) if told else (0.0, 0.0, 0.0),
        )

    def __add__(self, other: EvaluationSums) -> EvaluationSums:
        if not self.sites:
            return other
        if not other.sites:
            return self
        if twice := sorted(set(self.sites) & set(other.sites)):
            raise RunFailed(f"site {twice[0]} is in both sums; count each site once")
        if self.threshold != other.threshold:
            raise RunFailed(
                f"sums at thresholds {self.threshold} and {other.threshold} do not add; lock one for all sites"
            )
        counts = [c for c in (self.confusion, other.confusion) if c is not None]
        return EvaluationSums(
            sites=tuple(sorted((*self.sites, *other.sites))),
            n_images=self.n_images + other.n_images,
            n_patients=self.n_patients + other.n_patients,
            loss_sum=None if self.loss_sum is None or other.loss_sum is None else self.loss_sum + other.loss_sum,
            threshold=self.threshold,
            confusion=sum(counts, Confusion.zero()) if counts else None,
            brier=self.brier + other.brier,
            calibration=self.calibration + other.calibration,
            suppressed=tuple(sorted((*self.suppressed, *other.suppressed))),
            by_patient=_triple(a + b for a, b in zip(self.by_patient, other.by_patient, strict=True)),
        )

    @property
    def loss(self) -> float | None:
        """Mean loss per image; None without images or where a site did not measure it."""
        return self.loss_sum / self.n_images if self.loss_sum is not None and self.n_images else None

    def to_json(self) -> dict[str, Any]:
        """Plain data for the wire: numbers, strings, None, lists and dicts by field name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EvaluationSums:
        """The inverse of `to_json`. Raises RunFailed where it is not what `to_json` writes."""
        try:
            if strange := data.keys() ^ cls.__dataclass_fields__.keys():
                raise KeyError(sorted(strange)[0])
            return cls(
                sites=tuple(map(str, data["sites"])),
                n_images=int(data["n_images"]),
                n_patients=int(data["n_patients"]),
                loss_sum=_number(data["loss_sum"]),
                threshold=_number(data["threshold"]),
                confusion=None if data["confusion"] is None else Confusion(**data["confusion"]),
                brier=BrierSum(**data["brier"]),
                calibration=CalibrationBins(**{name: tuple(sums) for name, sums in data["calibration"].items()}),
                suppressed=tuple(map(str, data["suppressed"])),
                by_patient=_triple(map(float, data["by_patient"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunFailed(f"evaluation sums cannot be read ({error}); do all sites run the same release?") from error


def threshold_at_sensitivity(labels: ArrayLike, scores: ArrayLike, sensitivity: float = 0.90) -> float | None:
    """The largest t at which `score >= t` finds `sensitivity`, in (0, 1], of the positives; None without positives."""
    positives = np.sort(np.asarray(scores, dtype=np.float64)[np.asarray(labels).astype(np.bool_)])[::-1]
    if not len(positives):
        return None
    found = np.arange(1, len(positives) + 1) / len(positives)
    return float(positives[np.searchsorted(found, sensitivity)])


def _by_patient(positive: NDArray[np.bool_], p: NDArray[np.float64], whose: NDArray[Any]) -> tuple[float, float, float]:
    code = np.unique(whose, return_inverse=True)[1]
    observed, expected = (np.bincount(code, weights=weights) for weights in (positive, p))
    return float(observed @ observed), float(observed @ expected), float(expected @ expected)


def _share(part: int | None, rest: int | None) -> float | None:
    return part / (part + rest) if part is not None and rest is not None and part + rest else None


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third


def _number(value: Any) -> float | None:
    return None if value is None else float(value)

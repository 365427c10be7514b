"""The interval of calibration slope and intercept, by patient, against statsmodels and by counting."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from scipy.stats import norm, t

from common.calibration import Estimate, calibration_intercept, calibration_slope

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn(seed: int, patients: int) -> Drawn:
    """Calibrated probabilities, 1 to 4 images a patient whose labels and probabilities depend on each other."""
    rng = np.random.default_rng(seed)
    whose = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    x = (rng.normal(size=patients)[whose] + rng.normal(size=len(whose))) / np.sqrt(2) - 0.3
    luck = (rng.normal(size=patients)[whose] + rng.normal(size=len(whose))) / np.sqrt(2)
    return norm.cdf(luck) < expit(1.2 * x), expit(1.2 * x), whose


@pytest.mark.parametrize("patients", [12, 80, 400])
def test_the_interval_is_statsmodels_sandwich(patients: int) -> None:
    labels, p, whose = drawn(patients, patients)
    number = len(np.unique(whose))
    fewest = min(len(np.unique(whose[labels == flag])) for flag in (True, False))
    quantile = t(fewest - 1).ppf(0.975) * np.sqrt(number / (number - 1))
    clusters = {"groups": whose, "use_correction": False}
    sloped = sm.GLM(labels, sm.add_constant(logit(p)), sm.families.Binomial())
    alone = sm.GLM(labels, np.ones(len(labels)), sm.families.Binomial(), offset=logit(p))
    for model, found in (
        (sloped, calibration_slope(labels, p, whose)),
        (alone, calibration_intercept(labels, p, whose)),
    ):
        fit = model.fit(cov_type="cluster", cov_kwds=clusters, tol=1e-12)
        middle, reach = fit.params[-1], quantile * fit.bse[-1]
        assert (found.value, found.low, found.high) == pytest.approx((middle, middle - reach, middle + reach), rel=1e-5)


def test_images_for_patients_would_claim_too_much() -> None:
    labels, p, whose = drawn(0, 200)
    by_patient, by_image = (calibration_intercept(labels, p, who) for who in (whose, np.arange(len(whose))))
    assert width(by_patient) > 1.1 * width(by_image)


def width(found: Estimate) -> float:
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_the_interval_covers() -> None:
    inside = np.zeros(2)
    for seed in range(400):
        labels, p, whose = drawn(seed, 60)
        found = calibration_slope(labels, p, whose), calibration_intercept(labels, p, whose)
        inside += [(one.low or 0) <= truth <= (one.high or 0) for one, truth in zip(found, (1, 0), strict=True)]
    assert ((inside / 400 > 0.91) & (inside / 400 < 0.985)).all()


def test_one_patient_of_a_class_is_no_interval() -> None:
    labels, p = np.array([1, 1, 0, 0, 0, 0]), np.array([0.9, 0.3, 0.5, 0.2, 0.1, 0.4])
    found = calibration_slope(labels, p, [0, 0, 1, 2, 3, 4])
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert calibration_slope(labels, p).low is None
    assert calibration_slope(labels, labels * 0.5 + 0.2, np.arange(6)) == Estimate(None, "separated")

"""What a site sends for the shift panel: against loops over patients, and what cannot be read from it."""

from __future__ import annotations

import numpy as np
import pytest

from client.shift import Patients, draws_allowed, patients_of, shift_moments, shift_sums
from common.shift import DESCRIPTORS, ShiftMoments
from server.shift import make_reference

D, F = len(DESCRIPTORS), 6


def some_patients(seed: int, count: int = 60) -> Patients:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((D + F, D + F))
    return Patients(rng.standard_normal((count, D + F)) @ mixing, rng.integers(0, 2, count))


def test_a_patient_is_the_mean_of_the_images_and_positive_where_any_is() -> None:
    descriptors, features = np.arange(12.0).reshape(4, 3), np.arange(8.0).reshape(4, 2)
    found = patients_of(
        descriptors, features, labels=np.array([0, 1, 0, 0]), patients=np.array([7, 7, 2, 2]), positive=1
    )
    np.testing.assert_array_equal(found.values, [[7.5, 8.5, 9.5, 5, 6], [1.5, 2.5, 3.5, 1, 2]])
    np.testing.assert_array_equal(found.classes, [0, 1])


def test_moments_add_and_their_scatter_holds_no_difference_of_sites() -> None:
    one, other = some_patients(0), some_patients(1)
    moved = Patients(other.values + 100, other.classes)
    total, apart = (shift_moments(one, classes=2) + shift_moments(b, classes=2) for b in (other, moved))
    np.testing.assert_allclose(total.scatter, apart.scatter, rtol=1e-6)
    by_hand = np.zeros((D + F, D + F))
    for site in (one, other):
        for c in (0, 1):
            rows = site.values[site.classes == c]
            by_hand += np.cov(rows.T, bias=True) * len(rows)
    np.testing.assert_allclose(total.scatter, by_hand, rtol=1e-8, atol=1e-8)
    assert total.counts.sum() == 120


def test_axes_are_free_of_what_descriptors_explain() -> None:
    """Within site and class, the axes have variance 1, and next to no correlation with descriptors."""
    patients = some_patients(2, 400)
    reference = make_reference([shift_moments(patients, classes=2)], seed=0)
    u = reference.embed(patients.values)
    for c in (0, 1):
        u[patients.classes == c] -= u[patients.classes == c].mean(axis=0)
    along, seen = u[:, D : D + reference.axes.shape[1]], u[:, :D]
    np.testing.assert_allclose(along.var(axis=0), 1, rtol=0.02)
    assert np.abs(along.T @ seen / 400).max() < 0.05


def test_sums_against_a_loop_over_patients() -> None:
    patients = some_patients(3)
    reference = make_reference([shift_moments(patients, classes=2), shift_moments(some_patients(4), classes=2)], seed=0)
    sums = shift_sums(patients, reference, rng=np.random.default_rng(5))
    u = reference.embed(patients.values)
    mean, variance = np.zeros(u.shape[1]), np.zeros(u.shape[1])
    for c in (0, 1):
        rows = u[patients.classes == c]
        mean += reference.weights[c] * rows.mean(axis=0)
        variance += reference.weights[c] ** 2 * rows.var(axis=0, ddof=1) / len(rows)
    np.testing.assert_allclose(sums.mean[2:], mean)
    np.testing.assert_allclose(sums.variance[2:], variance)
    share = (patients.classes == 1).mean()
    assert sums.mean[1] == pytest.approx(share)
    assert sums.variance[1] == pytest.approx(share * (1 - share) / 60)
    assert sums.mean.shape == (reference.coordinates.total,)


def test_draws_have_the_covariance_of_the_means() -> None:
    patients = some_patients(6, 190)
    reference = make_reference([shift_moments(patients, classes=2)], seed=0)
    many = [shift_sums(patients, reference, rng=np.random.default_rng(i)).draws for i in range(100)]
    drawn = np.concatenate(many).astype(np.float64)
    sums = shift_sums(patients, reference, rng=np.random.default_rng(0))
    np.testing.assert_allclose((drawn**2).mean(axis=0)[2:] / sums.variance[2:], 1, atol=0.12)


@pytest.mark.parametrize("count", [25, 26, 27, 28, 100, 1000])
def test_fewer_than_a_third_as_many_draws_as_patients(count: int) -> None:
    patients = some_patients(7, count)
    reference = make_reference([shift_moments(patients, classes=2)], seed=0)
    sums = shift_sums(patients, reference, rng=np.random.default_rng(0))
    assert 3 * len(sums.draws) < count
    assert np.linalg.matrix_rank(sums.draws.astype(np.float64)) <= len(sums.draws) < count
    assert len(sums.draws) == draws_allowed(count)


def test_too_few_patients_send_nothing() -> None:
    reference = make_reference([shift_moments(some_patients(8), classes=2)], seed=0)
    with pytest.raises(ValueError, match="too few"):
        shift_sums(some_patients(9, 24), reference, rng=np.random.default_rng(0))
    alone = Patients(some_patients(9).values, np.zeros(60, dtype=np.int64))
    with pytest.raises(ValueError, match="too few"):
        shift_sums(alone, reference, rng=np.random.default_rng(0))


def test_values_that_are_not_finite_are_refused() -> None:
    broken = some_patients(10)
    broken.values[3, 4] = np.nan
    with pytest.raises(ValueError, match="diverge"):
        ShiftMoments.of(broken.values, broken.classes, count=2)

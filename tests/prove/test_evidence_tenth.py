"""A tenth of the proofs of the evidence."""

from __future__ import annotations

import pytest

from tests.prove.evidence import CLASSES, MOST_SENT, agreement, coverage, paired_error, sent_under_masks


def test_federated_numbers_are_the_central_ones() -> None:
    found = agreement(30)
    assert found["1024"].auc <= 3e-5
    assert found["1024"].error_most <= 1e-6
    assert found["64"].auc <= 1e-3
    assert [one.held for one in found.values()] == [30] * 3


@pytest.mark.parametrize("classes", CLASSES)
def test_a_site_sends_at_most_64_kib_under_masks(classes: int) -> None:
    assert sent_under_masks(classes) <= MOST_SENT


def test_the_interval_covers_and_the_naive_one_does_not() -> None:
    found = coverage(100)
    assert min(found.central, found.sums, found.merged) >= 0.90
    assert found.naive < 0.90


def test_the_paired_test_errs_as_often_as_it_says() -> None:
    clustered, naive = paired_error(500)
    assert 0.03 <= clustered <= 0.08
    assert naive > 0.10

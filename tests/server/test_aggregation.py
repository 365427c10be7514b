"""How updates combine: the image-weighted mean, whatever order they arrive in."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from common.config import FedAvg, FedProx
from common.errors import RunFailed
from common.update import Update
from common.weights import fingerprint
from server.aggregation import combine


def updates(count: int = 4) -> dict[str, Update]:
    rng = np.random.default_rng(0)
    return {
        f"site-{i}": Update.of({"w": rng.normal(size=(3, 4)).astype(np.float32)}, weight=10.0 ** (i - 1) / 3)
        for i in range(count)
    }


@pytest.mark.parametrize("strategy", [FedAvg(), FedProx(mu=0.1)])
def test_the_mean_is_weighted_by_images(strategy: FedAvg | FedProx) -> None:
    sent = updates()
    expected = np.zeros((3, 4))
    for update in sent.values():
        expected += update.mean()["w"] * update.weight / sum(other.weight for other in sent.values())
    np.testing.assert_allclose(combine(strategy, sent)["w"], expected, rtol=1e-12)


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    sent = updates()
    results = {fingerprint(combine(FedAvg(), dict(order))) for order in itertools.permutations(sent.items())}
    assert len(results) == 1


def test_one_site_alone_is_followed_exactly() -> None:
    delta = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    change = combine(FedAvg(), {"site": Update.of({"w": delta}, weight=12.0)})["w"]
    np.testing.assert_allclose(change, delta, rtol=1e-15)


def test_nobody_is_an_error() -> None:
    with pytest.raises(RunFailed, match="no site sent an update"):
        combine(FedAvg(), {})

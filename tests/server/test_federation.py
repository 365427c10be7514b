"""Flower's edge of the server: whose reply is whose, and who may say that it is which site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from common.config import Experiment
from common.errors import RunFailed
from common.orders import SiteCard, TrainOrder, TrainReport
from common.tasks import Task
from common.wire import arrays_of, pack
from server.rounds import evaluate_order
from server.strategy import FlowerFederation
from simulation.grid import LocalGrid

TASK = Task("lump", ("benign", "malignant"), "malignant")


def answering(*, lose: str = "", poison: str = "") -> ClientApp:
    """An app whose site id is its folder's name; evaluation at `lose` ends in an error, `poison` sends NaN."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        site = Path(str(context.node_config["site"])).name
        return Message(pack(SiteCard(site, "train", TASK, {"train": 4}, 4, "0" * 64)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        site = Path(str(context.node_config["site"])).name
        change = {"w": np.array([1.0, np.nan if site == poison else 2.0], np.float32)}
        report = TrainReport(site, 1.0, 2, 1, 0.5, 1.0, 0.0)
        return Message(pack(report, arrays_of(change)), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        if Path(str(context.node_config["site"])).name == lose:
            return Message(Error(5, "Flower's own words"), reply_to=message)
        return Message(RecordDict(), reply_to=message)

    return app


class NamedGrid(LocalGrid):
    """A grid whose nodes were registered under names, and where errors come from the server's own number,
    as Flower does.
    """

    names: tuple[str, ...] = ()

    def get_nodes(self) -> Iterable[Any]:
        nodes = list(super().get_nodes())
        for node, name in zip(nodes, self.names, strict=True):
            node.name = name
        return nodes

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            if reply.has_error():
                reply.metadata.__dict__["_src_node_id"] = 1
        return replies


def federation(*sites: str, names: tuple[str, ...], lose: str = "", poison: str = "") -> FlowerFederation:
    from common.config import Deadlines

    grid = NamedGrid(answering(lose=lose, poison=poison), [Path(site) for site in sites])
    grid.names = names
    return FlowerFederation(grid, Experiment("tiny", TASK, deadlines=Deadlines(gather=0.1, reply=5)))


def test_sites_are_gathered_by_the_names_of_their_keys() -> None:
    assert sorted(federation("tal", "beh", names=("tal", "beh")).gather({"tal", "beh"})) == ["beh", "tal"]


def test_a_client_may_not_say_that_it_is_another_site() -> None:
    with pytest.raises(RunFailed, match=r"no answer from tal .*registered as evil says that it is site tal"):
        federation("beh", "tal", names=("beh", "evil")).gather({"tal", "beh"})


def test_two_nodes_may_not_both_be_one_site() -> None:
    with pytest.raises(RunFailed, match="two nodes both say"):
        federation("a/tal", "b/tal", names=("", "")).gather()


def test_a_lost_node_is_named_though_the_error_comes_from_the_server() -> None:
    sites = federation("tal", "beh", names=("tal", "beh"), lose="tal")
    sites.gather({"tal", "beh"})
    order = evaluate_order(sites.experiment, {"val": ("val",)}, run="x", round_number=1)
    evaluated = sites.evaluate(1, {"tal": order, "beh": order}, {})
    assert evaluated.failures["tal"] == "the node was lost (error 5)"
    assert "not in sonofed's form" in evaluated.failures["beh"]


def test_nobody_asked_means_nobody_waited_for() -> None:
    sites = federation("tal", names=("tal",))
    orders: dict[str, TrainOrder] = {}
    assert sites.train(1, orders, {}).change is None


def a_train_order() -> TrainOrder:
    x = Experiment("tiny", TASK)
    parts = (x.crop, x.model, x.training, x.strategy)
    return TrainOrder("x", 1, 0, 1, 1, (0.0, 1.0), ("train",), TASK, *parts)


def test_an_update_that_is_not_finite_is_named_and_left_out() -> None:
    sites = federation("tal", "beh", names=("tal", "beh"), poison="beh")
    sites.gather({"tal", "beh"})
    made = sites.train(1, {site: a_train_order() for site in ("tal", "beh")}, {"w": np.zeros(2, np.float32)})
    assert sorted(made.reports) == ["tal"]
    assert made.failures["beh"] == (
        "its update is not finite (w); lower the learning rate, or look at the site's images"
    )
    assert made.change is not None
    np.testing.assert_array_equal(made.change["w"], [1.0, 2.0])

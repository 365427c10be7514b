"""Flower's edge of the server: whose reply is whose, and who may say that it is which site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from common.config import Experiment
from common.errors import RunFailed
from common.orders import SiteCard, TrainOrder
from common.tasks import Task
from common.wire import pack
from server.rounds import evaluate_order
from server.strategy import FlowerFederation
from simulation.grid import LocalGrid

TASK = Task("lump", ("benign", "malignant"), "malignant")


def answering(*, lose: str = "") -> ClientApp:
    """An app whose site id is its folder's name; evaluation at `lose` ends in an error."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        site = Path(str(context.node_config["site"])).name
        return Message(pack(SiteCard(site, "train", TASK, {"train": 4}, 4, "0" * 64)), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        if Path(str(context.node_config["site"])).name == lose:
            return Message(Error(5, "Flower's own words"), reply_to=message)
        return Message(RecordDict(), reply_to=message)

    return app


class NamedGrid(LocalGrid):
    """A grid whose nodes were registered under names, and where errors come from the server's own number, as Flower does."""

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


def federation(*sites: str, names: tuple[str, ...], lose: str = "") -> FlowerFederation:
    from common.config import Deadlines

    grid = NamedGrid(answering(lose=lose), [Path(site) for site in sites])
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

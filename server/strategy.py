"""Flower's edge of the server: orders out as messages, replies in as plain values.

The strategy is a Flower `Strategy`, so that its four steps are where a user of Flower looks for them; the loop around
them is `server.rounds`.
"""

from __future__ import annotations

__all__ = ["CrossCenter", "FlowerFederation"]

import json
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from pydantic import TypeAdapter

from common.config import Experiment, FedAvg, FedProx, HospitalPrivacy
from common.errors import RunFailed, SonofedError
from common.orders import EvaluateOrder, EvaluateReport, SiteCard, TrainOrder, TrainReport
from common.private_orders import CardOrder, PrivateOrder
from common.update import Update, Weights, check_finite
from common.wire import arrays_of, pack, payload_bytes, unpack, weights_of
from server.aggregation import combine
from server.hospital_noise import hospital_mean, hospital_plan
from server.private_rounds import is_private, require_private
from server.rounds import Evaluated, Trained
from server.secure_messages import FlowerExchange

_LOST = "no reply before the deadline"


class CrossCenter(Strategy):
    """One message for each site that was given an order; the sum of what comes back, in the order of site ids."""

    def __init__(self, strategy: FedAvg | FedProx, nodes: Mapping[str, int]) -> None:
        self.strategy = strategy
        self.nodes = dict(nodes)
        self.reports: dict[str, TrainReport] = {}
        self.evaluations: dict[str, EvaluateReport] = {}
        self.failures: dict[str, str] = {}
        self.bytes: dict[str, int] = {}
        self.privacy: HospitalPrivacy | None = None
        self.rounds = 1
        self.private: dict[str, PrivateOrder] = {}
        self._asked: dict[str, Message] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One train message for each site in `config["orders"]` (JSON by site id)."""
        return self._messages(MessageType.TRAIN, server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One evaluate message for each site in `config["orders"]`."""
        return self._messages(MessageType.EVALUATE, server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The combined change of the weights, and the number of sites in it; (None, None) where nobody trained."""
        change = self.combined(replies)
        return (None, None) if change is None else (arrays_of(change), MetricRecord({"sites": len(self.reports)}))

    def combined(self, replies: Iterable[Message]) -> Weights | None:
        """The combined change of the weights, float64; None where nobody trained. `reports` says who did."""
        self.reports, self.bytes, updates = {}, {}, {}
        for site, content in self._contents(replies):
            try:
                report = unpack(TrainReport, content)
                require_private(report, self.private.get(site))
                change = weights_of(content.array_records["arrays"])
                check_finite(change)
                updates[site] = Update.of(change, weight=report.weight)
                self.reports[site], self.bytes[site] = report, payload_bytes(content)
            except (SonofedError, KeyError) as error:
                self.failures[site] = str(error)
        return self._of_updates(updates) if updates else None

    def _of_updates(self, updates: Mapping[str, Update]) -> Weights:
        if self.privacy is None:
            return combine(self.strategy, updates)
        sites = len(self._asked)
        plan, _ = hospital_plan(self.privacy, sites=sites, rounds=self.rounds)
        return hospital_mean(updates, self.privacy, plan, sites=sites)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Keep the sites' reports in `evaluations`; the number of sites that answered."""
        self.evaluations = {}
        for site, content in self._contents(replies):
            try:
                self.evaluations[site] = unpack(EvaluateReport, content)
            except SonofedError as error:
                self.failures[site] = str(error)
        return MetricRecord({"sites": len(self.evaluations)}) if self.evaluations else None

    def summary(self) -> None:
        """Nothing to print: the run folder says everything."""

    def _messages(
        self, kind: str, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        orders = json.loads(str(config["orders"]))
        self.failures = {}
        self._asked = {
            site: Message(
                RecordDict({"order": ConfigRecord({"json": json.dumps(orders[site])}), "arrays": arrays}),
                self.nodes[site],
                kind,
                group_id=str(server_round),
            )
            for site in sorted(orders)
        }
        return list(self._asked.values())

    def _contents(self, replies: Iterable[Message]) -> list[tuple[str, RecordDict]]:
        """The replies' contents by site, sorted; errors go to `failures`.

        A reply belongs to the site whose message it answers: the error that Flower writes for a lost node comes from
        the server's own number.
        """
        site_of = {message.metadata.message_id: site for site, message in self._asked.items()}
        found = []
        for reply in replies:
            site = site_of.get(reply.metadata.reply_to_message_id)
            if site is None:
                continue
            if reply.has_error():
                self.failures[site] = _why(reply)
            else:
                found.append((site, reply.content))
        return sorted(found, key=lambda pair: pair[0])


class FlowerFederation:
    """The sites behind a Flower grid; the `Federation` that the round loop talks to."""

    def __init__(self, grid: Grid, experiment: Experiment) -> None:
        self.grid = grid
        self.experiment = experiment
        self.strategy = CrossCenter(experiment.strategy, {})
        self.strategy.rounds = experiment.training.rounds
        if isinstance(experiment.privacy, HospitalPrivacy):
            self.strategy.privacy = experiment.privacy

    def gather(self, expected: Collection[str] = ()) -> dict[str, SiteCard]:
        """Ask every connected node who it is, until the `expected` site ids answered (any one where none are named).

        Sites that nobody expects are left out. RunFailed where a site is missing at the deadline `deadlines.gather`, or
        two nodes claim one id.
        """
        seconds = self.experiment.deadlines.gather
        deadline = time.monotonic() + seconds
        cards: dict[str, SiteCard] = {}
        asked: set[int] = set()
        complaint: str | None = None
        while True:
            fresh = {node.node_id: node.name for node in self.grid.get_nodes() if node.node_id not in asked}
            asked.update(fresh)
            if fresh:
                timeout = max(1.0, deadline - time.monotonic())
                complaint = self._introduce(fresh, cards, timeout=timeout) or complaint
            missing = sorted(set(expected) - cards.keys())
            if cards and not missing:
                return {site: card for site, card in cards.items() if not expected or site in expected}
            if time.monotonic() > deadline:
                who = ", ".join(missing) or "any site"
                complaint = complaint or (f"{len(cards)} sites answered" if cards else "no node is connected")
                raise RunFailed(
                    f"no answer from {who} within {seconds:g} s ({complaint}); "
                    "start the client there or raise deadlines.gather"
                )
            time.sleep(0.5)

    def _introduce(self, nodes: Mapping[int, str], cards: dict[str, SiteCard], *, timeout: float) -> str | None:
        """Ask these nodes who they are, and put their cards into `cards`; what is wrong with one of them, or None.

        `nodes` has the names that their keys were registered by ("" in a simulation).
        """
        why = None
        asked = CardOrder(private=is_private(self.experiment.privacy))
        messages = [Message(pack(asked), node, MessageType.QUERY, group_id="0") for node in nodes]
        for reply in _exchange(self.grid, messages, seconds=timeout):
            if reply.has_error():
                why = f"a node answered: {_why(reply)}"
                continue
            try:
                card = unpack(SiteCard, reply.content)
            except SonofedError as error:
                why = f"a node answered: {error}"
                continue
            registered = nodes[reply.metadata.src_node_id]
            if registered and registered != card.site:
                why = f"the client registered as {registered} says that it is site {card.site}"
                continue
            if card.site in cards:
                raise RunFailed(f"two nodes both say that they are site {card.site}; give each site its own id")
            cards[card.site] = card
            self.strategy.nodes[card.site] = reply.metadata.src_node_id
        return why

    def train(self, round_number: int, orders: Mapping[str, TrainOrder], weights: Weights) -> Trained:
        """One round of training, waiting at most `deadlines.reply`."""
        strategy = self.strategy
        strategy.private = {site: order.private for site, order in orders.items() if order.private}
        messages = strategy.configure_train(round_number, arrays_of(weights), _by_site(orders), self.grid)
        replies = _exchange(self.grid, messages, seconds=self.experiment.deadlines.reply)
        change = strategy.combined(replies)
        failures = self._failures(orders, strategy.reports)
        return Trained(change, strategy.reports, failures, strategy.bytes)

    def evaluate(self, round_number: int, orders: Mapping[str, EvaluateOrder], weights: Weights) -> Evaluated:
        """One round of evaluation, waiting at most `deadlines.reply`."""
        strategy = self.strategy
        messages = strategy.configure_evaluate(round_number, arrays_of(weights), _by_site(orders), self.grid)
        replies = _exchange(self.grid, messages, seconds=self.experiment.deadlines.reply)
        strategy.aggregate_evaluate(round_number, replies)
        return Evaluated(strategy.evaluations, self._failures(orders, strategy.evaluations))

    def _failures(self, asked: Mapping[str, Any], answered: Mapping[str, Any]) -> dict[str, str]:
        return {site: self.strategy.failures.get(site, _LOST) for site in sorted(asked) if site not in answered}

    def exchange(self, order: EvaluateOrder, weights: Weights) -> FlowerExchange:
        """How the sites evaluate as `order` says and send their sums under masks."""
        return FlowerExchange(lambda kind, contents: self._ask(kind, contents, group=str(order.round)), order, weights)

    def _ask(
        self, kind: str, contents: Mapping[str, RecordDict], *, group: str
    ) -> tuple[Mapping[str, RecordDict], Mapping[str, str]]:
        """One message to each site, waiting at most `deadlines.reply`:
        contents of replies, and why others gave none.
        """
        asked = {s: Message(content, self.strategy.nodes[s], kind, group_id=group) for s, content in contents.items()}
        replies = _exchange(self.grid, asked.values(), seconds=self.experiment.deadlines.reply)
        site_of = {message.metadata.message_id: site for site, message in asked.items()}
        found, failures = {}, dict.fromkeys(asked, _LOST)
        for reply in replies:
            site = site_of[reply.metadata.reply_to_message_id]
            if reply.has_error():
                failures[site] = _why(reply)
            else:
                found[site] = reply.content
                del failures[site]
        return found, failures


def _exchange(grid: Grid, messages: Iterable[Message], *, seconds: float) -> list[Message]:
    """Send the messages and collect what comes back within `seconds`; asks often at first, later every 3 s."""
    began = time.monotonic()
    waiting = set(grid.push_messages(list(messages))) - {None}
    replies: list[Message] = []
    while waiting:
        arrived = list(grid.pull_messages(waiting))
        replies += arrived
        waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        spent = time.monotonic() - began
        if not waiting or spent > seconds:
            break
        time.sleep(min(3.0, 0.25 + spent / 20, max(0.0, seconds - spent)))
    return replies


def _why(reply: Message) -> str:
    """Why a node gave no answer; Flower's own reasons in words of ours."""
    lost = {3: "the node is not connected", 5: "the node was lost", 8: "the site's process died"}
    code = int(reply.error.code)
    return f"{lost.get(code) or reply.error.reason or 'failed'} (error {code})"


def _by_site(orders: Mapping[str, Any]) -> ConfigRecord:
    as_json = {site: TypeAdapter(type(order)).dump_python(order, mode="json") for site, order in orders.items()}
    return ConfigRecord({"orders": json.dumps(as_json)})

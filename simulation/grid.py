"""Flower's apps in one process: a grid that hands each message straight to the ClientApp. No start-up cost.

The two private names of Flower that this needs stay in this file.
"""

from __future__ import annotations

__all__ = ["LocalGrid", "run_locally"]

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

_RUN_ID = 1
_SERVER = 1
_FIRST_NODE = 101


class LocalGrid(Grid):
    """A Flower grid whose nodes are site folders in this process; replies come in the order of the messages."""

    def __init__(
        self,
        app: ClientApp,
        sites: Sequence[Path],
        *,
        on_message: Callable[[Message], None] | None = None,
        node_config: Mapping[str, str | bool] | None = None,
    ):
        self._app = app
        self._run = Run.create_empty(_RUN_ID)
        self._replies: dict[str, Message] = {}
        self._ids = (f"message-{i}" for i in itertools.count(1))
        self._on_message = on_message
        self._contexts = {
            _FIRST_NODE + i: Context(
                _RUN_ID, _FIRST_NODE + i, {"site": str(site), **(node_config or {})}, RecordDict(), {}
            )
            for i, site in enumerate(sites)
        }
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, _RUN_ID, _SERVER

    def set_run(self, run: Run) -> None:
        """Replace the run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes' numbers, in the order of the sites."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver each message at once and keep its reply."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages; each can be fetched once."""
        return [self._replies.pop(name) for name in message_ids if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Deliver and return the replies. Delivery blocks, so a deadline cannot cut a site short here."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> str:
        name = next(self._ids)
        message.metadata.__dict__["_message_id"] = name
        if self._on_message:
            self._on_message(message)
        reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        if self._on_message:
            self._on_message(reply)
        self._replies[name] = reply
        return name


def run_locally(
    server: ServerApp,
    client: ClientApp,
    sites: Sequence[Path],
    run_config: dict[str, str | int | float | bool],
    *,
    ledgers: Path | None = None,
    insecure_demo: bool = False,
) -> None:
    """Run the unchanged ServerApp against the unchanged ClientApp, one node for each site folder.

    `ledgers` and `insecure_demo` are what each node is started with; see `client.private_round.Custody`.
    """
    node: dict[str, str | bool] = {"insecure-demo": True} if insecure_demo else {}
    grid = LocalGrid(client, sites, node_config=node | ({"ledgers": str(ledgers)} if ledgers else {}))
    server(grid, Context(_RUN_ID, _SERVER, {}, RecordDict(), run_config))

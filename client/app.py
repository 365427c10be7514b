"""The hospital's Flower ClientApp: unpack, call, pack. The same app runs in-process, under Ray and in a SuperNode.

The site folder comes from the node's own configuration (`site="…"`), or, under Flower's simulation engine, from the
environment variable SONOFED_SITES (folders joined by the path separator) and the node's partition number. Where the
ledger and the count of evaluations lie and whether draws are seeded for a demonstration also stand there
(`ledgers="…"`, `insecure-demo=true`, or the variables SONOFED_LEDGERS and SONOFED_INSECURE_DEMO): whoever starts the
client decides it, and no message can.
"""

from __future__ import annotations

__all__ = ["app"]

import functools
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from client.private_round import Custody
from client.sealing import answer_key, answer_open, answer_ready, answer_seal
from client.service import answer_evaluate, answer_query, answer_train, open_site
from client.site import Site
from common.errors import BadInput, SonofedError
from common.orders import EvaluateOrder, TrainOrder
from common.private_orders import CardOrder
from common.sums_orders import KeyOrder, OpenOrder, ReadyOrder, SealOrder
from common.wire import arrays_of, pack, unpack, weights_of, words_array

app = ClientApp()

_FAILED = 100
"""The code of an error that the site itself answers with; Flower's own codes are below."""

Handler = Callable[[Message, Context], Message]


def _guarded(handler: Handler) -> Handler:
    """Answer failures with one line that names no path or file;
    what went wrong inside stays in the site's private log.
    """

    @functools.wraps(handler)
    def guarded(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except SonofedError as error:
            return Message(Error(_FAILED, _without_folder(str(error), context)), reply_to=message)
        except Exception as error:
            _log_privately(context)
            reason = f"{type(error).__name__} at the site; its private/errors.log says more"
            return Message(Error(_FAILED, reason), reply_to=message)

    return guarded


@app.query()
@_guarded
def query(message: Message, context: Context) -> Message:
    """Introduce the site."""
    order = unpack(CardOrder, message.content) if message.content.config_records else CardOrder()
    return Message(pack(answer_query(_site(context), order)), reply_to=message)


@app.train()
@_guarded
def train(message: Message, context: Context) -> Message:
    """Train one round on the site's own images."""
    order, weights = unpack(TrainOrder, message.content), weights_of(message.content.array_records["arrays"])
    report, change = answer_train(_site(context), order, weights, custody=_custody(context))
    return Message(pack(report, arrays_of(change)), reply_to=message)


@app.evaluate()
@_guarded
def evaluate(message: Message, context: Context) -> Message:
    """Score the site's own cases."""
    order, weights = unpack(EvaluateOrder, message.content), weights_of(message.content.array_records["arrays"])
    report = answer_evaluate(_site(context), order, weights, custody=_custody(context))
    return Message(pack(report), reply_to=message)


@app.query("sums_key")
@_guarded
def sums_key(message: Message, context: Context) -> Message:
    """Make a key for one attempt of a secure sum."""
    order = unpack(KeyOrder, message.content)
    return Message(pack(answer_key(_site(context), order, signing=_signing(context))), reply_to=message)


@app.evaluate("sums_seal")
@_guarded
def sums_seal(message: Message, context: Context) -> Message:
    """Score the site's own cases; the sums leave under masks."""
    order, weights = unpack(SealOrder, message.content), weights_of(message.content.array_records["arrays"])
    about, words = answer_seal(_site(context), order, weights, custody=_custody(context))
    return Message(pack(about, words_array(words)), reply_to=message)


@app.query("sums_ready")
@_guarded
def sums_ready(message: Message, context: Context) -> Message:
    """Say that the site still holds what it sealed."""
    order = unpack(ReadyOrder, message.content)
    return Message(pack(answer_ready(_site(context), order)), reply_to=message)


@app.query("sums_open")
@_guarded
def sums_open(message: Message, context: Context) -> Message:
    """Take the site's own mask off the total."""
    order = unpack(OpenOrder, message.content)
    return Message(pack(answer_open(_site(context), order)), reply_to=message)


def _site(context: Context) -> Site:
    return open_site(_folder(context))


def _custody(context: Context) -> Custody:
    ledgers = context.node_config.get("ledgers") or os.environ.get("SONOFED_LEDGERS")
    demo = context.node_config.get("insecure-demo") or os.environ.get("SONOFED_INSECURE_DEMO") == "1"
    return Custody(Path(str(ledgers)) if ledgers else None, bool(demo))


def _signing(context: Context) -> Path | None:
    """The private key that the site is registered with, where its client was started with one."""
    key = context.node_config.get("key")
    return Path(str(key)) if key else None


def _without_folder(reason: str, context: Context) -> str:
    """What leaves the site does not say where on its disk the site lies."""
    try:
        return reason.replace(str(_folder(context)), "the site folder")
    except BadInput:
        return reason


def _log_privately(context: Context) -> None:
    with suppress(OSError):  # a log that cannot be written must not hide that the site failed
        private = _folder(context) / "private"
        private.mkdir(mode=0o700, exist_ok=True)
        with (private / "errors.log").open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)


def _folder(context: Context) -> Path:
    folder = context.node_config.get("site")
    if folder is None and "partition-id" in context.node_config:
        folders = os.environ.get("SONOFED_SITES", "").split(os.pathsep)
        folder = folders[int(context.node_config["partition-id"])]
    if not folder:
        raise BadInput("this node knows no site folder; start it with --node-config 'site=\"FOLDER\"'")
    return Path(str(folder)).resolve()

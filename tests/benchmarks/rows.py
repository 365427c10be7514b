"""A benchmark's result, and how two sides are measured against each other on a machine that others use too."""

from __future__ import annotations

__all__ = ["Row", "apart", "interleave"]

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection


@dataclass(frozen=True)
class Row:
    """One line of bench.json. `ratio` is the number held against the limit; `what` says what was run, for a person."""

    name: str
    ratio: float
    ours: float
    against: float
    unit: str
    what: str


def interleave(
    ours: Callable[[], int], theirs: Callable[[], int], *, rounds: int, warm: int = 1, rest: float = 0.0
) -> tuple[float, float]:
    """Units per second of both sides, the median over `rounds` turns taken alternately after `warm` ones not counted.

    A side returns how many units (images, say) its turn made. Each turn begins after `rest` seconds of nothing: a host
    that shares its cores is slow for tenths of seconds at a time, and turns set apart are less often slow together.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(warm + rounds):
        for side, rate in zip((ours, theirs), rates, strict=True):
            time.sleep(rest)
            began = time.perf_counter()
            units = side()
            if turn >= warm:
                rate.append(units / (time.perf_counter() - began))
    return statistics.median(rates[0]), statistics.median(rates[1])


@contextmanager
def apart(prepare: Callable[[], Callable[[], int]]) -> Iterator[Callable[[], int]]:
    """A side that runs in a process of its own, so that settings of this process do not help or harm it.

    `prepare` runs there and gives the turn; what the context gives asks for one turn and waits. Between turns the
    process and its own children stand still: data loaders that read ahead would read on the other side's time.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(prepare, there))
    child.start()
    assert child.pid is not None
    group = child.pid
    here.recv()

    def turn() -> int:
        os.killpg(group, signal.SIGCONT)
        here.send("turn")
        units = int(here.recv())
        os.killpg(group, signal.SIGSTOP)
        return units

    try:
        os.killpg(group, signal.SIGSTOP)
        yield turn
    finally:
        with suppress(OSError):  # it may have died
            os.killpg(group, signal.SIGCONT)
            here.send("end")
        child.join(timeout=30)
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
        child.join(timeout=30)


def _serve(prepare: Callable[[], Callable[[], int]], asked: Connection) -> None:
    os.setpgrp()
    turn = prepare()
    asked.send("ready")
    while asked.recv() == "turn":
        asked.send(turn())

"""Progress of work that writes records: look at them now and then, from a thread of its own."""

from __future__ import annotations

__all__ = ["rounds_done", "watching"]

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.progress import Progress
from server.records import read_records

_SECONDS = 2.0


def rounds_done(folder: Path) -> int:
    """How many rounds the records of a run folder tell of."""
    return sum(event["event"] == "round" for event in read_records(folder / "records.jsonl"))


@contextmanager
def watching(title: str, *, total: float, look: Callable[[], tuple[float, str]]) -> Iterator[None]:
    """Show progress while the block runs: `look` gives what is done of `total`, and a note."""
    stop = threading.Event()
    with Progress(title, total=total) as progress:

        def watch() -> None:
            while not stop.wait(_SECONDS):
                done, note = look()
                progress.update(done, note=note)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

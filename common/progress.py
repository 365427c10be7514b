"""Progress of long work: a bar when a person is looking, a plain line now and then when not.

Always on standard error.
"""

from __future__ import annotations

__all__ = ["Progress"]

import sys
import time
from types import TracebackType
from typing import Any

_QUIET_SECONDS = 15.0


class Progress:
    """`with Progress("training", total=12) as progress: progress.update(done=3, note="round 3")`."""

    def __init__(self, title: str, *, total: float) -> None:
        self.title = title
        self.total = max(total, 1e-9)
        self._began = time.monotonic()
        self._spoke = self._began
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task(self.title, total=self.total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, *, note: str = "") -> None:
        """Say how much of `total` is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"{self.title} {note}".rstrip())
            return
        now = time.monotonic()
        if now - self._spoke < _QUIET_SECONDS and done < self.total:
            return
        self._spoke = now
        share = min(done / self.total, 1.0)
        left = (now - self._began) * (1 - share) / share if share > 0 else None
        when = f", about {left:.0f} s left" if left is not None and share < 1 else ""
        print(f"{self.title}: {100 * share:.0f} %{when} {note}".rstrip(), file=sys.stderr, flush=True)

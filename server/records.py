"""`records.jsonl`: every event of a run, one JSON object a line, with its time; and reading them back."""

from __future__ import annotations

__all__ = ["Records", "read_records"]

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.files import append_line


class Records:
    """Appends events to a file; an event is on the disk when `add` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, event: str, **values: Any) -> None:
        """Write one event. Values are plain; sites go by id, never by path."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        append_line(self.path, json.dumps({"time": stamp, "event": event, **values}, ensure_ascii=False))


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole events; a last line torn by a kill is left out."""
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events

"""`records.jsonl`: every event of a run, one JSON object a line, with its time; and reading them back."""

from __future__ import annotations

__all__ = ["Records", "read_records"]

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.files import append_line


class Records:
    """Appends events to a file; an event is on the disk when `add` returns. `continued`: earlier ones are there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.continued = path.exists() and path.stat().st_size > 0

    def add(self, event: str, **values: Any) -> None:
        """Write one event. Values are plain; sites go by id, never by path."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        append_line(self.path, json.dumps({"time": stamp, "event": event, **values}, ensure_ascii=False))


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole events; a line torn by a kill is left out, and so are rounds that were made again after it."""
    if not path.exists():
        return []
    events: list[dict[str, Any]] = []
    for line in path.read_bytes().split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "resumed":
            events = [earlier for earlier in events if not _made_again(earlier, event)]
        events.append(event)
    return events


def _made_again(earlier: dict[str, Any], resumed: dict[str, Any]) -> bool:
    """Whether an event belongs to what a run does anew when it goes on after the round `resumed` names."""
    if earlier.get("run") != resumed["run"]:
        return False
    return earlier["event"] in ("model", "end") or int(earlier.get("round", 0)) > int(resumed["round"])

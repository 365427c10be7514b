"""What an import has stored so far, so that a killed one goes on instead of beginning again.

One line of JSON for each picture, written after the picture. A line is believed only where the source's bytes are still
those it was made from and the stored files are whole; a torn last line is ignored.
"""

from __future__ import annotations

__all__ = ["JOURNAL", "Journal", "Stored"]

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from client.box import Box
from common.files import sha256_bytes

JOURNAL = "journal.jsonl"


class Stored(NamedTuple):
    """A case as it lies in the site folder."""

    image: str
    image_sha256: str
    mask: str
    mask_sha256: str
    box: Box | None


class Journal:
    """The journal of one site folder in the making."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = _read(folder / JOURNAL)
        self._file = (folder / JOURNAL).open("a", encoding="utf-8")

    def found(self, name: str, source: Sequence[bytes]) -> Stored | None:
        """What was stored under `name` from these bytes, if it is still there and whole."""
        about = self._known.get(name)
        if about is None or about[0] != _digest(source):
            return None
        stored = about[1]
        files = ((stored.image, stored.image_sha256), (stored.mask, stored.mask_sha256))
        return stored if all(self._whole(file, sha256) for file, sha256 in files if file) else None

    def add(self, name: str, source: Sequence[bytes], stored: Stored) -> None:
        """Note that `stored` lies under `name`."""
        box = None if stored.box is None else str(stored.box)
        self._file.write(json.dumps([name, _digest(source), *stored[:4], box]) + "\n")
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file; it stays until the folder becomes a site."""
        self._file.close()

    def _whole(self, file: str, sha256: str) -> bool:
        try:
            return sha256_bytes((self._folder / file).read_bytes()) == sha256
        except OSError:
            return False


def _digest(source: Sequence[bytes]) -> str:
    return sha256_bytes(b"".join(sha256_bytes(content).encode() for content in source))


def _read(path: Path) -> dict[str, tuple[str, Stored]]:
    known: dict[str, tuple[str, Stored]] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        try:
            name, digest, image, image_sha256, mask, mask_sha256, box = json.loads(line)
            known[name] = (digest, Stored(image, image_sha256, mask, mask_sha256, Box.parse(box) if box else None))
        except (ValueError, TypeError, AttributeError):
            continue
    return known

"""Attention maps: the PNG files that a simulation put into the run folder, carried in the page as data."""

from __future__ import annotations

__all__ = ["Case", "Gallery", "galleries"]

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from server.report.numbers import decimal

_PNG = b"\x89PNG\r\n\x1a\n"


@checked(frozen=True, config=ConfigDict(extra="ignore"))
class _Entry:
    image: str
    attention: str
    label: str = ""
    score: float | None = None
    model: str = ""


@dataclass(frozen=True)
class Case:
    """One case: crop and crop under its attention map as data URIs, its true class and its probability."""

    image: str
    attention: str
    label: str
    score: str


@dataclass(frozen=True)
class Gallery:
    """The cases of one center that one model looked at."""

    site: str
    model: str
    cases: tuple[Case, ...]


def galleries(run: Path) -> tuple[list[Gallery], list[str]]:
    """One gallery for each center and model, by center; and sentences about pictures that are named but not there."""
    made, missing = [], []
    for index in sorted((run / "pictures").glob("*/index.json")):
        site = index.parent.name
        entries = _entries(index)
        if entries is None:
            missing.append(f"pictures of {site}: the list index.json cannot be read.")
            continue
        absent = 0
        for model in dict.fromkeys(entry.model for entry in entries):
            drawn = [_case(index.parent, entry) for entry in entries if entry.model == model]
            cases = tuple(case for case in drawn if case is not None)
            absent += len(drawn) - len(cases)
            made += [Gallery(site, model, cases)] if cases else []
        if absent:
            missing.append(f"pictures of {site}: {absent} are named in the list but cannot be read.")
    return made, missing


def _entries(index: Path) -> list[_Entry] | None:
    try:
        return TypeAdapter(list[_Entry]).validate_python(json.loads(index.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def _case(folder: Path, entry: _Entry) -> Case | None:
    image, attention = _data_uri(folder, entry.image), _data_uri(folder, entry.attention)
    if image is None or attention is None:
        return None
    return Case(image, attention, entry.label, decimal(entry.score))


def _data_uri(folder: Path, name: str) -> str | None:
    """The PNG as a data URI; None where `name` is no plain file name in the folder, or the file is no PNG."""
    path = folder / name
    if Path(name).name != name or not path.is_file():
        return None
    content = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(_PNG) else None

"""With whom a site was counted: for each model's evaluation of some cases, one company, whatever the totals are of.

    state/sums/<evaluation>.company   0600: what was counted, and over which sites; on the disk before the first opening

Two totals over the same cases, with a site and without it, differ by that site's numbers, whichever messages asked for
them. So one company holds for all purposes. It is never forgotten; a hospital that wants that removes the file.
"""

from __future__ import annotations

__all__ = ["bind_company", "refuse_other_company", "require_company"]

from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from common.errors import BadInput
from common.files import alone, read_json, sha256_bytes, write_atomic
from common.parsing import parse


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class _Company:
    """The sites over which a total of the cases `about` may be opened, sorted."""

    about: str
    sites: tuple[str, ...]


def require_company(folder: Path, about: Collection[str], sites: Sequence[str], *, site: str) -> None:
    """BadInput where `site` was counted with others than `sites` in one of the evaluations of cases `about`.

    `folder` is where the site remembers its sums; `about` names a model's evaluation and which cases of the site.
    """
    for name in about:
        path = _path(folder, name)
        if path.exists():
            bound = parse(_Company, read_json(path), where=f"site {site}: state/{folder.name}")
            refuse_other_company(bound.sites, sites, site=site)


def bind_company(folder: Path, about: Collection[str], sites: Sequence[str], *, site: str) -> None:
    """`require_company`, and from now on no others: on the disk when this returns, for all of `about`.

    Processes wait for each other, so that of two totals with different sites one alone gets through.
    """
    with alone(folder / "companies.lock"):
        require_company(folder, about, sites, site=site)
        for name in about:
            path = _path(folder, name)
            if not path.exists():
                write_atomic(path, TypeAdapter(_Company).dump_json(_Company(name, tuple(sites))), mode=0o600)


def refuse_other_company(bound: Sequence[str], sites: Sequence[str], *, site: str) -> None:
    """BadInput, with the names of those that make the difference, unless both are the same sites."""
    if tuple(bound) != tuple(sites):
        who = ", ".join(sorted(set(bound) ^ set(sites)))
        raise BadInput(
            f"site {site}: this evaluation was already counted, and now the roster differs by {who}, whose numbers the "
            "two totals would give away; count it with the same sites, or evaluate another model"
        )


def _path(folder: Path, about: str) -> Path:
    return folder / f"{sha256_bytes(about.encode())[:32]}.company"

"""The heads of sites' ledgers as the server knows them:
a file beside its runs, so that a ledger rolled back is seen.
"""

from __future__ import annotations

__all__ = ["KnownHeads", "require_forward"]

from pathlib import Path

from common.errors import LedgerRefused
from common.files import read_json, write_json
from common.parsing import parse, to_table
from common.private_orders import Head


class KnownHeads:
    """Head by site id, on the disk as soon as it is learned."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, site: str) -> Head | None:
        """The last head that `site` told; None where it never told one."""
        return self._read().get(site)

    def learn(self, site: str, head: Head) -> None:
        """Take in what a reply says. LedgerRefused where the ledger is shorter than it was, or another one."""
        known = self._read()
        before = known.get(site)
        require_forward(site, head, before)
        if head != before:
            write_json(self.path, {name: to_table(each) for name, each in sorted({**known, site: head}.items())})

    def _read(self) -> dict[str, Head]:
        if not self.path.exists():
            return {}
        table = read_json(self.path)
        return {str(site): parse(Head, head, where=self.path.name) for site, head in table.items()}


def require_forward(site: str, head: Head, before: Head | None) -> None:
    """Raise LedgerRefused where a ledger that once had the head `before` now has `head`,
    and cannot have grown to it.
    """
    if before is not None and (head.length < before.length or (head.length == before.length and head != before)):
        raise LedgerRefused(
            f"site {site}: its ledger has {head.length} lines and had {before.length}; it was rolled back or replaced: "
            "the hospital must restore it"
        )

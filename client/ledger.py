"""What a site has spent of its patients' privacy: on its own disk, before a result leaves, and never less than was
spent.

    state/ledger.jsonl     one line per released result; each holds the hash of the line before it
    state/answers/         the last released answer of each run, so that a lost reply can be sent again
    ../.ledger-<site>      how long the ledger is and its last hash, beside the pseudonym key, outside the site folder

A round is: room under the cap? compute; keep the answer; append its line and fsync; write down the new head outside;
hand the answer out. A kill before the line costs nothing, a kill after it leaves an answer that is handed out when it
is asked for again. The head also goes to the server with each reply and comes back with each order: a ledger that is
shorter than either says, or differs from it, is refused. Rolling back all three at once, by someone who is root at the
site and in league with the server, cannot be seen; nor can a copy of the images under a new site id.
"""

from __future__ import annotations

__all__ = ["Account", "Entry", "Head", "Ledger", "Released", "Request", "opened", "read_entries"]

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from common.errors import BadInput, LedgerExhausted, LedgerRefused, RunFailed
from common.files import claimed, fsync_folder, read_json, sha256_bytes, write_atomic, write_json
from common.parsing import parse, to_table
from common.privacy import Plan, epsilon, epsilon_rdp
from common.private_orders import Head

_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, config=_STRICT)
class Request:
    """What was asked: which `round` of which `run`, and `content`, a SHA-256 over the order and the weights with it."""

    run: str
    round: int
    content: str


@checked(frozen=True, config=_STRICT)
class Entry:
    """One line: what was released, what it cost, and `epsilon`, all that the site's patients have spent up to here.

    `answer` is the SHA-256 of what was released; `hash` covers every other field, `previous` included.
    `insecure_demo`: its noise was seeded, so that whoever knows the seed sees through it; `epsilon` does not hold then.
    """

    number: int
    when: str
    request: Request
    plan: Plan
    epsilon: float
    delta: float
    answer: str
    previous: str
    hash: str
    insecure_demo: bool = False


@dataclass(frozen=True)
class Account:
    """Whose ledger it is and what it may hold: the site's folder and id, its cap on ε, and δ."""

    folder: Path
    site: str
    cap: float
    delta: float

    @property
    def lines(self) -> Path:
        """The ledger itself."""
        return self.folder / "state" / "ledger.jsonl"

    @property
    def anchor(self) -> Path:
        """Where its head is written down outside the site folder."""
        return self.folder.resolve().parent / f".ledger-{self.site}"


@dataclass(frozen=True)
class Released:
    """An answer that may leave the site, and what to tell with it: the head to remember, ε spent in all."""

    answer: bytes
    head: Head
    epsilon: float
    again: bool


@contextmanager
def opened(account: Account, *, seen: Head | None = None) -> Iterator[Ledger]:
    """The site's ledger, checked, for this process alone until the block ends; `seen` is the head that the server
    knows.

    BadInput where another process has it, LedgerRefused where it was rolled back or edited, RunFailed where the disk is
    full.
    """
    complaint = f"site {account.site}: another process is using its ledger; wait for it, or end it"
    with claimed(account.lines.with_suffix(".lock"), complaint=complaint):
        ledger = Ledger(account, read_entries(account, seen=seen))
        _drop_torn_line(account)
        ledger.anchor()
        yield ledger


def read_entries(account: Account, *, seen: Head | None = None) -> tuple[Entry, ...]:
    """The ledger's lines, checked against each other, against the head outside the folder, and against `seen`.

    A last line without its end, which a kill leaves, is not counted: nothing was released for it. Raises LedgerRefused.
    """
    anchor = _read_anchor(account)
    content = account.lines.read_bytes() if account.lines.exists() else b""
    if content and anchor is None:
        raise LedgerRefused(
            f"site {account.site}: {account.anchor.name} is missing beside the site folder; the ledger cannot be "
            "checked without it: bring it back from where the folder came from"
        )
    entries: list[Entry] = []
    for line in content.split(b"\n")[:-1]:
        entries.append(_entry(account, line, number=len(entries) + 1, previous=_head(entries).hash))
    for known, where in ((anchor, f"{account.anchor.name} beside the site folder"), (seen, "the server")):
        _require_reaches(account, entries, known, where=where)
    return tuple(entries)


class Ledger:
    """An open ledger; `opened` makes one."""

    def __init__(self, account: Account, entries: tuple[Entry, ...]) -> None:
        self._account = account
        self._entries = list(entries)

    @property
    def head(self) -> Head:
        """What to remember outside."""
        return _head(self._entries)

    @property
    def spent(self) -> float:
        """A patient's ε for all that this site has released."""
        return epsilon(self._plans(), delta=self._account.delta)

    def release(
        self, request: Request, plan: Plan, compute: Callable[[], bytes], *, insecure_demo: bool = False
    ) -> Released:
        """The answer to `request`: computed if it fits under the cap, and recorded on disk before it is returned.

        A request that was answered before gets the stored answer; nothing is computed or spent. Raises LedgerExhausted
        where it does not fit, LedgerRefused where its round was answered to another request or the answer is not kept,
        RunFailed where it cannot be recorded: then nothing is released.
        """
        if (entry := self._answered(request)) is not None:
            return Released(self._stored(entry), self.head, self.spent, again=True)
        self.require_room(plan)
        answer = compute()
        self._record(request, plan, answer, insecure_demo=insecure_demo)
        return Released(answer, self.head, self._entries[-1].epsilon, again=False)

    def require_room(self, plan: Plan) -> None:
        """Raise LedgerExhausted where `plan` on top of everything before costs more than the cap.

        The quick bound may allow it at once; only the exact account refuses.
        """
        account, plans = self._account, self._plans()
        if epsilon_rdp([*plans, plan], delta=account.delta) <= account.cap:
            return
        after = epsilon([*plans, plan], delta=account.delta)
        if after > account.cap:
            raise LedgerExhausted(
                f"site {account.site} has spent ε={self.spent:.2f} of {account.cap:.2f}; "
                f"one more round needs {after - self.spent:.2f}"
            )

    def anchor(self) -> None:
        """Write the head down outside the site folder, where it is not there yet."""
        if _read_anchor(self._account) != self.head:
            write_json(self._account.anchor, to_table(self.head))

    def _plans(self) -> list[Plan]:
        return [entry.plan for entry in self._entries]

    def _answered(self, request: Request) -> Entry | None:
        for entry in self._entries:
            if (entry.request.run, entry.request.round) == (request.run, request.round):
                if entry.request.content == request.content:
                    return entry
                raise LedgerRefused(
                    f"site {self._account.site} has answered round {request.round} of run {request.run} before, to "
                    "another order; nothing is released twice: give the run a new name"
                )
        return None

    def _stored(self, entry: Entry) -> bytes:
        path = self._answer(entry.request)
        with suppress(OSError):
            answer = path.read_bytes()
            if sha256_bytes(answer) == entry.answer:
                return answer
        raise LedgerRefused(
            f"site {self._account.site} has released round {entry.request.round} of run {entry.request.run} and no "
            "longer keeps that answer; nothing is computed twice: go on with a later round, or as a new run"
        )

    def _answer(self, request: Request) -> Path:
        run = sha256_bytes(request.run.encode())[:16]
        return self._account.lines.parent / "answers" / f"{run}-{request.round}.bin"

    def _forget_before(self, request: Request) -> None:
        kept = self._answer(request)
        for path in kept.parent.glob(f"{kept.stem.split('-')[0]}-*.bin"):
            if path != kept:
                path.unlink(missing_ok=True)

    def _record(self, request: Request, plan: Plan, answer: bytes, *, insecure_demo: bool) -> None:
        account = self._account
        after = epsilon([*self._plans(), plan], delta=account.delta)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        head = self.head
        made = sha256_bytes(answer)
        told = Entry(head.length + 1, when, request, plan, after, account.delta, made, head.hash, "", insecure_demo)
        entry = replace(told, hash=_hash(told))
        write_atomic(self._answer(request), answer)
        _append(account, _line(entry) + b"\n")
        self._entries.append(entry)
        self.anchor()
        self._forget_before(request)


def _append(account: Account, line: bytes) -> None:
    """One line, whole and on the disk, or none; RunFailed where there is no space."""
    try:
        fresh = not account.lines.exists()
        descriptor = os.open(account.lines, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
        if fresh:
            fsync_folder(account.lines.parent)
    except OSError as error:
        raise RunFailed(
            f"site {account.site}: cannot write {account.lines.name}: {error.strerror}; nothing was released: "
            "free space or check permissions"
        ) from None


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _drop_torn_line(account: Account) -> None:
    """Cut off what a kill left of a line that was never whole, so that the next line begins at its place."""
    if not account.lines.exists():
        return
    with account.lines.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


def _read_anchor(account: Account) -> Head | None:
    if not account.anchor.exists():
        return None
    try:
        return parse(Head, read_json(account.anchor), where=account.anchor.name)
    except BadInput:
        raise LedgerRefused(
            f"site {account.site}: {account.anchor.name} beside the site folder is damaged; restore it"
        ) from None


def _entry(account: Account, line: bytes, *, number: int, previous: str) -> Entry:
    with suppress(BadInput, UnicodeDecodeError, json.JSONDecodeError):
        entry = parse(Entry, json.loads(line), where="line")
        expected = replace(entry, number=number, previous=previous, hash=_hash(entry))
        if _line(expected) == line:
            return entry
    raise LedgerRefused(
        f"site {account.site}: line {number} of ledger.jsonl was changed after it was written; restore the file"
    )


def _line(entry: Entry) -> bytes:
    return json.dumps(to_table(entry), ensure_ascii=False, sort_keys=True).encode()


def _hash(entry: Entry) -> str:
    return sha256_bytes(_line(replace(entry, hash="")))


def _head(entries: list[Entry]) -> Head:
    return Head(len(entries), entries[-1].hash) if entries else Head()


def _require_reaches(account: Account, entries: list[Entry], known: Head | None, *, where: str) -> None:
    if known is None:
        return
    if known.length > len(entries):
        raise LedgerRefused(
            f"site {account.site}: its ledger has {len(entries)} lines, but {where} knows {known.length}; it was "
            "rolled back: restore state/ledger.jsonl"
        )
    if _head(entries[: known.length]) != known:
        raise LedgerRefused(
            f"site {account.site}: line {known.length} of ledger.jsonl is not the one that {where} knows; it was "
            "replaced: restore the file"
        )

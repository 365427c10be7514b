"""The ledger: what it allows and refuses, that it never forgets, and what happens when it is killed,
rolled back or edited.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from client import ledger as module
from client.__main__ import main
from client.ledger import Account, Head, Released, Request, opened, read_entries
from common.errors import BadInput, LedgerExhausted, LedgerRefused, RunFailed, SonofedError
from common.privacy import Plan, epsilon
from tests.client.handmade import write_site

ROOT = Path(__file__).resolve().parents[2]
PLAN = Plan(2.0, 0.1, 5)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    """A site with room for exactly four rounds of PLAN."""
    return Account(tmp_path / "tal", "tal", epsilon([PLAN] * 4, delta=1e-3) + 1e-6, 1e-3)


def ask(account: Account, number: int, *, content: str = "a", run: str = "first", plan: Plan = PLAN) -> Released:
    """One round, whose answer is new at each computation."""
    with opened(account) as ledger:
        return ledger.release(Request(run, number, content * 64), plan, lambda: os.urandom(100))


def refuse() -> bytes:
    """What must not be computed."""
    raise AssertionError("computed")


def test_it_spends_up_to_the_cap_over_runs_and_restarts_and_no_further(account: Account) -> None:
    spent = [ask(account, n, run=f"run-{n % 2}").epsilon for n in range(4)]
    assert spent == pytest.approx([epsilon([PLAN] * (n + 1), delta=1e-3) for n in range(4)])
    with (
        opened(account) as ledger,
        pytest.raises(LedgerExhausted, match=r"^site tal has spent ε=0\.64 of 0\.64; one more round needs 0\.\d\d$"),
    ):
        ledger.release(Request("run-2", 0, "a" * 64), PLAN, refuse)
    assert len(read_entries(account)) == 4


def test_a_smaller_plan_may_still_fit_and_another_noise_adds_up(account: Account) -> None:
    quiet = Plan(8.0, 0.05, 2)
    plans = [PLAN, quiet, PLAN, quiet]
    for number, plan in enumerate(plans):
        found = ask(account, number, plan=plan)
    assert found.epsilon == pytest.approx(epsilon(plans, delta=1e-3))


def test_a_request_again_gets_the_stored_answer_and_costs_nothing(account: Account) -> None:
    first = ask(account, 1)
    with opened(account) as ledger:
        again = ledger.release(Request("first", 1, "a" * 64), PLAN, refuse)
    assert (again.answer, again.head, again.epsilon, again.again) == (first.answer, first.head, first.epsilon, True)
    assert len(read_entries(account)) == 1


def test_another_order_for_a_round_that_was_answered_is_refused(account: Account) -> None:
    ask(account, 1)
    with opened(account) as ledger, pytest.raises(LedgerRefused, match="to another order"):
        ledger.release(Request("first", 1, "b" * 64), PLAN, refuse)


def test_an_answer_that_is_no_longer_kept_or_was_changed_is_refused(account: Account) -> None:
    ask(account, 1)
    ask(account, 2)
    with opened(account) as ledger, pytest.raises(LedgerRefused, match="no longer keeps that answer"):
        ledger.release(Request("first", 1, "a" * 64), PLAN, refuse)
    (kept,) = (account.folder / "state" / "answers").iterdir()
    kept.write_bytes(b"other")
    with opened(account) as ledger, pytest.raises(LedgerRefused, match="no longer keeps that answer"):
        ledger.release(Request("first", 2, "a" * 64), PLAN, refuse)


def test_a_computation_that_fails_costs_nothing(account: Account) -> None:
    with opened(account) as ledger, pytest.raises(AssertionError, match="computed"):
        ledger.release(Request("first", 1, "a" * 64), PLAN, refuse)
    assert read_entries(account) == ()


def test_it_is_on_the_disk_before_it_is_handed_out(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what is made durable: the answer, the line, the head outside."""
    seen: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    ask(account, 1)
    with opened(account) as ledger:
        monkeypatch.setattr(module.os, "fsync", fsync)
        ledger.release(Request("first", 2, "a" * 64), PLAN, lambda: b"x")
    files = [path for path in seen if not Path(path).is_dir()]
    assert [Path(path).parent.name for path in files] == ["answers", "state", account.folder.parent.name]
    assert files[1].endswith("ledger.jsonl")


def test_a_second_process_is_refused(account: Account) -> None:
    program = (
        "import sys; from pathlib import Path; from client.ledger import Account, opened\n"
        f"with opened(Account(Path({str(account.folder)!r}), 'tal', 8, 1e-3)): pass"
    )
    with opened(account):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    complaint = "site tal: another process is using its ledger; wait for it, or end it"
    assert done.stderr.strip().splitlines()[-1] == f"common.errors.BadInput: {complaint}"


def _cut(account: Account, lines: int) -> None:
    content = account.lines.read_bytes().splitlines(keepends=True)
    account.lines.write_bytes(b"".join(content[:lines]))


def _edit(account: Account, old: str, new: str) -> None:
    account.lines.write_text(account.lines.read_text().replace(old, new))


def _swap(account: Account) -> None:
    first, second, third = account.lines.read_bytes().splitlines(keepends=True)
    account.lines.write_bytes(second + first + third)


def _forge(account: Account) -> None:
    """A chain that is whole in itself, written by the ledger's own code after the file was taken away."""
    anchor = account.anchor.read_bytes()
    account.lines.unlink()
    account.anchor.unlink()
    for number in range(4):
        ask(account, number, plan=Plan(50.0, 0.01, 1))
    account.anchor.write_bytes(anchor)


TAMPERED: dict[str, tuple[Callable[[Account], object], str]] = {
    "rolled back": (lambda a: _cut(a, 2), "it was rolled back"),
    "emptied": (lambda a: _cut(a, 0), "it was rolled back"),
    "removed": (lambda a: a.lines.unlink(), "it was rolled back"),
    "state folder removed": (lambda a: shutil.rmtree(a.lines.parent), "it was rolled back"),
    "last line torn by hand": (lambda a: a.lines.write_bytes(a.lines.read_bytes()[:-2]), "it was rolled back"),
    "number edited": (lambda a: _edit(a, '"noise_multiplier": 2.0', '"noise_multiplier": 9.0'), "line 1 .* changed"),
    "space added": (lambda a: _edit(a, '"number": 2', '"number":  2'), "line 2 .* changed"),
    "key added": (lambda a: _edit(a, '"number": 3', '"more": 1, "number": 3'), "line 3 .* changed"),
    "not JSON": (lambda a: _edit(a, '{"answer"', '{answer"'), "line 1 .* changed"),
    "order changed": (_swap, "line 1 .* changed"),
    "forged": (_forge, "line 3 .* it was replaced"),
    "anchor lost": (lambda a: a.anchor.unlink(), r"\.ledger-tal is missing"),
    "anchor damaged": (lambda a: a.anchor.write_text("{}x"), r"\.ledger-tal .* damaged"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_tampered_with_is_refused_in_one_line(account: Account, how: str) -> None:
    for number in range(3):
        ask(account, number)
    spoil, complaint = TAMPERED[how]
    spoil(account)
    before = account.lines.read_bytes() if account.lines.exists() else None
    for _ in range(2):
        with pytest.raises(LedgerRefused, match=complaint) as caught, opened(account):
            pass
    assert "\n" not in str(caught.value)
    assert "site tal" in str(caught.value)
    assert (account.lines.read_bytes() if account.lines.exists() else None) == before


def test_the_server_remembers_too(account: Account, tmp_path: Path) -> None:
    """Both the ledger and the head beside it were brought back from a backup: what the server saw gives it away."""
    ask(account, 1)
    shutil.copytree(tmp_path, tmp_path.parent / "backup", dirs_exist_ok=True)
    head = ask(account, 2).head
    shutil.copytree(tmp_path.parent / "backup", tmp_path, dirs_exist_ok=True)
    with opened(account):
        pass
    with pytest.raises(LedgerRefused, match="has 1 lines, but the server knows 2"), opened(account, seen=head):
        pass
    with (
        pytest.raises(LedgerRefused, match="not the one that the server knows"),
        opened(account, seen=Head(1, "f" * 64)),
    ):
        pass


def test_a_line_that_a_kill_tore_is_cut_off(account: Account) -> None:
    """At every byte of the line: nothing was released for it, and the next line begins at its place."""
    ask(account, 1)
    whole, anchor = account.lines.read_bytes(), account.anchor.read_bytes()
    ask(account, 2)
    longer = account.lines.read_bytes()
    for end in range(len(whole), len(longer), 29):
        account.lines.write_bytes(longer[:end])
        account.anchor.write_bytes(anchor)
        assert len(read_entries(account)) == 1
        with opened(account) as ledger:
            assert ledger.head.length == 1
        assert account.lines.read_bytes() == whole
    account.lines.write_bytes(longer)
    with opened(account) as ledger:
        assert ledger.head.length == 2
    assert json.loads(account.anchor.read_text())["length"] == 2


def test_a_disk_that_fills_up_at_any_byte(account: Account) -> None:
    """A process whose files may not grow, in the middle of the answer or of the line:
    one line, and nothing released.
    """
    ask(account, 1)
    for limit in (account.lines.stat().st_size + 200, 50):
        program = (
            "import os, resource, signal; from pathlib import Path\n"
            "from client.ledger import Account, Request, opened; from common.errors import RunFailed\n"
            "from common.privacy import Plan\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
            "try:\n"
            f"    with opened(Account(Path({str(account.folder)!r}), 'tal', {account.cap}, 1e-3)) as ledger:\n"
            "        ledger.release(Request('first', 2, 'a' * 64), Plan(2.0, 0.1, 5), lambda: os.urandom(100))\n"
            "except RunFailed as error: print(error)\n"
            "else: print('released')"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "File too large" in done.stdout, done.stderr
        assert done.stdout.count("\n") == 1
        assert len(read_entries(account)) == 1
    assert ask(account, 2).head.length == 2


def test_a_full_disk(tmp_path: Path) -> None:
    """A file system of 64 KiB that is filled to the last byte; it needs the right to mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    try:
        account = Account(folder / "tal", "tal", 8.0, 1e-3)
        ask(account, 1)
        with pytest.raises(OSError, match="No space left"):
            (folder / "filler").write_bytes(bytes(1 << 20))
        with pytest.raises(RunFailed, match=r"No space left on device; .*free space"):
            ask(account, 2)
        assert len(read_entries(account)) == 1
        (folder / "filler").unlink()
        assert ask(account, 2).head.length == 2
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_a_disk_that_fails_at_any_flush(account: Account, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(account, 1)
    real, count = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(module.os, "fsync", fsync)
    handed: Released | None = None
    with suppress(RunFailed):
        handed = ask(account, 2)
    monkeypatch.undo()
    assert handed is None or len(read_entries(account)) == 2
    assert ask(account, 2).head.length == 2
    assert ask(account, 3).head.length == 3


def kill(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """What the driver finds; it fails where a promise is broken."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.ledger_driver", str(folder), str(kills), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    found = kill(tmp_path, 50, 0)
    assert found["kills"] == 50
    assert found["twice"] == 0


def test_the_command_shows_a_table_a_curve_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = write_site(tmp_path / "hand-made")
    account = Account(site, "hand-made", 8.0, 1 / 100)
    assert main(["ledger", str(site)]) == 0
    assert "ε = 0.00 of 8.00 spent" in capsys.readouterr().out
    for number in range(3):
        ask(account, number)
    assert main(["ledger", str(site)]) == 0
    text = capsys.readouterr().out
    assert text.count("first") == 3
    assert "3 results released" in text
    assert "8.00 ┤" in text
    assert main(["ledger", str(site), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epsilon"] == pytest.approx(epsilon([PLAN] * 3, delta=0.01))
    assert [entry["number"] for entry in told["entries"]] == [1, 2, 3]
    _cut(account, 1)
    assert main(["ledger", str(site)]) == 1
    assert "it was rolled back" in capsys.readouterr().err


def test_errors_have_the_exit_code_of_a_failure() -> None:
    assert {LedgerExhausted.exit_code, LedgerRefused.exit_code} == {1}
    assert issubclass(LedgerRefused, SonofedError)
    assert not issubclass(LedgerRefused, BadInput)

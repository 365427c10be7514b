"""A site that releases rounds as fast as it can, to be killed:
`python -m tests.client.ledger_driver PARENT KILLS SEED`.

The parent forks a child for each kill (the imports are paid once). The child asks for each round twice and, after each
release, writes the round and the SHA-256 of the answer to a file, which stands for what left the site. What it finds is
one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from client.ledger import Account, Head, Request, opened, read_entries
from common.errors import LedgerExhausted, LedgerRefused
from common.files import sha256_bytes
from common.privacy import Plan, epsilon

PLAN = Plan(2.0, 0.1, 1)
ROUNDS = 40


def account(parent: Path, rounds: int = ROUNDS) -> Account:
    """A site whose cap lasts for `rounds` rounds, not one more."""
    cap = epsilon([Plan(2.0, 0.1, 1)] * rounds, delta=1e-3) + 1e-6
    return Account(parent / "tal", "tal", cap, 1e-3)


def work(whose: Account, released: int) -> None:
    """Release rounds until the cap; each answer is new at each computation, as noise is."""
    for number in range(10 * ROUNDS):
        request = Request("run", number, "a" * 64)
        with opened(whose) as ledger:
            try:
                answer = ledger.release(request, PLAN, lambda: os.urandom(3000)).answer
            except LedgerExhausted:
                break
            except LedgerRefused:
                continue
        os.write(released, f"{number} {sha256_bytes(answer)}\n".encode())


def main(parent: Path, kills: int, seed: int) -> None:
    """Kill and look, `kills` times; a new site whenever the cap is reached."""
    rng, folder, site = random.Random(seed), parent, 0
    for rounds in range(ROUNDS + 2):  # what the children need again and again
        epsilon([Plan(2.0, 0.1, 1)] * rounds, delta=1e-3)
    found = {"kills": 0, "rounds": 0, "twice": 0, "torn": 0}
    whose, log, reach = account(folder / "0"), folder / "released-0", 0.002
    account(folder / "0").lines.parent.mkdir(parents=True)
    while found["kills"] < kills:
        child = os.fork()
        if child == 0:
            out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            work(whose, out)
            os._exit(0)
        time.sleep(rng.uniform(0, reach))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        found["kills"] += killed
        reach = min(reach * 1.2, 0.5) if killed else reach / 2
        check(whose, log, found)
        if not killed:
            site += 1
            found["rounds"] += len(read_entries(whose))
            whose, log = account(folder / str(site)), folder / f"released-{site}"
            whose.lines.parent.mkdir(parents=True)
    print(json.dumps(found))


def check(whose: Account, log: Path, found: dict[str, int]) -> None:
    """Every released answer is recorded, none twice with other content, the chain is whole, the cap holds."""
    content = whose.lines.read_bytes() if whose.lines.exists() else b""
    found["torn"] += bool(content) and not content.endswith(b"\n")
    entries = read_entries(whose)
    recorded = {entry.request.round: entry.answer for entry in entries}
    released = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    assert all(recorded[int(number)] == answer for number, answer in released), "released, and not recorded"
    real = epsilon([Plan(2.0, 0.1, 1)] * len({number for number, _ in released}), delta=whose.delta)
    spent = entries[-1].epsilon if entries else 0.0
    assert real <= spent + 1e-9, "spent more than recorded"
    assert spent <= whose.cap, "overspent"
    found["twice"] += len(entries) - len(recorded)
    with opened(whose, seen=Head(len(entries), entries[-1].hash) if entries else None):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Real private rounds, server and sites in one process, to be killed:
`python -m tests.client.round_driver PARENT KILLS SEED`.

As `ledger_driver`, with training: the parent forks a child for each kill, the child runs or resumes a whole run and
writes down every update that left a site. What the parent finds is one line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from client.app import app as client_app
from client.ledger import read_entries
from client.manifest import load_manifest
from client.spending import account_of
from common.config import Experiment
from common.files import sha256_bytes
from common.orders import TrainReport
from common.parsing import parse
from common.privacy import Plan, epsilon
from common.wire import unpack
from server.app import app as server_app
from server.run import initial_weights, prepare_run, resolved
from simulation.grid import LocalGrid
from tests.experiments import experiment_table, write_uneven_sites

ROUNDS, SIGMA = 6, 2.0
PRIVACY = {"kind": "patient", "noise_multiplier": SIGMA, "patients_per_step": 4, "trains": "head"}


def run(base: Path, released: int) -> None:
    """One run over two sites, from where it was killed."""
    sites = sorted(path for path in (base / "sites").iterdir() if path.is_dir())
    experiment = asked(sites)
    prepare_run(base / "run", experiment, initial_weights(experiment), resume=True)

    def heard(message: Message) -> None:
        if message.metadata.message_type == "train" and message.has_content() and message.metadata.reply_to_message_id:
            report = unpack(TrainReport, message.content)
            arrays = b"".join(array.data for array in message.content.array_records["arrays"].values())
            line = f"{report.site} {message.metadata.group_id} {sha256_bytes(arrays)}\n"
            os.write(released, line.encode())

    grid = LocalGrid(client_app, sites, on_message=heard)
    server_app(grid, Context(1, 1, {}, RecordDict(), {"run-folder": str(base / "run"), "final": False}))


def asked(sites: list[Path]) -> Experiment:
    """The heads of a small model, six rounds of private training."""
    training = {"rounds": ROUNDS, "steps": 2 * ROUNDS, "class_weights": False, "augmentation": "none"}
    table = experiment_table(sites, privacy=PRIVACY, training=training, evaluation={"every": ROUNDS})
    return resolved(parse(Experiment, table, where="test"), {site.name: "train" for site in sites})


def new(base: Path) -> tuple[Path, Path]:
    """Fresh sites whose cap lasts for one run, not one round more; the folder, and where releases are written down."""
    write_uneven_sites(base / "sites", {"ash": 16, "birch": 16})
    cap = epsilon([Plan(SIGMA, 4 / 12, ROUNDS)], delta=1 / 120) + 1e-6
    for site in (base / "sites").iterdir():
        text = (site / "site.toml").read_text()
        (site / "site.toml").write_text(text.replace("[policy]", f"[policy]\nepsilon_cap = {cap!r}"))
    return base, base / "released"


def main(parent: Path, kills: int, seed: int) -> None:
    """Kill and look, `kills` times; new sites whenever a run came to its end."""
    rng, number, reach = random.Random(seed), 0, 1.0
    found = {"kills": 0, "runs": 0, "twice": 0, "again": 0}
    base, log = new(parent / "0")
    while found["kills"] < kills:
        child = os.fork()
        if child == 0:
            run(base, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
            os._exit(0)
        time.sleep(rng.uniform(0, reach))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        assert killed or os.WEXITSTATUS(status) == 0, "a round failed"
        found["kills"] += killed
        reach = min(reach * 1.3, 20.0) if killed else reach / 2
        check(base, log, found)
        if not killed:
            number, found["runs"] = number + 1, found["runs"] + 1
            base, log = new(parent / str(number))
    print(json.dumps(found))


def check(base: Path, log: Path, found: dict[str, int]) -> None:
    """What left a site is in its ledger, at most once and under the cap; what left it twice was the same."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    for site in sorted(path for path in (base / "sites").iterdir() if path.is_dir()):
        account = account_of(site, load_manifest(site))
        entries = read_entries(account)
        rounds = [entry.request.round for entry in entries]
        left = [(int(number), content) for name, number, content in lines if name == site.name]
        assert {number for number, _ in left} <= set(rounds), "released, and not recorded"
        assert len({number for number, _ in left}) == len(set(left)), "one round, released with two contents"
        real = epsilon([Plan(SIGMA, 4 / 12, 1)] * len(set(left)), delta=account.delta)
        spent = entries[-1].epsilon if entries else 0.0
        assert real - 1e-9 <= spent <= account.cap, "spent more than recorded, or overspent"
        found["twice"] += len(rounds) - len(set(rounds))
        found["again"] += len(left) - len(set(left))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

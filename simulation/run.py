"""One federated run on one machine, over the in-process grid or Flower's simulation engine."""

from __future__ import annotations

__all__ = ["run"]

from pathlib import Path

from client.service import answer_query
from common.config import Experiment
from common.files import claimed
from common.private_orders import CardOrder
from server.private_rounds import is_private
from server.report import write_report
from server.rounds import Roster, check_private, checked_steps
from server.run import check_folder, config_text, initial_weights, prepare_run, resolved
from simulation.sources import open_sites
from simulation.watching import rounds_done, watching


def run(
    experiment: Experiment,
    folder: Path,
    *,
    engine: str = "local",
    resume: bool = False,
    insecure_demo: bool = False,
) -> Path:
    """Train, evaluate and report; returns the report's path. Without privacy the engines give the same weights, bit for
    bit.

    What a private run costs is charged to the sites' own ledgers. `insecure_demo` seeds its draws, so that it repeats.

    BadInput where `folder` is not empty and `resume` is false; RunFailed where nobody learned.
    """
    sites = open_sites(experiment)
    card = CardOrder(private=is_private(experiment.privacy))
    roster = Roster.of({name: answer_query(site, card) for name, site in sites.items()}, experiment)
    checked_steps(roster, experiment)
    check_private(roster, experiment)
    about = resolved(experiment, {name: site.role for name, site in sites.items()})
    check_folder(folder, config_text(about), resume=resume)
    weights = initial_weights(experiment)
    busy = f"{folder}: another process works in this folder; wait for it or choose another --out"
    with claimed(folder / ".lock", complaint=busy):
        prepare_run(folder, about, weights, resume=resume)
        folders = [site.folder.resolve() for site in sites.values()]
        match engine:
            case "ray":
                from simulation.ray import run_ray

                run_ray(folder, folders, threads=experiment.threads, insecure_demo=insecure_demo)
            case _:
                _run_in_process(folder, folders, rounds=experiment.training.rounds, insecure_demo=insecure_demo)
        return write_report(folder)


def _run_in_process(folder: Path, sites: list[Path], *, rounds: int, insecure_demo: bool) -> None:
    from client.app import app as client_app
    from server.app import app as server_app
    from simulation.grid import run_locally

    with watching("training", total=rounds, look=lambda: (rounds_done(folder), "")):
        run_locally(server_app, client_app, sites, {"run-folder": str(folder.resolve())}, insecure_demo=insecure_demo)

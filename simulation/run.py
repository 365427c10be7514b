"""One federated run on one machine, over the in-process grid or Flower's simulation engine."""

from __future__ import annotations

__all__ = ["run"]

from pathlib import Path

from client.service import answer_query
from common.config import Experiment
from common.files import claimed
from server.report import write_report
from server.rounds import Roster, checked_steps
from server.run import check_folder, config_text, initial_weights, prepare_run, resolved
from simulation.sources import open_sites
from simulation.watching import rounds_done, watching


def run(experiment: Experiment, folder: Path, *, engine: str = "local", resume: bool = False) -> Path:
    """Train, evaluate and report; returns the report's path. The engines give the same weights, bit for bit.

    BadInput where `folder` is not empty and `resume` is false; RunFailed where nobody learned.
    """
    sites = open_sites(experiment)
    checked_steps(Roster.of({name: answer_query(site) for name, site in sites.items()}, experiment), experiment)
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

                run_ray(folder, folders, threads=experiment.threads)
            case _:
                _run_in_process(folder, folders, rounds=experiment.training.rounds)
        return write_report(folder)


def _run_in_process(folder: Path, sites: list[Path], *, rounds: int) -> None:
    from client.app import app as client_app
    from server.app import app as server_app
    from simulation.grid import run_locally

    with watching("training", total=rounds, look=lambda: (rounds_done(folder), "")):
        run_locally(server_app, client_app, sites, {"run-folder": str(folder.resolve())})

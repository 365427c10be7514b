"""Models are independent of each other, so several processes train them side by side; each dies with its parent."""

from __future__ import annotations

__all__ = ["train_all"]

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from client.manifest import Role
from client.site import Site
from common.config import Experiment
from common.errors import RunFailed, SonofedError
from simulation.models import DONE, train_model
from simulation.plan import ModelPlan
from simulation.watching import rounds_done, watching

_PR_SET_PDEATHSIG = 1


def train_all(
    run: Path,
    plans: Sequence[ModelPlan],
    experiment: Experiment,
    sites: Mapping[str, Site],
    *,
    insecure_demo: bool = False,
) -> None:
    """Train every plan that is not done. RunFailed, naming the model, where one fails; finished ones are kept."""
    rounds = experiment.training.rounds
    left = [plan for plan in plans if not (run / "models" / plan.name / DONE).exists()]

    def look() -> tuple[float, str]:
        folders = [run / "models" / plan.name for plan in plans]
        whole = [folder for folder in folders if (folder / DONE).exists()]
        begun = sum(rounds_done(folder) for folder in folders if folder not in whole)
        return len(whole) * rounds + begun, f"{len(whole)} of {len(plans)} models"

    with watching("training", total=len(plans) * rounds, look=look):
        if experiment.comparison.workers == 1:
            for plan in left:
                train_model(run, plan, experiment, sites, insecure_demo=insecure_demo)
        else:
            _in_parallel(run, left, experiment, sites, insecure_demo=insecure_demo)


def _in_parallel(
    run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site], *, insecure_demo: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    workers = min(experiment.comparison.workers, max(1, len(plans)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(os.getpid(),)) as pool:
        places = {name: (site.folder, site.role) for name, site in sites.items()}
        futures: dict[Future[None], ModelPlan] = {
            pool.submit(_train_one, run, plan, experiment, places, insecure_demo): plan for plan in plans
        }
        try:
            for future in as_completed(futures):
                _raise_named(future, futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise


def _raise_named(future: Future[None], plan: ModelPlan) -> None:
    match future.exception():
        case None:
            return
        case SonofedError() as error:
            named = str(error) if str(error).startswith(plan.name) else f"{plan.name}: {error}"
            raise type(error)(named) from None
        case error:
            raise RunFailed(f"{plan.name}: {type(error).__name__}: {error}") from error


def _prepare(parent: int) -> None:
    """Linux: end this worker when its parent ends, however it ends. Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)


def _train_one(
    run: Path, plan: ModelPlan, experiment: Experiment, places: Mapping[str, tuple[Path, Role]], insecure_demo: bool
) -> None:
    from client.service import open_site

    sites = {name: replace(open_site(folder), role=role) for name, (folder, role) in places.items()}
    train_model(run, plan, experiment, sites, insecure_demo=insecure_demo)

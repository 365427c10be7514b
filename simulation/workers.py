"""Models are independent of each other, so several processes train them side by side; each dies with its parent."""

from __future__ import annotations

__all__ = ["train_all"]

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from client.manifest import Role
from client.site import Site
from common.config import Experiment
from common.errors import RunFailed, SonofedError
from common.progress import Progress
from server.records import read_records
from simulation.models import DONE, train_model
from simulation.plan import ModelPlan

_PR_SET_PDEATHSIG = 1


def train_all(run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]) -> None:
    """Train every plan that is not done. RunFailed, naming the model, where one fails; finished ones are kept."""
    rounds = experiment.training.rounds
    left = [plan for plan in plans if not (run / "models" / plan.name / DONE).exists()]
    with Progress("training", total=len(plans) * rounds) as progress, _watching(run, plans, rounds, progress):
        if experiment.comparison.workers == 1:
            for plan in left:
                train_model(run, plan, experiment, sites)
        else:
            _in_parallel(run, left, experiment, sites)


def _in_parallel(run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]) -> None:
    context = multiprocessing.get_context("spawn")
    workers = min(experiment.comparison.workers, max(1, len(plans)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(os.getpid(),)) as pool:
        places = {name: (site.folder, site.role) for name, site in sites.items()}
        futures: dict[Future[None], ModelPlan] = {
            pool.submit(_train_one, run, plan, experiment, places): plan for plan in plans
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


def _train_one(run: Path, plan: ModelPlan, experiment: Experiment, places: Mapping[str, tuple[Path, Role]]) -> None:
    from client.service import open_site

    sites = {name: replace(open_site(folder), role=role) for name, (folder, role) in places.items()}
    train_model(run, plan, experiment, sites)


class _watching:
    """Read the models' records now and then, and say how many rounds are done."""

    def __init__(self, run: Path, plans: Sequence[ModelPlan], rounds: int, progress: Progress) -> None:
        self._run, self._plans, self._rounds, self._progress = run, plans, rounds, progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(2.0):
            done, models = 0, 0
            for plan in self._plans:
                folder = self._run / "models" / plan.name
                if (folder / DONE).exists():
                    done, models = done + self._rounds, models + 1
                else:
                    done += sum(event["event"] == "round" for event in read_records(folder / "records.jsonl"))
            self._progress.update(done, note=f"{models} of {len(self._plans)} models")

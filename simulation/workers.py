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
from pathlib import Path

from client.site import Site
from common.config import Experiment
from common.errors import RunFailed
from common.progress import Progress
from server.records import read_records
from simulation.models import DONE, train_model
from simulation.plan import ModelPlan

_PR_SET_PDEATHSIG = 1


def train_all(run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]) -> None:
    """Train every plan that is not done. RunFailed, naming the model, where one fails; finished ones are kept."""
    rounds = experiment.training.rounds
    left = [plan for plan in plans if not (run / "models" / plan.name / DONE).exists()]
    finished = (len(plans) - len(left)) * rounds
    with Progress("training", total=len(plans) * rounds) as progress:
        if experiment.comparison.workers == 1:
            for plan in left:
                train_model(run, plan, experiment, sites)
                finished += rounds
                progress.update(finished, note=plan.name)
            return
        with _watching(run, plans, rounds, progress):
            _in_parallel(run, left, experiment, sites)


def _in_parallel(run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]) -> None:
    context = multiprocessing.get_context("spawn")
    workers = min(experiment.comparison.workers, max(1, len(plans)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=(os.getpid(),)) as pool:
        futures: dict[Future[None], ModelPlan] = {
            pool.submit(_train_one, run, plan, experiment, {n: s.folder for n, s in sites.items()}): plan
            for plan in plans
        }
        for future in as_completed(futures):
            error = future.exception()
            if error is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                raise RunFailed(f"{futures[future].name}: {error}") from error


def _prepare(parent: int) -> None:
    """Linux: end this worker when its parent ends, however it ends."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)


def _train_one(run: Path, plan: ModelPlan, experiment: Experiment, folders: Mapping[str, Path]) -> None:
    train_model(run, plan, experiment, _opened(experiment, folders))


def _opened(experiment: Experiment, folders: Mapping[str, Path]) -> dict[str, Site]:
    from dataclasses import replace

    from client.service import open_site

    return {
        name: replace(site, role="held-out") if name in experiment.held_out else site
        for name, site in ((name, open_site(folder)) for name, folder in folders.items())
    }


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

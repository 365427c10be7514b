"""A prepared run on Flower's simulation engine (Ray): several processes, GPUs or machines; the same apps and bits."""

from __future__ import annotations

__all__ = ["run_ray"]

import math
import os
import shutil
import tempfile
import time
from pathlib import Path

from common.errors import BadInput, RunFailed
from common.processes import Foreground, flower_environment, free_port, signals_as_interrupt
from server.control import Control, write_thin_app
from server.run import open_run
from server.submit import follow

_READY_SECONDS = 60.0
_SETTLE_SECONDS = 30.0


def run_ray(folder: Path, sites: list[Path], *, threads: int, insecure_demo: bool = False) -> int:
    """Run the prepared folder with one simulated node for each site folder; 0 when its records say that it ended well.

    Each node gets `threads` CPUs and, where there are GPUs, its share of them. A SuperLink of its own serves the run
    and ends with it, with everything that Ray left in the temporary folder. BadInput where the simulation engine is not
    installed; RunFailed as `server.submit.follow` says.
    """
    _check_installed()
    experiment, _ = open_run(folder)
    home = Path(tempfile.mkdtemp(prefix="sonofed-"))
    try:
        control = Control(home / "flower", f"127.0.0.1:{free_port()}", None)
        control.prepare()
        environment = flower_environment(
            control.home,
            SONOFED_SITES=os.pathsep.join(str(site.resolve()) for site in sites),
            SONOFED_RUNS=str(folder.resolve().parent),
            SONOFED_INSECURE_DEMO="1" if insecure_demo else "0",
            RAY_TMPDIR=str(home),
            RAY_USAGE_STATS_ENABLED="0",
            RAY_DISABLE_IMPORT_WARNING="1",
        )
        log = home / "engine.log"
        with signals_as_interrupt(), Foreground(_command(control), environment=environment, log=log) as engine:
            _await_ready(engine, control)
            app = write_thin_app(home / "app")
            options: dict[str, str | bool] = {"run-folder": folder.resolve().name}
            size = _size(len(sites), threads=threads)
            return follow(control, app, folder, experiment, options, engine=size, settle=_SETTLE_SECONDS)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _command(control: Control) -> list[str]:
    host, _, port = control.address.partition(":")
    return [
        *("flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"),
        *("--host", host, "--port", port, "--disable-runtime-dependency-installation"),
    ]


def _size(sites: int, *, threads: int) -> dict[str, float]:
    """How many nodes there are and what each needs; GPUs are shared evenly by as many nodes as run side by side."""
    cpus = os.cpu_count() or 1
    each = min(threads, cpus)
    size: dict[str, float] = {"num-supernodes": sites, "client-resources-num-cpus": each}
    if gpus := _gpus():
        together = math.ceil(min(sites, max(1, cpus // each)) / gpus)
        size["client-resources-num-gpus"] = 1 / together
    return size


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise BadInput("--engine ray: Ray is not installed; run make setup, or pip install 'sonofed[simulation]'")


def _await_ready(engine: Foreground, control: Control) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not control.alive():
        if engine.poll() is not None or time.monotonic() > deadline:
            raise RunFailed("Flower's simulation engine did not start; try --engine local")
        time.sleep(0.3)

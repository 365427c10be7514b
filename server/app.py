"""The coordinator's Flower ServerApp. The run-config names the run folder; everything else lies in it.

In a deployment the name is one below SONOFED_RUNS, since the run-config travels to every site and a path must not; and
SONOFED_HEADS is the file that remembers the heads of the sites' ledgers over runs.
"""

from __future__ import annotations

__all__ = ["app"]

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.files import claimed
from server.run import coordinate, open_run
from server.strategy import FlowerFederation

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of the run folder over `grid`."""
    options = context.run_config
    folder = (Path(os.environ.get("SONOFED_RUNS", ".")) / str(options["run-folder"])).resolve()
    experiment, _ = open_run(folder)
    with claimed(
        folder / ".coordinated", complaint="an earlier run still works in this run folder; wait until it ends"
    ):
        coordinate(
            FlowerFederation(grid, experiment),
            folder,
            run=str(options.get("run", "federated")),
            final=bool(options.get("final", True)),
            train=bool(options.get("train", True)),
            heads=Path(os.environ["SONOFED_HEADS"]) if "SONOFED_HEADS" in os.environ else None,
        )

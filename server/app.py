"""The coordinator's Flower ServerApp. The run-config names the run folder; everything else lies in it."""

from __future__ import annotations

__all__ = ["app"]

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.run import coordinate, open_run
from server.strategy import FlowerFederation

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of the run folder over `grid`."""
    options = context.run_config
    folder = Path(str(options["run-folder"]))
    experiment, _ = open_run(folder)
    coordinate(
        FlowerFederation(grid, experiment),
        folder,
        run=str(options.get("run", "federated")),
        final=bool(options.get("final", True)),
        train=bool(options.get("train", True)),
    )

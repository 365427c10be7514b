"""`python -m server`: the coordinator's commands."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import add_json, command, guarded, parser, show

STATE = Path(".sonofed/server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 bad input."""
    top, commands = parser("server", "The coordinator's side: the server, runs over it, their reports.")
    start = command(
        commands, "start", "start the server that the hospitals' clients connect to",
        "python -m server start --state .sonofed/server --port 18000", _start,
    )  # fmt: skip
    _state(start)
    start.add_argument("--port", type=int, default=18000)
    start.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine alone)")
    register = command(
        commands, "register", "let a site's key in (without --public-key: make a key pair for a trial on one machine)",
        "python -m server register tal --public-key tal.pub", _register,
    )  # fmt: skip
    register.add_argument("site", metavar="SITE-ID")
    register.add_argument("--public-key", type=Path, default=None, metavar="FILE")
    _state(register)
    run = command(
        commands, "run", "run an experiment over the connected sites",
        "python -m server run configs/federations/three-sites.toml --out runs/first", _run,
    )  # fmt: skip
    run.add_argument("config", type=Path, metavar="CONFIG")
    run.add_argument("--out", type=Path, required=True, metavar="RUN")
    run.add_argument("--resume", action="store_true", help="go on from the last whole round in RUN")
    _state(run)
    add_json(run)
    evaluate = command(
        commands, "evaluate", "evaluate stored weights at every site; nothing is trained",
        "python -m server evaluate runs/first/model.safetensors configs/federations/three-sites.toml --out runs/again",
        _evaluate,
    )  # fmt: skip
    evaluate.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    evaluate.add_argument("config", type=Path, metavar="CONFIG")
    evaluate.add_argument("--out", type=Path, required=True, metavar="RUN")
    evaluate.add_argument(
        "--against", type=Path, default=None, metavar="OTHER",
        help="another model of the same configuration: tell the paired difference of AUC, CHECKPOINT − OTHER, at each "
        "center and over all training sites' test cases",
    )  # fmt: skip
    _state(evaluate)
    add_json(evaluate)
    report = command(
        commands, "report", "draw a run folder's report again", "python -m server report runs/demo", _report
    )  # fmt: skip
    report.add_argument("run", type=Path, metavar="RUN")
    return guarded(top, arguments)


def _state(made: argparse.ArgumentParser) -> None:
    made.add_argument("--state", type=Path, default=STATE, metavar="DIR", help=f"the server's folder (default {STATE})")


def _start(options: argparse.Namespace) -> int:
    from server.superlink import start_superlink

    return start_superlink(options.state, port=options.port, host=options.host)


def _register(options: argparse.Namespace) -> int:
    from server.superlink import new_site_key, register_site

    if options.public_key is None:
        print(new_site_key(options.state, options.site))
    else:
        register_site(options.state, options.site, options.public_key)
    return 0


def _run(options: argparse.Namespace) -> int:
    from common.config import load_experiment
    from server.run import initial_weights, prepare_run, resolved

    experiment = load_experiment(options.config)
    weights = initial_weights(experiment)
    prepare_run(options.out, resolved(experiment, _named(experiment)), weights, resume=options.resume)
    return _submit(options, train=True)


def _evaluate(options: argparse.Namespace) -> int:
    from common.config import load_experiment
    from common.weights import load
    from server.against import keep_against, read_other
    from server.run import prepare_run, resolved

    experiment = load_experiment(options.config)
    if options.against is not None:
        read_other(options.checkpoint, options.against)
    prepare_run(options.out, resolved(experiment, _named(experiment)), load(options.checkpoint))
    if options.against is not None:
        keep_against(options.out, options.checkpoint, options.against)
    return _submit(options, train=False)


def _named(experiment: object) -> dict[str, str]:
    from common.config import Experiment
    from common.errors import BadInput

    assert isinstance(experiment, Experiment)
    if experiment.sources or any(site.path for site in experiment.sites):
        raise BadInput(
            "a deployment's experiment names sites by id ([[sites]] id = ...): their folders lie in the hospitals; "
            "for data on this machine use `python -m simulation run`"
        )
    return {site.id: site.role or "train" for site in experiment.sites if site.id}


def _submit(options: argparse.Namespace, *, train: bool) -> int:
    from server.report import write_report
    from server.submit import submit
    from server.table import summary

    code = submit(options.out, state=options.state, train=train)
    if code:
        return code
    report = write_report(options.out)
    text, value = summary(options.out)
    show(value, as_json=options.json, text=f"{text}\nreport: {report}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from server.report import write_report

    print(write_report(options.run))
    return 0


if __name__ == "__main__":
    sys.exit(main())

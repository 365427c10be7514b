"""`python -m simulation`: the researcher's commands."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Commands, add_json, command, guarded, parser, show

PRESETS = ("lymphus", "behsof", "smclud", "deeplesion")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 bad input."""
    top, commands = parser(
        "simulation", "Simulate a federation on one machine and compare it with pooled and local training."
    )
    for add in (_add_phantom, _add_run, _add_compare, _add_pretrain, _add_audit, _add_privacy):
        add(commands)
    return guarded(top, arguments)


def _add_phantom(commands: Commands) -> None:
    made = command(
        commands, "phantom", "write phantom data in a data set's exact on-disk format",
        "python -m simulation phantom phantoms --preset lymphus --seed 0 --extra-centers 2", _phantom,
    )  # fmt: skip
    made.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    made.add_argument("--preset", choices=PRESETS, required=True, help="whose format")
    made.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    made.add_argument("--shift", type=float, default=1.0, help="0: all centers alike; 1: as different as real ones")
    made.add_argument("--visibility", type=float, default=None, help="how strongly the features show")
    made.add_argument("--extra-centers", type=int, default=0, help="further centers, each its machine; lymphus only")
    made.add_argument(
        "--patients", type=int, default=None,
        help="per center (lymphus, behsof) or in all (smclud, deeplesion); default: as the data set has",
    )  # fmt: skip


def _add_run(commands: Commands) -> None:
    made = command(
        commands, "run", "run one federation on this machine",
        "python -m simulation run configs/experiments/demo.toml --out runs/first", _run,
    )  # fmt: skip
    _experiment(made)
    made.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="in-process, or Flower's simulation engine"
    )
    made.add_argument("--resume", action="store_true", help="go on from the last whole round in RUN")


def _add_compare(commands: Commands) -> None:
    made = command(
        commands, "compare", "compare federated, pooled, local and ensemble; go on from what is finished",
        "python -m simulation compare configs/experiments/busbra.toml --out runs/busbra", _compare,
    )  # fmt: skip
    _experiment(made)
    made.add_argument("--seeds", type=int, default=None, help="number of seeds (default: the configuration's)")
    made.add_argument("--arms", default=None, help="comma-separated: federated,pooled,local,ensemble")


def _add_pretrain(commands: Commands) -> None:
    made = command(
        commands, "pretrain", "learn initial weights on phantoms alone",
        "python -m simulation pretrain configs/weights/phantom-resnet18.safetensors", _pretrain,
    )  # fmt: skip
    made.add_argument("out", type=Path, metavar="FILE", help="the safetensors file to write")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--images", type=int, default=None, help="phantom lesions to learn from")
    made.add_argument("--steps", type=int, default=None, help="optimizer steps")
    made.add_argument(
        "--contrast", choices=("fixed", "image", "local"), default="local", help="as model.contrast (default local)"
    )


def _add_audit(commands: Commands) -> None:
    made = command(
        commands, "audit", "attack an experiment's privacy: canaries, membership inference, gradient inversion",
        "python -m simulation audit configs/experiments/private-demo.toml --out runs/audit", _audit,
    )  # fmt: skip
    made.add_argument("config", type=Path, metavar="CONFIG", help="an experiment's TOML file, with privacy of patients")
    made.add_argument("--out", type=Path, default=Path("runs/audit"), metavar="DIR", help="default: runs/audit")
    made.add_argument("--epsilon", type=float, default=1.0, help="what the canaries' game is made for (default 1)")
    made.add_argument("--canaries", type=int, default=1000, help="canary patients, 300 or more (default 1000)")
    made.add_argument("--games", type=int, default=5, help="games, each a bound of its own (default 5)")
    add_json(made)


def _add_privacy(commands: Commands) -> None:
    made = command(
        commands, "privacy", "plan patient-level privacy: how much noise an ε asks for, and what to expect",
        "python -m simulation privacy --patients 180 --rounds 40 --epsilon 8", _privacy,
    )  # fmt: skip
    made.add_argument("--patients", type=int, required=True, help="a site's nominal number of patients")
    made.add_argument("--rounds", type=int, required=True)
    made.add_argument("--epsilon", type=float, required=True, help="what the whole run may cost a patient")
    made.add_argument("--patients-per-step", type=int, default=64, help="expected in one step (default 64)")
    made.add_argument("--steps", type=int, default=None, help="steps a round (default: one pass over the patients)")
    made.add_argument("--delta", type=float, default=None, help="default: 1 / (10 · patients)")
    add_json(made)


def _experiment(made: argparse.ArgumentParser) -> None:
    made.add_argument("config", type=Path, metavar="CONFIG", help="an experiment's TOML file")
    made.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    made.add_argument(
        "--insecure-demo", action="store_true", help="privacy's draws come from the seed: repeats, and protects nobody"
    )
    add_json(made)


def _phantom(options: argparse.Namespace) -> int:
    from common.progress import Progress
    from simulation.phantom import write_phantom

    extra = {} if options.visibility is None else {"visibility": options.visibility}
    with Progress("drawing phantoms", total=1) as progress:
        write_phantom(
            options.out,
            preset=options.preset,
            seed=options.seed,
            shift=options.shift,
            extra_centers=options.extra_centers,
            patients=options.patients,
            progress=lambda n, total: progress.update(n / max(total, 1)),
            **extra,
        )
    print(options.out)
    return 0


def _run(options: argparse.Namespace) -> int:
    from common.config import load_experiment
    from server.table import summary
    from simulation.run import run

    experiment = load_experiment(options.config)
    report = run(
        experiment, options.out, engine=options.engine, resume=options.resume, insecure_demo=options.insecure_demo
    )
    text, value = summary(options.out)
    show(value, as_json=options.json, text=f"{text}\nreport: {report}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from common.config import Comparison, load_experiment
    from common.parsing import parse, to_table
    from server.table import summary
    from simulation.compare import compare

    experiment = load_experiment(options.config)
    table = to_table(experiment.comparison)
    if options.seeds is not None:
        table["seeds"] = options.seeds
    if options.arms is not None:
        table["arms"] = [arm.strip() for arm in options.arms.split(",")]
    experiment = replace(experiment, comparison=parse(Comparison, table, where="--seeds/--arms"))
    report = compare(experiment, options.out, insecure_demo=options.insecure_demo)
    text, value = summary(options.out)
    show(value, as_json=options.json, text=f"{text}\nreport: {report}")
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    from common.config import Model
    from common.progress import Progress
    from simulation.pretraining import pretrain

    extra = {name: getattr(options, name) for name in ("images", "steps") if getattr(options, name) is not None}
    with Progress("pretraining on phantoms", total=1) as progress:
        made = pretrain(
            options.out,
            seed=options.seed,
            model=Model(contrast=options.contrast),
            progress=lambda n, total: progress.update(n / max(total, 1)),
            **extra,
        )
    print(f"{options.out}: {made.megabytes} MB, loss {made.loss:.3f}, learned in {made.seconds / 60:.1f} min")
    return 0


def _audit(options: argparse.Namespace) -> int:
    """Exit 1 where a game proves more than the mechanism was made for."""
    from dataclasses import asdict

    from common.config import load_experiment
    from common.errors import BadInput
    from common.progress import Progress
    from simulation.audit import Counts, audit
    from simulation.audit.page import as_text

    if options.epsilon <= 0 or options.games < 1:
        raise BadInput("--epsilon and --games must be positive")
    counts = Counts(canaries=options.canaries, games=options.games)
    with Progress("auditing", total=1) as progress:
        found = audit(
            load_experiment(options.config),
            options.out,
            epsilon=options.epsilon,
            counts=counts,
            say=lambda text, share: progress.update(share, note=text),
        )
    text = f"{as_text(found)}\npage: {options.out / 'audit.html'}"
    show(asdict(found) | {"holds": found.holds}, as_json=options.json, text=text)
    return 0 if found.holds else 1


def _privacy(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from simulation.forecast import as_text, forecast

    found = forecast(
        patients=options.patients,
        rounds=options.rounds,
        epsilon=options.epsilon,
        patients_per_step=options.patients_per_step,
        steps_per_round=options.steps,
        delta=options.delta,
    )
    show(asdict(found), as_json=options.json, text=as_text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

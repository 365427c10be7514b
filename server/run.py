"""One federated run and its folder: prepare it, coordinate the sites, write down what came out."""

from __future__ import annotations

__all__ = ["check_folder", "config_text", "coordinate", "initial_weights", "open_run", "prepare_run", "resolved"]

import tomllib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from common.config import Experiment, SiteAt
from common.errors import BadInput, RunFailed
from common.files import sha256_bytes, sha256_file, write_atomic
from common.orders import SiteCard
from common.parsing import parse, to_table
from common.randomness import derive_seed
from common.update import Weights
from common.weights import TailAverage, get_weights, save
from server.against import read_against
from server.checkpoints import State, latest, store
from server.final import evaluate_finally
from server.heads import KnownHeads
from server.records import Records
from server.rounds import Federation, Outcome, Roster, run_rounds

MODEL = "model.safetensors"


class Sites(Federation, Protocol):
    """A federation that can also say who is there."""

    def gather(self, expected: Collection[str] = ()) -> dict[str, SiteCard]: ...


def initial_weights(experiment: Experiment) -> Weights:
    """The model before the first round: drawn by the seed, then the weights file's tensors where one is named."""
    from common.model import build_model, load_weights

    model = build_model(
        experiment.model,
        task=experiment.task.name,
        classes=len(experiment.task.classes),
        seed=derive_seed(experiment.seed, "weights"),
    )
    if experiment.training.precision == "float64":
        model.double()
    if experiment.model.weights is not None:
        load_weights(model, Path(experiment.model.weights))
    return get_weights(model)


def resolved(experiment: Experiment, sites: dict[str, str]) -> Experiment:
    """The experiment as a run folder keeps it: `sites` (id → role) instead of paths,
    the weights file by name and checksum.
    """
    model = experiment.model
    if model.weights is not None and model.weights_sha256 is None:
        path = Path(model.weights)
        if not path.is_file():
            raise BadInput(f"model.weights: {path}: no such file; make it with `python -m simulation pretrain`")
        model = replace(model, weights=path.name, weights_sha256=sha256_file(path))
    listed = tuple(
        SiteAt(id=site, role="held-out" if role == "held-out" else "train") for site, role in sorted(sites.items())
    )
    return replace(experiment, sources=(), sites=listed, model=model)


def prepare_run(folder: Path, experiment: Experiment, weights: Weights, *, resume: bool = False) -> None:
    """Write `config.toml` and round 0's checkpoint into a new run folder; `experiment` must be resolved.

    A non-empty folder is BadInput, unless `resume` says to go on; then it must be a run's, of this configuration.
    """
    text = config_text(experiment)
    existing = folder / "config.toml"
    check_folder(folder, text, resume=resume)
    if not existing.exists():
        write_atomic(existing, text)
    if not any((folder / "checkpoints").glob("round-????.json")):
        training = experiment.training
        state = State(0, weights, TailAverage(training.rounds, training.average))
        store(folder / "checkpoints", state, identity=sha256_bytes(text))


def check_folder(folder: Path, text: bytes, *, resume: bool) -> None:
    """Raise BadInput unless `folder` is new or empty, or, to `resume`, a run folder with the configuration `text`."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: a file, not a folder; choose another --out")
    if not folder.exists() or not any(not path.name.startswith(".") for path in folder.iterdir()):
        return
    if not resume:
        raise BadInput(f"{folder}: not empty; add --resume to go on, or choose another --out")
    existing = folder / "config.toml"
    if not existing.exists() or (folder / "models").exists():
        raise BadInput(f"{folder}: not empty, and no run folder; choose another --out")
    if existing.read_bytes() != text:
        raise BadInput(f"{folder}: was made with another configuration; choose another --out")


def config_text(experiment: Experiment) -> bytes:
    """The resolved experiment as TOML."""
    import tomli_w

    return tomli_w.dumps(to_table(experiment)).encode()


def open_run(folder: Path) -> tuple[Experiment, str]:
    """A run folder's experiment, and the identity that its checkpoints carry."""
    try:
        content = (folder / "config.toml").read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{folder}: no run folder (config.toml is missing); give the --out of a run") from None
    return parse(Experiment, tomllib.loads(content.decode()), where="config.toml"), sha256_bytes(content)


def coordinate(
    sites: Sites,
    folder: Path,
    *,
    run: str = "federated",
    final: bool = True,
    train: bool = True,
    heads: Path | None = None,
) -> Outcome:
    """Gather the sites, train from the last checkpoint on, store `model.safetensors`, evaluate, and write
    `results.json`.

    `train=False` evaluates the stored weights only, and compares them with those that `keep_against` put beside them.
    `heads`: where the heads of the sites' ledgers are remembered over runs (default: in the run folder alone).
    RunFailed where nobody learned; the reason stands in the records too.
    """
    experiment, identity = open_run(folder)
    records = Records(folder / "records.jsonl")
    try:
        cards = sites.gather({site.id for site in experiment.sites if site.id})
        roster = Roster.of(cards, _with_roles(experiment))
        for site, card in sorted(cards.items()):
            records.add(
                "site",
                run=run,
                site=site,
                held_out=site in roster.held_out,
                images=card.images,
                artificial=card.artificial,
                evaluations=card.evaluations,
            )
        outcome = (
            run_rounds(
                sites,
                roster,
                experiment,
                run=run,
                folder=folder / "checkpoints",
                identity=identity,
                records=records,
                heads=KnownHeads(heads) if heads else None,
            )
            if train
            else _stored(folder, experiment, identity)
        )
        save(folder / MODEL, outcome.weights)
        if final:
            against = None if train else read_against(folder)
            evaluate_finally(
                sites, roster, experiment, outcome, run=run, folder=folder, records=records, against=against
            )
    except (BadInput, RunFailed) as error:
        records.add("end", run=run, ok=False, why=str(error), exit_code=error.exit_code)
        raise
    records.add("end", run=run, ok=True, failures=dict(outcome.failures))
    return outcome


def _with_roles(experiment: Experiment) -> Experiment:
    held = {site.id for site in experiment.sites if site.role == "held-out" and site.id}
    return replace(experiment, held_out=tuple(sorted({*experiment.held_out, *held})))


def _stored(folder: Path, experiment: Experiment, identity: str) -> Outcome:
    tail = TailAverage(experiment.training.rounds, experiment.training.average)
    state = latest(folder / "checkpoints", identity=identity, tail=tail)
    return Outcome(state.weights, 0, {})

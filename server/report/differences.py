"""How the table of differences is called: between the arms of a comparison, or between two models that were given."""

from __future__ import annotations

__all__ = ["Differences", "differences", "no_contrast"]

from dataclasses import dataclass

from server.paired import FIRST
from server.report.reading import Run


@dataclass(frozen=True)
class Differences:
    """The section's `title`, which model is `ours` (of whose AUC the other's is taken),
    and what is `better` above 0.
    """

    title: str = "Differences between arms"
    ours: str = "federated"
    better: str = "federated minus the other. Above 0, the federated model is better."
    models: bool = False


_MODELS = Differences(
    "Differences between two models",
    FIRST,
    "the checkpoint minus the other model that it was evaluated against. Above 0, the checkpoint is better.",
    True,
)


def differences(run: Run) -> Differences:
    """Words for the run's contrasts; `models` where a deployment compared two."""
    return _MODELS if any(one.a == FIRST for one in run.contrasts) else Differences()


def no_contrast(run: Run) -> str:
    """Why there is no table of differences, and, of a run with one model, where there would be one."""
    if len(run.arms()) > 1:
        return "No contrast between arms was computed."
    return (
        "One model was evaluated, so there is no paired table: python -m server evaluate with --against compares two "
        "models over the same sites, python -m simulation compare the arms."
    )

"""How the sites' updates become one change of the global model: plain functions, picked by `match`."""

from __future__ import annotations

__all__ = ["combine"]

from collections.abc import Mapping

from common.config import FedAvg, FedProx
from common.update import Update, Weights


def combine(strategy: FedAvg | FedProx, updates: Mapping[str, Update]) -> Weights:
    """The change to apply to the global weights.

    FedAvg and FedProx differ in how sites train, not in how updates combine: both take the mean weighted by training
    images (McMahan et al. 2017). Updates are added in the order of site ids, so that the order of arrival cannot change
    a bit. Buffers such as batch-norm statistics are averaged like parameters.
    """
    match strategy:
        case FedAvg() | FedProx():
            return sum((updates[site] for site in sorted(updates)), Update.zero()).mean()

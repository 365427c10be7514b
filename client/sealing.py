"""What a site does when it is asked for sums under masks: the same evaluation as ever, and only the total leaves."""

from __future__ import annotations

__all__ = ["answer_key", "answer_open", "answer_ready", "answer_seal"]

from collections.abc import Mapping
from pathlib import Path

from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from client.evaluations import count_models
from client.evidence import stage_sums
from client.paired import paired_sums
from client.private_round import Custody
from client.secure_sums import make_key, open_total, ready, seal
from client.sent import log_sealed
from client.service import scores_of, scores_of_both, use_threads
from client.site import Site, require_task
from common.blocks import Words
from common.errors import BadInput
from common.evaluation_blocks import evaluation_numbers
from common.files import sha256_bytes
from common.orders import EvaluateOrder
from common.paired import apart
from common.stage_sums import StageSums, no_case
from common.sums_orders import (
    KeyOrder,
    Opening,
    OpenOrder,
    Ready,
    ReadyOrder,
    Sealed,
    SealOrder,
    SiteKey,
    named_by_model,
)
from common.update import Weights
from common.weights import fingerprint

_PEERS = "peers"


def answer_key(site: Site, order: KeyOrder, *, signing: Path | None = None) -> SiteKey:
    """A public key for one attempt, signed where the site knows the key that it is registered with."""
    return make_key(site.state, order, site=site.id, signing=signing)


def answer_seal(
    site: Site, order: SealOrder, weights: Weights, *, custody: Custody | None = None
) -> tuple[Sealed, Words]:
    """Evaluate, and seal the sums of every part that was asked for; EvaluationsExhausted as `answer_evaluate` says."""
    asked = order.evaluate
    if order.terms.run != named_by_model(asked.run, fingerprint(weights)):
        raise BadInput(f"site {site.id}: its key was asked for another model than came; ask for a new key")
    if "masked-sums" not in site.policy.evaluation_sends:
        raise BadInput(
            f"site {site.id}: its policy (evaluation_sends) has no masked-sums; ask without it, or change it at the "
            "site"
        )

    def compute() -> Mapping[str, ArrayLike]:
        folder = (custody or Custody()).folder(site)
        count_models(folder, site, asked, weights, terms=order.terms.digest)
        return evaluation_numbers(_sums_by_part(site, asked, weights))

    request = b"|".join((TypeAdapter(EvaluateOrder).dump_json(asked), site.data_sha256.encode()))
    words = seal(
        site.state,
        order.terms,
        compute,
        site=site.id,
        request=sha256_bytes(request),
        about=_about(order, weights),
        peers=site.folder / _PEERS,
    )
    log_sealed(site, asked, order.terms, words)
    return Sealed(site.id, order.terms.digest), words


def _about(order: SealOrder, weights: Weights) -> list[str]:
    """What is counted: each model's evaluation of each of the site's parts; an order about a pair is about both models.

    Cases, not what the order calls them; so no name that a server gives to a message, a part or a stage matters.
    """
    asked = order.evaluate
    models = (weights, *apart(weights)) if asked.stage == "paired" else (weights,)
    names = [named_by_model(asked.run, fingerprint(model)) for model in models]
    splits = {split for parts in asked.parts.values() for split in parts}
    return [f"{name}, round {order.terms.round}, {split} cases" for name in names for split in sorted(splits)]


def _sums_by_part(site: Site, order: EvaluateOrder, weights: Weights) -> dict[str, StageSums]:
    """The sums of every part of the order; they are hidden in the total, so a cell may be about a single patient."""
    use_threads(order.threads)
    require_task(site, order.task)
    found = {}
    for name, splits in order.parts.items():
        rows = site.rows(*splits)
        if len(rows) and order.stage == "paired":
            both = scores_of_both(site, rows, order, weights, part=name)
            found[name] = paired_sums(site.task, site.labels[rows], both, site.patients[rows], order, smallest=1)
        elif len(rows):
            scores = scores_of(site, rows, order, weights, part=name)
            found[name] = stage_sums(site, rows, scores, order, smallest=1)
        else:
            found[name] = no_case(order)
    return found


def answer_ready(site: Site, order: ReadyOrder) -> Ready:
    """That the site could open the total."""
    return ready(site.state, order, site=site.id)


def answer_open(site: Site, order: OpenOrder) -> Opening:
    """The seed of the site's own mask."""
    return open_total(site.state, order, site=site.id)

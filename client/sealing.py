"""What a site does when it is asked for sums under masks: the same evaluation as ever, and only the total leaves."""

from __future__ import annotations

__all__ = ["answer_key", "answer_open", "answer_seal", "without_sums"]

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from client.secure_sums import make_key, open_total, seal
from client.service import answer_evaluate
from client.site import Site
from common.blocks import Words
from common.errors import BadInput
from common.evaluation_blocks import evaluation_numbers
from common.files import sha256_bytes
from common.metrics import EvaluationSums
from common.orders import EvaluateOrder, EvaluateReport
from common.sums_orders import KeyOrder, Opening, OpenOrder, Sealed, SealOrder, SiteKey, named_by_model
from common.update import Weights
from common.weights import fingerprint

_PEERS = "peers"


def answer_key(site: Site, order: KeyOrder, *, signing: Path | None = None) -> SiteKey:
    """A public key for one attempt, signed where the site knows the key that it is registered with."""
    return make_key(site.state, order, site=site.id, signing=signing)


def answer_seal(site: Site, order: SealOrder, weights: Weights) -> tuple[Sealed, Words]:
    """Evaluate, and seal the sums of every part that was asked for."""
    asked = order.evaluate
    if order.terms.run != named_by_model(asked.run, fingerprint(weights)):
        raise BadInput(f"site {site.id}: its key was asked for another model than came; ask for a new key")

    def compute() -> Mapping[str, ArrayLike]:
        report = answer_evaluate(site, asked, weights)
        told = {name: part.sums for name, part in report.parts.items()}
        sums = {name: EvaluationSums.from_json(data) for name, data in told.items() if data is not None}
        return evaluation_numbers(sums, tuple(asked.parts), with_threshold=asked.threshold is not None)

    request = b"|".join((TypeAdapter(EvaluateOrder).dump_json(asked), site.data_sha256.encode()))
    words = seal(
        site.state,
        order.terms,
        compute,
        site=site.id,
        request=sha256_bytes(request),
        peers=site.folder / _PEERS,
    )
    return Sealed(site.id, order.terms.digest), words


def answer_open(site: Site, order: OpenOrder) -> Opening:
    """The seed of the site's own mask."""
    return open_total(site.state, order, site=site.id)


def without_sums(report: EvaluateReport) -> EvaluateReport:
    """The site's own numbers alone: its sums leave only under masks."""
    return replace(report, parts={name: replace(part, sums=None) for name, part in report.parts.items()})

"""A private round at a site: room in the ledger, train, record on disk, and only then hand the answer out."""

from __future__ import annotations

__all__ = ["Custody", "answer_private"]

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from client.keyed import keyed_digest
from client.ledger import Account, Released, Request, opened
from client.site import Site, require_declared
from client.spending import account_of
from common.errors import LedgerRefused
from common.files import sha256_bytes
from common.orders import TrainOrder, TrainReport
from common.parsing import parse, to_table
from common.privacy import Mechanism, mechanism_of
from common.private_orders import PrivateOrder, PrivateReport
from common.update import Weights, norm
from common.weights import fingerprint, get_weights

if TYPE_CHECKING:
    from common.model import AttentionNet


@dataclass(frozen=True)
class Custody:
    """What the site's own start of its client decides, and no message can: where its ledger lies, and whether it is a
    demo.

    `ledgers`: a folder for the ledgers of a simulation that is not to spend the sites' own; None: the site folder.
    `insecure_demo`: coins and noise come from the experiment's seed, so that the run repeats and protects nobody.
    """

    ledgers: Path | None = None
    insecure_demo: bool = False

    def folder(self, site: Site) -> Path:
        """Below which `site` keeps what it has spent and answered."""
        return site.folder if self.ledgers is None else self.ledgers / site.id

    def account(self, site: Site) -> Account:
        """The ledger of `site`."""
        return account_of(self.folder(site), site)


def answer_private(
    site: Site, order: TrainOrder, private: PrivateOrder, weights: Weights, *, custody: Custody
) -> tuple[TrainReport, Weights]:
    """One private round from `weights`, as `answer_train` makes a plain one; the change holds what trained, no more.

    The report's every number follows from the site's nominal number of patients or from what was released. BadInput
    where that number was not declared by a person.
    """
    require_declared(site)
    mechanism = mechanism_of(private.privacy, nominal_patients=site.nominal_patients, steps=private.steps)
    account = custody.account(site)
    request = Request(private.name, order.round, _content(site, order, private, weights))

    def compute() -> bytes:
        return _packed(*_trained(site, order, weights, mechanism, insecure_demo=custody.insecure_demo))

    with opened(account, seen=private.seen) as ledger:
        plan = mechanism.plan(order.steps)
        released = ledger.release(request, plan, compute, insecure_demo=custody.insecure_demo)
    samples, change = _unpacked(released, site)
    about = PrivateReport(
        plan=plan,
        epsilon=released.epsilon,
        cap=account.cap,
        delta=account.delta,
        head=released.head,
        again=released.again,
        insecure_demo=custody.insecure_demo,
    )
    report = TrainReport(
        site=site.id,
        weight=float(site.nominal_patients),
        samples=samples,
        steps=order.steps,
        loss=None,
        norm=norm(change),
        seconds=None,
        private=about,
    )
    return report, change


def _content(site: Site, order: TrainOrder, private: PrivateOrder, weights: Weights) -> str:
    """What was asked, but for what the server knows of the ledger, which grows while it waits.

    The ledger's hash covers it and is sent: so the data are named by what nobody else can compute.
    """
    asked = to_table(order) | {"private": to_table(private) | {"seen": None}}
    told = [json.dumps(asked, sort_keys=True), fingerprint(weights), keyed_digest(site)]
    return sha256_bytes("|".join(told).encode())


def _trained(
    site: Site, order: TrainOrder, weights: Weights, mechanism: Mechanism, *, insecure_demo: bool
) -> tuple[int, Weights]:
    from client.private_training import PrivateData, private_steps
    from client.service import model_of, proximal_of, site_crops
    from common.entropy import Entropy
    from common.randomness import derive_seed

    rows = site.rows(*order.parts)
    data = PrivateData(site_crops(site, order.crop)[rows], site.labels[rows], site.patients[rows])
    model = model_of(order, weights)
    seed = derive_seed(order.seed, "privacy", site.id, "round", order.round) if insecure_demo else None
    trained = private_steps(
        model,
        data,
        order.training,
        mechanism,
        steps=order.steps,
        progress=order.progress,
        entropy=Entropy(insecure_demo=seed),
        proximal=proximal_of(order.strategy),
    )
    return trained.samples, _change(model, weights, mechanism)


def _change(model: AttentionNet, weights: Weights, mechanism: Mechanism) -> Weights:
    from client.private_training import training_only

    with training_only(model, mechanism.trains):
        learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    after = get_weights(model)
    return {name: after[name] - before for name, before in weights.items() if name in learned}


def _packed(samples: int, change: Weights) -> bytes:
    from safetensors.numpy import save

    content: bytes = save({n: np.ascontiguousarray(a) for n, a in change.items()}, metadata={"samples": str(samples)})
    return content


def _unpacked(released: Released, site: Site) -> tuple[int, Weights]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(released.answer[:8], "little")
        about = parse(dict[str, str], json.loads(released.answer[8 : 8 + length])["__metadata__"], where="answer")
        return int(about["samples"]), load(released.answer)
    except (SafetensorError, KeyError, ValueError):
        raise LedgerRefused(f"site {site.id}: the stored answer cannot be read; go on with a later round") from None

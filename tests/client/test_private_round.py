"""A private round against a server that wishes the site's patients ill."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from client.evaluations import read_answered
from client.ledger import Account, Request, opened, read_entries
from client.manifest import Policy
from client.private_round import Custody
from client.service import answer_evaluate, answer_train
from client.site import Site, load_site
from client.spending import account_of, as_table, as_text
from common.config import Crop, FedAvg, Model, PatientPrivacy, Training
from common.errors import BadInput, LedgerRefused
from common.model import build_model
from common.orders import TrainOrder
from common.parsing import parse, to_table
from common.privacy import Plan, epsilon
from common.private_orders import PrivateOrder
from common.update import Weights
from common.weights import get_weights
from tests.client.test_sent import asked
from tests.faults.small_sites import write_site

MODEL = Model(backbone="small")


def site_at(folder: Path, policy: str = "") -> Site:
    write_site(folder, "ash", seed=0, images=16)
    text = (folder / "site.toml").read_text(encoding="utf-8")
    (folder / "site.toml").write_text(text.replace("[policy]\n", f"[policy]\n{policy}\n"), encoding="utf-8")
    return load_site(folder)


def order(site: Site, *, number: int = 1, steps: int = 2) -> TrainOrder:
    training = Training(steps=10, class_weights=False, augmentation=None, precision="float32")
    privacy = PatientPrivacy(noise_multiplier=4.0, patients_per_step=4)
    return TrainOrder(
        "r", number, 0, 1, steps, (0.0, 1.0), ("train",), site.task, Crop(size=32), MODEL, training, FedAvg(),
        PrivateOrder(privacy, "r", 10),
    )  # fmt: skip


def weights_of(site: Site) -> Weights:
    return get_weights(build_model(MODEL, task=site.task.name, classes=2, seed=0))


@pytest.mark.parametrize("steps", [0, -1, -6])
def test_steps_that_would_pay_the_ledger_back_are_refused(tmp_path: Path, steps: int) -> None:
    site = site_at(tmp_path / "ash", "epsilon_cap = 20.0")
    answer_train(site, order(site), weights_of(site))
    for where in ("steps", "private.steps"):
        table = to_table(order(site, number=2))
        (table if where == "steps" else table["private"])["steps"] = steps
        with pytest.raises(BadInput, match="steps"):
            parse(TrainOrder, table, where="order")
    with pytest.raises(ValueError, match="steps"):
        Plan(4.0, 0.1, steps)
    (entry,) = read_entries(account_of(site.folder, site))
    assert entry.epsilon == pytest.approx(epsilon([entry.plan], delta=entry.delta))


@pytest.mark.parametrize(
    ("sigma", "rate", "owned"), [(0.0, 0.1, 1), (-1.0, 0.1, 1), (math.nan, 0.1, 1), (math.inf, 0.1, 1), (1, 0, 1), (1, 1.1, 1), (1, 0.1, 0)]
)  # fmt: skip
def test_a_plan_of_no_sums_at_all_is_refused(sigma: float, rate: float, owned: int) -> None:
    with pytest.raises(ValueError, match="a plan's"):
        Plan(sigma, rate, 3, owned)


def test_no_hash_that_leaves_can_be_computed_by_who_knows_everyone(tmp_path: Path) -> None:
    """Two sites with the same data and the same order write down another content, and so have another head."""
    folders = [tmp_path / "one" / "ash", tmp_path / "two" / "ash"]
    site_at(folders[0], "epsilon_cap = 20.0")
    shutil.copytree(folders[0], folders[1])
    contents = []
    for folder in folders:
        site = load_site(folder)
        report, _ = answer_train(site, order(site), weights_of(site), custody=Custody(insecure_demo=True))
        (entry,) = read_entries(account_of(folder, site))
        contents.append(entry.request.content)
        assert report.private is not None
        assert report.private.head.hash == entry.hash
    assert contents[0] != contents[1]
    again, _ = answer_train(load_site(folders[0]), order(load_site(folders[0])), weights_of(load_site(folders[0])))
    assert again.private is not None
    assert again.private.again, "the same site knows its own order again"


def test_who_trained_with_privacy_is_evaluated_by_nobody(tmp_path: Path) -> None:
    site = site_at(tmp_path / "ash", "epsilon_cap = 20.0\nprivacy_required = true")
    ask, weights = asked("progress")
    about_train = replace(ask, parts={"train": ("train",)})
    assert answer_evaluate(site, about_train, weights).parts["train"].n_images
    answer_train(site, order(site), weights_of(site))
    with pytest.raises(LedgerRefused, match="has trained with privacy and answers no evaluation about the patients"):
        answer_evaluate(site, replace(about_train, round=9), weights)
    counted = read_answered(site.folder).in_all
    answer = answer_evaluate(site, replace(ask, round=9, parts={"val": ("val",)}), weights)
    assert answer.parts["val"].n_images
    assert answer.seconds is None, "how long it took follows from how many cases there are"
    assert read_answered(site.folder).in_all == counted + 1


def test_the_table_shows_epsilon_at_the_delta_that_it_names(tmp_path: Path) -> None:
    before, after = (Account(tmp_path / "tal", "tal", 8.0, delta) for delta in (1e-3, 1e-5))
    with opened(before) as ledger:
        ledger.release(Request("r", 1, "a" * 64), Plan(1.0, 0.1, 40), lambda: b"x")
    wanted = epsilon([Plan(1.0, 0.1, 40)], delta=1e-5)
    assert as_table(after, Policy())["epsilon"] == pytest.approx(wanted)
    assert f"ε = {wanted:.2f} of 8.00" in as_text(after, Policy())

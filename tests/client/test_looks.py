"""What a training site tells of its pictures: sums that add, nothing of few patients, logged before it leaves."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.looks import _merged, looks_of
from client.repair import amplitude_sums, gray_counts
from client.service import answer_evaluate, site_crops
from client.site import Site, load_site
from common.config import Experiment
from common.errors import BadInput
from common.harmonisation import amplitude_gain
from common.orders import EvaluateOrder
from common.parsing import parse
from common.repair_orders import LooksSums, RepairOrder
from common.wire import from_config, to_config
from server.rounds import evaluate_order
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site
from tests.speckle_world import BASE, GAIN, MARGIN, Machine, pictures


def crops(machine: Machine = BASE, *, count: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pictures(rng, rng.integers(0, 2, count), rng.integers(0, 2, count), machine)


def looks(images: np.ndarray, *, smallest: int = 1) -> LooksSums:
    found = looks_of(images, np.arange(len(images)), margin=MARGIN, smallest=smallest)
    assert found is not None
    return found


def test_the_sums_of_two_sites_are_those_of_their_pictures_together() -> None:
    one, other = crops(), crops(GAIN, count=25)
    both, together = looks(one) + looks(other), looks(np.concatenate([one, other]))
    assert both.gray == together.gray == tuple(gray_counts(np.concatenate([one, other]), margin=MARGIN).counts)
    np.testing.assert_allclose(both.amplitude, together.amplitude)
    assert both.images == 65


def test_the_low_frequencies_alone_mend_as_all_of_them() -> None:
    own, reference = amplitude_sums(crops(GAIN)), amplitude_sums(crops())
    told = looks(crops())
    assert len(told.amplitude) < 0.1 * reference.total.size
    np.testing.assert_array_equal(amplitude_gain(own, told.amplitude_sums), amplitude_gain(own, reference))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_run_of_gray_values_tells_of_few_patients(data: st.DataObject) -> None:
    """Against a loop: what a run says is one number, and at least `smallest` patients are in it; no pixel is lost."""
    smallest, images = data.draw(st.integers(2, 4)), data.draw(st.integers(4, 9))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    counts = rng.integers(0, 9, (images, 256)) * (rng.random((images, 256)) < rng.choice([0.01, 0.2]))
    patients = rng.integers(0, images, images)
    if len(np.unique(patients[counts.any(axis=1)])) < smallest:
        return  # then `looks_of` tells nothing
    merged = _merged(counts, patients, smallest=smallest)
    assert merged.sum() == counts.sum()
    edges = [0, *(np.flatnonzero(np.abs(np.diff(merged)) > 1) + 1), 256]  # within a run, counts differ by one at most
    for low, high in itertools.pairwise(edges):
        shown = {int(who) for image, who in enumerate(patients) if counts[image, low:high].any()}
        assert len(shown) >= smallest or not merged[low:high].any()


def test_a_single_patients_gray_value_does_not_show() -> None:
    images = np.minimum(crops(), 200)
    images[0, :4] = 250
    assert looks(images).gray[250] > 0
    merged = np.array(looks(images, smallest=5).gray)
    assert merged[250] < looks(images).gray[250] / 5
    assert merged[240:].max() - merged[240:].min() <= 1
    assert looks_of(images, np.arange(len(images)), margin=MARGIN, smallest=len(images) + 1) is None


def test_patients_without_tissue_hide_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three patients, of whom two show a pixel beside their lesions."""
    shown = np.zeros((3, 256), dtype=np.int64)
    shown[:2, 100:140] = 4
    monkeypatch.setattr("client.looks.gray_counts_by_image", lambda *_, **__: shown)
    found = {smallest: looks_of(crops(count=3), np.arange(3), margin=MARGIN, smallest=smallest) for smallest in (2, 3)}
    assert found[2] is not None
    assert found[3] is None


def test_looks_travel_whole_and_wrong_ones_are_refused() -> None:
    told = RepairOrder(looks=looks(crops()), shares=(0.5, 0.5))
    assert from_config(RepairOrder, to_config(told)) == told
    assert len(str(to_config(told)["json"])) < 8000
    torn = json.loads(str(to_config(told)["json"]))
    torn["looks"]["amplitude"].pop()
    with pytest.raises(BadInput, match="256 gray values"):
        from_config(RepairOrder, {"json": json.dumps(torn)})


def asked(site: Path) -> EvaluateOrder:
    experiment = parse(Experiment, experiment_table([site]), where="test")
    return evaluate_order(experiment, {"train": ("train",)}, run="r", round_number=2, stage="looks")


def opened(folder: Path, *policy: str) -> Site:
    write_site(folder, folder.name, seed=0, images=32, per_patient=2)
    text = (folder / "site.toml").read_text(encoding="utf-8").replace("smallest_group = 1\n", "")
    (folder / "site.toml").write_text(text + "\n".join(policy) + "\n", encoding="utf-8")
    return load_site(folder)


def test_a_site_tells_its_looks_and_nothing_else_and_logs_it(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", "smallest_group = 3")
    part = answer_evaluate(site, asked(site.folder), {}).parts["train"]
    rows = site.rows("train")
    alone = site_crops(site, asked(site.folder).crop)[rows]
    assert part.looks == looks_of(alone, site.patients[rows], margin=MARGIN, smallest=3)
    assert (part.n_images, part.auc, part.loss, part.sums) == (None, None, None, None)
    line = json.loads((site.folder / "private" / "sent.jsonl").read_text())
    assert part.looks is not None
    assert line["parts"]["train"]["sums"] == {"looks": 2 + 256 + len(part.looks.amplitude)}


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (["smallest_group = 9"], "suppressed"),
        (['evaluation_sends = ["numbers"]'], "policy"),
        (["privacy_required = true", "smallest_group = 1"], "policy"),
    ],
)
def test_a_policy_keeps_the_looks_at_the_site(tmp_path: Path, policy: list[str], why: str) -> None:
    site = opened(tmp_path / "ash", *policy)
    part = answer_evaluate(site, asked(site.folder), {}).parts["train"]
    told: dict[str, Any] = {name: value for name, value in part.__dict__.items() if not name.startswith("__") and value}
    assert told == {"why": why}

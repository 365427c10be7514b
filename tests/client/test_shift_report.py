"""What a site tells for the shift panel: the same when asked again, by multipliers that nobody else can know."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.multipliers import multipliers
from client.service import answer_evaluate
from client.shift import Patients, shift_moments, shift_sums
from client.site import Site, load_site
from common.config import Experiment
from common.errors import BadInput, EvaluationsExhausted, RunFailed
from common.orders import EvaluateOrder, PartReport
from common.parsing import parse
from common.randomness import derive
from common.shift import DESCRIPTORS
from common.shift_orders import Packed, SentMoments, SentReference, SentSums, ShiftOrder
from common.wire import from_config, to_config
from server.rounds import evaluate_order
from server.run import initial_weights
from server.shift import make_reference
from tests.experiments import experiment_table
from tests.faults.small_sites import write_site

EXPERIMENT = parse(Experiment, experiment_table([Path("ash")]), where="test")
PARTS = {"shift": ("val", "test")}


def opened(folder: Path, *, images: int = 64, **policy: Any) -> Site:
    """A site of one image a patient; half of them are val or test."""
    write_site(folder, folder.name, seed=7, images=images)
    text = (folder / "site.toml").read_text(encoding="utf-8").replace("smallest_group = 1\n", "")
    rules = "".join(f"{key} = {json.dumps(value)}\n" for key, value in policy.items())
    (folder / "site.toml").write_text(text + rules, encoding="utf-8")
    return load_site(folder)


def asked(about: ShiftOrder | None, **changes: Any) -> EvaluateOrder:
    made = evaluate_order(EXPERIMENT, dict(PARTS), run="r", round_number=2)
    stage = "shift-moments" if about is None or about.reference is None else "shift-sums"
    return replace(made, **{"stage": stage, "shift": about, **changes})


def told(site: Site, about: ShiftOrder, **changes: Any) -> PartReport:
    order = from_config(EvaluateOrder, to_config(asked(about, **changes)))
    return answer_evaluate(site, order, initial_weights(EXPERIMENT)).parts["shift"]


def moments(site: Site, **changes: Any) -> PartReport:
    return told(site, ShiftOrder(0), **changes)


def reference_of(*parts: PartReport) -> ShiftOrder:
    found = [part.shift_moments.moments for part in parts if part.shift_moments is not None]
    return ShiftOrder(0, SentReference.of(make_reference(found, seed=0)))


def test_the_same_question_has_the_same_answer_over_runs_and_restarts(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    about = reference_of(moments(site))
    first = told(site, about)
    assert first.shift_sums is not None
    assert told(load_site(site.folder), about) == first
    assert told(site, about, run="another", round=9) == first
    key = site.state / "shift.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.unlink()
    anew = told(site, about).shift_sums
    assert anew is not None
    assert (anew.mean, anew.variance) == (first.shift_sums.mean, first.shift_sums.variance)
    assert anew.draws != first.shift_sums.draws


def test_multipliers_are_a_sites_own_and_follow_from_no_seed(tmp_path: Path) -> None:
    """Two sites of the same pictures and name, asked the same; and every seed that an outsider would try first."""
    ash, twin = opened(tmp_path / "one" / "ash"), opened(tmp_path / "two" / "ash")
    assert ash.data_sha256 == twin.data_sha256
    about = reference_of(moments(ash), moments(twin))
    sums = [told(site, about).shift_sums for site in (ash, twin)]
    assert sums[0] is not None
    assert sums[1] is not None
    assert sums[0].mean == sums[1].mean
    one, other = sums[0].draws.array.ravel(), sums[1].draws.array.ravel()
    # 1 if the multipliers were the same; by chance some .1, since 64 draws are what counts
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.6
    rows = ash.rows("val", "test")
    drawn = multipliers(ash, rows).standard_normal(64)
    for seed in range(50):
        for names in ((), ("shift",), ("shift", "site", "ash"), ("shift", "server"), ("shift", "frequencies")):
            assert not np.array_equal(derive(seed, *names).standard_normal(64), drawn)
    assert not np.array_equal(multipliers(ash, rows[1:]).standard_normal(64), drawn), "other patients"


def test_a_reply_holds_the_named_arrays_and_nothing_else(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    first = moments(site)
    second = told(site, reference_of(first))
    for part, name, arrays_there in (
        (first, "shift_moments", {"counts", "totals", "scatter"}),
        (second, "shift_sums", {"counts", "mean", "variance", "draws", "halves_mean", "halves_scatter"}),
    ):
        plain = json.loads(str(to_config(part)["json"]))
        assert {key for key, value in plain.items() if value not in (None, [])} == {name}
        assert plain[name].keys() == arrays_there
        assert all(value.keys() == {"kind", "shape", "text"} for value in plain[name].values())
    assert second.shift_sums is not None
    assert 3 * second.shift_sums.draws.shape[0] < 32


def test_each_message_of_a_large_site_is_at_most_64_kib() -> None:
    """64 draws and 64 features, whatever the number of patients."""
    rng = np.random.default_rng(0)
    patients = Patients(rng.standard_normal((400, len(DESCRIPTORS) + 64)), rng.integers(0, 2, 400))
    found = shift_moments(patients, classes=2)
    reference = make_reference([found, found], seed=0)
    sums = shift_sums(patients, reference, rng=rng)
    messages = (SentMoments.of(found), SentReference.of(reference), SentSums.of(sums))
    sizes = [len(str(to_config(message)["json"]).encode()) for message in messages]
    print(f"moments {sizes[0]}, reference {sizes[1]}, sums {sizes[2]} bytes")
    assert max(sizes) <= 64 * 1024
    back = from_config(SentSums, to_config(SentSums.of(sums))).sums(reference)
    assert all(np.array_equal(value, getattr(sums, name)) for name, value in back.__dict__.items())


def nothing(part: PartReport) -> str | None:
    """Why there is nothing in a report, where there is nothing."""
    full = {name for name, value in part.__dict__.items() if value not in (None, ()) and not name.startswith("__")}
    assert full == {"why"}
    return part.why


def test_policy_and_small_groups_keep_everything_back(tmp_path: Path) -> None:
    silent = opened(tmp_path / "a" / "ash", evaluation_sends=["numbers", "sums", "masked-sums"])
    strict = opened(tmp_path / "b" / "ash", privacy_required=True)
    for site in (silent, strict):
        assert nothing(moments(site)) == "policy"
    halves = opened(tmp_path / "c" / "ash", smallest_group=17)
    assert nothing(moments(halves)) == "suppressed", "32 patients, 16 of each class and half"
    assert moments(opened(tmp_path / "d" / "ash", smallest_group=16)).why is None
    few = opened(tmp_path / "e" / "ash", images=48)
    assert nothing(moments(few)) == "too-few", "24 patients"
    about = reference_of(moments(opened(tmp_path / "f" / "ash")))
    for site, why in ((silent, "policy"), (strict, "policy"), (halves, "suppressed"), (few, "too-few")):
        assert nothing(told(site, about)) == why, "the second question is refused as the first"
        assert not (site.state / "shift.key").exists()


def test_a_class_of_few_patients_keeps_its_site_back_and_an_absent_one_does_not(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", smallest_group=5)
    rows = site.rows("val", "test")
    for positives, why in ((0, None), (1, "suppressed"), (4, "suppressed"), (5, None)):
        labels = np.zeros_like(site.labels)
        labels[rows[:positives]] = 1
        part = moments(replace(site, labels=labels, positive=labels == 1))
        assert part.why == why
        if part.shift_moments is not None:
            assert part.shift_moments.counts.array.tolist() == [32 - positives, positives]


def test_these_answers_are_counted_and_once(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash", evaluations_per_run=2)
    about = reference_of(moments(site))
    told(site, about)
    moments(site)
    with pytest.raises(EvaluationsExhausted, match="site ash has answered 2 evaluations of run r"):
        moments(site, parts={"shift": ("val",)})


def test_an_order_that_lacks_what_it_is_about_is_refused(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    weights = initial_weights(EXPERIMENT)
    for order in (asked(None), asked(ShiftOrder(0), stage="shift-sums")):
        with pytest.raises(BadInput, match="the order for shift sums lacks what it is about"):
            answer_evaluate(site, order, weights)
    about = reference_of(moments(site))
    with pytest.raises(BadInput):
        answer_evaluate(site, asked(about, stage="shift-moments"), weights)


def test_features_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    site = opened(tmp_path / "ash")
    weights = {name: np.full_like(array, np.nan) for name, array in initial_weights(EXPERIMENT).items()}
    with pytest.raises(RunFailed, match=r"^site ash: a patient's values are not finite.*did training diverge\?$"):
        answer_evaluate(site, asked(ShiftOrder(0)), weights)


@settings(max_examples=50, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(0, 4), st.integers(0, 4)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_an_array_comes_back_to_the_bit(array: np.ndarray) -> None:
    back = from_config(Packed, to_config(Packed.of(array))).array
    assert back.tobytes() == array.tobytes()
    assert back.shape == array.shape


@pytest.mark.parametrize(
    "spoiled",
    [
        {"kind": "<f8", "shape": [3], "text": Packed.of(np.zeros(2)).text},
        {"kind": "<f8", "shape": [-1], "text": ""},
        {"kind": "<f2", "shape": [0], "text": ""},
        {"kind": "<f8", "shape": [1], "text": "\\\\"},
        {"kind": "<f8", "shape": [1 << 40], "text": ""},
        {"kind": "<f4", "shape": [1], "text": "\u00e9"},
    ],
)
def test_a_torn_array_is_refused(spoiled: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"^message: "):
        parse(Packed, spoiled, where="message")


def test_a_number_that_is_none_does_not_travel() -> None:
    import base64

    for value in (np.nan, np.inf):
        text = base64.b85encode(np.array([value]).tobytes()).decode()
        with pytest.raises(BadInput, match="not finite"):
            parse(Packed, {"kind": "<f8", "shape": [1], "text": text}, where="message")

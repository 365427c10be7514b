"""Private training against a plain oracle, what one patient can move,
and that no constant follows from who is there.
"""

from __future__ import annotations

import copy
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from client.augment import normalise
from client.joint_gradients import by_pack
from client.precision import place
from client.private_features import SeenLesson, by_formula
from client.private_gradients import ClippedSum, Lesson, Unit, Way, by_patient, by_sample, noisy_mean
from client.private_training import PrivateData, private_steps, sample, training_only
from common.config import Augmentation, ImagePrivacy, Model, PatientPrivacy, Sgd, Training
from common.entropy import Entropy
from common.errors import BadInput
from common.maps import compiled, run
from common.model import AttentionNet, build_model
from common.privacy import Mechanism, mechanism_of

WAYS: tuple[Way, ...] = ("by-pack", "by-patient", "by-sample")
PLAN = Training(steps=10, batch_size=8, class_weights=False, augmentation=None, precision="float32")
MECHANISM = Mechanism("patient", 1.0, 1.0, 0.5, 4.0, 3, "all")
SIDE = 24


def build(**config: object) -> AttentionNet:
    """A small model with every part that trains, its attention and votes away from zero."""
    asked = {"backbone": "small", "gradients": True, **config}
    model = build_model(Model(**asked), task="node", classes=2, seed=0)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def crops(images: int = 21) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).integers(0, 256, (images, SIDE, SIDE)).astype(np.uint8)


def labels(images: int = 21) -> np.ndarray:
    """0 and 1 in turn."""
    return np.arange(images) % 2


def units(sizes: tuple[int, ...] = (3, 1, 4, 2, 5, 1)) -> list[Unit]:
    """Patients of these numbers of images."""
    ends = np.cumsum(sizes)
    return [Unit(np.arange(end - size, end), seed=int(end)) for end, size in zip(ends, sizes, strict=True)]


def lesson(model: AttentionNet, precision: str = "float32", pictures: np.ndarray | None = None) -> Lesson:
    """The model on the noise, without random changes."""
    where = place(model, side=SIDE, precision=precision)  # type: ignore[arg-type]
    return Lesson(model, crops() if pictures is None else pictures, labels(), where)


def clipped(way: Way, asked: Lesson, group: list[Unit], *, clip: float, images: int = 6) -> list[Tensor]:
    """The sum by one of the ways."""
    match way:
        case "by-pack":
            return by_pack(asked, group, clip=clip, images=images).tensors
        case "by-patient":
            return by_patient(asked, group, clip=clip).tensors
        case "by-sample":
            return by_sample(asked, group, clip=clip, images=images).tensors


def oracle(model: AttentionNet, group: list[Unit], *, clip: float) -> list[Tensor]:
    """Every image by itself in float64, averaged, clipped, added up."""
    model = copy.deepcopy(model).double()
    trained = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in trained]
    for unit in group:
        mean = [torch.zeros_like(p) for p in trained]
        for row in unit.rows:
            x = normalise(torch.from_numpy(crops()[[row]])).double()
            label = torch.tensor([labels()[row]])
            loss = torch.stack([F.cross_entropy(logits, label) for logits in model.votes(x)]).sum()
            for into, gradient in zip(mean, torch.autograd.grad(loss, trained), strict=True):
                into += gradient / len(unit.rows)
        norm = torch.sqrt(sum((m**2).sum() for m in mean))  # type: ignore[arg-type]
        for into, m in zip(total, mean, strict=True):
            into += m * min(1.0, clip / float(norm))
    return total


def flat(tensors: list[Tensor]) -> Tensor:
    """One vector, float64."""
    return torch.cat([t.detach().flatten().double() for t in tensors])


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """The norm of the difference."""
    return float((flat(a) - flat(b)).norm())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clip", [0.05, 2.0, 1e4])
@pytest.mark.parametrize("trains", ["all", "last-stage", "head"])
def test_each_way_gives_the_oracles_sum(way: Way, clip: float, trains: str) -> None:
    model = build()
    with training_only(model, trains):
        wanted = oracle(model, units(), clip=clip)
        for precision in ("float32", "float64"):
            found = clipped(way, lesson(model, precision), units(), clip=clip)
            assert apart(found, wanted) <= 1e-6 * float(flat(wanted).norm())


@pytest.mark.parametrize("clip", [0.05, 2.0])
@pytest.mark.parametrize("gradients", [False, True])
def test_heads_over_features_that_were_seen_before_give_the_oracles_sum(clip: float, gradients: bool) -> None:
    model = build(gradients=gradients)
    with training_only(model, "head"):
        wanted = oracle(model, units(), clip=clip)
        where = place(model, side=SIDE, precision="float32")
        seen = SeenLesson.of(model, crops(), labels(), where, label_smoothing=0.0)
        for found in (by_formula(seen, units(), clip=clip), by_patient(seen, units(), clip=clip)):
            assert apart(found.tensors, wanted) <= 2e-6 * float(flat(wanted).norm())
        spoilt = replace(
            seen, seen=tuple(each.clone().index_fill_(0, torch.tensor([4]), torch.nan) for each in seen.seen)
        )
        others = [unit for unit in units() if 4 not in unit.rows]
        found, rest = (by_formula(spoilt, group, clip=clip) for group in (units(), others))
        assert apart(found.tensors, rest.tensors) <= 1e-6


def test_a_resnet_too() -> None:
    """The layers of the model that patients' images are trained with; one image a patient and two."""
    model = build(backbone="resnet18")
    wanted = oracle(model, units((2, 1)), clip=1.0)
    for way in WAYS:
        for precision, bound in (("float32", 1e-5), ("float64", 1e-6)):
            found = clipped(way, lesson(model, precision), units((2, 1)), clip=1.0)
            assert apart(found, wanted) <= bound * float(flat(wanted).norm())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_the_layout_of_tensors_does_not_matter(way: Way, layout: str) -> None:
    """Opacus by itself takes a channels-last tensor for a contiguous one."""
    model = build()
    wanted = oracle(model, units(), clip=1.0)
    where = place(model, side=SIDE, precision="float32", layout=layout)  # type: ignore[arg-type]
    found = clipped(way, Lesson(model, crops(), labels(), where), units(), clip=1.0)
    assert apart(found, wanted) <= 1e-6 * float(flat(wanted).norm())


@pytest.mark.parametrize("way", WAYS)
def test_sums_are_single_precision_under_bf16_and_leave_no_trace_on_the_model(way: Way) -> None:
    model = build()
    asked = lesson(model, "bf16")
    found = clipped(way, asked, units(), clip=0.5)
    assert {t.dtype for t in found} == {torch.float32}
    assert apart(found, oracle(model, units(), clip=0.5)) < 0.1 * float(flat(found).norm())
    assert all(p.grad is None and not hasattr(p, "grad_sample") for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert apart(clipped(way, asked, units(), clip=0.5), found) == 0


SPOILT = st.sampled_from([1.0, 1e3, 1e30, float("nan"), float("inf"), -float("inf")])


@settings(max_examples=int(os.environ.get("SONOFED_EXAMPLES", "20")), deadline=None)
@given(
    st.sampled_from(WAYS), st.integers(0, 5), st.lists(SPOILT, min_size=6, max_size=6), st.sampled_from([1e-3, 1.0, 50])
)
def test_no_patient_moves_the_sum_further_than_the_clip(way: Way, gone: int, factors: list[float], clip: float) -> None:
    pictures = crops().astype(np.float32)
    for unit, factor in zip(units(), factors, strict=True):
        pictures[unit.rows] = pictures[unit.rows] * factor if np.isfinite(factor) else factor
    asked = lesson(build(), pictures=pictures)
    whole = clipped(way, asked, units(), clip=clip)
    rest = clipped(way, asked, [u for i, u in enumerate(units()) if i != gone], clip=clip)
    assert torch.isfinite(flat(whole)).all()
    assert apart(whole, rest) <= clip * (1 + 1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_a_patient_who_is_not_finite_counts_as_absent(way: Way) -> None:
    pictures = crops().astype(np.float32)
    pictures[units()[2].rows[0]] = np.nan
    asked = lesson(build(), pictures=pictures)
    others = [u for i, u in enumerate(units()) if i != 2]
    assert apart(clipped(way, asked, units(), clip=1.0), clipped(way, asked, others, clip=1.0)) <= 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_random_changes_of_one_patient_do_not_depend_on_another(way: Way) -> None:
    asked = replace(lesson(build()), augmentation=Augmentation(noise=0.2, erase=0.5))
    whole = clipped(way, asked, units(), clip=0.3)
    rest = clipped(way, asked, units()[1:], clip=0.3)
    assert apart(whole, rest) == pytest.approx(0.3, rel=1e-5)


def test_nobody_sampled_is_zero_and_packs_never_split_a_patient() -> None:
    asked = lesson(build())
    for way in WAYS:
        assert float(flat(clipped(way, asked, [], clip=1.0)).norm()) == 0
    wanted = clipped("by-patient", asked, units(), clip=1.0)
    for images in (1, 4, 100):
        assert apart(clipped("by-sample", asked, units(), clip=1.0, images=images), wanted) < 1e-5


def test_one_patient_more_or_less_changes_no_constant() -> None:
    """Bit for bit, for either unit; the plan of the ledger and the number of draws that are told included."""
    for privacy in (PatientPrivacy(epsilon=8), ImagePrivacy(noise_multiplier=1.5, images_per_step=20)):
        mechanism = mechanism_of(privacy, nominal_patients=40, steps=30)
        told = []
        for people in (39, 40, 41):
            patients = np.repeat(np.arange(people), 2)[:21] if people < 0 else np.arange(people)
            data = PrivateData(crops(people), labels(people), patients)
            assert mechanism_of(privacy, nominal_patients=40, steps=30) == mechanism
            done = private_steps(
                build(), data, PLAN, mechanism, steps=2, progress=(0, 1), entropy=Entropy(insecure_demo=0)
            )
            told.append((done.samples, done.steps, done.loss))
        assert len(set(told)) == 1
        assert told[0][2] is None


def test_every_patient_is_drawn_by_a_coin_of_its_own_and_images_afresh() -> None:
    people = PrivateData(crops(60), labels(60), np.repeat(np.arange(12), 5)).by_patient()
    entropy, counts, seen = Entropy(insecure_demo=1), [], set()
    for _ in range(400):
        drawn = sample(people, MECHANISM, entropy)
        counts.append(len(drawn))
        assert all(len(unit.rows) == 3 and len(set(unit.rows // 5)) == 1 for unit in drawn)
        seen |= {tuple(unit.rows) for unit in drawn if unit.rows[0] < 5}
    assert np.mean(counts) == pytest.approx(6, abs=4 * np.sqrt(3 / 400))
    assert np.var(counts) == pytest.approx(3, rel=0.3)
    assert len(seen) == 10


def test_images_as_units_are_single_and_at_most_k_of_a_patient() -> None:
    people = PrivateData(crops(60), labels(60), np.repeat(np.arange(12), 5)).by_patient()
    always = replace(MECHANISM, unit="image", sampling_rate=1.0)
    drawn = sample(people, always, Entropy(insecure_demo=1))
    assert [len(unit.rows) for unit in drawn] == [1] * 36
    assert len({unit.seed for unit in drawn}) == 36


def test_noise_has_its_spread_and_follows_the_sum_that_was_clipped() -> None:
    model = build()
    total = by_patient(lesson(model), [], clip=0.25)
    total.tensors[:] = [torch.zeros(200_000)]
    noise = noisy_mean(total, noise_multiplier=2.0, divisor=4.0, entropy=Entropy())[0]
    assert float(noise.std()) == pytest.approx(2.0 * 0.25 / 4, rel=0.01)
    assert abs(float(noise.mean())) < 5 * 0.125 / np.sqrt(200_000)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_value_gets_noise_of_its_own_around_its_sum(layout: torch.memory_format) -> None:
    """In any layout, over more values than get their noise at a time; on the grid."""
    sums = torch.arange(3 * 8 * 100 * 100, dtype=torch.float32).view(3, 8, 100, 100).contiguous(memory_format=layout)
    total = ClippedSum([sums, torch.zeros(7)], sensitivity=1.0)
    first, last = noisy_mean(total, noise_multiplier=0.5, divisor=2.0, entropy=Entropy())
    noise = 2 * first - sums
    assert first.stride() == sums.stride()
    assert abs(float(noise.mean())) < 5 * 0.5 / np.sqrt(noise.numel())
    assert float(noise.std()) == pytest.approx(0.5, rel=0.01)
    shared = np.corrcoef(noise.flatten()[1:], noise.flatten()[:-1])[0, 1]
    assert abs(shared) < 0.01
    assert len(set(last.tolist())) == 7
    assert float((2 * last / 2.0**-19).frac().abs().max()) == 0


@pytest.mark.parametrize("values", [1, 2, 31, 32, 33, 1000, 131_072 + 77])
def test_noise_from_the_loop_is_that_of_numpy(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same coins, but for the last bits of a logarithm and an angle: here and there the next point."""
    if compiled() is None:
        pytest.skip("the compiled loops are not built here")
    sums = torch.linspace(-3, 3, values + 1)
    total, grid = ClippedSum([sums[1:], torch.ones(5)], sensitivity=0.7), 2.0 ** (-1 - 18) / 3
    found = noisy_mean(total, noise_multiplier=1.1, divisor=3.0, entropy=Entropy(insecure_demo=values))
    monkeypatch.setattr("client.private_gradients.compiled", lambda: None)
    slow = noisy_mean(total, noise_multiplier=1.1, divisor=3.0, entropy=Entropy(insecure_demo=values))
    for one, other in zip(found, slow, strict=True):
        steps = ((one.double() - other.double()) / grid).abs()
        assert float(steps.max()) <= 2.01
        assert float((steps > 0.01).double().mean()) < 0.2


def test_noise_from_the_loop_is_normal_to_its_tails() -> None:
    """Against the distribution itself, through its quantiles, and where u is least and most."""
    from scipy.stats import kstest

    if compiled() is None:
        pytest.skip("the compiled loops are not built here")
    drawn = noisy_mean(
        ClippedSum([torch.zeros(1_000_003)], sensitivity=1.0), noise_multiplier=1.0, divisor=1.0, entropy=Entropy()
    )[0]
    assert kstest(drawn.double().numpy(), "norm").pvalue > 1e-6
    assert 4.2 < float(drawn.abs().max()) < 7
    words, turns = torch.tensor([0, -1, -(2**63)]), torch.tensor([0, 0, -(2**31)], dtype=torch.int32)
    ends = torch.empty(6)
    run("sonofed_add_noise", words, turns, 6, torch.zeros(6), 1.0, 2.0**-18, 1.0, ends)
    expected = [math.sqrt(54 * 2 * math.log(2)), 0, -math.sqrt(2 * math.log(2)), 0, 0, 0]
    assert ends.tolist() == pytest.approx(expected, abs=1e-5)


def test_entropy_is_normal_and_new_each_time() -> None:
    from scipy.stats import kstest

    values = Entropy().normal(300_001)
    assert kstest(values.astype(np.float64), "norm").pvalue > 1e-6
    assert len(values) == 300_001
    assert not np.array_equal(Entropy().normal(10), Entropy().normal(10))
    assert np.array_equal(Entropy(insecure_demo=3).normal(10), Entropy(insecure_demo=3).normal(10))
    assert not np.array_equal(Entropy(insecure_demo=3).words(8), Entropy(insecure_demo=4).words(8))
    stream = Entropy(insecure_demo=3)
    assert not np.array_equal(stream.words(8), stream.words(8))


def test_the_stream_is_chacha20() -> None:
    """The key stream of RFC 8439, appendix A.1, test vector 1: key, nonce and counter zero."""
    assert Entropy(insecure_demo=0).words(2).tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_without_noise_and_with_everyone_it_is_plain_gradient_descent() -> None:
    data = PrivateData(crops(), labels(), np.arange(21))
    plan = replace(PLAN, optimizer=Sgd(learning_rate=0.1, momentum=0), schedule="constant", warmup=0.0)
    mechanism = Mechanism("patient", 1e6, 1e-12, 1.0, 21.0, 1, "all")
    model, other = build(), build()
    private_steps(model, data, plan, mechanism, steps=3, progress=(0, 1), entropy=Entropy())
    for _ in range(3):
        x = normalise(torch.from_numpy(crops()))
        loss = torch.stack([F.cross_entropy(v, torch.from_numpy(labels())) for v in other.votes(x)]).sum()
        gradients = torch.autograd.grad(loss, list(other.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(other.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    assert apart(list(model.parameters()), list(other.parameters())) < 1e-4


def test_an_empty_batch_takes_a_step_and_frozen_parts_stay() -> None:
    nobody = PrivateData(crops(0), labels(0), np.arange(0))
    model = build()
    before = copy.deepcopy(model.state_dict())
    mechanism = replace(MECHANISM, trains="head")
    private_steps(model, nobody, PLAN, mechanism, steps=2, progress=(0, 1), entropy=Entropy())
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(("heads.", "gradients."))}
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("model", "plan", "complaint"),
    [
        (Model(backbone="small", norm="batch"), PLAN, "model.norm"),
        (Model(backbone="small"), replace(PLAN, class_weights=True), "training.class_weights"),
        (Model(backbone="small"), replace(PLAN, full_batch=True), "training.full_batch"),
        (Model(backbone="small", dropout=0.1), PLAN, "model.dropout"),
    ],
)
def test_what_mixes_patients_or_tells_their_number_is_refused(model: Model, plan: Training, complaint: str) -> None:
    built = build_model(model, task="node", classes=2, seed=0)
    with pytest.raises(BadInput, match=complaint):
        private_steps(
            built, PrivateData(crops(), labels(), np.arange(21)), plan, MECHANISM, steps=1, progress=(0, 1),
            entropy=Entropy(),
        )  # fmt: skip

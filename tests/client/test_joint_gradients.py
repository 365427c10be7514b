"""Gradients of many units out of one pass: each layer's against autograd's, and that nobody touches another's."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from client.joint_gradients import _add_rows, _gradients, _Notes, _squares
from client.joint_gradients import by_pack as packed
from client.precision import place
from client.private_gradients import ClippedSum, Lesson, Unit, by_patient, by_sample, packs, squared_norms
from client.private_training import quickest_way, training_only, units_pass_apart
from common.config import Augmentation, Model
from common.convolution import Conv
from common.maps import compiled
from common.model import AttentionNet, build_model
from common.norm import ByPart, GroupNorm

SIDE = 40
SIZES = (3, 1, 2, 3, 1)


def build(backbone: str = "resnet18") -> AttentionNet:
    """A model with every part that trains, its attention and votes away from zero."""
    config = Model(backbone=backbone, gradients=True)  # type: ignore[arg-type]
    model = build_model(config, task="node", classes=2, seed=0)
    coins = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=coins)
    return model


def units(sizes: tuple[int, ...] = SIZES) -> list[Unit]:
    """Patients of these numbers of images."""
    ends = np.cumsum(sizes)
    return [Unit(np.arange(end - size, end), seed=int(end)) for end, size in zip(ends, sizes, strict=True)]


def lesson(model: AttentionNet, precision: str, layout: str = "auto", *, scale: float = 1.0) -> Lesson:
    """The model on noise, with random changes."""
    where = place(model, side=SIDE, precision=precision, layout=layout)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (sum(SIZES), SIDE, SIDE)).astype(np.float32)
    crops[:3] = crops[:3] * scale if np.isfinite(scale) else scale
    labels = np.arange(len(crops)) % 2
    return Lesson(model, crops, labels, where, Augmentation(noise=0.1))


def flat(found: ClippedSum | list[Tensor]) -> Tensor:
    """One vector, float64."""
    return torch.cat([each.double().flatten() for each in getattr(found, "tensors", found)])


def by_pack(asked: Lesson, group: list[Unit], *, clip: float) -> ClippedSum:
    """Packs of at most 48 images."""
    return packed(asked, group, clip=clip, images=48)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "convolution": (lambda: Conv(3, 4, 3, 2, 1, bias=False), (3, 9, 7)),
    "many positions": (lambda: Conv(3, 4, 3, 1, 1, bias=False), (3, 30, 30)),
    "one by one": (lambda: nn.Conv2d(8, 4, 1), (8, 5, 5)),
    "dilated, by channel": (lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False), (4, 6, 6)),
    "norm": (lambda: GroupNorm(2, 6), (6, 5, 4)),
    "norm of large maps": (lambda: GroupNorm(2, 6), (6, 60, 60)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("name", "views"), [(name, views) for name in LAYERS for views in (1, 2) if views == 1 or "norm" not in name]
)
def test_each_layer_gives_the_gradients_of_autograd(name: str, views: int, layout: torch.memory_format) -> None:
    """In float64, where no product is chosen, and in float32; each unit by itself is the oracle.
    Views: rows for both.
    """
    make, shape = LAYERS[name]
    coins = torch.Generator().manual_seed(0)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        layer = make().to(dtype)
        x = torch.randn(views * sum(SIZES), *shape, generator=coins).to(dtype)
        if x.ndim == 4:
            x, layer = x.contiguous(memory_format=layout), layer.to(memory_format=layout)
        slope = torch.randn(layer(x).shape, generator=coins).to(dtype)
        trained, ends = list(layer.parameters()), np.cumsum([0, *SIZES]).tolist()
        notes = _Notes(ends)
        with notes.taken(layer, trained):
            layer(x).backward(slope)
        found = [notes.rows_of(parameter) for parameter in trained]
        for unit, (a, b) in enumerate(pairwise(ends)):
            rows = torch.cat([torch.arange(view + a, view + b) for view in range(0, len(x), ends[-1])])
            wanted = torch.autograd.grad(layer(x[rows]), trained, slope[rows])
            for rows_UN, gradient in zip(found, wanted, strict=True):
                lying = gradient.permute(0, 2, 3, 1) if gradient.ndim == 4 else gradient
                assert float((rows_UN[unit] - lying.flatten()).norm()) <= bound * float(gradient.norm())


@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_a_resnet_gives_the_sum_of_one_patient_after_the_other(layout: str) -> None:
    asked = lesson(build(), "float64", layout)
    for clip in (0.1, 1e6):
        found, wanted = (flat(way(asked, units(), clip=clip)) for way in (by_pack, by_patient))
        assert float((found - wanted).norm()) <= 1e-9 * float(wanted.norm())


def test_bf16_is_as_near_to_float64_as_one_patient_after_the_other() -> None:
    model = build()
    exact = flat(by_patient(lesson(copy.deepcopy(model), "float64"), units(), clip=1e6))
    asked = lesson(model, "bf16")
    joint, single = (float((flat(way(asked, units(), clip=1e6)) - exact).norm()) for way in (by_pack, by_patient))
    assert joint <= 1.2 * single


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 4), st.sampled_from([1.0, 1e3, float("nan"), float("inf")]), st.sampled_from([0.01, 1.0]))
def test_in_bf16_no_patient_moves_the_sum_further_than_the_clip(gone: int, scale: float, clip: float) -> None:
    """By the way that training takes on this processor."""
    asked = lesson(build(), "bf16", scale=scale)
    way = {"by-pack": by_pack, "by-patient": by_patient}[quickest_way(asked, images=48)]
    whole = flat(way(asked, units(), clip=clip))
    rest = flat(way(asked, [unit for i, unit in enumerate(units()) if i != gone], clip=clip))
    assert torch.isfinite(whole).all()
    assert float((whole - rest).norm()) <= clip * (1 + 1e-5)


@pytest.mark.parametrize(("precision", "bound"), [("bf16", 0.0), ("float32", 2e-6)])
def test_a_patients_gradient_does_not_depend_on_how_many_images_the_others_have(precision: str, bound: float) -> None:
    """Patients of one image to three in packs of any size: only a patient's own number may choose the kernels."""
    asked = lesson(build(), precision)
    if quickest_way(asked, images=48) != "by-pack":
        pytest.skip("this processor's kernels round by what passes beside; training takes one patient at a time here")
    (alone,) = torch.cat([each.double() for each in _gradients(asked, units()[:1])], 1)
    for others in ([1], [2, 3], [1, 4], [3, 1, 2, 4]):
        pack = [*(units()[i] for i in others), units()[0]]
        beside = torch.cat([each.double() for each in _gradients(asked, pack)], 1)[-1]
        assert float((beside - alone).norm()) <= bound * float(alone.norm())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("way", ["by-pack", "by-patient", "by-sample"])
def test_one_clipped_patient_has_the_norm_of_the_clip(way: str, precision: str) -> None:
    """Eleven million values, whose squares float32 cannot add up in one go."""
    asked = lesson(build(), precision)
    group = units()[:1]
    match way:
        case "by-pack":
            found = by_pack(asked, group, clip=0.01)
        case "by-patient":
            found = by_patient(asked, group, clip=0.01)
        case _:
            found = by_sample(asked, group, clip=0.01, images=48)
    assert float(flat(found).norm()) == pytest.approx(0.01, rel=2e-6)


@pytest.mark.parametrize("values", [1, 1023, 1024, 5000, 3_000_000])
def test_squares_of_many_values_add_up(values: int) -> None:
    rows = torch.full((2, values), 0.37)
    torch.testing.assert_close(
        squared_norms(rows), torch.full((2,), values * float(rows[0, 0]) ** 2).double(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("values", [1, 33, 1024, 16_385, 200_001])
def test_clipped_rows_are_added_and_those_without_a_norm_left_out(
    values: int, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unit has a filter's and a bias's gradient; both ways, against float64."""
    if loops and compiled() is None:
        pytest.skip("the compiled loops are not built here")
    if not loops:
        monkeypatch.setattr("client.joint_gradients.compiled", lambda: None)
    coins = torch.Generator().manual_seed(values)
    rows = [torch.randn(5, n, generator=coins).bfloat16() for n in (values, 7)]
    rows[0][1, -1], rows[1][3, 0] = torch.nan, torch.inf
    true = torch.cat([each.double() for each in rows], 1)
    factors = (2.0 / true.norm(dim=1)).clamp(max=1)
    factors[[1, 3]] = 0
    wanted = 1.0 + (true.nan_to_num(posinf=0) * factors[:, None]).sum(0)
    total = [torch.ones(values), torch.ones(7)]
    _add_rows(total, rows, clip=2.0)
    torch.testing.assert_close(torch.cat(total).double(), wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("values", [31, 1025, 70_000])
def test_squares_in_loops_are_those_of_float64_with_any_number_of_threads(values: int) -> None:
    if compiled() is None:
        pytest.skip("the compiled loops are not built here")
    rows = (torch.randn(3, values) * torch.tensor([[1e-3], [1.0], [1e15]])).bfloat16()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(_squares(rows, torch.float32))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], rows.double().square().sum(1), rtol=2e-6, atol=0)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_packs_hold_no_more_units_than_they_may() -> None:
    sizes = [[len(unit.rows) for unit in pack] for pack in packs(units((1,) * 7), 48, most=3)]
    assert sizes == [[1, 1, 1], [1, 1, 1], [1]]
    assert [len(pack) for pack in packs(units((3, 3, 3)), 5)] == [1, 1, 1]


class _Mixing(nn.Module):
    """What no model here does: each image less the mean of those beside it."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x - 0.1 * x.mean(0)


def test_a_model_that_mixes_patients_is_found_out_and_trained_one_patient_after_the_other() -> None:
    asked = lesson(build("small"), "float32")
    assert units_pass_apart(asked, "by-pack", images=48)
    assert quickest_way(asked, images=48) == "by-pack"
    mixing = build("small")
    mixing.trunk.relu2 = _Mixing()  # type: ignore[assignment]
    spoilt = replace(asked, model=mixing)
    assert not units_pass_apart(spoilt, "by-pack", images=48)
    assert not units_pass_apart(spoilt, "by-sample", images=48)
    assert units_pass_apart(spoilt, "by-patient", images=48)
    assert quickest_way(spoilt, images=48) == "by-patient"


def test_what_has_no_gradients_by_unit_is_refused_and_the_model_is_left_as_it_was() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    for spoil, complaint in ((Scale(), "Scale"), (None, "passed twice")):
        model = build("small")
        model.trunk.relu2 = spoil or nn.Sequential(model.trunk.bn1, nn.ReLU())  # type: ignore[assignment]
        if spoil is None:
            model.trunk.relu2 = nn.Sequential(shared := nn.Conv2d(64, 64, 1), shared)  # type: ignore[assignment]
        asked = lesson(model, "float32")
        with pytest.raises(TypeError, match=complaint):
            by_pack(asked, units(), clip=1.0)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(layer._forward_hooks for layer in model.modules())
        assert not any(layer.by_part for layer in model.modules() if isinstance(layer, GroupNorm))


@pytest.mark.parametrize("trains", ["all", "last-stage", "head"])
def test_only_what_trains_has_a_gradient(trains: str) -> None:
    model = build("small")
    with training_only(model, trains):
        asked = lesson(model, "float32")
        found, wanted = (flat(way(asked, units(), clip=1.0)) for way in (by_pack, by_patient))
        assert len(found) == sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())


def test_a_norm_tells_of_its_parts_and_gives_the_same_values() -> None:
    norm, told = GroupNorm(2, 4), []
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    plain = norm(x)
    (wanted,) = torch.autograd.grad(plain.square().sum(), [x])
    norm.by_part = ByPart([slice(0, 1), slice(1, 3)], lambda *both: told.append(both))
    y = norm(x)
    (found,) = torch.autograd.grad(y.square().sum(), [x])
    assert torch.equal(y, plain)
    torch.testing.assert_close(found, wanted)
    assert [each.shape for each in told[0]] == [(2, 4), (2, 4)]

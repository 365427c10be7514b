"""Norm, shortcut and ReLU in one pass, and the stem's maximum, against torch's own layers in float64 and in bf16."""

from __future__ import annotations

import ctypes.util
import importlib.machinery
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import common.maps
from common import pooling
from common.maps import compiled, maps_suit
from common.norm import BatchNorm, ByPart, GroupNorm
from common.pooling import pool, unpool
from common.trunk import _rectified

pytestmark = pytest.mark.skipif(find_spec("common._maps") is None, reason="the compiled loops are not built here")

Norm = BatchNorm | GroupNorm
Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [(3, 32, 5, 7), (2, 96, 20, 30), (4, 64, 17, 16), (5, 256, 2, 2)]


def _maps(shape: Shape, seed: int) -> Tensor:
    """Values of mean 3 and spread 2 in bf16, channels last."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 3
    return drawn.bfloat16().contiguous(memory_format=torch.channels_last)


def _norm(kind: str, channels: int) -> Norm:
    norm = BatchNorm(channels) if kind == "batch" else GroupNorm(channels // 4, channels)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


def _plain(norm: Norm) -> nn.Module:
    """torch's own layer with the same parameters."""
    own = (
        nn.BatchNorm2d(norm.num_features)
        if isinstance(norm, BatchNorm)
        else nn.GroupNorm(norm.num_groups, norm.num_channels)
    )
    own.load_state_dict(norm.state_dict())
    return own


def _layers(norm: nn.Module, x: Tensor, shortcut: Tensor | None, rectify: bool) -> Tensor:
    y = norm(x)
    y = y if shortcut is None else y + shortcut
    return F.relu(y) if rectify else y


def _with_gradients(y: Tensor, dy: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [each.detach().double() for each in (y, *torch.autograd.grad(y, inputs, dy.to(y.dtype)))]


@pytest.mark.parametrize("kind", ["batch", "group"])
@pytest.mark.parametrize("how", ["norm", "rectified", "summed"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_pass_is_as_near_to_float64_as_the_layers_one_by_one(kind: str, how: str, shape: Shape) -> None:
    norm, dy = _norm(kind, shape[1]), _maps(shape, 2) - 3
    rectify = how != "norm"

    def run(dtype: torch.dtype, layer: nn.Module, one_pass: bool) -> list[Tensor]:
        x = _maps(shape, 0).to(dtype).requires_grad_()
        shortcut = _maps(shape, 1).to(dtype).requires_grad_() if how == "summed" else None
        if one_pass:
            assert isinstance(layer, Norm)
            assert layer.suits(x, shortcut)
            y = layer.in_one_pass(x, shortcut, rectify=rectify)
        else:
            y = _layers(layer, x, shortcut, rectify)
        inputs = [x, layer.weight, layer.bias, *([] if shortcut is None else [shortcut])]
        return _with_gradients(y, dy, inputs) + [b.double() for b in layer.buffers() if b.is_floating_point()]

    true = run(torch.float64, _plain(norm).double(), False)
    theirs = run(torch.bfloat16, _plain(norm), False)
    ours = run(torch.bfloat16, norm, True)
    for exact, other, mine in zip(true, theirs, ours, strict=True):
        assert (mine - exact).norm() <= 1.05 * (other - exact).norm() + 1e-5 * exact.norm()


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_any_number_of_threads_gives_the_same_bits(kind: str) -> None:
    shape = (3, 64, 33, 31)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            norm, x = _norm(kind, 64), _maps(shape, 0).requires_grad_()
            y = norm.in_one_pass(x, _maps(shape, 1), rectify=True)
            found.append(_with_gradients(y, _maps(shape, 2), [x, norm.weight, norm.bias]))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_seen_and_stays_with_its_image(value: float) -> None:
    norm, x = _norm("group", 32), _maps((3, 32, 6, 6), 0)
    x[1, :, 2, 2] = value
    for rectify in (False, True):
        y = norm.in_one_pass(x, rectify=rectify)
        assert y[1].isnan().any()
        assert y[[0, 2]].isfinite().all()
    with_shortcut = norm.in_one_pass(_maps((3, 32, 6, 6), 0), x, rectify=True)
    assert not with_shortcut[1, :, 2, 2].isfinite().any()


def test_gradients_by_part_are_those_of_each_part_alone() -> None:
    norm, x, dy = _norm("group", 64), _maps((5, 64, 9, 9), 0), _maps((5, 64, 9, 9), 1)
    parts, told = [slice(0, 2), slice(2, 5)], []
    norm.by_part = ByPart(parts, lambda weight, bias: told.append((weight, bias)))
    norm.in_one_pass(x, rectify=True).backward(dy)
    norm.by_part = None
    ((weight_PC, bias_PC),) = told
    for i, part in enumerate(parts):
        weight, bias = torch.autograd.grad(norm.in_one_pass(x[part], rectify=True), [norm.weight, norm.bias], dy[part])
        assert torch.equal(weight_PC[i], weight)
        assert torch.equal(bias_PC[i], bias)


@pytest.mark.parametrize("shape", [(2, 64, 12, 12), (1, 32, 2, 8), (3, 96, 6, 4)])
def test_largest_values_and_their_places_are_torchs(shape: Shape) -> None:
    z = (_maps(shape, 0) * 2).round() / 2  # many ties
    z[0, 0, 0, 0] = float("nan")
    pooled = pool(z)
    maxima, index = F.max_pool2d(z.float(), 3, 2, 1, return_indices=True)
    torch.testing.assert_close(pooled.maxima.float(), maxima, rtol=0, atol=0, equal_nan=True)
    rows, columns = index // shape[3], index % shape[3]
    row_of = torch.arange(shape[2] // 2)[:, None] * 2 - 1
    column_of = torch.arange(shape[3] // 2)[None, :] * 2 - 1
    places = (rows - row_of) * 3 + columns - column_of
    assert torch.equal(pooled.places.permute(0, 3, 1, 2).long(), places)
    exact = z.double().flatten(2)
    torch.testing.assert_close(pooled.mean_BO.double(), exact.mean(2), rtol=1e-5, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(
        pooled.variance_BO.double(), exact.var(2, unbiased=False), rtol=1e-5, atol=1e-5, equal_nan=True
    )


def test_slopes_go_back_to_where_the_largest_came_from() -> None:
    shape = (2, 64, 10, 14)
    z, g = _maps(shape, 0), _maps((2, 64, 5, 7), 1)
    scale, by_z, by_one = torch.randn((3, 2, 64), generator=torch.Generator().manual_seed(3))
    dz = unpool(g, pool(z), z, scale, by_z, by_one)
    exact = z.double().requires_grad_()
    (routed,) = torch.autograd.grad(F.max_pool2d(exact, 3, 2, 1), exact, g.double())
    line = [each.double()[:, :, None, None] for each in (scale, by_z, by_one)]
    expected = routed * line[0] + exact.detach() * line[1] + line[2]
    assert ((dz.double() - expected).abs() <= expected.abs() * 2**-8 + 1e-5).all()


def test_a_layer_with_a_hook_is_called_as_itself() -> None:
    norm, x = _norm("batch", 32), _maps((2, 32, 4, 4), 0)
    seen: list[Tensor] = []
    alone = _rectified(norm, nn.ReLU(), x)
    norm.register_forward_hook(lambda _module, _inputs, y: seen.append(y))
    hooked = _rectified(norm, nn.ReLU(), x)
    assert len(seen) == 1
    torch.testing.assert_close(hooked, alone, rtol=2**-7, atol=2**-7)


def test_maps_that_lie_otherwise_are_left_to_torch() -> None:
    x = _maps((2, 32, 4, 4), 0)
    assert maps_suit(x)
    assert not maps_suit(x.contiguous())
    assert not maps_suit(x.float())
    assert not maps_suit(_maps((2, 33, 4, 4), 0))
    assert not maps_suit(x, x[:, :, 1:])
    assert not _norm("batch", 32).eval().suits(x)
    assert not _norm("group", 32).double().suits(x)
    assert not _norm("group", 32).suits(x, x[:1])


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_parameters_that_the_loops_would_misread_are_left_to_torch(kind: str) -> None:
    x, spread = _maps((2, 64, 4, 4), 0), torch.rand(128, generator=torch.Generator().manual_seed(1))
    changes: list[tuple[str, Tensor | None]] = [
        ("bias", None),
        ("bias", spread[:64].bfloat16()),
        ("bias", spread[:64].to("meta")),
        ("bias", spread[::2]),
        ("weight", spread[::2]),
        ("weight", spread[:1].expand(64)),
        ("weight", spread),
    ]
    for name, values in changes:
        norm = _norm(kind, 64)
        assert norm.suits(x)
        setattr(norm, name, None if values is None else nn.Parameter(values))
        assert not norm.suits(x)
    strided = _norm(kind, 64)
    strided.weight = nn.Parameter(spread[::2])
    close = _plain(strided)(x.float())
    torch.testing.assert_close(strided(x).float(), close, rtol=2**-7, atol=2**-5)


def test_maps_without_a_position_are_left_to_torch() -> None:
    assert not _norm("group", 32).suits(_maps((2, 32, 4, 4), 0)[:, :, :0])


def test_nothing_passes_back_where_a_rectified_value_is_zero() -> None:
    norm, x = _norm("group", 32), _maps((2, 32, 4, 4), 0).requires_grad_()
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    for shortcut in (None, torch.zeros_like(x)):
        y = norm.in_one_pass(x, shortcut, rectify=True)
        assert not any(each.any() for each in torch.autograd.grad(y.sum(), [x, norm.weight, norm.bias]))


def test_values_are_rounded_as_torch_rounds_them() -> None:
    x, y = (_maps((1, 32, 8, 8), seed) for seed in (0, 1))
    offset_BO = torch.linspace(-1, 1, 32)[None].bfloat16().float() + 2.0**-8  # many sums halfway between two numbers
    offset_BO[0, 0] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)  # no number, all bits set
    pooling.rectify(x, torch.ones_like(offset_BO), offset_BO, out=y)
    expected = F.relu(x.float() + offset_BO[:, :, None, None]).bfloat16()
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


def test_statistics_that_are_not_tracked_stay() -> None:
    norm = _norm("batch", 32)
    norm.track_running_stats = False
    norm(_maps((2, 32, 4, 4), 0))
    assert norm.state_dict()["num_batches_tracked"] == 0
    assert not norm.state_dict()["running_mean"].any()


def test_a_layer_with_a_hook_before_its_backward_pass_is_called_as_itself() -> None:
    norm, x = _norm("batch", 32), _maps((2, 32, 4, 4), 0).requires_grad_()
    seen: list[object] = []
    norm.register_full_backward_pre_hook(lambda _module, slopes: seen.append(slopes))
    _rectified(norm, nn.ReLU(), x).sum().backward()
    assert len(seen) == 1


def test_loops_that_do_not_load_or_are_of_another_release_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(b"no library")
    other = Path(ctypes.util.find_library("m") or "libm.so.6")
    for path in (damaged, other):
        found = importlib.machinery.ModuleSpec("common._maps", None, origin=str(path))
        monkeypatch.setattr(common.maps, "find_spec", lambda _name, found=found: found)
        assert compiled.__wrapped__() is None


def test_threads_are_torchs_own() -> None:
    loops, before = compiled(), torch.get_num_threads()
    assert loops is not None
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert loops.omp_get_max_threads() == threads  # the function that the loops' own calls reach
    finally:
        torch.set_num_threads(before)

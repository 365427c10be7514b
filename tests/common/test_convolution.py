"""Convolutions on the matrix unit against float64 and against exact sums, and when they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.convolution import Conv, replace_convolutions, unit_is_there
from common.patches import unfold_patches

LAST = torch.channels_last
needs_unit = pytest.mark.skipif(not unit_is_there(), reason="no matrix unit, or no compiled loops, on this machine")


@dataclass(frozen=True)
class Case:
    """Sizes of a convolution that keeps the middle."""

    batch: int
    channels: int
    outputs: int
    height: int
    width: int
    taps: int = 3
    stride: int = 1

    def out(self) -> tuple[int, int]:
        return -(-self.height // self.stride), -(-self.width // self.stride)


def _run(conv: nn.Conv2d, x: Tensor, slope: Tensor, *, bf16: bool) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().contiguous(memory_format=LAST).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = conv(x)
    y.backward(slope.to(y.dtype))
    assert x.grad is not None
    assert conv.weight.grad is not None
    return y.detach(), x.grad, conv.weight.grad


def _conv(kind: type[nn.Conv2d], case: Case, weight: Tensor) -> nn.Conv2d:
    conv = kind(case.channels, case.outputs, case.taps, case.stride, case.taps // 2, bias=False)
    conv.weight.data = weight.contiguous(memory_format=LAST)
    return conv


def _exact(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and slope of small whole numbers: sums are exact in float32, in whatever order."""
    coins = torch.Generator().manual_seed(1)
    shapes = (
        (case.batch, case.channels, case.height, case.width),
        (case.outputs, case.channels, case.taps, case.taps),
        (case.batch, case.outputs, *case.out()),
    )
    x, weight, slope = (torch.randint(-3, 4, shape, generator=coins).float() for shape in shapes)
    return x, weight, slope


@needs_unit
@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 9),
    channels=st.sampled_from([32, 64]),
    outputs=st.sampled_from([32, 96]),
    height=st.integers(1, 15),
    width=st.integers(1, 15),
    kind=st.sampled_from([(3, 1), (3, 2), (1, 2)]),
)
def test_values_and_gradients_are_as_near_to_float64_as_those_of_torch(
    batch: int, channels: int, outputs: int, height: int, width: int, kind: tuple[int, int]
) -> None:
    case = Case(batch, channels, outputs, height, width, *kind)
    coins = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=coins)
    weight = torch.randn(outputs, channels, case.taps, case.taps, generator=coins)
    slope = torch.randn(batch, outputs, *case.out(), generator=coins)
    ours = _run(_conv(Conv, case, weight), x, slope, bf16=True)
    theirs = _run(_conv(nn.Conv2d, case, weight), x, slope, bf16=True)
    true = _run(_conv(nn.Conv2d, case, weight.double()), x.double(), slope.double(), bf16=False)
    for mine, other, best in zip(ours, theirs, true, strict=True):
        scale, reached = float(best.norm()), float((other - best).norm())
        # oneDNN reads memory that nobody wrote where a stride passes over a map's whole width
        reached = reached if reached < 2e-2 * scale else 1e-2 * scale
        assert float((mine - best).norm()) <= 1.3 * reached + 1e-3 * scale


SIZES = [
    Case(1, 32, 32, 1, 1),
    Case(5, 32, 64, 1, 9),
    Case(40, 64, 32, 2, 2),  # tiles that take many images
    Case(37, 32, 32, 4, 4),
    Case(33, 64, 96, 7, 7),
    Case(3, 64, 64, 57, 56),  # one image fills what is summed in one go
    Case(2, 32, 32, 3, 200),
    Case(9, 32, 32, 61, 58),
    Case(4, 96, 64, 15, 13, stride=2),
    Case(3, 32, 32, 112, 112, stride=2),
    Case(21, 64, 64, 4, 6, stride=2),
    Case(2, 32, 64, 1, 7, stride=2),
    Case(7, 32, 64, 9, 14, taps=1, stride=2),
    Case(2, 512, 512, 7, 7),  # the gradient of weights is cut by channels
    Case(6, 256, 128, 8, 8),  # and by both
    Case(5, 96, 320, 5, 4),  # into slices of one block of channels and of two
    Case(3, 192, 320, 4, 4),  # into four slices of six blocks
]


@needs_unit
@pytest.mark.parametrize("case", SIZES, ids=str)
def test_exact_sums_are_found_exactly_and_rounded_once(case: Case) -> None:
    x, weight, slope = _exact(case)
    y, dx, dw = _run(_conv(Conv, case, weight), x.bfloat16(), slope, bf16=True)
    values, of_x, of_weight = _run(_conv(nn.Conv2d, case, weight), x, slope, bf16=False)
    assert torch.equal(y, values.bfloat16())
    assert torch.equal(dx, of_x.bfloat16())
    assert torch.equal(dw, of_weight)


UNITS = [
    Case(12, 32, 96, 5, 4),
    Case(12, 64, 32, 9, 13, stride=2),
    Case(12, 96, 64, 14, 7, taps=1, stride=2),
    Case(12, 32, 32, 40, 41),  # two images are summed in one go
    Case(12, 32, 64, 61, 58),  # one
]


def _by_unit(case: Case, weight: Tensor, x: Tensor, slope: Tensor, ends: list[int]) -> Tensor:
    taps = case.taps, case.taps
    into = torch.full((len(ends) - 1, case.outputs, *taps, case.channels), torch.nan).bfloat16().permute(0, 1, 4, 2, 3)
    x, slope = (each.bfloat16().contiguous(memory_format=LAST) for each in (x, slope))
    conv = _conv(Conv, case, weight)
    assert isinstance(conv, Conv)
    assert conv.takes(x)
    conv.write_gradients(x, slope, ends, into)
    return into


@needs_unit
@pytest.mark.parametrize("case", UNITS, ids=str)
def test_each_unit_s_gradient_is_exact_and_rounded_once(case: Case) -> None:
    """Units of one image, of none, of few, of many."""
    (x, weight, slope), ends = _exact(case), [0, 1, 1, 4, 12]
    found = _by_unit(case, weight, x, slope, ends)
    assert not found[1].any()
    for unit in (0, 2, 3):
        some = slice(ends[unit], ends[unit + 1])
        of_weight = _run(_conv(nn.Conv2d, case, weight), x[some], slope[some], bf16=False)[2]
        assert torch.equal(found[unit], of_weight.bfloat16())


@needs_unit
@pytest.mark.parametrize("case", UNITS, ids=str)
def test_a_unit_s_bits_are_its_own_whoever_else_is_there_and_however_many_threads(case: Case) -> None:
    x, weight, slope = (each * torch.pi for each in _exact(case))
    ends = [0, 2, 3, 9, 12]
    among = _by_unit(case, weight, x, slope, ends)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert torch.equal(_by_unit(case, weight, x, slope, ends), among)
    finally:
        torch.set_num_threads(before)
    for unit, (begin, end) in enumerate(pairwise(ends)):
        alone = _by_unit(case, weight, x[begin:end], slope[begin:end], [0, end - begin])
        assert torch.equal(alone[0], among[unit])
    x[:2], slope[:2] = torch.nan, torch.nan
    assert torch.equal(_by_unit(case, weight, x, slope, ends)[1:], among[1:])


@needs_unit
@pytest.mark.parametrize("case", [Case(11, 64, 64, 28, 28), Case(10, 64, 96, 9, 9, stride=2)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(case: Case) -> None:
    coins = torch.Generator().manual_seed(2)
    x = torch.randn(case.batch, case.channels, case.height, case.width, generator=coins).bfloat16()
    weight = torch.randn(case.outputs, case.channels, 3, 3, generator=coins)
    slope = torch.randn(case.batch, case.outputs, *case.out(), generator=coins)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(_run(_conv(Conv, case, weight), x, slope, bf16=True))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_unit
@pytest.mark.parametrize("side", [2, 7, 12])
def test_an_image_does_not_change_with_its_neighbours(side: int) -> None:
    case = Case(12, 32, 32, side, side)
    x, weight, slope = (each * torch.pi for each in _exact(case))
    conv = _conv(Conv, case, weight)
    among = _run(conv, x.bfloat16(), slope, bf16=True)
    x[[4, 6]], slope[[4, 6]] = torch.nan, torch.nan
    spoiled = _run(conv, x.bfloat16(), slope, bf16=True)
    alone = _run(conv, x[5:6].bfloat16(), slope[5:6], bf16=True)
    for kind in (0, 1):
        assert torch.equal(among[kind][5], spoiled[kind][5])
        assert torch.equal(among[kind][5:6], alone[kind])
        assert spoiled[kind][4].isnan().all()


@needs_unit
@pytest.mark.parametrize(
    ("changed", "bf16", "layout", "taken"),
    [
        ({}, True, LAST, True),
        ({"stride": 2}, True, LAST, True),
        ({"taps": 1, "stride": 2}, True, LAST, True),
        ({"taps": 1}, True, LAST, False),
        ({"taps": 5}, True, LAST, False),
        ({"stride": 3}, True, LAST, False),
        ({"channels": 48}, True, LAST, False),
        ({"outputs": 16}, True, LAST, False),
        ({}, False, LAST, False),
        ({}, True, torch.contiguous_format, False),
    ],
)
def test_the_unit_is_used_where_it_suits(
    changed: dict[str, int], bf16: bool, layout: torch.memory_format, taken: bool
) -> None:
    case = Case(**{"batch": 4, "channels": 32, "outputs": 32, "height": 6, "width": 6} | changed)
    conv = Conv(case.channels, case.outputs, case.taps, case.stride, case.taps // 2, bias=False)
    conv = conv.to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = conv(torch.randn(4, case.channels, 6, 6).contiguous(memory_format=layout))
    assert y.grad_fn is not None
    assert ("OnTiles" in y.grad_fn.name()) == taken


@needs_unit
@pytest.mark.parametrize("kind", ["double", "reflect", "half"])
def test_other_numbers_and_borders_are_left_to_torch(kind: str) -> None:
    mode = "reflect" if kind == "reflect" else "zeros"
    conv = Conv(32, 32, 3, 1, 1, bias=False, padding_mode=mode).to(memory_format=LAST)
    conv = conv.double() if kind == "double" else conv
    x = torch.randn(2, 32, 6, 6, dtype=conv.weight.dtype).contiguous(memory_format=LAST)
    with torch.autocast("cpu", torch.float16 if kind == "half" else torch.bfloat16):
        y = conv(x)
    assert y.grad_fn is not None
    assert "OnTiles" not in y.grad_fn.name()


@needs_unit
@pytest.mark.parametrize(
    ("x", "weight"),
    [
        ((2, 64, 6, 6), (32, 32, 3, 3)),
        ((2, 32, 6, 6), (32, 64, 3, 3)),
        ((2, 3, 6, 6), (32, 32, 3, 3)),
        ((2, 32, 6, 6), (48, 32, 3, 3)),
        ((2, 32, 6, 6), (32, 32, 5, 5)),
        ((2, 32, 6, 6), (32, 32, 3, 1)),
    ],
)
def test_shapes_that_the_layer_was_not_made_for_are_left_to_torch(x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    images = torch.randn(x).contiguous(memory_format=LAST)
    found = []
    for kind in (Conv, nn.Conv2d):
        conv = kind(32, 32, 3, padding=1, bias=False)
        conv.weight = nn.Parameter(torch.ones(weight).contiguous(memory_format=LAST))
        try:
            with torch.autocast("cpu", torch.bfloat16):
                found.append(conv(images).detach())
        except RuntimeError as error:
            found.append(str(error))
    assert type(found[0]) is type(found[1])
    assert torch.equal(*found) if isinstance(found[0], Tensor) else found[0] == found[1]


@needs_unit
@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.complex64])
def test_numbers_that_autocast_leaves_alone_are_left_to_torch(dtype: torch.dtype) -> None:
    conv = Conv(32, 32, 3, padding=1, bias=False).to(memory_format=LAST)
    x = torch.ones(2, 32, 6, 6).to(dtype).contiguous(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
        conv(x)


@needs_unit
def test_a_layer_without_results_is_left_to_torch() -> None:
    with pytest.warns(UserWarning, match="zero-element"):
        conv = Conv(32, 0, 3, padding=1, bias=False).to(memory_format=LAST)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
        conv(torch.ones(2, 32, 6, 6).contiguous(memory_format=LAST))


@needs_unit
def test_the_result_lies_where_the_images_do() -> None:
    conv = Conv(32, 32, 3, padding=1, bias=False).to(memory_format=LAST)
    x = torch.randn(2, 32, 6, 6).contiguous(memory_format=LAST)
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.device.type == "cpu"


@pytest.mark.parametrize("side", [4, 7, 14])
def test_what_does_not_learn_gets_no_gradient(side: int) -> None:
    conv = Conv(32, 32, 3, padding=1, bias=False).to(memory_format=LAST).requires_grad_(False)
    x = torch.randn(2, 32, side, side).contiguous(memory_format=LAST).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        conv(x).float().square().sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is None


def test_patches_are_those_of_unfold() -> None:
    x = torch.randn(2, 3, 6, 5).contiguous(memory_format=LAST)
    ours = unfold_patches(x, taps=3, stride=(2, 1), padding=(1, 1)).view(2, 3 * 5, 9, 3)
    theirs = nn.functional.unfold(x, 3, padding=1, stride=(2, 1)).view(2, 3, 9, 15).permute(0, 3, 2, 1)
    assert torch.equal(ours, theirs)


def test_plain_convolutions_are_replaced_and_others_kept() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, 2, 1, bias=False),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 2, 1)),
    )
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    replace_convolutions(model)
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert kinds == [Conv, nn.Conv2d, nn.Conv2d]
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert model(torch.zeros(1, 4, 9, 9)).shape == (1, 2, 3, 3)

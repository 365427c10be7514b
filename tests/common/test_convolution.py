"""Maps joined side by side against float64 and against torch, and when they are."""

from __future__ import annotations

from math import isfinite

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.convolution import Conv, joined, replace_convolutions, separated
from common.patches import unfold_patches

LAST = torch.channels_last


def _run(conv: nn.Conv2d, x: Tensor, slope: Tensor, *, bf16: bool) -> tuple[Tensor, ...]:
    x = x.clone().contiguous(memory_format=LAST).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = conv(x)
    y.backward(slope.to(y.dtype))
    assert x.grad is not None
    assert conv.weight.grad is not None
    return y.detach().double(), x.grad.double(), conv.weight.grad.double()


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 9),
    channels=st.sampled_from([3, 16, 33]),
    outputs=st.sampled_from([8, 17]),
    height=st.integers(1, 15),
    width=st.integers(1, 15),
    taps=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
)
def test_values_and_gradients_are_as_near_to_float64_as_those_of_torch(
    batch: int, channels: int, outputs: int, height: int, width: int, taps: int, stride: int
) -> None:
    coins = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, height, width, generator=coins)
    weight = torch.randn(outputs, channels, taps, taps, generator=coins)
    out = [(side + 2 * (taps // 2) - taps) // stride + 1 for side in (height, width)]
    slope = torch.randn(batch, outputs, *out, generator=coins)
    found = {}
    for name, kind, dtype in (
        ("ours", Conv, torch.float32),
        ("torch", nn.Conv2d, torch.float32),
        ("true", nn.Conv2d, torch.float64),
    ):
        conv = kind(channels, outputs, taps, stride, taps // 2, bias=False).to(dtype)
        conv.weight.data = weight.to(dtype, memory_format=LAST)
        found[name] = _run(conv, x.to(dtype), slope.to(dtype), bf16=name != "true")
    for ours, theirs, true in zip(found["ours"], found["torch"], found["true"], strict=True):
        scale, reached = float(true.norm()), float((theirs - true).norm())
        if not isfinite(
            reached
        ):  # oneDNN reads memory that nobody wrote where a stride passes over a map's whole width
            reached = 1e-2 * scale
        assert float((ours - true).norm()) <= 1.3 * reached + 1e-3 * scale


@settings(deadline=None, max_examples=25)
@given(joint=st.integers(1, 3), images=st.integers(1, 4), gap=st.integers(0, 3), width=st.integers(1, 5))
def test_joined_maps_come_apart_again(joint: int, images: int, gap: int, width: int) -> None:
    x = torch.randn(joint * images, 3, 2, width).contiguous(memory_format=LAST)
    wide = joined(x, images=images, columns=width + gap)
    assert wide.shape == (joint, 3, 2, images * (width + gap))
    assert wide.is_contiguous(memory_format=LAST)
    assert torch.equal(wide[0, :, :, :width], x[0])
    assert not wide[..., width : width + gap].any()
    assert torch.equal(separated(wide, images, width=width), x)


@pytest.mark.parametrize(
    ("side", "stride", "bf16", "layout", "taken"),
    [
        (7, 1, True, LAST, True),
        (14, 1, True, LAST, True),
        (28, 2, True, LAST, True),
        (15, 1, True, LAST, False),
        (7, 1, False, LAST, False),
        (7, 1, True, torch.contiguous_format, False),
    ],
)
def test_other_ways_are_taken_for_small_maps_in_bf16_alone(
    side: int, stride: int, bf16: bool, layout: torch.memory_format, taken: bool
) -> None:
    conv = Conv(16, 16, 3, stride, padding=1, bias=False).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = conv(torch.randn(4, 16, side, side).contiguous(memory_format=layout))
    assert y.grad_fn is not None
    assert ("OverSmallMaps" in y.grad_fn.name()) == taken


@pytest.mark.parametrize("side", [4, 7, 14])
def test_what_does_not_learn_gets_no_gradient(side: int) -> None:
    conv = Conv(16, 16, 3, padding=1, bias=False).to(memory_format=LAST).requires_grad_(False)
    x = torch.randn(2, 16, side, side).contiguous(memory_format=LAST).requires_grad_()
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

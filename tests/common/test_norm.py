"""Group normalisation against torch's own in float64, in every layout and number format."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from common.norm import GroupNorm, _ChannelsLast, norm_layer

LAST = torch.channels_last


def images(shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Channels-last values of mean 1 and spread 2."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 1
    return drawn.to(dtype).contiguous(memory_format=LAST)


def with_gradients(norm: torch.nn.GroupNorm, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """The output and the gradients by input, weight and bias, in float64."""
    x = x.detach().requires_grad_()
    y = norm(x)
    return tuple(t.detach().double() for t in (y, *torch.autograd.grad(y, (x, norm.weight, norm.bias), dy.to(y.dtype))))


def oracle(norm: GroupNorm, x: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """torch's own layer in float64 on a contiguous tensor."""
    own = torch.nn.GroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps).double()
    own.load_state_dict(norm.state_dict())
    return with_gradients(own, x.double().contiguous(), dy.double().contiguous())


def layer(groups: int, channels: int) -> GroupNorm:
    """A layer whose affine part is not the identity."""
    norm = GroupNorm(groups, channels)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    return norm


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1.2e-2)])
@pytest.mark.parametrize(
    ("groups", "shape"),
    [(32, (3, 64, 17, 19)), (8, (2, 96, 16, 16)), (32, (1, 512, 7, 7)), (4, (5, 8, 3, 1)), (1, (2, 3, 90, 65))],
)
def test_group_norm_is_torchs(dtype: torch.dtype, bound: float, groups: int, shape: tuple[int, ...]) -> None:
    norm, x, dy = layer(groups, shape[1]), images(shape, dtype=dtype), images(shape, dtype=dtype, seed=1)
    if dtype == torch.float64:
        norm = norm.double()
    for mine, exact in zip(with_gradients(norm, x, dy), oracle(norm, x, dy), strict=True):
        assert (mine - exact).norm() <= bound * exact.norm()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(2, 9), st.integers(1, 9))
def test_fused_kernel_fits_odd_shapes(samples: int, groups: int, each: int, height: int, width: int) -> None:
    shape = (samples, groups * each, height, width)
    x, dy = images(shape, dtype=torch.float64), images(shape, dtype=torch.float64, seed=1)
    weight, bias = torch.linspace(-1, 2, groups * each).double(), torch.linspace(0, 1, groups * each).double()
    results = []
    for apply in (_ChannelsLast.apply, F.group_norm):
        leaves = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, weight, bias)]
        args = (*leaves, groups, 1e-5) if apply is not F.group_norm else (leaves[0], groups, *leaves[1:], 1e-5)
        y = apply(*args)
        results.append((y.detach(), *torch.autograd.grad(y, leaves, dy)))
    for mine, exact in zip(*results, strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-8, atol=1e-8)


def test_gradients_are_the_derivatives() -> None:
    x = images((2, 8, 5, 3), dtype=torch.float64).requires_grad_()
    weight = torch.linspace(-1, 1, 8).double().requires_grad_()
    bias = torch.linspace(0, 1, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *leaves: _ChannelsLast.apply(*leaves, 4, 1e-5), (x, weight, bias))


def test_large_mean_does_not_spoil_the_variance() -> None:
    x = images((2, 64, 32, 32)) + 50
    norm = layer(32, 64)
    torch.testing.assert_close(norm(x), F.group_norm(x.contiguous(), 32, norm.weight, norm.bias), rtol=0, atol=5e-3)


def test_layout_is_kept_and_parameters_are_torchs() -> None:
    for shape in ((2, 64, 24, 24), (2, 64, 4, 4)):
        x = images(shape)
        assert layer(32, 64)(x).is_contiguous(memory_format=LAST)
        assert layer(32, 64)(x.contiguous()).is_contiguous()
    assert list(layer(32, 64).state_dict()) == list(torch.nn.GroupNorm(32, 64).state_dict())


def test_frozen_norm_has_nothing_to_train() -> None:
    assert list(norm_layer("frozen")(8).parameters()) == []
    assert len(list(norm_layer("batch")(8).parameters())) == 2

"""The first layers in one pass, against the same layers of torch in float64 and in bf16."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.norm import GroupNorm
from common.stem import pooled_stem, suits_stem

Layers = Callable[[Tensor, nn.Conv2d, nn.Module], Tensor]


def _plain(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    return F.relu(F.max_pool2d(norm(conv(x)), 3, 2, 1))


def _in_bf16(layers: Layers) -> Layers:
    def run(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
        conv.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return layers(x.contiguous(memory_format=torch.channels_last), conv, norm)

    return run


def _run(
    layers: Layers, x: Tensor, conv: nn.Conv2d, norm: nn.Module, dtype: torch.dtype, slope: Tensor
) -> dict[str, Tensor]:
    """What comes out and the gradients behind a ReLU, from copies of the layers."""
    conv, norm = copy.deepcopy(conv).to(dtype), copy.deepcopy(norm).to(dtype)
    y = layers(x.to(dtype), conv, norm)
    F.relu(y).backward(slope.to(y.dtype))
    found = {"y": y.detach(), "filters": conv.weight.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found |= {name: value for name, value in norm.named_buffers() if value.is_floating_point()}
    return {name: value.double() for name, value in found.items() if value is not None}


def _layers(kind: str) -> tuple[nn.Conv2d, nn.Module]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(64) if kind == "batch" else GroupNorm(32, 64)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(64))
        norm.bias.copy_(torch.randn(64))
    return nn.Conv2d(1, 64, 7, 2, 3, bias=False), norm


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("kind", ["batch", "group"])
@pytest.mark.parametrize(("images", "side"), [(5, 96), (4, 64), (3, 30), (1, 64)])
def test_values_and_gradients_are_as_near_to_float64_as_those_of_torch(kind: str, images: int, side: int) -> None:
    conv, norm = _layers(kind)
    x = torch.randn(images, 1, side, side).cumsum(2).cumsum(3) / side
    slope = torch.randn(_plain(x, conv, norm).shape)
    true = _run(_plain, x, conv, norm, torch.float64, slope)
    theirs = _run(_in_bf16(_plain), x, conv, norm, torch.float32, slope)
    ours = _run(_in_bf16(pooled_stem), x, conv, norm, torch.float32, slope)  # type: ignore[arg-type]
    assert ours.keys() == true.keys()
    for name, value in true.items():
        error, allowed = (float((found[name] - value).norm() / value.norm()) for found in (ours, theirs))
        assert error <= 1.5 * allowed + 1e-5, name


def test_whole_model_takes_it_in_training_and_not_with_a_hook_nor_in_evaluation() -> None:
    conv, norm = _layers("batch")
    x = torch.randn(2, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert suits_stem(x, conv, norm)
        assert not suits_stem(x.clone().requires_grad_(), conv, norm)
        assert not suits_stem(x[..., :31, :31], conv, norm)
        assert not suits_stem(x, conv, norm.eval())
        norm.train().register_forward_hook(lambda *_: None)
        assert not suits_stem(x, conv, norm)
        with torch.no_grad():
            assert not suits_stem(x, conv, _layers("group")[1])
    assert not suits_stem(x, *_layers("group"))

"""The convolutional part of the model: torchvision's ResNets for one gray channel, and a small network for tests.

Parameters are named as torchvision names them. A normalisation, its sum with the shortcut and its ReLU are one pass
where that can be (`common.maps`). Elsewhere the result is summed and rectified where it lies, which no backward pass
minds, since it needs what went in; but not where a hook has made a view of it.
"""

from __future__ import annotations

__all__ = ["ResNetTrunk", "SmallTrunk", "build_trunk"]

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models import resnet

from common.convolution import replace_convolutions
from common.maps import hooked
from common.norm import BatchNorm, GroupNorm, Norm, norm_layer
from common.stem import pooled_stem, suits_stem

Backbone = Literal["resnet18", "resnet34", "resnet50", "small"]


class _Rectifier(nn.Module):
    """ReLU, over its input where that is nobody's view."""

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return x.relu() if x._is_view() else x.relu_()


def _sum(out: Tensor, shortcut: Tensor) -> Tensor:
    """Both added, over the first one where that is nobody's view."""
    return out + shortcut if out._is_view() or out.dtype != shortcut.dtype else out.add_(shortcut)


def _rectified(norm: nn.Module, relu: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """relu(norm(x) + shortcut), in one pass unless somebody is at the layers' hooks."""
    if isinstance(norm, BatchNorm | GroupNorm) and not hooked(norm, relu) and norm.suits(x, shortcut):
        return norm.in_one_pass(x, shortcut, rectify=True)
    out = norm(x)
    return relu(out if shortcut is None else _sum(out, shortcut))  # type: ignore[no-any-return]


class Basic(resnet.BasicBlock):  # type: ignore[misc]
    """torchvision's basic block (He 2016)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu = _Rectifier()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = _rectified(self.bn1, self.relu, self.conv1(x))
        return _rectified(self.bn2, self.relu, self.conv2(out), shortcut)


class Bottleneck(resnet.Bottleneck):  # type: ignore[misc]
    """torchvision's bottleneck block."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.relu = _Rectifier()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = _rectified(self.bn1, self.relu, self.conv1(x))
        out = _rectified(self.bn2, self.relu, self.conv2(out))
        return _rectified(self.bn3, self.relu, self.conv3(out), shortcut)


class ResNetTrunk(resnet.ResNet):  # type: ignore[misc]
    """A ResNet for one gray channel, up to its last feature map; `channels` of them, at 1/32 of the resolution."""

    def __init__(self, block: type[nn.Module], depths: list[int], *, norm: Callable[[int], nn.Module]) -> None:
        super().__init__(block, depths, norm_layer=norm)
        self.channels: int = self.fc.in_features
        self.relu = _Rectifier()
        self.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        del self.avgpool, self.fc
        replace_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, S, S) to (B, C, S/32, S/32). ReLU after the maximum: the same values from a quarter of the map."""
        x = self._stem(x)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]

    def _stem(self, x: Tensor) -> Tensor:
        if suits_stem(x, self.conv1, self.bn1):
            return pooled_stem(x, self.conv1, self.bn1)
        return self.relu(self.maxpool(self.bn1(self.conv1(x))))  # type: ignore[no-any-return]


class SmallTrunk(nn.Sequential):
    """Four 3 × 3 convolutions of stride 2, some 185,000 parameters: for tests and phantoms, not for patients."""

    def __init__(self, *, norm: Callable[[int], nn.Module], widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        self.channels = widths[-1]
        for i, (before, after) in enumerate(zip((1, *widths), widths, strict=False), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False))
            self.add_module(f"bn{i}", norm(after))
            self.add_module(f"relu{i}", nn.ReLU())


def build_trunk(backbone: Backbone, *, norm: Norm) -> ResNetTrunk | SmallTrunk:
    """The trunk with torch's own initial values."""
    match backbone:
        case "resnet18":
            return ResNetTrunk(Basic, [2, 2, 2, 2], norm=norm_layer(norm))
        case "resnet34":
            return ResNetTrunk(Basic, [3, 4, 6, 3], norm=norm_layer(norm))
        case "resnet50":
            return ResNetTrunk(Bottleneck, [3, 4, 6, 3], norm=norm_layer(norm))
        case "small":
            return SmallTrunk(norm=norm_layer(norm, groups=8))

"""The gradients of one layer's parameters for each of several units, from what went in and the slopes that came back.

Shapes: U units, B images, O outputs, C channels in, K taps a side, P positions of a unit's images, V = K · K · C.
"""

from __future__ import annotations

__all__ = ["Places", "Spans", "write_gradients"]

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from common.convolution import Conv
from common.patches import unfold_patches

Places = Callable[[Tensor, torch.dtype], Tensor]
"""Where units' gradients by a parameter go: (U, *shape) of a dtype, those of filters as (U, O, K, K, C) in memory."""
Spans = Sequence[Sequence[slice]]
"""Each unit's images in a layer's batch: one slice for each view in which the layer sees them."""
_FEW = {torch.bfloat16: 640, torch.float32: 64}
"""Up to so many positions of a unit, one product of patches is quicker than oneDNN's gradient of the weight."""
_SMALL = 1 << 20
"""Up to so many values, the matrix unit's gradient of a weight is quicker than either: sums stay in the cache."""


def write_gradients(layer: nn.Module, x: Tensor, dy: Tensor, spans: Spans, places: Places) -> None:
    """Write each unit's gradients by the layer's weight and bias into their places.

    TypeError for a layer of another kind.
    """
    match layer:
        case nn.Linear():
            _linear(layer, x.to(dy.dtype), dy, spans, places)
        case nn.Conv2d():
            _convolution(layer, x.to(dy.dtype), dy, spans, places)
        case _:
            raise TypeError(f"no gradients by unit for {type(layer).__name__}")
    if layer.bias is not None:
        each_BO = dy.flatten(2).sum(2, dtype=layer.bias.dtype) if dy.ndim == 4 else dy.to(layer.bias.dtype)
        into = places(layer.bias, layer.bias.dtype)
        for unit, span in enumerate(spans):
            torch.sum(_of(each_BO, span), 0, out=into[unit])


def _of(batch: Tensor, span: Sequence[slice]) -> Tensor:
    return batch[span[0]] if len(span) == 1 else torch.cat([batch[each] for each in span])


def _linear(layer: nn.Linear, x: Tensor, dy: Tensor, spans: Spans, places: Places) -> None:
    into = places(layer.weight, dy.dtype)
    for unit, span in enumerate(spans):
        torch.mm(_of(dy, span).t(), _of(x, span), out=into[unit])


def _convolution(layer: nn.Conv2d, x: Tensor, dy: Tensor, spans: Spans, places: Places) -> None:
    """On the matrix unit, by a product or by oneDNN, as the layer and a unit's own images ask: never its neighbours."""
    into = places(layer.weight, dy.dtype)
    if isinstance(layer, Conv) and _suits_tiles(layer, x, dy) and (ends := _ends(spans)):
        layer.write_gradients(x, dy, ends, into)
        return
    most = _FEW.get(dy.dtype, 0) // dy[0, 0].numel() if _suits_products(layer, dy) else 0
    few = [unit for unit, span in enumerate(spans) if sum(each.stop - each.start for each in span) <= most]
    if few:
        _products(layer, x, dy, {unit: spans[unit] for unit in few}, into)
    many = [unit for unit in range(len(spans)) if unit not in few]
    weight = layer.weight.detach().to(dy.dtype) if many else layer.weight
    for unit in many:
        found = torch.ops.aten.convolution_backward(
            _of(dy, spans[unit]), _of(x, spans[unit]), weight, None, list(layer.stride), list(layer.padding),
            list(layer.dilation), False, [0, 0], layer.groups, [False, True, False],
        )  # fmt: skip
        into[unit] = found[1]


def _ends(spans: Spans) -> list[int]:
    """Where units that follow each other, each in one piece, begin and end; nothing for others."""
    ends = [0, *(span[0].stop for span in spans)]
    alone = all(len(span) == 1 and span[0].start == begin for span, begin in zip(spans, ends[:-1], strict=True))
    return ends if alone else []


def _suits_tiles(layer: Conv, x: Tensor, dy: Tensor) -> bool:
    return x.dtype == dy.dtype == torch.bfloat16 and layer.weight.numel() <= _SMALL and layer.takes(x)


def _suits_products(layer: nn.Conv2d, dy: Tensor) -> bool:
    return (
        dy.device.type == "cpu"
        and layer.kernel_size[0] == layer.kernel_size[1]
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _products(
    layer: nn.Conv2d, x: Tensor, dy: Tensor, spans: Mapping[int, Sequence[slice]], into_UOCKK: Tensor
) -> None:
    """Slopes times unfolded patches, one product a unit (im2col; Chellapilla 2006)."""
    images, outputs, values = len(x), layer.out_channels, layer.weight[0].numel()
    into_UOV = into_UOCKK.permute(0, 1, 3, 4, 2).view(-1, outputs, values)
    stride, padding = (layer.stride[0], layer.stride[1]), (int(layer.padding[0]), int(layer.padding[1]))
    channels_last = x.contiguous(memory_format=torch.channels_last)
    patches = unfold_patches(channels_last, taps=layer.kernel_size[0], stride=stride, padding=padding)
    patches_BPV, slopes_BPO = patches.view(images, -1, values), dy.flatten(2).transpose(1, 2)
    for unit, span in spans.items():
        # copied, since with a transposed view the product takes longer
        slopes_OP = _of(slopes_BPO, span).reshape(-1, outputs).t().contiguous()
        torch.mm(slopes_OP, _of(patches_BPV, span).reshape(-1, values), out=into_UOV[unit])

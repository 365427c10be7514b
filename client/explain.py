"""Where the model looks: a lesion crop, and the same crop under the model's attention map, as small PNG pictures."""

from __future__ import annotations

__all__ = ["attention_pictures", "chosen_cases"]

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from client.site import Site

if TYPE_CHECKING:
    from common.model import AttentionNet

_SIDE = 192
_STOPS = np.array([[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]], dtype=np.float64)
"""Five stops of matplotlib's plasma colour map (CC0), from low to high."""


def chosen_cases(site: Site, *, count: int) -> NDArray[np.int64]:
    """About `count` cases, alternating over the classes, one per patient, in source order:
    chosen without looking at scores.
    """
    seen: set[int] = set()
    by_class: list[list[int]] = [[] for _ in site.task.classes]
    for row in range(len(site)):
        patient = int(site.patients[row])
        if patient not in seen:
            seen.add(patient)
            by_class[int(site.labels[row])].append(row)
    if not count:
        return np.empty(0, dtype=np.int64)
    per_class = max(1, count // len(by_class))
    rows = [row for members in by_class for row in members[:: max(1, len(members) // per_class)][:per_class]]
    return np.array(sorted(rows), dtype=np.int64)


def attention_pictures(model: AttentionNet, crops: NDArray[np.uint8]) -> list[tuple[bytes, bytes]]:
    """For each crop (N, S, S) the PNG bytes of (the crop, the crop under its attention map), 192 pixels a side."""
    import torch

    from client.augment import normalise

    dtype = next(model.parameters()).dtype
    maps = model.attention_map(normalise(torch.from_numpy(np.array(crops))).to(dtype)).cpu().numpy()
    return [(_png(_enlarged(crop)), _png(_overlay(crop, seen))) for crop, seen in zip(crops, maps, strict=True)]


def _enlarged(crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(crop).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))


def _overlay(crop: NDArray[np.uint8], seen: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The gray crop, coloured in proportion to the attention between its own minimum and maximum."""
    from PIL import Image

    low, high = float(seen.min()), float(seen.max())
    scaled = ((seen - low) / max(high - low, 1e-6)).astype(np.float32)
    grown = np.asarray(Image.fromarray(scaled).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)).clip(0, 1)
    place = grown[..., None] * (len(_STOPS) - 1)
    below = np.minimum(place.astype(np.int64)[..., 0], len(_STOPS) - 2)
    colour = _STOPS[below] + (place - below[..., None]) * (_STOPS[below + 1] - _STOPS[below])
    gray = _enlarged(crop)[..., None].astype(np.float64)
    mix = 0.15 + 0.45 * grown[..., None]
    mixed: NDArray[np.uint8] = ((1 - mix) * gray + mix * colour).round().clip(0, 255).astype(np.uint8)
    return mixed


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

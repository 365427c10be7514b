"""Attention over a trunk's features: two branches in parallel, rejoined, then a map of where to look.

    features ─┬─ channel branch: which channels matter, from pooled values ──┬─ sum ─ spatial map ─ weighted pooling
              └─ context branch: what stands around, from dilated filters  ──┘

After the article on SMC-LUD (Sci Data 13:649, 2026). Each part is the identity where its last layer is
zero, as `build_model` draws it: the gate is 1, the context adds 0, the map is 1/2 everywhere, and pooling is averaging.

Sums run with the channels last, as the features lie in memory where time matters.

Shapes: B images, C channels, H × W positions, P = H · W.
"""

from __future__ import annotations

__all__ = ["Attention", "ChannelBranch", "ContextBranch", "SpatialMap"]

from typing import Literal

import torch
from torch import Tensor, nn

Parts = Literal["full", "channel", "spatial", "none"]


class ChannelBranch(nn.Module):
    """Scales each channel by a gate in (0, 2) made from its mean and maximum (Hu 2018; CBAM, Woo 2018)."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, max(channels // reduction, 8))
        self.excite = nn.Linear(self.squeeze.out_features, channels)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """The features with their channels scaled."""
        features_BPC = features_BCHW.permute(0, 2, 3, 1).flatten(1, 2)
        pooled_2BC = torch.cat([features_BPC.mean(1), features_BPC.amax(1)])
        mean_BC, maximum_BC = self.excite(torch.relu(self.squeeze(pooled_2BC))).chunk(2)
        gate_BC = 2 * torch.sigmoid(mean_BC + maximum_BC)
        return features_BCHW * gate_BC[:, :, None, None]


class ContextBranch(nn.Module):
    """Adds what stands around each position: depthwise 3 × 3 filters at distances 1, 2 and 3 on reduced channels."""

    def __init__(self, channels: int, *, reduction: int = 8, distances: tuple[int, ...] = (1, 2, 3)) -> None:
        super().__init__()
        inner = max(channels // reduction, 16)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.around = nn.ModuleList(
            nn.Conv2d(inner, inner, 3, padding=d, dilation=d, groups=inner, bias=False) for d in distances
        )
        self.expand = nn.Conv2d(inner, channels, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """What to add to the features."""
        reduced_BIHW = torch.relu(self.reduce(features_BCHW)).to(self.expand.weight.dtype)
        seen_BIHW = reduced_BIHW
        with torch.autocast(features_BCHW.device.type, enabled=False):  # in bf16 these take four times as long on a CPU
            for filter_at_distance in self.around:
                seen_BIHW = seen_BIHW + filter_at_distance(reduced_BIHW)
        expanded: Tensor = self.expand(torch.relu(seen_BIHW))
        return expanded


class SpatialMap(nn.Module):
    """Where to look: (B, 1, H, W) in [0, 1], from the channels' mean and maximum (CBAM, Woo 2018)."""

    def __init__(self, *, kernel: int = 7) -> None:
        super().__init__()
        self.look = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """The map of the features."""
        features_BHWC = features_BCHW.permute(0, 2, 3, 1)
        summary_B2HW = torch.stack([features_BHWC.mean(3), features_BHWC.amax(3)], 1)
        return torch.sigmoid(self.look(summary_B2HW))


class Attention(nn.Module):
    """Both branches, their sum, and the map; `parts` leaves some out for the ablation.

    `channel` keeps the channel branch alone, `spatial` the context branch and the map, `none` nothing.
    """

    def __init__(self, channels: int, *, parts: Parts = "full") -> None:
        super().__init__()
        spatial = parts in ("full", "spatial")
        self.channel = ChannelBranch(channels) if parts in ("full", "channel") else None
        self.context = ContextBranch(channels) if spatial else None
        self.spatial = SpatialMap() if spatial else None

    def forward(self, features_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The rejoined features (B, C, H, W) and the map (B, 1, H, W), which is 1 everywhere without a spatial part."""
        joined: Tensor = features_BCHW if self.channel is None else self.channel(features_BCHW)
        if self.context is not None:
            joined = joined + self.context(features_BCHW)
        if self.spatial is None:
            return joined, joined.new_ones(len(joined), 1, *joined.shape[2:])
        map_B1HW: Tensor = self.spatial(joined)
        return joined, map_B1HW

    def pool(self, features_BCHW: Tensor) -> Tensor:
        """The mean over positions, weighted by the map: (B, C)."""
        joined, map_B1HW = self(features_BCHW)
        if self.spatial is None:
            average: Tensor = joined.mean((2, 3))
            return average
        weights_BP1 = (map_B1HW / map_B1HW.sum((2, 3), keepdim=True).clamp_min(1e-6)).flatten(2).transpose(1, 2)
        pooled: Tensor = (joined.permute(0, 2, 3, 1).flatten(1, 2) * weights_BP1).sum(1)
        return pooled

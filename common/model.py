"""The attention CNN: a trunk, attention over its features, and one linear head per task.

Parameters are named `trunk.*`, `attention.*`, `heads.<task>.*` and `gradients.<task>.*`.
Shapes: B images, S pixels a side, C channels of the trunk, H × W positions of its features, K classes.
"""

from __future__ import annotations

__all__ = ["AttentionNet", "Dropout", "build_model", "load_weights"]

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from common.attention import Attention
from common.config import Model
from common.contrast import Contrast, Kind
from common.errors import BadInput
from common.gradients import GradientVote
from common.trunk import ResNetTrunk, SmallTrunk, build_trunk


class Dropout(nn.Module):
    """Dropout whose coins come from `generator` (on the CPU) where one is set, never from torch's global state."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x`, in training with the share `p` of its values zero and the others scaled by 1 / (1 − p)."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.p
        return x * (kept.to(x) / max(1 - self.p, 1e-6))


class AttentionNet(nn.Module):
    """Gray images (B, 1, S, S) in about N(0, 1) to logits (B, K)."""

    def __init__(
        self,
        trunk: ResNetTrunk | SmallTrunk,
        attention: Attention,
        heads: dict[str, int],
        *,
        contrast: Kind = "fixed",
        gradients: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.contrast = Contrast(contrast)
        self.trunk = trunk
        self.attention = attention
        self.dropout = Dropout(dropout)
        self.heads = nn.ModuleDict({task: nn.Linear(trunk.channels, classes) for task, classes in heads.items()})
        self.gradients = nn.ModuleDict({task: GradientVote(classes) for task, classes in heads.items() if gradients})

    def features(self, images_B1SS: Tensor) -> Tensor:
        """The attention-weighted mean of the features, (B, C): what the heads see."""
        return self.attention.pool(self.maps(images_B1SS))

    def maps(self, images_B1SS: Tensor) -> Tensor:
        """The trunk's features, (B, C, H, W)."""
        maps_BCHW: Tensor = self.trunk(self.contrast(images_B1SS))
        return maps_BCHW

    def votes(self, images_B1SS: Tensor, task: str | None = None) -> tuple[Tensor, ...]:
        """The logits (B, K) of each part that answers by itself: the attention CNN, and the gradients where asked for.

        Each vote is trained on its own loss, so that the CNN, which soon fits every training image, does not keep the
        other from learning. `task` may be left out where the model has a single one.
        """
        if task is None:
            (task,) = self.heads
        logits: Tensor = self.heads[task](self.dropout(self.features(images_B1SS)))
        return (logits, self.gradients[task](images_B1SS)) if task in self.gradients else (logits,)

    def forward(self, images_B1SS: Tensor, task: str | None = None) -> Tensor:
        """Logits (B, K) of `task`: the mean of the votes."""
        votes = self.votes(images_B1SS, task)
        if len(votes) == 1:
            return votes[0]
        both_VBK = torch.stack(votes)
        return both_VBK.mean(0, dtype=torch.promote_types(both_VBK.dtype, torch.float32))

    @torch.no_grad()
    def attention_map(self, images_B1SS: Tensor) -> Tensor:
        """Where the model looks: (B, H, W) in [0, 1], float32; 1 everywhere without a spatial part."""
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            _, map_B1HW = self.attention(self.maps(images_B1SS))
        finally:
            for module, mode in modes:
                module.training = mode
        seen: Tensor = map_B1HW[:, 0].float()
        return seen


def build_model(config: Model, *, task: str, classes: int, seed: int) -> AttentionNet:
    """The model that `config` asks for, its initial values drawn from `seed` alone.

    torch's global random state is neither read nor changed. `config.weights` is not read here: see `load_weights`.
    """
    with torch.device("meta"):
        trunk = build_trunk(config.backbone, norm=config.norm)
        attention = Attention(trunk.channels, parts=config.attention)
        model = AttentionNet(
            trunk,
            attention,
            {task: classes},
            contrast=config.contrast,
            gradients=config.gradients,
            dropout=config.dropout,
        )
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, module in model.named_modules():
        _initialise(name, module, generator)
    return model


_STARTS_AT_ZERO = ("attention.channel.excite", "attention.context.expand", "attention.spatial.look")


@torch.no_grad()
def _initialise(name: str, module: nn.Module, generator: torch.Generator) -> None:
    """He's normal values, N(0, .01²) for heads, zero for gradients and where the attention is to start as the
    identity.
    """
    match module:
        case nn.Conv2d() | nn.Linear():
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name in _STARTS_AT_ZERO or name.startswith("gradients."):
                nn.init.zeros_(module.weight)
            elif name.startswith("heads."):
                nn.init.normal_(module.weight, std=0.01, generator=generator)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        case nn.GroupNorm() | nn.BatchNorm2d():
            module.reset_parameters()
        case FrozenBatchNorm2d():
            for buffer, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
                getattr(module, buffer).fill_(value)


def load_weights(model: AttentionNet, path: Path) -> tuple[str, ...]:
    """Start from the tensors of a safetensors file whose name and shape fit the trunk or the attention.

    Names may be ours (`trunk.conv1.weight`) or torchvision's (`conv1.weight`). A first convolution for three channels
    is summed to one: on a gray image it gives what the original gives on three equal channels. Heads are left alone.
    Returns the names that were taken, in the model's order; BadInput where there is none or the file cannot be read.
    """
    given = _read(path)
    taken = []
    with torch.no_grad():
        for name, target in model.state_dict().items():
            found = given.get(name, given.get(name.removeprefix("trunk.")))
            if found is None or name.startswith(("heads.", "gradients.")):
                continue
            if name == "trunk.conv1.weight" and found.ndim == 4 and found.shape[1] == 3:
                found = found.float().sum(1, keepdim=True)
            if found.shape == target.shape:
                target.copy_(found)
                taken.append(name)
    if not any(name.endswith(".weight") for name in taken):
        raise BadInput(f"{path}: no tensor fits the model; give weights of the same backbone, such as torchvision's")
    return tuple(taken)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such weights file; give a safetensors file or leave model.weights out") from None
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: not a safetensors file ({type(error).__name__}); give one") from None

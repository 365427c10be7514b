"""The attention CNN: shapes, names, its start as the identity, and initial weights from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from common.attention import Attention
from common.config import Model
from common.errors import BadInput
from common.model import AttentionNet, build_model, load_weights


def build(*, seed: int = 0, **config: object) -> AttentionNet:
    """A model of two classes."""
    chosen = Model(**{"backbone": "small", **config})  # type: ignore[arg-type]
    return build_model(chosen, task="node", classes=2, seed=seed)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values of N(0, 1)."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "small"])
@pytest.mark.parametrize("norm", ["group", "batch", "frozen"])
def test_shapes_and_names(backbone: str, norm: str) -> None:
    model = build(backbone=backbone, norm=norm)
    assert model(draw(2, 1, 64, 64)).shape == (2, 2)
    assert model.features(draw(2, 1, 64, 64)).shape == (2, model.trunk.channels)
    assert {name.split(".")[0] for name in model.state_dict()} == {"trunk", "attention", "heads"}
    assert {name for name in model.state_dict() if name.startswith("heads")} == {"heads.node.weight", "heads.node.bias"}


@pytest.mark.parametrize("parts", ["full", "channel", "spatial", "none"])
def test_attention_starts_as_plain_averaging(parts: str) -> None:
    model = build(attention=parts).eval()
    x = draw(3, 1, 64, 64)
    torch.testing.assert_close(model.features(x), model.trunk(x).mean((2, 3)))


def test_attention_map_is_readable_and_bounded() -> None:
    model = build(attention="full")
    for parameter in model.attention.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    seen = model.attention_map(draw(3, 1, 96, 96))
    assert seen.shape == (3, 6, 6)
    assert 0 <= seen.min() < seen.max() <= 1
    assert model.training
    assert build(attention="none").attention_map(draw(1, 1, 64, 64)).eq(1).all()


def test_pooling_is_the_weighted_mean() -> None:
    attention = Attention(16)
    features = draw(2, 16, 5, 5)
    joined, seen = attention(features)
    slow = torch.stack(
        [
            sum(joined[b, :, i, j] * seen[b, 0, i, j] for i in range(5) for j in range(5)) / seen[b].sum()
            for b in range(2)
        ]
    )
    torch.testing.assert_close(attention.pool(features), slow)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_trunk_is_torchvisions(backbone: str) -> None:
    theirs = getattr(torchvision.models, backbone)().eval()
    model = build(backbone=backbone, norm="batch").eval()
    state = {name: t for name, t in theirs.state_dict().items() if not name.startswith("fc.")}
    state["conv1.weight"] = state["conv1.weight"].sum(1, keepdim=True)
    model.trunk.load_state_dict(state)
    gray = draw(2, 1, 64, 64)
    theirs.fc = torch.nn.Identity()
    torch.testing.assert_close(model.features(gray), theirs(gray.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3)


def test_seed_alone_decides() -> None:
    before = torch.get_rng_state()
    a, b, c = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(7)
    d = build(seed=1)
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name])
        assert torch.equal(value, d.state_dict()[name])
        assert value.isfinite().all()
    assert not torch.equal(a.trunk.conv1.weight, c.trunk.conv1.weight)


def test_weights_of_torchvision_fit(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18().state_dict()
    file = tmp_path / "resnet18.safetensors"
    save_file({name: t.bfloat16() if t.is_floating_point() else t for name, t in theirs.items()}, file)
    model = build(backbone="resnet18", norm="batch")
    head = model.heads["node"].weight.clone()
    taken = load_weights(model, file)
    assert len(taken) == len(theirs) - 2
    assert model.trunk.conv1.weight.dtype == torch.float32
    rgb = torch.nn.functional.conv2d(
        draw(1, 1, 32, 32).expand(-1, 3, -1, -1), theirs["conv1.weight"].bfloat16().float()
    )
    gray = torch.nn.functional.conv2d(draw(1, 1, 32, 32), model.trunk.conv1.weight)
    torch.testing.assert_close(gray, rgb, rtol=1e-4, atol=1e-4)
    assert torch.equal(head, model.heads["node"].weight)


def test_own_weights_fit_and_keep_the_head(tmp_path: Path) -> None:
    source, model = build(seed=1), build(seed=2)
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    load_weights(model, tmp_path / "own.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]) != name.endswith("node.weight")


def test_weights_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name in ("other", "torn", "missing"):
        with pytest.raises(BadInput) as caught:
            load_weights(build(), tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)


def test_dropout_reads_its_own_coins() -> None:
    model = build(dropout=0.5)
    before = torch.get_rng_state()
    outputs = []
    for seed in (1, 1, 2):
        model.dropout.generator = torch.Generator().manual_seed(seed)
        outputs.append(model(draw(4, 1, 32, 32)))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])

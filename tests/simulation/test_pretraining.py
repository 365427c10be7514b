"""Initial weights from phantoms: lumps, the tasks that are learned on them, and the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from common.config import Model
from common.model import build_model, load_weights
from common.randomness import derive
from simulation.phantom.lump import draw_lump
from simulation.phantom.lump_scene import SIDE
from simulation.phantom.lump_signs import draw_signs
from simulation.pretext import BINS, gradient_histogram, sign_targets
from simulation.pretraining import pretrain

SMALL = Model(backbone="small")


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_lump_is_inside_its_box_and_same_draws_give_the_same_bytes(number: int) -> None:
    lump = draw_lump(derive(0, "lump", number))
    again = draw_lump(derive(0, "lump", number))
    x, y, width, height = lump.box
    inside = np.zeros((SIDE, SIDE), bool)
    inside[y : y + height, x : x + width] = True
    assert lump.image.shape == (SIDE, SIDE)
    assert lump.image.dtype == np.uint8
    assert lump.mask.any()
    assert not (lump.mask & ~inside).any()
    assert lump.mask[y].any()
    assert lump.mask[:, x + width - 1].any()
    assert lump.image.tobytes() == again.image.tobytes()


def test_signs_go_with_their_class() -> None:
    signs = [draw_signs(derive(0, "signs", number)) for number in range(800)]
    bad, good = ([s for s in signs if s.malignant is which] for which in (True, False))
    assert 0.38 < len(bad) / len(signs) < 0.52
    assert np.mean([s.shape == "irregular" for s in bad]) > 0.5
    assert np.mean([s.margin == "circumscribed" for s in good]) > 0.6
    assert np.mean([s.aspect for s in bad]) > np.mean([s.aspect for s in good]) + 0.1


def test_gradient_histogram_is_that_of_a_slow_loop() -> None:
    image = torch.from_numpy(derive(0, "image").normal(size=(1, 1, 8, 8)).astype(np.float32))
    cells, gray = 2, image[0, 0].double().numpy()
    votes = np.zeros((BINS, cells, cells))
    for row in range(8):
        for column in range(8):
            across = gray[row, column + 1] - gray[row, column - 1] if 0 < column < 7 else 0.0
            down = gray[row + 1, column] - gray[row - 1, column] if 0 < row < 7 else 0.0
            position = (np.arctan2(down, across) % np.pi) / np.pi * BINS
            low, share = int(position), position - int(position)
            magnitude = np.hypot(across, down)
            votes[low % BINS, row // 4, column // 4] += magnitude * (1 - share) / 16
            votes[(low + 1) % BINS, row // 4, column // 4] += magnitude * share / 16
    energy = np.pad((votes**2).sum(0), 1, mode="edge")
    around = np.array([[energy[r : r + 3, c : c + 3].sum() for c in range(cells)] for r in range(cells)])
    np.testing.assert_allclose(gradient_histogram(image, cells)[0].numpy(), votes / np.sqrt(around), atol=1e-4)


def test_a_gradient_histogram_does_not_see_gain() -> None:
    image = torch.from_numpy(derive(0, "image").normal(size=(3, 1, 32, 32)).astype(np.float32))
    torch.testing.assert_close(gradient_histogram(image, 2), gradient_histogram(3 * image + 1, 2), atol=1e-3, rtol=1e-3)


def test_measures_are_standardised() -> None:
    targets = sign_targets([draw_lump(derive(0, "lump", number)) for number in range(60)])
    assert targets.classes.shape == (60, 3)
    assert targets.measures.mean(0).abs().max() < 1e-4
    assert torch.isfinite(targets.measures).all()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("weights")
    heard: list[tuple[int, int]] = []
    for name in ("one", "two"):
        pretrain(
            folder / name, images=24, steps=3, size=32, model=SMALL, progress=lambda n, total: heard.append((n, total))
        )
    assert heard
    assert all(0 <= n <= total for n, total in heard)
    return (folder / "one").read_bytes(), (folder / "two").read_bytes()


def test_same_seed_same_bytes(made: tuple[bytes, bytes]) -> None:
    assert made[0] == made[1]


def test_the_file_holds_all_but_heads_in_bf16_and_a_model_takes_all_of_it(
    made: tuple[bytes, bytes], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(made[0])
    tensors = load_file(file)
    model = build_model(SMALL, task="any", classes=3, seed=5)
    before = model.heads["any"].weight.clone()
    taken = load_weights(model, file)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert set(taken) == set(tensors) == {name for name in model.state_dict() if not name.startswith("heads.")}
    torch.testing.assert_close(model.heads["any"].weight, before)
    for name in taken:
        torch.testing.assert_close(model.state_dict()[name], tensors[name].float())

"""Local training: exact batches, the schedule, class weights, FedProx, the same bits from the same draws, scores."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from client.augment import normalise
from client.evaluation import score
from client.schedule import make_optimizer, rate_at
from client.training import TrainingData, add_pull, batches, class_weights, train
from common.config import AdamW, Augmentation, Model, Sgd, Training
from common.errors import BadInput, RunFailed
from common.model import AttentionNet, build_model

PLAN = Training(steps=100, batch_size=8)
EXACT = replace(PLAN, precision="float64", augmentation=None, class_weights=False, warmup=0.0, schedule="constant")


def build(**config: object) -> AttentionNet:
    """A small model."""
    chosen = Model(**{"backbone": "small", **config})  # type: ignore[arg-type]
    return build_model(chosen, task="node", classes=2, seed=0)


def data(images: int = 20, side: int = 32) -> TrainingData:
    """Noise, brighter in class 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(images) % 3 == 0).astype(np.int64)
    crops = rng.integers(0, 128, (images, side, side)) + 100 * labels[:, None, None]
    return TrainingData(crops=crops.astype(np.uint8), labels=labels, classes=2)


def rng(seed: int = 0) -> np.random.Generator:
    """A generator of its own."""
    return np.random.default_rng(seed)


def flat(model: AttentionNet) -> torch.Tensor:
    """All parameters in one vector."""
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def test_every_batch_is_full_and_epochs_lie_end_to_end() -> None:
    for images, size in ((20, 8), (5, 8), (8, 8), (1, 3)):
        drawn = list(itertools.islice(batches(images, replace(PLAN, batch_size=size), rng()), images * 2))
        assert {len(batch) for batch in drawn} == {size}
        seen = np.concatenate(drawn)
        for epoch in seen[: len(seen) // images * images].reshape(-1, images):
            assert sorted(epoch) == list(range(images))


def test_budget_is_counted_and_heard() -> None:
    heard: list[int] = []
    done = train(build(), data(), PLAN, steps=5, progress=(0, 0.5), rng=rng(), on_step=heard.append)
    assert (done.samples, done.steps, heard) == (40, 5, [1, 2, 3, 4, 5])
    assert train(build(), data(), replace(PLAN, full_batch=True), steps=2, progress=(0, 1), rng=rng()).samples == 40


def test_it_learns() -> None:
    model, cases = build(), data(60)
    train(model, cases, PLAN, steps=40, progress=(0, 1), rng=rng())
    assert ((score(model, cases.crops)[:, 1] > 0.5) == cases.labels).mean() > 0.9


def test_same_draws_same_bits_and_global_state_untouched() -> None:
    before = torch.get_rng_state()
    plan = replace(PLAN, augmentation=Augmentation(blur=0.5, noise=0.1, erase=0.3))
    runs = []
    for seed in (1, 1, 2):
        model = build(dropout=0.3)
        train(model, data(), plan, steps=3, progress=(0, 1), rng=rng(seed))
        runs.append(flat(model))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(before, torch.get_rng_state())


def test_full_batch_step_is_the_formula() -> None:
    plan = replace(EXACT, full_batch=True, optimizer=Sgd(learning_rate=0.1, momentum=0.0))
    model, cases = build(), data()
    oracle = copy.deepcopy(model).double()
    train(model, cases, plan, steps=1, progress=(0, 1), rng=rng())
    logits = oracle(normalise(torch.from_numpy(cases.crops)).double())
    F.cross_entropy(logits, torch.from_numpy(cases.labels)).backward()
    expected = torch.cat([(p - 0.1 * p.grad).detach().flatten() for p in oracle.parameters() if p.grad is not None])
    torch.testing.assert_close(flat(model), expected, rtol=1e-9, atol=1e-12)


def test_loss_weighs_classes_and_smooths() -> None:
    plan = replace(EXACT, class_weights=True, label_smoothing=0.1, full_batch=True, batch_size=20)
    model, cases = build(), data()
    logits = copy.deepcopy(model).double()(normalise(torch.from_numpy(cases.crops)).double())
    weights = torch.from_numpy(class_weights(cases.labels, 2))
    each = F.cross_entropy(
        logits, torch.from_numpy(cases.labels), weight=weights, label_smoothing=0.1, reduction="none"
    )
    done = train(model, cases, plan, steps=1, progress=(0, 1), rng=rng())
    assert done.loss == pytest.approx(float(each.detach().mean()), rel=1e-9)


def test_class_weights_are_the_balanced_ones() -> None:
    labels = np.array([0] * 7 + [1] * 2 + [2] * 11)
    weights = class_weights(labels, 3)
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(3), y=labels))
    assert weights[labels].mean() == pytest.approx(1)
    assert class_weights(np.array([0, 0, 2]), 3)[1] == 0


def test_pull_is_the_gradient_of_the_proximal_term() -> None:
    model = build()
    parameters = list(model.parameters())
    anchor = [torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) for i, p in enumerate(parameters)]
    term = 0.3 / 2 * sum(((p - a) ** 2).sum() for p, a in zip(parameters, anchor, strict=True))
    expected = torch.autograd.grad(term, parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    add_pull(parameters, anchor, mu=0.3)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient + 1)


def test_proximal_term_holds_back() -> None:
    start = flat(build())
    moved = []
    for mu in (0.0, 1.0, 5.0):
        model = build()
        plan = replace(EXACT, optimizer=Sgd(learning_rate=0.05))
        train(model, data(), plan, steps=10, progress=(0, 1), rng=rng(), proximal=mu)
        moved.append(float((flat(model) - start).norm()))
    assert moved[0] > moved[1] > moved[2]


def test_optimizer_that_goes_on_keeps_its_state() -> None:
    optimizers = []
    for kept in (False, True):
        model = build()
        first = train(model, data(), EXACT, steps=2, progress=(0, 0.5), rng=rng())
        again = train(
            model, data(), EXACT, steps=2, progress=(0.5, 1), rng=rng(1), optimizer=first.optimizer if kept else None
        )
        state = next(iter(again.optimizer.state.values()))
        optimizers.append(int(state["step"]))
    assert optimizers == [2, 4]


def test_rate_warms_up_and_falls() -> None:
    plan = replace(PLAN, warmup=0.1)
    rates = [rate_at(plan, t) for t in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rate_at(replace(plan, schedule="constant"), 1.0) == 1


def test_norms_and_biases_do_not_decay_and_heads_learn_at_their_own_rate() -> None:
    model = build()
    plan = replace(PLAN, head_rate=10.0, optimizer=AdamW(learning_rate=1e-3, weight_decay=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = make_optimizer(model, plan).param_groups
    assert sorted(names.values()) == sorted(names[id(p)] for group in groups for p in group["params"])
    for group in groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)
            assert group["peak"] == pytest.approx(1e-3 if names[id(parameter)].startswith("trunk.") else 1e-2)


def test_bad_input_and_a_loss_that_is_not_finite() -> None:
    nothing = TrainingData(crops=np.zeros((0, 32, 32), np.uint8), labels=np.zeros(0, np.int64), classes=2)
    with pytest.raises(BadInput, match="no image"):
        train(build(), nothing, PLAN, steps=1, progress=(0, 1), rng=rng())
    model = build()
    with torch.no_grad():
        model.heads["node"].bias.fill_(float("nan"))
    with pytest.raises(RunFailed, match="step 1"):
        train(model, data(), PLAN, steps=3, progress=(0, 1), rng=rng())


@pytest.mark.parametrize("flip", [False, True])
def test_scores_are_the_formula_and_leave_the_mode(flip: bool) -> None:
    model, crops = build(dropout=0.5, norm="batch"), data(7).crops
    scores = score(model, crops, batch_size=3, flip=flip, precision="float32")
    assert model.training
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-12)
    model.eval()
    x = normalise(torch.from_numpy(crops))
    with torch.no_grad():
        views = [model(view).double().softmax(1) for view in ((x, x.flip(3)) if flip else (x,))]
    np.testing.assert_allclose(scores, torch.stack(views).mean(0).numpy(), rtol=1e-5)
    assert np.array_equal(scores, score(model, crops, batch_size=3, flip=flip, precision="float32"))
    assert score(model, crops[:0]).shape == (0, 2)

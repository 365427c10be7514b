"""The audit: its bound against exact cases, that it spares the real mechanism and finds planted mistakes,
its attacks, its page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.randomness import derive
from simulation.__main__ import main
from simulation.audit.bound import epsilon_of_mu, lower_bound, refuted
from simulation.audit.heads import resized
from simulation.audit.inversion import SIDE, invert, own_gradient, small_model
from simulation.audit.membership import Pool, attack, train_heads
from simulation.phantom.lump import draw_lump
from tests.experiments import write_experiment, write_uneven_sites
from tests.prove.planted import BUGS, game

PRIVACY: dict[str, Any] = {"kind": "patient", "epsilon": 8.0, "patients_per_step": 4}


def test_with_one_coin_the_bound_is_the_definition() -> None:
    """m = 1: an attacker right with probability τ under one coin is wrong with Φ(Φ⁻¹(τ) − μ) or more under the
    other.
    """
    from scipy.stats import norm

    for mu in (0.5, 1.0, 2.0, 4.0, 6.0):
        for tail in (0.05, 0.6, 0.95):
            impossible = tail + norm.cdf(norm.ppf(tail) - mu) > 1
            assert refuted(mu, correct=1, guesses=1, canaries=1, confidence=1 - tail) == impossible


def test_epsilon_of_a_gaussian_mechanism_solves_its_equation() -> None:
    from scipy.stats import norm

    for mu in (0.3, 1.0, 3.0):
        eps = epsilon_of_mu(mu, delta=1e-3)
        assert norm.cdf(mu / 2 - eps / mu) - np.exp(eps) * norm.cdf(-eps / mu - mu / 2) == pytest.approx(1e-3, rel=1e-6)
    assert epsilon_of_mu(0.0, delta=1e-3) == epsilon_of_mu(1e-4, delta=1e-3) == 0


def test_the_bound_grows_with_what_is_guessed_and_is_zero_for_chance() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(400) < 0.5
    noise = rng.normal(size=400)
    bounds = [lower_bound(mu * present + noise, present, delta=1e-3) for mu in (0.0, 1.0, 2.0, 4.0)]
    assert bounds[0] == 0 or bounds[0] < 0.2
    assert bounds == sorted(bounds)
    assert bounds[3] > 3


def test_it_rarely_says_more_than_is_true() -> None:
    """Independent Gaussian canaries: the truth is ε(μ); of 200 audits at confidence .95 hardly any may exceed it."""
    rng = np.random.default_rng(1)
    exceeded = 0
    for _ in range(200):
        present = rng.random(200) < 0.5
        scores = 0.8 * present + rng.normal(size=200)
        exceeded += lower_bound(scores, present, delta=1e-3) > epsilon_of_mu(0.8, delta=1e-3)
    assert exceeded <= 16


def test_the_real_mechanism_is_spared_and_mistakes_are_found() -> None:
    assert game(1.0, 0) < 1
    for name in ("no noise", "the batch mean clipped"):
        assert game(1.0, 0, BUGS[name]) > 1, name


def test_membership_shows_where_heads_remember_and_not_where_they_did_not_train() -> None:
    rng = np.random.default_rng(0)
    people, width = 300, 300
    features = rng.normal(size=(people, width)).astype(np.float32)
    pool = Pool(features, rng.integers(0, 2, people), np.arange(people))
    found = attack(pool, lambda inside: train_heads(pool, inside, steps=200), seed=0)
    assert (found.members, found.others) == (150, 150)
    assert found.auc > 0.85
    blind = attack(pool, lambda inside: rng.normal(size=inside.shape), seed=0)
    assert abs(blind.auc - 0.5) < 0.12


def test_an_image_is_drawn_back_from_its_gradient_and_not_from_noise() -> None:
    truth = resized(draw_lump(derive(0, "lump", 3)).image, SIDE)
    model = small_model(seed=0)
    gradient = own_gradient(model, truth, 1)
    found = invert(model, gradient, 1, truth=truth, seed=0, steps=200)
    rng = np.random.default_rng(0)
    import torch

    noise = [torch.from_numpy(rng.normal(size=tuple(each.shape))) for each in gradient]
    blind = invert(model, noise, 1, truth=truth, seed=0, steps=20)
    assert found.similarity > 0.3
    assert found.similarity > blind.similarity + 0.15


def test_the_command_says_how_it_wants_to_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 16})
    plain = write_experiment(tmp_path / "plain.toml", sites)
    assert main(["audit", str(plain), "--out", str(tmp_path / "out")]) == 2
    assert "the audit is of patient-level privacy; set privacy.kind = 'patient'" in capsys.readouterr().err
    private = write_experiment(
        tmp_path / "private.toml", sites, privacy=PRIVACY, training={"class_weights": False, "augmentation": "none"}
    )
    assert main(["audit", str(private), "--out", str(tmp_path / "out"), "--canaries", "20"]) == 2
    assert "--canaries must be 300 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_audit_writes_its_page(tmp_path: Path) -> None:
    from common.config import load_experiment
    from simulation.audit import Counts, audit

    sites = write_uneven_sites(tmp_path / "sites", {"ash": 16})
    config = write_experiment(
        tmp_path / "private.toml",
        sites,
        privacy=PRIVACY,
        model={"gradients": True},
        training={"class_weights": False, "augmentation": "none"},
    )
    counts = Counts(canaries=300, games=1, people=80, inversion=5)
    found = audit(load_experiment(config), tmp_path / "out", counts=counts)
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert found.holds
    assert f"{max(found.bounds):.2f}" in page
    assert page.count("data:image/png") == 3
    assert found.membership["with privacy"].others == 40
    assert (tmp_path / "out" / "audit.json").exists()

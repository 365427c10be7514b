"""Secure sums from key to total, with the client's real code: exact totals, who drops out, and what the server sees."""

from __future__ import annotations

import itertools
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

import client.secure_sums
import common.masks
from client.secure_sums import make_key, open_total, seal
from common.blocks import Block, Words, encode
from common.errors import BadInput, RunFailed
from common.masks import pair_mask
from common.sums_orders import KeyOrder, OpenOrder, SiteKey, Terms
from server.secure_sums import DroppedOut, NotOpened, Totals, secure_totals, sum_once
from tests.sealed_sites import Sites, honest_view

NAMES = ("ash", "birch", "cedar", "elm", "fir", "yew")
DIRECTORY = (Block("positives", 40), Block("negatives", 40), Block("brier", 1, 40))
ABOUT: dict[str, Any] = {"run": "r", "round_number": 3, "purpose": "test"}
ORDER = KeyOrder("r", 3, "test", "a" * 32)
ALMOST_NEVER = 1e-9
"""A p-value below this condemns; a sound mask falls below it once in a thousand million runs."""


def numbers_of(site: str, *, directory: tuple[Block, ...] = DIRECTORY) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(list(site.encode()))
    return {b.name: rng.random(b.length) * 9 if b.bits else rng.integers(-5, 50, b.length) for b in directory}


def sites_at(base: Path, count: int, **lost: list[set[str]]) -> Sites:
    return Sites(base, {name: numbers_of(name) for name in NAMES[:count]}, lost)


def check_total(found: Totals, sites: Sites, expected: set[str]) -> None:
    assert set(found.sites) == expected
    for block in DIRECTORY:
        total = sum(sites.numbers[site][block.name] for site in sorted(expected))
        if block.bits:
            np.testing.assert_allclose(found.numbers[block.name], total, atol=len(expected) / 2 ** (block.bits + 1))
        else:
            np.testing.assert_array_equal(found.numbers[block.name], total)


@st.composite
def federations(draw: st.DrawFn) -> tuple[tuple[Block, ...], dict[str, dict[str, np.ndarray]], list[list[set[str]]]]:
    """Random blocks, sites' numbers, and who drops out of each step but the last in up to three attempts each."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=3, max_size=6, unique=True))
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=4))
    directory = tuple(Block(f"b{i}", n, draw(st.sampled_from([0, 0, 20, 40]))) for i, n in enumerate(lengths))
    largest = draw(st.sampled_from([1, 100, 10**6]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = {
        name: {
            b.name: rng.uniform(-largest, largest, b.length)
            if b.bits
            else rng.integers(-largest, largest + 1, b.length)
            for b in directory
        }
        for name in names
    }
    drop = st.lists(st.sets(st.sampled_from(names), max_size=2), max_size=3)
    return directory, numbers, [draw(drop), draw(drop), draw(drop)]


def totals_or_why(sites: Sites, directory: tuple[Block, ...]) -> Totals | str:
    try:
        return secure_totals(sites, sites.numbers, directory, **ABOUT)
    except RunFailed as error:
        return str(error)


@given(federations())
@settings(
    max_examples=int(os.environ.get("SONOFED_SUMS", "20")), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_totals_are_exact_whoever_drops_out(
    drawn: tuple[tuple[Block, ...], dict[str, dict[str, np.ndarray]], list[list[set[str]]]],
) -> None:
    directory, numbers, by_step = drawn
    with tempfile.TemporaryDirectory() as base:
        moments = zip(("keys", "seal", "ready"), by_step, strict=True)
        sites = Sites(Path(base), numbers, {step: [set(lost) for lost in tries] for step, tries in moments})
        found = totals_or_why(sites, directory)
    if isinstance(found, str):
        assert re.search(r"needs 3 sites, and [012] are left", found)
        return
    left = set(numbers) - found.failures.keys()
    assert set(found.sites) == left
    assert found.failures.keys() <= set().union(*itertools.chain(*by_step))
    for block in directory:
        total = sum(numbers[site][block.name] for site in sorted(left))
        reach = len(left) / 2 ** (block.bits + 1) + 1e-9 * abs(total) if block.bits else 0
        assert np.all(np.abs(found.numbers[block.name] - total) <= reach)


def test_one_attempt_fails_by_name_and_the_next_is_exact_without(tmp_path: Path) -> None:
    sites = sites_at(tmp_path, 5, seal=[{"cedar"}])
    with pytest.raises(DroppedOut, match=r"cedar: the node was lost \(error 5\).*; ask again without cedar") as caught:
        sum_once(sites, sites.numbers, DIRECTORY, **ABOUT)
    assert caught.value.failures == {"cedar": "the node was lost (error 5)"}
    check_total(
        sum_once(sites, set(sites.numbers) - {"cedar"}, DIRECTORY, **ABOUT), sites, {"ash", "birch", "elm", "fir"}
    )


def test_asked_again_until_whole_or_too_few(tmp_path: Path) -> None:
    sites = sites_at(tmp_path / "a", 6, keys=[{"ash"}, set(), {"elm"}], seal=[{"birch"}])
    found = secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT)
    check_total(found, sites, {"cedar", "fir", "yew"})
    assert sorted(found.failures) == ["ash", "birch", "elm"]
    sites = sites_at(tmp_path / "b", 4, seal=[{"ash"}, {"birch"}])
    with pytest.raises(
        RunFailed, match=r"needs 3 sites, and 2 are left: .*ash: the node was lost.*birch: the node was lost"
    ):
        secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT)
    with pytest.raises(BadInput, match=r"2 sites .ash, birch. are too few for a secure sum"):
        secure_totals(sites_at(tmp_path / "c", 2), ("ash", "birch"), DIRECTORY, **ABOUT)


def test_a_late_answer_tells_nothing_by_subtraction(tmp_path: Path) -> None:
    """Cedar's sealed numbers arrive after all, and so would its opening: the first attempt still never opens."""
    sites = sites_at(tmp_path, 5, seal=[{"cedar"}])
    check_total(secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT), sites, set(sites.numbers) - {"cedar"})
    first = sites.terms_seen[0]
    assert {site for site, digest in sites.seen_seals if digest == first.digest} == set(sites.numbers)
    order = OpenOrder("r", 3, "test", first.digest)
    open_total(sites.state("cedar"), order, site="cedar")
    for site in ("ash", "birch", "elm", "fir"):
        with pytest.raises(BadInput, match=f"site {site}: it has sealed nothing under these terms"):
            open_total(sites.state(site), order, site=site)


def test_an_opening_is_asked_for_again_and_never_given_for_other_company(tmp_path: Path) -> None:
    sites = sites_at(tmp_path / "a", 4, open=[{"ash", "elm"}, {"elm"}])
    check_total(secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT), sites, set(sites.numbers))
    sites = sites_at(tmp_path / "b", 4, open=[{"elm"}] * 3)
    with pytest.raises(
        NotOpened,
        match=r"not every site opened it .elm: the node was lost.*"
        r"same sites again .ash, birch, cedar, elm. when elm can",
    ):
        secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT)
    others = {"ash", "birch", "cedar"}
    with pytest.raises(RunFailed, match="already counted, and now the roster differs by elm"):
        secure_totals(sites, others, DIRECTORY, **ABOUT)
    check_total(secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT), sites, set(sites.numbers))
    check_total(secure_totals(sites, others, DIRECTORY, **{**ABOUT, "round_number": 4}), sites, others)


def a_seal(state: Path, company: list[SiteKey], *, site: str = "ash", attempt: str = "a" * 32) -> tuple[Terms, Words]:
    order = replace(ORDER, attempt=attempt)
    keys = sorted([make_key(state, order, site=site), *company], key=lambda key: key.site)
    terms = Terms("r", 3, "test", attempt, DIRECTORY, tuple(keys))
    return terms, seal(state, terms, lambda: numbers_of(site), site=site, request="0" * 64)


@pytest.fixture
def company() -> list[SiteKey]:
    return [SiteKey(name, common.masks.public_key(common.masks.new_secret())) for name in ("birch", "cedar")]


def test_a_replayed_request_gets_the_stored_answer_or_a_refusal(tmp_path: Path, company: list[SiteKey]) -> None:
    terms, words = a_seal(tmp_path, company)

    def never() -> dict[str, np.ndarray]:
        raise AssertionError("computed anew")

    again = seal(tmp_path, terms, never, site="ash", request="0" * 64)
    np.testing.assert_array_equal(again, words)
    other_keys = (terms.keys[0], terms.keys[1], SiteKey("cedar", common.masks.public_key(bytes(31) + b"\1")))
    for told, request in [
        (terms, "1" * 64),
        (replace(terms, keys=other_keys), "0" * 64),
        (replace(terms, directory=DIRECTORY[:2]), "0" * 64),
    ]:
        with pytest.raises(BadInput, match="asks for others under the same mask"):
            seal(tmp_path, told, never, site="ash", request=request)
    assert make_key(tmp_path, ORDER, site="ash") == terms.keys[0]
    order = OpenOrder("r", 3, "test", terms.digest)
    assert open_total(tmp_path, order, site="ash") == open_total(tmp_path, order, site="ash")
    with pytest.raises(BadInput, match="no key is waiting"):
        seal(tmp_path, terms, never, site="ash", request="0" * 64)
    with pytest.raises(BadInput, match="no key is waiting"):
        seal(tmp_path, replace(terms, attempt="b" * 32), never, site="ash", request="0" * 64)


def test_a_computation_that_fails_or_is_killed_leaves_the_key_unused(tmp_path: Path, company: list[SiteKey]) -> None:
    keys = sorted([make_key(tmp_path, ORDER, site="ash"), *company], key=lambda key: key.site)
    terms = Terms("r", 3, "test", "a" * 32, DIRECTORY, tuple(keys))

    def killed() -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal(tmp_path, terms, killed, site="ash", request="0" * 64)
    assert len(seal(tmp_path, terms, lambda: numbers_of("ash"), site="ash", request="1" * 64)) == 81


def test_secrets_are_the_sites_own_and_go_when_they_are_used(tmp_path: Path, company: list[SiteKey]) -> None:
    make_key(tmp_path, ORDER, site="ash")
    (file,) = (tmp_path / "sums").glob("*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    private = json.loads(file.read_text())["private"]
    terms, _ = a_seal(tmp_path, company)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert private not in file.read_text()
    answer = json.loads(file.read_text())["answer"]
    open_total(tmp_path, OpenOrder("r", 3, "test", terms.digest), site="ash")
    assert answer not in file.read_text()
    assert json.loads(file.read_text())["counted"] == ["ash", "birch", "cedar"]


def test_secrets_of_an_attempt_that_nobody_finished_are_forgotten(tmp_path: Path, company: list[SiteKey]) -> None:
    terms, _ = a_seal(tmp_path, company)
    (file,) = (tmp_path / "sums").glob("*.json")
    os.utime(file, (0, 0))
    make_key(tmp_path, replace(ORDER, purpose="other"), site="ash")
    assert not file.exists()
    with pytest.raises(BadInput, match="it has sealed nothing under these terms"):
        open_total(tmp_path, OpenOrder("r", 3, "test", terms.digest), site="ash")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: replace(t, directory=(*DIRECTORY[:2], Block("brier", 1, 39))), None),
        (lambda t: replace(t, directory=DIRECTORY[:2]), "block brier: asked and counted blocks differ"),
        (lambda t: replace(t, directory=(*DIRECTORY, DIRECTORY[0])), "block positives is in the directory twice"),
        (lambda t: replace(t, keys=(*t.keys, t.keys[-1])), "site elm is in the roster twice"),
        (lambda t: replace(t, keys=t.keys[:2]), "2 sites .ash, birch. are too few"),
        (lambda t: replace(t, keys=(t.keys[0], replace(t.keys[0], site="birch"), *t.keys[2:])), "have the same key"),
        (lambda t: replace(t, keys=(t.keys[0], SiteKey("birch", "0" * 64), *t.keys[2:])), "of low order"),
    ],
)
def test_terms_that_were_changed_for_one_site(tmp_path: Path, change: Any, expected: str | None) -> None:
    """The site refuses in one line; where the terms are sound by themselves, it is not ready for the others'."""
    sites = sites_at(tmp_path, 4)
    sites.tamper = lambda terms, site: change(terms) if site == "ash" else terms
    if expected is None:
        with pytest.raises(DroppedOut, match="ash: site ash: it has sealed nothing under these terms") as caught:
            sum_once(sites, sites.numbers, DIRECTORY, **ABOUT)
        assert (list(caught.value.failures), sites.seen_openings) == (["ash"], {})
        return
    with pytest.raises(DroppedOut, match=expected) as caught:
        sum_once(sites, sites.numbers, DIRECTORY, **ABOUT)
    assert list(caught.value.failures) == ["ash"]
    assert "\n" not in str(caught.value)


RUNS = int(os.environ.get("SONOFED_VIEWS", "12"))


def views(base: Path, *, count: int = 4) -> Iterator[tuple[Sites, Terms]]:
    for run in range(RUNS):
        sites = sites_at(base / str(run), count)
        secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT)
        yield sites, sites.terms_seen[-1]


def uniformity(words: Words) -> float:
    """The smallest of three p-values that words (n,) are uniform:
    bytes by chi-square, size by Kolmogorov–Smirnov, bits.
    """
    flat = words.ravel()
    octets = np.bincount(flat.view(np.uint8), minlength=256)
    bits = (flat[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).sum(axis=0)
    return min(
        float(stats.chisquare(octets).pvalue),
        float(stats.kstest(flat / 2.0**64, "uniform").pvalue),
        float(stats.chi2.sf(np.sum((bits - len(flat) / 2) ** 2 / (len(flat) / 4)), 64)),
    )


def coalition_view(sites: Sites, terms: Terms, *, site: str, friend: str, private: dict[str, bytes]) -> Words:
    """What is left of `site` for a server to whom every site but `site` and `friend` told its secrets."""
    keys = {key.site: key for key in terms.keys}
    known = {
        other: common.masks.pair_mask(private[other], keys[site], site=other, terms=terms)
        for other in terms.sites
        if other not in (site, friend)
    }
    return honest_view(sites, terms, site, known=known)


@pytest.fixture
def made_keys(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], bytes]:
    """Every private key that sites make, by site and public key."""
    made: dict[str, bytes] = {}
    real = common.masks.public_key

    def remembering(private: bytes) -> str:
        made[real(private)] = private
        return real(private)

    monkeypatch.setattr(client.secure_sums, "public_key", remembering)
    return made  # type: ignore[return-value]


def collected(base: Path, made: Any, *, site: str = "ash", friend: str = "cedar") -> dict[str, Words]:
    """One site's words over many runs: as sent, without its own mask,
    and without all masks but that with its friend.
    """
    found: dict[str, list[Words]] = {"sent": [], "opened": [], "coalition": []}
    for sites, terms in views(base):
        private = {key.site: made[key.public] for key in terms.keys}
        found["sent"].append(sites.seen_seals[site, terms.digest])
        found["opened"].append(honest_view(sites, terms, site, known={}))
        found["coalition"].append(coalition_view(sites, terms, site=site, friend=friend, private=private))
    return {name: np.stack(words) for name, words in found.items()}


def test_the_servers_view_of_one_site_is_uniform(tmp_path: Path, made_keys: Any) -> None:
    found = collected(tmp_path, made_keys)
    clear = encode(DIRECTORY, numbers_of("ash"), sites=4)
    for words in found.values():
        assert uniformity(words) > ALMOST_NEVER
        assert (
            uniformity(words[:-1] - words[1:]) > ALMOST_NEVER
        )  # the same numbers twice: their difference tells nothing
    assert uniformity(np.tile(clear, (RUNS, 1))) < ALMOST_NEVER


@pytest.mark.parametrize("left_out", ["own", "pair", "all pairs"])
def test_the_view_is_not_uniform_where_a_mask_is_left_out(
    tmp_path: Path, made_keys: Any, monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """Left out on both sides, so that the total is still exact: only the view tells."""

    def without(private: bytes, key: SiteKey, *, site: str, terms: Terms) -> Words:
        mask = pair_mask(private, key, site=site, terms=terms)
        return mask * np.uint64(left_out == "own" or (left_out == "pair" and {site, key.site} != {"ash", "cedar"}))

    monkeypatch.setattr(common.masks, "pair_mask", without)
    if left_out == "own":
        monkeypatch.setattr(client.secure_sums, "new_secret", Fixed())
    found = collected(tmp_path, made_keys)
    told = {"own": "late", "pair": "coalition", "all pairs": "opened"}[left_out]
    if told == "late":
        seeds = {json.dumps(words.tolist()) for words in found["sent"] - found["opened"]}
        assert len(seeds) == 1  # a mask that everybody knows: a late answer could be had by subtraction
    else:
        assert uniformity(found[told]) < ALMOST_NEVER


class Fixed:
    """Private keys as ever, the seed of the own mask always the same."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bytes:
        self.calls += 1
        return os.urandom(32) if self.calls % 2 else bytes(32)


def test_no_mask_is_ever_used_twice(tmp_path: Path) -> None:
    sites = sites_at(tmp_path, 4, seal=[{"elm"}])
    secure_totals(sites, sites.numbers, DIRECTORY, **ABOUT)
    secure_totals(sites, {"ash", "birch", "cedar"}, DIRECTORY, **ABOUT)
    seen = [sites.seen_seals["ash", terms.digest] for terms in sites.terms_seen]
    assert len(seen) == 3
    assert len({json.dumps(words.tolist()) for words in seen}) == 3
    assert len({key.public for terms in sites.terms_seen for key in terms.keys}) == 4 + 3 + 3

"""The shift panel on small data, and its cards."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import pytest
from scipy import linalg, stats

from client.shift import Patients
from common.shift import DESCRIPTORS, ShiftSums
from server.repairs import Repaired
from server.results import Row
from server.shift import compare_centers
from server.shift_card import make_cards
from server.shift_features import classify, frechet_distance
from tests.shift_trials import sums_of

D, F = len(DESCRIPTORS), 12
MIXING = np.random.default_rng(0).standard_normal((D + F, D + F)) / 4 + np.eye(D + F)


def center(seed: int, count: int = 120, *, moved: float = 0.0, seen: float = 0.0, prevalence: float = 0.5) -> Patients:
    """Correlated normal values; `moved` adds to a feature, `seen` to a descriptor, in standard deviations or so."""
    rng = np.random.default_rng(seed)
    classes = (rng.random(count) < prevalence).astype(np.int64)
    values = rng.standard_normal((count, D + F)) @ MIXING + 0.7 * classes[:, None]
    values[:, D] += moved
    values[:, 2] += seen
    return Patients(values, classes)


def panel(**changes: float) -> dict[str, Patients]:
    """Four centers alike and `odd`, which has the changes."""
    return {**{f"site-{i}": center(i) for i in range(4)}, "odd": center(9, **changes)}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"seen": 1.0}, "acquisition"),
        ({"prevalence": 0.75}, "prevalence"),
        ({"moved": 2.5}, "case mix"),
        ({}, "none"),
    ],
)
def test_the_cause_is_named_and_only_at_the_center_that_differs(changes: dict[str, float], cause: str) -> None:
    rng = np.random.default_rng(1)
    sums, reference = sums_of(panel(**changes), rng)
    found = compare_centers(sums, reference, rng=rng)
    assert found["odd"].verdict == cause
    assert {found[f"site-{i}"].verdict for i in range(4)} == {"none"}
    if cause != "none":
        assert all("odd" not in found[f"site-{i}"].against for i in range(4))


def test_without_shift_few_panels_name_a_cause() -> None:
    """100 panels of three centers of 40 patients: at a rate of 5 %, 12 or more have a probability of .004."""
    alarms = 0
    for run in range(100):
        rng = np.random.default_rng([5, run])
        sums, reference = sums_of({f"site-{i}": center(1000 * run + i, 40) for i in range(3)}, rng)
        alarms += any(one.verdict != "none" for one in compare_centers(sums, reference, rng=rng, draws=999).values())
    assert alarms < 12


def test_the_discrepancys_usual_value_is_that_of_centers_alike() -> None:
    """Of 60 panels without shift about 3 lie above it; 10 or more have a probability of .001."""
    above = 0
    for run in range(60):
        rng = np.random.default_rng([12, run])
        sums, reference = sums_of({f"site-{i}": center(1000 + 100 * run + i, 60) for i in range(2)}, rng)
        one = compare_centers(sums, reference, rng=rng, draws=499)["site-0"]
        assert one.usual_discrepancy > 0
        assert (one.statistic["case mix"] > one.usual_discrepancy) == (one.p["case mix"] <= 0.05)
        above += one.statistic["case mix"] > one.usual_discrepancy
    assert above < 10


def test_two_centers_differ_from_each_other() -> None:
    rng = np.random.default_rng(2)
    sums, reference = sums_of({"a": center(0), "b": center(1, seen=1.5)}, rng)
    found = compare_centers(sums, reference, rng=rng)
    assert [found[name].verdict for name in ("a", "b")] == ["acquisition", "acquisition"]
    with pytest.raises(ValueError, match="no other center"):
        compare_centers({"a": sums["a"]}, reference, rng=rng)


def test_a_center_outside_the_reference_is_compared_and_not_compared_with() -> None:
    rng = np.random.default_rng(3)
    sums, reference = sums_of(panel(seen=1.5), rng)
    found = compare_centers(sums, reference, rng=rng, against=[f"site-{i}" for i in range(4)])
    assert found["odd"].against == ("site-0", "site-1", "site-2", "site-3")
    assert all("odd" not in one.against for one in found.values())
    assert found["odd"].verdict == "acquisition"


def test_a_reference_of_a_single_center_is_enough() -> None:
    rng = np.random.default_rng(4)
    sums, reference = sums_of(panel(seen=1.5), rng)
    found = compare_centers(sums, reference, rng=rng, against=["site-0"])
    assert sorted(found) == ["odd", "site-1", "site-2", "site-3"]
    assert all(one.against == ("site-0",) for one in found.values())


def test_z_is_welchs_test_of_standardised_means() -> None:
    """With one class, each descriptor's z has the p of scipy's Welch test."""
    rng = np.random.default_rng(4)
    sites = {name: Patients(center(i).values, np.zeros(120, dtype=np.int64)) for i, name in enumerate("ab")}
    sums, reference = sums_of(sites, rng)
    found = compare_centers(sums, reference, rng=rng)["a"]
    expected = stats.ttest_ind(sites["a"].values[:, :D], sites["b"].values[:, :D], equal_var=False).pvalue
    z = found.z[reference.coordinates.descriptors]
    np.testing.assert_allclose(2 * stats.norm.sf(np.abs(z)), expected, rtol=0.01)


def test_frechet_against_scipy_and_its_null() -> None:
    rng = np.random.default_rng(6)
    sums, reference = sums_of(panel(moved=3.0), rng)
    where, q = reference.coordinates, reference.axes.shape[1]
    others = {name: one for name, one in sums.items() if name != "odd"}
    found = frechet_distance(sums["odd"], others, reference, rng=rng)
    (m1, c1), (m2, c2) = (gaussian(mean, where, q) for mean in (sums["odd"].mean, pooled(others)))
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2)).real
    assert found.distance == pytest.approx(expected, rel=1e-6)
    assert found.p < 0.02
    alike = frechet_distance(sums["site-0"], {"site-1": sums["site-1"]}, reference, rng=rng)
    assert alike.distance > 0.05
    assert alike.p > 0.05


def pooled(others: dict[str, ShiftSums]) -> np.ndarray:
    total = sum(one.patients for one in others.values())
    return np.asarray(sum(one.patients / total * one.mean for one in others.values()))


def gaussian(mean: np.ndarray, where: object, q: int) -> tuple[np.ndarray, np.ndarray]:
    along, products = mean[where.axes], mean[where.products]  # type: ignore[attr-defined]
    moment = np.zeros((q, q))
    moment[np.triu_indices(q)] = products
    moment = moment + np.triu(moment, 1).T
    return along, moment - np.outer(along, along)


def test_the_classifier_tells_a_moved_center_and_not_a_like_one() -> None:
    rng = np.random.default_rng(7)
    sums, reference = sums_of(panel(moved=2.5), rng)
    alike = [sums[f"site-{i}"] for i in range(4)]
    moved = classify(sums["odd"], alike, reference)
    assert moved.auc > 0.65
    assert moved.p < 0.001
    ps = []
    for run in range(60):
        rng = np.random.default_rng([8, run])
        sums, reference = sums_of({f"site-{i}": center(100 * run + i, 60) for i in range(3)}, rng)
        ps.append(classify(sums["site-0"], [sums["site-1"], sums["site-2"]], reference).p)
    assert stats.kstest(ps, "uniform").pvalue > 0.001


def test_a_card_says_it_in_four_sentences_and_goes_to_json() -> None:
    rng = np.random.default_rng(9)
    sums, reference = sums_of(panel(seen=1.5), rng)
    rows = [*(row_of(f"site-{i}", 0.84) for i in range(4)), row_of("odd", 0.71, slope=0.6, intercept=-0.4)]
    cards = {card.site: card for card in make_cards(sums, reference, rng=rng, rows=rows)}
    odd, other = cards["odd"], cards["site-0"]
    assert odd.verdict == "acquisition"
    assert odd.along[0].name == DESCRIPTORS[2]
    assert odd.how_far.startswith("odd differs from site-0, site-1, site-2 and site-3 (p ")
    assert "SD higher" in odd.along_what
    assert "AUC is .71 here, .84 at site-0, site-1, site-2 and site-3, the mean of theirs" in odd.what_it_did
    assert "slope .60 (1 is right), intercept −.40 (0" in odd.what_it_did
    assert "harmonisation" in odd.what_to_do
    assert other.verdict == "none"
    assert "cannot be told from" in other.how_far
    assert "calibration is not known" in other.what_it_did
    assert json.loads(json.dumps(odd.to_json()))["performance"]["auc"] == 0.71


def row_of(
    site: str,
    auc: float | None,
    *,
    protocol: str = "leave-one-center-out",
    slope: float | None = None,
    intercept: float | None = None,
) -> Row:
    absent: dict[str, Any] = {field.name: None for field in fields(Row) if field.default is MISSING}
    about = {"arm": "federated", "protocol": protocol, "seed": 0, "site": site, "held_out": True, "trained_on": ()}
    return Row(**{**absent, **about, "auc": auc, "calibration_slope": slope, "calibration_intercept": intercept})


def test_a_card_reads_the_rows_of_the_centers_it_was_compared_with() -> None:
    """The odd center is taken out of the others' reference, and so is its AUC."""
    rng = np.random.default_rng(9)
    sums, reference = sums_of(panel(seen=1.5), rng)
    areas = {"site-0": 0.91, "site-1": 0.81, "site-2": 0.77, "site-3": 0.7, "odd": 0.5}
    rows = [row_of(site, auc) for site, auc in areas.items()]
    rows += [row_of(site, 0.99, protocol="in-federation") for site in areas]
    cards = {card.site: card for card in make_cards(sums, reference, rng=rng, rows=rows, trained=["site-0"])}
    told = cards["site-0"]
    assert told.against == ("site-1", "site-2", "site-3")
    assert told.performance.auc_reference == pytest.approx(0.76)
    assert told.what_it_did.startswith(
        "AUC is .91 here, .76 at site-1, site-2 and site-3, the mean of theirs (each center under the model that left "
        "it out, so the models differ; the difference has no interval)"
    )
    assert "trained on other patients of this center: AUC and calibration are of another one" in told.which_model
    assert "had no patient of this center" in cards["odd"].which_model
    unknown = [*rows[:4], row_of("odd", 0.5)]
    unknown[1] = row_of("site-1", None)
    cards = {card.site: card for card in make_cards(sums, reference, rng=rng, rows=unknown)}
    assert cards["site-0"].performance.auc_reference is None
    assert "at site-1, site-2 and site-3 it is not known" in cards["site-0"].what_it_did


def test_of_two_centers_that_are_left_neither_is_accused_alone() -> None:
    """The odd one of three leaves first; of two, both cards name the other. With three alike no card does."""
    rng = np.random.default_rng(9)
    three = {"a": center(1), "b": center(2, seen=1.0), "c": center(3, seen=-1.5)}
    cards = {card.site: card for card in make_cards(*sums_of(three, rng), rng=rng)}
    assert "none" not in [cards[site].verdict for site in "abc"]
    assert [cards[site].or_other for site in "abc"] == ["b", "a", None]
    for site in "ab":
        assert cards[site].how_far.endswith("the data cannot tell which of the two differs.")
    assert "cannot tell which" not in cards["c"].how_far
    alike = make_cards(*sums_of({name: center(i) for i, name in enumerate("abc")}, rng), rng=rng)
    assert [card.or_other for card in alike] == [None] * 3


def test_a_center_outside_the_reference_is_not_its_only_references_double() -> None:
    """A held-out center that differs from the one that trained: that one was compared with nobody, and is not named."""
    rng = np.random.default_rng(9)
    sums, reference = sums_of({"trained": center(1), "outside": center(2, seen=1.5)}, rng)
    (card,) = make_cards(sums, reference, rng=rng, against=["trained"])
    assert (card.site, card.verdict, card.or_other) == ("outside", "acquisition", None)


def test_a_card_names_what_the_advised_repair_gave() -> None:
    rng = np.random.default_rng(9)
    sums, reference = sums_of(panel(seen=1.5), rng)
    about = {"protocol": "leave-one-center-out", "seed": 0, "trained_on": ("site-0",)}
    measured = [
        Repaired(site="odd", repair="none", auc=0.71, calibration_intercept=-0.4, **about),
        Repaired(site="odd", repair="intensity", delta_auc=0.0312, delta_low=0.01, delta_high=0.05, **about),
        Repaired(site="odd", repair="amplitude", why="no-reference", **about),
        Repaired(site="odd", repair="prior", prior=(0.3, 0.7), calibration_intercept=-0.1, **about),
    ]
    cards = {card.site: card for card in make_cards(sums, reference, rng=rng, repairs=measured)}
    assert cards["odd"].verdict == "acquisition"
    assert cards["odd"].what_to_do.endswith(
        "Measured here: intensity harmonisation changes AUC by .031 (.010 to .050)."
    )
    assert "Measured" not in cards["site-0"].what_to_do

"""Secure sums at the full count: exact totals over random federations, and what the server sees of one site."""

from __future__ import annotations

__all__ = ["sums_deployed", "sums_exact", "sums_rosters", "sums_uniform"]

from tests.prove.finding import Finding, by_pytest

FEDERATIONS, VIEWS = 1_000, 1_000


def sums_deployed() -> Finding:
    """Real clients over TLS that sign their keys and know each other's; one is killed once its sums are sealed."""
    want = "the rows of the in-process grid, from 4 deployed sites and from the 3 that are left when one is killed "
    want += "between seal and open"
    return by_pytest("tests/faults/test_deployed_sums.py", want=want, value=4)


def sums_exact() -> Finding:
    """Totals over random shapes, numbers, sites and dropouts."""
    return by_pytest(
        "tests/server/test_secure_sums.py::test_totals_are_exact_whoever_drops_out",
        want=f"{FEDERATIONS} random federations: every total exact, or too few sites left and named",
        value=FEDERATIONS,
        SONOFED_SUMS=str(FEDERATIONS),
    )


def sums_rosters() -> Finding:
    """Sites lost at any moment, and a server that sends any message at any time."""
    return by_pytest(
        "tests/server/test_sums_reopened.py",
        want=f"{FEDERATIONS} random losses: the total of those named as counted, everybody lost named; "
        f"{FEDERATIONS} hostile orders: no site opens for two rosters",
        value=FEDERATIONS,
        SONOFED_SUMS=str(FEDERATIONS),
    )


def sums_uniform() -> Finding:
    """The server's view of one site over many evaluations of the same numbers,
    and of its difference from run to run.
    """
    return by_pytest(
        "tests/server/test_secure_sums.py::test_the_servers_view_of_one_site_is_uniform",
        want=f"{VIEWS} evaluations: bytes, sizes and bits of a site's words are uniform at p > 1e-9, each way of "
        "looking",
        value=VIEWS,
        SONOFED_VIEWS=str(VIEWS),
    )

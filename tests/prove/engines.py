"""One experiment on every engine: the same weights."""

from __future__ import annotations

__all__ = ["engines_agree", "ray_agrees"]

from tests.prove.finding import Finding, by_pytest

_DEPLOYMENT = "tests/faults/test_deployment.py"


def engines_agree() -> Finding:
    """In-process, and one SuperLink with three SuperNodes on loopback over TLS."""
    test = f"{_DEPLOYMENT}::test_a_deployment_gives_the_weights_of_the_in_process_grid"
    return by_pytest(test, want="the same sha256 of the weights, in-process and deployed", value=1)


def ray_agrees() -> Finding:
    """In-process, and Flower's simulation engine."""
    test = f"{_DEPLOYMENT}::test_ray_gives_the_weights_of_the_in_process_grid"
    return by_pytest(test, want="the same sha256 of the weights, in-process and on Ray", value=1)

"""Both ways through a normalisation: the compiled loops, and torch's own layers."""

from __future__ import annotations

import pytest

import common.convolution
import common.maps
from common.maps import compiled


@pytest.fixture(params=["compiled", "torch"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs once with the loops, skipped by name where they were not built, and once without."""
    if request.param == "torch":
        monkeypatch.setattr(common.maps, "compiled", lambda: None)
        monkeypatch.setattr(common.convolution, "unit_is_there", lambda: False)
    elif compiled() is None:
        pytest.skip("the compiled loops are not built here")
    return str(request.param)

"""Every number's definition is one hover away: on a page with every section, each numeric column has a term."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from server.report import write_report
from server.report.glossary import GLOSSARY
from tests.server.report_folder import SITES, Folder
from tests.server.test_report_repairs import _ABOUT, _ROWS
from tests.server.test_report_shift import _CARD

_GROUP: dict[str, Any] = {
    "arm": "federated", "protocol": "leave-one-center-out", "seed": 0, "site": SITES[0], "covariate": "side",
    "level": "left", "n_images": 40, "n_patients": 30, "n_positive": 9, "auc": 0.8, "shares_patients": True,
}  # fmt: skip
_PRIVACY: dict[str, Any] = {
    "unit": "patient", "trains": "all", "clip": 1.0, "insecure_demo": False, "together": {},
    "sites": [{"run": "r", "site": SITES[0], "rounds": [1, 2], "epsilon": [1.0, 2.0], "delta": 1e-4,
               "noise_multiplier": 1.1, "sampling_rate": 0.2, "steps": 20}],
}  # fmt: skip


_REPAIRS = [*_ROWS, {"repair": "amplitude", "auc": 0.8, "delta_auc": -0.01}]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = Folder(tmp_path_factory.mktemp("run"), seeds=1).comparison().records().pictures()
    for row in folder.rows:
        row |= {"auc_variance": 0.001, "observed": 30, "expected": 28.0, "log_oe_variance": 0.02}
        if row["site"] == "all":
            row |= {"auc_federated": 0.8, "auc_federated_bound": 0.01, "auc_mean_of_sites": 0.79}
    for one in folder.contrasts:
        one |= {"delta_federated": -0.01, "low_federated": -0.03, "high_federated": 0.01, "p_federated": 0.2}
    run = folder.write()
    results = json.loads((run / "results.json").read_text())
    results |= {"shift": [_CARD | {"discrepancy_usual": 0.004}], "repairs": [_ABOUT | row for row in _REPAIRS]}
    results |= {"subgroups": [_GROUP], "privacy": _PRIVACY}
    results["provenance"]["artificial_sites"] = [SITES[0]]
    (run / "results.json").write_text(json.dumps(results))
    return write_report(run).read_text(encoding="utf-8")


def test_every_numeric_column_has_a_definition(html: str) -> None:
    """The columns of the matrix are centers: what its cells are stands in its corner."""
    tables = re.findall(r'<table[^>]*data-table="([^"]+)".*?</thead>', html, re.DOTALL)
    assert set(tables) >= {"lead", "measures", "across", "sums", "contrasts", "subgroups", "matrix", "repairs"}
    assert set(tables) >= {"privacy", "budget", "failures"}
    bare = []
    for head in re.findall(r'<table[^>]*data-table="[^"]+".*?</thead>', html, re.DOTALL):
        name = re.search(r'data-table="([^"]+)"', head)
        columns = re.findall(r"<th [^>]*>.*?</th>", head, re.DOTALL)
        numeric = [cell for cell in columns if 'class="n"' in cell]
        assert name is not None
        checked = columns[:1] if name[1] == "matrix" else numeric
        bare += [(name[1], cell) for cell in checked if "data-tip" not in cell]
    assert not bare


def test_every_fact_of_a_card_and_of_the_strip_has_a_definition(html: str) -> None:
    for kind in ("found", "facts"):
        lists = re.findall(rf'<dl class="{kind}">.*?</dl>', html, re.DOTALL)
        names = [name for one in lists for name in re.findall(r"<dt>.*?</dt>", one, re.DOTALL)]
        assert len(names) > 4
        assert not [name for name in names if "data-tip" not in name]


def test_the_discrepancy_stands_beside_its_null(html: str) -> None:
    assert "<dd>.0120; without shift below .0040</dd>" in html


def test_every_definition_is_used_and_every_use_is_defined(html: str) -> None:
    body, _, glossary = html.partition('<section id="glossary">')
    used, defined = set(re.findall(r'"def-(\w+)"', body)), set(re.findall(r'"def-(\w+)"', glossary))
    assert used <= defined
    assert set(GLOSSARY) == defined
    assert not defined - used

"""Every reason that the code gives for a number that is not there has words; none reaches a page as a code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.report import write_report
from server.report.estimates import WHY
from tests.server.report_folder import Folder

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r"[a-z]+(-[a-z]+)*")
NUMBERLESS = {"Estimate", "ClusteredAuc", "Difference", "OwnDifference"}
"""Their last field is the reason."""
ELSEWHERE = ("client/importers", "client/check")
"""Reasons for what is left out of an import or found in a site folder: another vocabulary."""


def words(node: ast.expr | None) -> set[str]:
    """The strings that an expression may be."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return words(body) | words(orelse)
        case ast.BoolOp(values=values) | ast.Tuple(elts=values):
            return set().union(*(words(value) for value in values))
    return set()


def of_call(node: ast.Call) -> set[str]:
    named = [key.value for key in node.keywords if key.arg and re.fullmatch(r"(\w+_)?why", key.arg)]
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return set().union(*map(words, [*named, *(node.args[-1:] if name in NUMBERLESS else [])]))


def of_assignment(node: ast.Assign) -> set[str]:
    found: set[str] = set()
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=True))
        for name, value in pairs:
            if re.fullmatch(r"(\w+_)?why|reasons", getattr(name, "id", "")):
                found |= words(value)
    return found


def of_dictionary(node: ast.Dict) -> set[str]:
    pairs = zip(node.keys, node.values, strict=True)
    return set().union(*(words(value) for key, value in pairs if words(key) == {"why"}))


def of_function(node: ast.FunctionDef) -> set[str]:
    if not re.search(r"\bno_|why", f"{node.name} {ast.get_docstring(node) or ''}"):
        return set()
    return set().union(*(words(n.value) for n in ast.walk(node) if isinstance(n, ast.Return)))


def given(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call():
                yield from of_call(node)
            case ast.Assign():
                yield from of_assignment(node)
            case ast.Dict():
                yield from of_dictionary(node)
            case ast.FunctionDef():
                yield from of_function(node)


def reasons() -> set[str]:
    """The codes that a `why` may hold, read from the source of the four rooms."""
    files = (f for room in ("common", "client", "server", "simulation") for f in (ROOT / room).rglob("*.py"))
    there = (f for f in files if not f.relative_to(ROOT).as_posix().startswith(ELSEWHERE))
    return {text for path in there for text in given(path) if CODE.fullmatch(text)}


def test_every_reason_has_words() -> None:
    found = reasons()
    known = {
        "from-sums",
        "no-threshold",
        "constant",
        "one-class",
        "secure",
        "other-crops",
        "masked-only",
    }
    assert known <= found, "the source is read as it should be"
    assert found <= set(WHY)
    assert not [text for text in WHY.values() if CODE.fullmatch(text)]


@pytest.mark.parametrize("why", ["from-sums", "no-threshold", "constant"])
def test_no_code_reaches_the_page(tmp_path: Path, why: str) -> None:
    folder = Folder(tmp_path, seeds=1)
    for site in (*folder.sites, "all"):
        folder.row("federated", "in-federation", 0, site, folder.sites, auc_low=None, auc_high=None, ece=None, why=why)
    html = write_report(folder.write()).read_text(encoding="utf-8")
    assert f"all centers: 1 result lacks numbers ({WHY[why]})." in html
    assert not re.search(rf"[>(\"]{why}[<)\"]", html)

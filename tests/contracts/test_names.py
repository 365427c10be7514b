"""`__all__` says what a module offers, and it is there, written once and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("common", "client", "server", "simulation")
PATHS = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
NAMED = [path for path in PATHS if path.name != "__main__.py"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", PATHS, ids=relative)
def test_a_module_says_what_it_is_and_offers(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "no docstring"
    defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign) for node in tree.body)
    offers = any(
        isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
        for node in tree.body
    )
    assert offers or not defines, "no __all__"


@pytest.mark.parametrize("path", NAMED, ids=relative)
def test_what_a_module_offers_is_there_and_documented(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        offered = getattr(module, name)
        if (inspect.isfunction(offered) or inspect.isclass(offered)) and offered.__module__ == module.__name__:
            assert offered.__doc__, f"{name} has no docstring"

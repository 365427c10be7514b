"""Plain data to frozen dataclasses and back: an unknown key fails with its path and the nearest known one."""

from __future__ import annotations

__all__ = ["parse", "to_table"]

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from common.errors import BadInput, suggest

_T = TypeVar("_T")


def parse(kind: type[_T], table: Any, *, where: str) -> _T:
    """Check `table` against the dataclass `kind`; BadInput names `where`, the key's path and the way out."""
    try:
        return TypeAdapter(kind).validate_python(table)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_complaint(kind, error)}") from None
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _first_complaint(kind: type, error: ValidationError) -> str:
    detail = error.errors()[0]
    tags = {"adamw", "sgd", "fedavg", "fedprox", "none", "patient", "image", "hospital"}
    path = [str(part) for part in detail["loc"]]
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _keys_at(kind, detail["loc"][:-1])
        return f"{'.'.join(path)}: unexpected key{suggest(path[-1], known)}"
    if detail["type"] in ("missing", "missing_argument"):
        return f"{'.'.join(path)}: this key is missing; add it"
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_kind(path, detail)
    path = [part for i, part in enumerate(path) if not (part in tags and i > 0)] or ["the file"]
    message = detail["msg"].removeprefix("Value error, ")
    given = detail.get("input")
    shown = f" (it says {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{'.'.join(path)}: {message}{shown}"


def _wrong_kind(path: list[str], detail: ErrorDetails) -> str:
    given = detail.get("ctx", {}).get("tag")
    if given is None:
        return f"{'.'.join(path)}.kind: this key is missing; add it"
    known = [tag.strip(" '") for tag in str(detail["ctx"]["expected_tags"]).split(",")]
    return f"{'.'.join(path)}.kind: {given!r} is none of {', '.join(known)}{suggest(str(given), known)}"


def _keys_at(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The keys that the schema knows at `path`; tags of unions stand in pydantic's paths and choose the member."""
    from typing import get_args, get_type_hints

    for part in path:
        if isinstance(part, int):
            continue
        candidates = _members(kind)
        tagged = [c for c in candidates if getattr(c, "kind", None) == part]
        if tagged:
            kind = tagged[0]
            continue
        hints = next(
            (get_type_hints(c, include_extras=False) for c in candidates if hasattr(c, "__dataclass_fields__")), {}
        )
        kind = hints.get(str(part), object)
        while get_args(kind) and not any(is_dataclass(a) for a in _members(kind)):
            kind = get_args(kind)[0]
    return [f.name for c in _members(kind) if is_dataclass(c) for f in fields(c)]


def _members(kind: Any) -> list[Any]:
    from typing import get_args

    return [m for a in get_args(kind) for m in _members(a)] if get_args(kind) else [kind]


def to_table(value: Any) -> Any:
    """A dataclass as plain TOML or JSON values. None is left out where it is the default, else it is `"none"`."""
    if is_dataclass(value) and not isinstance(value, type):
        told = [
            (f.name, getattr(value, f.name))
            for f in fields(value)
            if f.default is not None or getattr(value, f.name) is not None
        ]
        return {name: "none" if item is None else to_table(item) for name, item in told}
    if isinstance(value, dict):
        return {key: to_table(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [to_table(item) for item in value]
    return value

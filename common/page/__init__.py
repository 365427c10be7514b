"""One page that opens offline: a template, the common style sheet, and a policy that lets nothing else in."""

from __future__ import annotations

__all__ = ["render_page"]

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


def render_page(template: str, /, *, extra_style: str = "", **context: Any) -> str:
    """Fill a jinja `template`; it is given `style` and `style_sha256`, base64 for its Content-Security-Policy.

    The style is that of every page, then `extra_style`. Values are escaped unless they are Markup; a name that the
    template uses and `context` lacks is an error.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    style = files("common.page").joinpath("style.css").read_text(encoding="utf-8") + extra_style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    filled = environment.from_string(template).render(style=Markup(style), style_sha256=digest, **context)
    return filled.lstrip()

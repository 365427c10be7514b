"""Ids of sites: as a person gives them, or made from what a table calls a center."""

from __future__ import annotations

__all__ = ["as_site_id", "given_site_id"]

import re
import unicodedata

from common.errors import BadInput


def given_site_id(text: str | None, *, format: str) -> str:
    """The id that the option --site gives. Raises BadInput where it is absent or cannot be one."""
    if text is None:
        raise BadInput(f"the format {format} needs the site's id; give --site, such as --site center-1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise BadInput(f"--site: {text!r} is no id; use at most 63 lower-case letters, digits and hyphens")
    return text


def as_site_id(text: str, *, where: str) -> str:
    """`Klinik Süd 2` as klinik-sud-2. Raises BadInput where no letter or digit is left, or too many."""
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    spelled = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not 1 <= len(spelled) <= 63:
        raise BadInput(f"{where}: the site has no name of 1 to 63 letters and digits; correct the table")
    return spelled

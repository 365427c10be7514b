"""Small pictures for the page, as data URIs; only images that can be decoded, each read again from the site."""

from __future__ import annotations

__all__ = ["Marks", "Thumbnail", "thumbnail"]

import base64
import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from client.check.images import Examined
from client.check.table import Cases
from client.pictures import open_gray
from common.errors import BadInput

Marks = Literal["box", "calipers", "none"]
"""What is drawn into a thumbnail."""

_SIDE = 200
_BOX, _MARK = (86, 180, 233), (242, 156, 85)


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI and what stands under it."""

    uri: str
    row: int
    label: str
    side: str


def thumbnail(cases: Cases, examined: Examined, case: int, *, marks: Marks = "none") -> Thumbnail | None:
    """A case of at most 200 pixels a side, with its box or its suspected calipers drawn in;
    None where it is unreadable.
    """
    row = cases.rows[case]
    if examined.size is None:
        return None
    try:
        image = open_gray((cases.folder / row["image"]).read_bytes(), where="image").convert("RGB")
    except (OSError, BadInput):
        return None
    scale = min(1.0, _SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(small)
    box = cases.boxes[case]
    if marks == "box" and box is not None:
        left, top = box.x * scale, box.y * scale
        draw.rectangle((left, top, left + box.width * scale, top + box.height * scale), outline=_BOX)
    if marks == "calipers":
        for down, right in examined.suspicion.marks:
            draw.ellipse(
                (right * scale - 7, down * scale - 7, right * scale + 7, down * scale + 7), outline=_MARK, width=2
            )
    return Thumbnail(_uri(small), case + 2, row["label"], cases.sides[case] or "–")


def _uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

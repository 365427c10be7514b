"""One look at each image and mask: bytes, pixels, region, brightness, fingerprint, calipers. Each file is read once."""

from __future__ import annotations

__all__ = ["Examined", "check_images", "examine"]

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from client.check.calipers import NOTHING_SEEN, Suspicion, calipers
from client.check.finding import Finding, found
from client.check.perceptual import Fingerprint, fingerprint
from client.check.table import Cases
from client.pictures import mask_box, open_gray
from client.site import is_within
from common.errors import BadInput
from common.files import sha256_bytes

_FLAT = 1.0
"""Standard deviation in gray levels below which an image shows nothing."""
_DOMINANT = 0.95
"""Share of pixels of one gray level from which on an image is nearly empty."""
_BLANK = ("constant", "nearly-empty")


@dataclass(frozen=True)
class Examined:
    """What one look at a case gave; None where the image could not be read.

    `size` is (width, height), `pixels` a SHA-256 over size and gray values, `mean` and `deviation` in gray levels,
    `topics` what is wrong.
    """

    size: tuple[int, int] | None = None
    pixels: str | None = None
    mean: float | None = None
    deviation: float | None = None
    fingerprint: Fingerprint | None = None
    suspicion: Suspicion = NOTHING_SEEN
    topics: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether there is a picture that could be a copy of another."""
        return self.fingerprint is not None and not set(self.topics) & set(_BLANK)


def examine(cases: Cases, case: int) -> Examined:
    """Look at one case; what is wrong becomes a topic, never an error."""
    image, topics = _opened(cases, case, "image", unreadable="unreadable")
    seen = Examined() if image is None else _described(image)
    topics += seen.topics
    if image is not None and (box := cases.boxes[case]) is not None and not box.inside(image.size):
        topics.append("box-outside")
    if cases.rows[case]["mask"]:
        topics += _mask_topics(cases, case, image)
    return replace(seen, topics=tuple(topics))


def check_images(examined: Sequence[Examined]) -> list[Finding]:
    """One finding for each topic, over all cases that have it."""
    cases: dict[str, list[int]] = defaultdict(list)
    for case, seen in enumerate(examined):
        for topic in seen.topics:
            cases[topic].append(case)
    return [finding for topic in cases for finding in found(topic, cases[topic])]


def _opened(cases: Cases, case: int, kind: str, *, unreadable: str) -> tuple[Image.Image | None, list[str]]:
    """The decoded gray file of a case, and what is wrong with it."""
    row = cases.rows[case]
    if not row[kind] or not is_within(cases.folder.resolve(), row[kind]):
        return None, ["file-outside" if row[kind] else "file-missing"]
    try:
        content = (cases.folder / row[kind]).read_bytes()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None, ["file-missing"]
    topics = [] if sha256_bytes(content) == row[f"{kind}_sha256"] else ["checksum"]
    try:
        return open_gray(content, where=kind), topics
    except BadInput:
        return None, [*topics, unreadable]


def _described(image: Image.Image) -> Examined:
    gray = np.asarray(image)
    levels = np.array(image.histogram(), dtype=np.float64) / gray.size
    mean = float(levels @ np.arange(256))
    deviation = float(np.sqrt(levels @ (np.arange(256) - mean) ** 2))
    flat = deviation < _FLAT
    return Examined(
        size=image.size,
        pixels=sha256_bytes(repr(image.size).encode() + gray.tobytes()),
        mean=mean,
        deviation=deviation,
        fingerprint=fingerprint(image),
        suspicion=calipers(gray),
        topics=("constant",) if flat else ("nearly-empty",) if levels.max() > _DOMINANT else (),
    )


def _mask_topics(cases: Cases, case: int, image: Image.Image | None) -> list[str]:
    mask, topics = _opened(cases, case, "mask", unreadable="mask-unreadable")
    if mask is None:
        return topics
    if image is not None and mask.size != image.size:
        return [*topics, "mask-size"]
    if mask.getbbox() is None:
        return [*topics, "mask-empty"]
    around, box = mask_box(mask), cases.boxes[case]
    if box is not None and not (
        box.x < around.x + around.width
        and around.x < box.x + box.width
        and box.y < around.y + around.height
        and around.y < box.y + box.height
    ):
        topics.append("box-mask")
    return topics

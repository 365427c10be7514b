"""The audit's page, and its lines for a terminal."""

from __future__ import annotations

__all__ = ["as_text", "write_page"]

import base64
import struct
import zlib
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from common.page import render_page
from common.page.drawing import group, line, path, svg, text

if TYPE_CHECKING:
    from simulation.audit import Audit
    from simulation.audit.membership import Attack

_SIZE, _EDGE = 260.0, 36.0


def as_text(found: Audit) -> str:
    """The findings in five lines."""
    plain, private = found.membership["without privacy"], found.membership["with privacy"]
    return "\n".join(
        [
            f"canaries: made for ε = {found.epsilon:g}; {len(found.bounds)} games of {found.canaries} canary patients "
            f"prove ε > {max(found.bounds):.2f} at most ({'holds' if found.holds else 'DOES NOT HOLD'})",
            f"membership (LiRA, {plain.others} non-members): true positives at 1 % false ones "
            f"{plain.tpr:.3f} without privacy, {private.tpr:.3f} with {found.asked}; AUC {plain.auc:.3f} and "
            f"{private.auc:.3f}",
            "gradient inversion: similarity to the image "
            + ", ".join(f"{value:.2f} {name}" for name, value in found.similarity.items()),
        ]
    )


def write_page(found: Audit, pictures: Mapping[str, NDArray[np.uint8]]) -> str:
    """The page as HTML; `pictures` are gray, by what they show."""
    template = files("simulation.audit").joinpath("page.html.jinja").read_text(encoding="utf-8")
    shown = [(name, _png(image), found.similarity.get(name)) for name, image in pictures.items()]
    return render_page(
        template,
        found=found,
        bounds=[f"{bound:.2f}" for bound in found.bounds],
        largest=f"{max(found.bounds):.2f}",
        attacks=list(found.membership.items()),
        roc=_roc(found.membership),
        pictures=shown,
    )


def _roc(attacks: Mapping[str, Attack]) -> Markup:
    """True against false positives, both from 0 to 1."""

    def x(value: float) -> float:
        return _EDGE + value * (_SIZE - _EDGE - 8)

    def y(value: float) -> float:
        return 8 + (1 - value) * (_SIZE - _EDGE - 8)

    arms = {"without privacy": "pooled", "with privacy": "federated"}
    lines = [
        group(path([(x(a), y(t)) for a, t in attack.curve], class_="line"), class_=f"arm {arms[name]}", title=name)
        for name, attack in attacks.items()
    ]
    words = [text(x(tick), y(0) + 16, f"{tick:g}", class_="tick", anchor="middle") for tick in (0, 0.5, 1)] + [
        text(x(0) - 6, y(tick) + 4, f"{tick:g}", class_="tick", anchor="end") for tick in (0, 0.5, 1)
    ]
    return svg(
        line(x(0), y(0), x(1), y(1), class_="chance"),
        *lines,
        *words,
        width=_SIZE,
        height=_SIZE,
        title="Membership inference: true against false positives",
        class_="square",
    )


def _png(image: NDArray[np.uint8]) -> Markup:
    """A gray picture as the source of an <img>; four times as large, pixel by pixel."""
    large = np.kron(image, np.ones((4, 4), np.uint8))
    raw = b"".join(b"\0" + row.tobytes() for row in large)
    header = struct.pack(">IIBBBBB", large.shape[1], large.shape[0], 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    )
    return Markup("data:image/png;base64," + base64.b64encode(content).decode())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

"""Where the lesion lies in an image: a rectangle of whole pixels."""

from __future__ import annotations

__all__ = ["Box"]

from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle of pixels: its first column `x` and row `y`, counted from 0, its width and height, at least 1."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read `x y w h`. Raises ValueError unless these are four whole numbers of a rectangle that is not empty."""
        x, y, width, height = (int(part) for part in text.split())
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise ValueError(f"{text!r} is no rectangle of pixels")
        return cls(x, y, width, height)

    def __str__(self) -> str:
        return f"{self.x} {self.y} {self.width} {self.height}"

    def inside(self, size: tuple[int, int]) -> bool:
        """Whether the rectangle lies wholly in a frame of (width, height) pixels."""
        return self.x + self.width <= size[0] and self.y + self.height <= size[1] and min(self) >= 0

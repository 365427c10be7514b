"""The question that a model answers about an image."""

from __future__ import annotations

__all__ = ["Task"]

from dataclasses import dataclass

from common.errors import BadInput


@dataclass(frozen=True)
class Task:
    """A classification task: `classes` in the order of the model's outputs, `positive` the class that AUC is about."""

    name: str
    classes: tuple[str, ...]
    positive: str

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise BadInput(f"task.classes: {list(self.classes)} must be two or more different names")
        if self.positive not in self.classes:
            raise BadInput(f"task.positive: {self.positive!r} is not one of {list(self.classes)}; name one of them")

    @property
    def positive_index(self) -> int:
        """Where `positive` stands in `classes`."""
        return self.classes.index(self.positive)

    @property
    def questions(self) -> tuple[int, ...]:
        """The classes that are asked for against the rest: the positive one, or with more than two classes each."""
        return (self.positive_index,) if len(self.classes) == 2 else tuple(range(len(self.classes)))

"""The questions that BEHSOF's labels answer.

The tasks, by `--task`. Grades are classes of their own; the binary ones ask for a grade or more:

    steatosis       s0 s1 s2 s3     by the expert    steatosis-s1      s0 | s1-s3       steatosis-s2      s0-s1 | s2-s3
    steatosis-cap   s0 s1 s2 s3     by CAP           steatosis-cap-s1  s0 | s1-s3       steatosis-cap-s2  s0-s1 | s2-s3
    fibrosis        f0 f1 f2 f3 f4  by elastography  fibrosis-f1       f0 | f1-f4       fibrosis-f2       f0-f1 | f2-f4

`positive` is the higher side; of grades it is the highest that the data set is known to hold (s3 and f2).
"""

from __future__ import annotations

__all__ = ["DEFAULT_TASK", "MEASURES", "QUESTIONS", "TASKS", "Measure", "Question"]

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from common.tasks import Task

DEFAULT_TASK = "steatosis-s2"


class Measure(NamedTuple):
    """Something that was graded: its name in messages, its header, the place of its digit in the id,
    its grades' letter and top.
    """

    said: str
    header: str
    digit: int
    letter: str
    top: int


MEASURES: Mapping[str, Measure] = {
    "steatosis": Measure("steatosis by expert", "Steatosis stage", 5, "s", 3),
    "steatosis-cap": Measure("steatosis by CAP", "Fibroscan S", 6, "s", 3),
    "fibrosis": Measure("fibrosis", "Fibroscan F", 7, "f", 4),
}


class Question(NamedTuple):
    """A task, the measure that answers it, and the class of each of the measure's grades."""

    task: Task
    measure: str
    class_of: tuple[str, ...]


def _questions() -> Iterator[Question]:
    for name, measure in MEASURES.items():
        letter, top = measure.letter, measure.top
        grades = tuple(f"{letter}{grade}" for grade in range(top + 1))
        yield Question(Task(name, grades, "s3" if letter == "s" else "f2"), name, grades)
        for cut in (1, 2):
            low, high = f"{letter}0" if cut == 1 else f"{letter}0-{letter}{cut - 1}", f"{letter}{cut}-{letter}{top}"
            class_of = (low,) * cut + (high,) * (top + 1 - cut)
            yield Question(Task(f"{name}-{letter}{cut}", (low, high), high), name, class_of)


QUESTIONS = {question.task.name: question for question in _questions()}
TASKS: Mapping[str, Task] = {name: question.task for name, question in QUESTIONS.items()}
"""The tasks by name."""

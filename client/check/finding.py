"""What a check may find: a fixed vocabulary, so that a topic, its level and its way out may leave the site.

Titles and remedies hold no number, no name and no row; what does stands in a finding's `detail` and `groups`, and
stays.
"""

from __future__ import annotations

__all__ = ["LEVELS", "TOPICS", "Finding", "Level", "Topic", "found", "row_numbers"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

_SHOWN = 6
"""How many rows or pairs a line names."""


class Topic(NamedTuple):
    """One thing that may be found: how grave it is, what it is, the way out."""

    level: Level
    title: str
    remedy: str


_RESTORE = "restore the file or import the site again"
_LOOK = "look at the pictures on the page"

TOPICS: Mapping[str, Topic] = {
    # files
    "file-missing": Topic("error", "an image or mask that cases.csv names is missing", _RESTORE),
    "file-outside": Topic("error", "cases.csv names a file outside the site folder", "import the site again"),
    "checksum": Topic("error", "a file is not what was imported (its SHA-256 differs)", _RESTORE),
    "unreadable": Topic("error", "an image cannot be decoded", _RESTORE),
    "mask-unreadable": Topic("error", "a mask cannot be decoded", _RESTORE),
    "stray-files": Topic(
        "warning",
        "files in the site folder that cases.csv does not name",
        "move them away, or import the site again if they belong to it",
    ),
    "private-mode": Topic("error", "others may enter private/", "run chmod 700 on it"),
    "private-missing": Topic(
        "note", "private/ is missing: nothing links a pseudonym to a patient", "restore it if it was lost"
    ),
    "key-mode": Topic("error", "others may read the pseudonym key", "run chmod 600 on it"),
    "key-inside": Topic("error", "a pseudonym key lies inside the site folder", "move it beside the folder"),
    "key-missing": Topic(
        "note",
        "no pseudonym key lies beside the site folder",
        "fine where it is kept elsewhere; a new import without it renames every patient",
    ),
    "writable": Topic("warning", "others may change site.toml or cases.csv", "run chmod go-w on both"),
    # regions
    "mask-size": Topic("error", "a mask has another size than its image", "correct the mask or leave its cell empty"),
    "mask-empty": Topic("error", "a mask in which no pixel is set", "outline the lesion or leave the cell empty"),
    "box-outside": Topic("error", "a box leaves the image", "correct the box"),
    "box-unread": Topic("error", "a box is not `x y w h` in whole pixels", "correct it or leave it empty"),
    "box-mask": Topic("warning", "box and mask do not meet", "correct one of the two"),
    "no-region": Topic(
        "warning", "neither box nor mask", 'add one; without, an experiment must set crop.region = "frame"'
    ),
    # the table
    "label": Topic("error", "a label that is no class of the task", "correct the label or [task] in site.toml"),
    "split": Topic("error", "a split that is none of train, val, test", "correct the split"),
    "patient-missing": Topic("error", "an image that belongs to no patient", "name its patient"),
    "patient-two-sides": Topic(
        "error", "a patient on two sides of the split", "put all images of a patient on one side"
    ),
    "patient-two-labels": Topic(
        "note", "a patient with images of several classes", "fine where lesions differ; else correct the labels"
    ),
    "covariate": Topic("error", "a covariate that site.toml declares is missing or no number", "correct the table"),
    "class-missing": Topic(
        "warning", "a class without a patient on one side of the split", "results for it cannot be measured there"
    ),
    "class-scarce": Topic(
        "note", "a class with few patients on one side of the split", "its numbers will be wide, or suppressed"
    ),
    "site": Topic("error", "the site cannot be used as it is", "correct what the line names"),
    # copies
    "copies-across-splits": Topic(
        "error", "the same picture on two sides of the split", "keep one copy; every result here would be too good"
    ),
    "copies-two-labels": Topic("error", "the same picture under two classes", "correct the label, keep one copy"),
    "copies-between-patients": Topic(
        "warning", "the same picture under two patients", "join the patients or remove the copy"
    ),
    "copies-within-patient": Topic("note", "the same picture twice within a patient", "remove one copy"),
    "alike-across-splits": Topic(
        "error", "nearly the same picture on two sides of the split", f"{_LOOK}; put both on one side, or keep one"
    ),
    "alike-between-patients": Topic(
        "warning", "nearly the same picture under two patients", f"{_LOOK}; join the patients or remove one"
    ),
    "alike-within-patient": Topic(
        "note", "nearly the same picture twice within a patient", "fine for frames of one clip; they count as little"
    ),
    # pictures
    "constant": Topic("error", "an image without content: one gray level", "take it out of the site"),
    "nearly-empty": Topic("warning", "an image that is nearly all one gray level", _LOOK),
    "calipers": Topic(
        "note", "calipers may be burned into images", f"{_LOOK}; crop to the lesion, or keep such images out"
    ),
    "calipers-tell-class": Topic(
        "warning",
        "calipers may be burned in more often in one class: they would give the label away",
        f"{_LOOK}; leave such images out of training, or test without them",
    ),
    "outlier": Topic("note", "an image unlike the others of its device in size or brightness", _LOOK),
    "size-tells-class": Topic(
        "warning",
        "the frame's size alone tells the class",
        "classes were exported differently; crop to the lesion, never train on whole frames",
    ),
    "brightness-tells-class": Topic(
        "note", "the frame's brightness alone tells the class", "see that classes come from the same settings"
    ),
    # numbers
    "too-few-for-privacy": Topic(
        "warning",
        "too few train patients for the privacy that the policy asks",
        "expect little from training with privacy here; let the site evaluate only, or raise its numbers",
    ),
    "privacy-noise": Topic("note", "what privacy costs at this size", "nothing to do; see the line"),
    "nominal-differs": Topic(
        "note", "nominal_patients is not the real number, as it may be", "nothing to do if that is meant"
    ),
    "nominal-proposed": Topic(
        "note",
        "nominal_patients was rounded from the real number by the import; training with privacy is refused",
        "choose a number that does not follow it, and set nominal_declared = true in site.toml",
    ),
    "nominal-exact": Topic(
        "note", "nominal_patients is the real number", "choose one that does not follow it, for it may be known outside"
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something found at a site. `groups` are indices of cases (0 is row 2 of cases.csv), alone or as copies together.

    `detail` may hold numbers and class names; it does not leave the site.
    """

    topic: str
    detail: str = ""
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def level(self) -> Level:
        """How grave it is."""
        return TOPICS[self.topic].level

    @property
    def cases(self) -> list[int]:
        """Every case that it is about, ascending."""
        return sorted({case for group in self.groups for case in group})

    @property
    def what(self) -> str:
        """The title and its detail."""
        title = TOPICS[self.topic].title
        return f"{title}: {self.detail}" if self.detail else title

    @property
    def where(self) -> str:
        """Rows of cases.csv, or the empty string."""
        if any(len(group) > 1 for group in self.groups):
            return _listed([" and ".join(map(str, row_numbers(group))) for group in self.groups], "; ", "rows ")
        rows = row_numbers(self.cases)
        return _listed([str(row) for row in rows], ", ", "row " if len(rows) == 1 else "rows ")

    @property
    def remedy(self) -> str:
        """The way out."""
        return TOPICS[self.topic].remedy


def found(topic: str, cases: Iterable[int], detail: str = "") -> list[Finding]:
    """One finding about `cases`, or none where there are none."""
    single = tuple((case,) for case in sorted(set(cases)))
    return [Finding(topic, detail, single)] if single else []


def row_numbers(cases: Iterable[int]) -> list[int]:
    """Rows of cases.csv as a spreadsheet counts them: the header is row 1."""
    return [case + 2 for case in cases]


def _listed(items: Sequence[str], separator: str, prefix: str) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return prefix + separator.join(items[:_SHOWN]) + more

"""What a site tells of itself beyond a row of numbers: groups of its patients, and its decision curve."""

from __future__ import annotations

__all__ = ["LONGEST", "Detail", "Group"]

from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.pooled import NetBenefit

_STRICT = ConfigDict(extra="forbid")

LONGEST = 64
"""Letters of a covariate's or a level's name."""
Name = Annotated[str, Field(max_length=LONGEST)]


@checked(frozen=True, config=_STRICT)
class Group:
    """The tested cases of one site with one value (`level`) of a `covariate`.

    A number that does not exist, or stays at the site, is None, and `why` says why: `few-of-a-class`, `small-cell`
    (decisions at the threshold), `complement` (it would follow from the other groups and the whole), `overlap` (from
    groups of another covariate). `shares_patients`: some are in another group of the covariate too.
    """

    covariate: Name
    level: Name
    n_images: int
    n_patients: int
    n_positive: int | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    sensitivity: float | None
    specificity: float | None
    why: str | None = None
    shares_patients: bool = False


@checked(frozen=True, config=_STRICT)
class Detail:
    """A site's groups and the points of its decision curve; where there are none, `groups_why` and `decisions_why` say
    why. `left_out`: by covariate that tells no group, why (`client.subgroups.tell`).
    """

    groups: tuple[Group, ...] = ()
    groups_why: str | None = None
    decisions: tuple[NetBenefit, ...] = ()
    decisions_why: str | None = None
    left_out: dict[Name, str] = field(default_factory=dict)

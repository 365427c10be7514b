"""`site.toml`: what a site is, which question its labels answer, and what it allows."""

from __future__ import annotations

__all__ = ["CovariateKind", "Manifest", "Policy", "Role", "load_manifest", "manifest_text"]

import tomllib
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from common.errors import BadInput
from common.parsing import parse, to_table
from common.tasks import Task

_STRICT = ConfigDict(extra="forbid")

Role = Literal["train", "held-out"]
Sends = Literal["numbers", "sums", "masked-sums", "shift-sums", "subgroups"]
CovariateKind = Literal["number", "yes-no", "category"]
LevelName = Annotated[str, Field(min_length=1, max_length=64)]

_HEADER = """\
# What this site is and what it allows; configs/sites/example.toml explains each key.
# nominal_patients may be known outside: set it to a number that does not follow the true count. Where nominal_declared is
# false it was rounded from that count, and this site does not train with privacy: choose it, then set nominal_declared = true.

"""


@checked(frozen=True, config=_STRICT)
class Policy:
    """What the site allows, whatever the server wishes.

    `privacy_unit`: whose presence privacy hides; `epsilon_cap`: the most ε that may ever be spent on a patient;
    `privacy_required`: the site trains with privacy or not at all, and tells of its size no more than
    `nominal_patients`; `smallest_group`: numbers about fewer patients do not leave (`client.evidence` keeps to it in
    evaluations); `evaluation_sends`: what an evaluation may send (`client.sent` logs what it did): the site's own
    `numbers`, `sums` about them that the server reads, `masked-sums` of which it reads only the total over sites,
    `shift-sums` by which it compares how patients look from site to site (`client.shift_report`), and `subgroups`, its
    numbers for groups of its patients (`client.subgroups`);
    `evaluations_per_run`, `evaluations_in_all`: how many evaluations a training site answers (`client.evaluations`
    counts); `code`: only what is installed at the site may run.
    """

    privacy_unit: Literal["patient"] = "patient"
    epsilon_cap: Annotated[float, Field(gt=0)] = 8.0
    privacy_required: bool = False
    smallest_group: Annotated[int, Field(ge=1)] = 5
    evaluation_sends: tuple[Sends, ...] = ("numbers", "sums", "masked-sums", "shift-sums", "subgroups")
    evaluations_per_run: Annotated[int, Field(ge=0)] = 500
    evaluations_in_all: Annotated[int, Field(ge=0)] = 5000
    code: Literal["installed"] = "installed"


@checked(frozen=True, config=_STRICT)
class Manifest:
    """`site.toml`, parsed.

    `nominal_patients`: the public stand-in for the number of patients; `nominal_declared`: whether a person chose it,
    as private training asks, or an import rounded it from the true count; `split_seed`: what drew the split where there
    is no official one; `purpose`: what a held-out site is for, such as `caliper-shortcut`; `artificial`: cut from one
    center for an experiment, not a center of its own, which reports must say; `covariates`: how each further column of
    cases.csv is to be read, in the order in which groups are told; `levels`: by column (`device`, or a category) the
    values whose names may leave the site, as names of groups of patients; without that table no group leaves.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    task: Task
    nominal_patients: Annotated[int, Field(ge=1)]
    nominal_declared: bool = True
    role: Role = "train"
    purpose: str | None = None
    split_seed: Annotated[int, Field(ge=0)] = 0
    artificial: bool = False
    policy: Policy = field(default_factory=Policy)
    covariates: dict[str, CovariateKind] = field(default_factory=dict)
    levels: dict[str, tuple[LevelName, ...]] | None = None


def load_manifest(folder: Path) -> Manifest:
    """Read `site.toml` of a site folder. Raises BadInput, with the key's path, where it is not as the schema asks."""
    try:
        table = tomllib.loads((folder / "site.toml").read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{folder}: no site folder (site.toml is missing); make one with `client import`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{folder}/site.toml: cannot be read ({type(error).__name__})") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{folder}/site.toml: not valid TOML: {error}") from None
    return parse(Manifest, table, where=f"{folder}/site.toml")


def manifest_text(manifest: Manifest) -> str:
    """The manifest as `site.toml`."""
    import tomli_w

    return _HEADER + tomli_w.dumps(to_table(manifest))

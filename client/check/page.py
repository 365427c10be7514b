"""The check as one page with pictures. It shows patients' images: it is written under private/ and stays there."""

from __future__ import annotations

__all__ = ["DEFAULT", "write_page"]

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from client.check import Checked
from client.check.burned_in import class_shares, suspicious
from client.check.finding import LEVELS
from client.check.plots import share_bars, spread_panel
from client.check.spread import MEASURES, spreads
from client.check.table import Cases
from client.check.terminal import count_rows, verdict
from client.check.thumbnails import Marks, Thumbnail, thumbnail
from common.errors import RunFailed
from common.files import write_atomic
from common.page import render_page
from common.randomness import derive

DEFAULT = Path("private") / "check.html"
"""Where the page lies in the site folder."""

_EACH_CLASS, _PAIRS, _SOME = 12, 24, 18
_STRAYS = 200


def write_page(checked: Checked, path: Path | None = None) -> Path:
    """Write the page, mode 0600, to `path` or the site's private/check.html; names of stray files only to the latter.

    Raises RunFailed where it cannot be written.
    """
    folder = checked.cases.folder
    target = path or folder / DEFAULT
    if path is None:
        try:
            (folder / "private").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise RunFailed(f"cannot make private/ ({error.strerror}); check permissions") from None
    inside = Path(os.path.realpath(target)).is_relative_to(os.path.realpath(folder / "private"))
    write_atomic(target, _render(checked, strays=inside).encode(), mode=0o600)
    return target


def _render(checked: Checked, *, strays: bool) -> str:
    here = files("client.check")
    return render_page(
        here.joinpath("page.html.jinja").read_text(encoding="utf-8"),
        extra_style=here.joinpath("page.css").read_text(encoding="utf-8"),
        **_context(checked),
        strays=checked.strays[:_STRAYS] if strays else (),
        strays_more=max(0, len(checked.strays) - _STRAYS) if strays else 0,
    )


def _context(checked: Checked) -> dict[str, Any]:
    cases = checked.cases
    manifest = cases.manifest
    others = [name for name in manifest.task.classes if name != manifest.task.positive]
    doubted, outliers = suspicious(checked.examined), _outliers(checked)
    return {
        "site": manifest.id,
        "question": f"{manifest.task.positive} against {', '.join(others)}",
        "role": manifest.role,
        "verdict": verdict(checked.findings),
        "levels": [(level, [f for f in checked.findings if f.level == level]) for level in LEVELS],
        "facts": _facts(cases),
        "sides": [*cases.used_sides, "all"],
        "counts": count_rows(cases),
        "classes": _classes(checked),
        "pairs": _pairs(checked),
        "pairs_all": len(checked.alike),
        "calipers": _shown(checked, doubted[:_SOME], marks="calipers"),
        "calipers_all": len(doubted),
        "caliper_shares": share_bars(class_shares(cases, checked.examined)),
        "outliers": _shown(checked, outliers[:_SOME]),
        "outliers_all": len(outliers),
        "spreads": _panels(checked),
    }


def _facts(cases: Cases) -> list[tuple[str, str]]:
    every = list(range(len(cases)))
    numbers = {
        "patient": len(cases.patients_of(every)),
        "image": len(cases),
        "device": len({cases.device(case) for case in every}),
    }
    counted = [(str(number), what if number == 1 else f"{what}s") for what, number in numbers.items()]
    return [*counted, (f"{cases.manifest.policy.epsilon_cap:g}", "most ε for a patient")]


def _panels(checked: Checked) -> list[tuple[str, Any]]:
    made = spreads(checked.cases, checked.examined)
    grouped = [(measure, [s for s in made if s.measure == measure and s.kind != "all"]) for measure in MEASURES]
    return [(measure, spread_panel(found)) for measure, found in grouped if found]


def _classes(checked: Checked) -> list[tuple[str, list[Thumbnail]]]:
    """Some images of each class, drawn by the split seed, with their boxes."""
    cases = checked.cases
    made = []
    for code, name in enumerate(cases.manifest.task.classes):
        members = [case for case in range(len(cases)) if cases.labels[case] == code]
        rng = derive(cases.manifest.split_seed, "check", cases.manifest.id, name)
        chosen: list[int] = rng.permutation(np.array(members, dtype=np.int64))[:_EACH_CLASS].tolist()
        made.append((name, _shown(checked, sorted(chosen), marks="box")))
    return made


def _pairs(checked: Checked) -> list[tuple[str, list[Thumbnail]]]:
    """The gravest pairs side by side, each with how alike they are."""
    made = []
    for pair in checked.alike[:_PAIRS]:
        said = "the same pixels" if pair.likeness == 1 else f"alike {pair.likeness:.2f}"
        made.append((said, _shown(checked, (pair.one, pair.other))))
    return made


def _outliers(checked: Checked) -> list[int]:
    topics = ("outlier", "nearly-empty", "constant")
    return sorted({case for finding in checked.findings if finding.topic in topics for case in finding.cases})


def _shown(checked: Checked, chosen: Sequence[int], *, marks: Marks = "none") -> list[Thumbnail]:
    made = (thumbnail(checked.cases, checked.examined[case], case, marks=marks) for case in chosen)
    return [picture for picture in made if picture is not None]

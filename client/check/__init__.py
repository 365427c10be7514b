"""`python -m client check SITE`: what a hospital's data manager runs before joining a federation."""

from __future__ import annotations

__all__ = ["Checked", "check_site"]

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.check.burned_in import check_calipers
from client.check.copies import Alike, check_copies
from client.check.enough import check_enough
from client.check.finding import LEVELS, Finding
from client.check.folder import check_folder, stray_files
from client.check.images import Examined, check_images, examine
from client.check.spread import check_spread
from client.check.summary import summary
from client.check.table import Cases, check_loading, check_table, read_cases

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Checked:
    """A site and all that was found, errors first. `examined` runs over cases; `alike` are pairs to look at."""

    cases: Cases
    examined: tuple[Examined, ...]
    findings: tuple[Finding, ...]
    alike: tuple[Alike, ...]
    strays: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.level == "error" for finding in self.findings)

    def summary(self) -> dict[str, Any]:
        """What may leave the site (client/check/summary.py)."""
        return summary(self.cases, self.examined, self.findings)


def check_site(folder: Path, *, progress: Progress | None = None) -> Checked:
    """Look at every row and file of a site; `progress(done, total)` hears of each image. Nothing is changed.

    Raises BadInput where there is no site, or its tables cannot be read at all.
    """
    cases = read_cases(folder)
    examined = []
    for case in range(len(cases)):
        examined.append(examine(cases, case))
        if progress is not None:
            progress(case + 1, len(cases))
    copies, alike = check_copies(cases, examined)
    strays = stray_files(cases)
    findings = [
        *check_table(cases),
        *check_images(examined),
        *copies,
        *check_calipers(cases, examined),
        *check_spread(cases, examined),
        *check_enough(cases),
        *check_folder(cases, strays),
    ]
    findings += check_loading(cases, findings)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Checked(cases, tuple(examined), tuple(findings), tuple(alike), tuple(strays))

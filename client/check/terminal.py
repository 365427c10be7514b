"""What was found, as a table for a person at a terminal: no file name, no pseudonym."""

from __future__ import annotations

__all__ = ["count_rows", "table_text", "verdict"]

import io
import shutil
from collections.abc import Sequence

from client.check.finding import LEVELS, Finding
from client.check.table import Cases

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def verdict(findings: Sequence[Finding]) -> str:
    """`1 error, 2 warnings, 3 notes`, or `nothing to say`."""
    numbers = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    said = [f"{number} {level}{'s' if number > 1 else ''}" for level, number in numbers.items() if number]
    return ", ".join(said) or "nothing to say"


def count_rows(cases: Cases) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each class with (patients, images) on each side that the site's role has, and then in all."""
    rows = []
    for code, name in enumerate(cases.manifest.task.classes):
        members = [case for case in range(len(cases)) if cases.labels[case] == code]
        sides = [[case for case in members if cases.sides[case] == side] for side in cases.used_sides]
        rows.append((name, [(len(cases.patients_of(group)), len(group)) for group in (*sides, members)]))
    return rows


def table_text(cases: Cases, findings: Sequence[Finding], *, colour: bool = False) -> str:
    """Counts by class and side, then the findings, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    counts = Table(box=None, pad_edge=False, header_style="dim", title_justify="left")
    counts.add_column("patients (images)")
    for head in (*cases.used_sides, "all"):
        counts.add_column(head, justify="right")
    for name, numbers in count_rows(cases):
        counts.add_row(name, *(f"{patients} ({images})" for patients, images in numbers))
    found = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 1, 0))
    found.add_column("level", no_wrap=True)
    found.add_column("what and where", ratio=3)
    found.add_column("way out", ratio=2)
    for finding in findings:
        said = "\n".join(line for line in (finding.what, finding.where) if line)
        found.add_row(finding.level, said, finding.remedy, style=_COLOURS[finding.level])
    file = io.StringIO()
    width = min(max(shutil.get_terminal_size().columns, 80), 150)
    console = Console(file=file, width=width, force_terminal=colour, highlight=False, markup=False)
    console.print(counts)
    console.print()
    console.print(found)
    lines = file.getvalue().rstrip().splitlines()
    return "\n".join(line.rstrip() for line in [*lines, "", f"site {cases.manifest.id}: {verdict(findings)}"])

"""`report.html`: one offline file that a person understands from the top, made from the run folder alone."""

from __future__ import annotations

__all__ = ["write_report"]

from pathlib import Path

from common.files import write_atomic
from server.report.reading import read_run


def write_report(run: Path) -> Path:
    """Write RUN/report.html and return its path; the same folder gives the same bytes.

    Raises BadInput where `results.json` is missing or not what the contract says; everything else that is not in the
    folder is named in the page.
    """
    from server.report.page import render

    path = run / "report.html"
    write_atomic(path, render(read_run(run)).encode())
    return path

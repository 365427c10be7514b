"""A phantom of each data set at its full size: drawn, imported, checked, and how long each took.

Times are those of the processor: other work on the machine does not count.
"""

from __future__ import annotations

__all__ = ["behsof", "deeplesion", "lymphus", "smclud"]

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.prove.finding import ROOT, Finding


def lymphus() -> Finding:
    """338 nodes of two centers."""
    return _made("lymphus", images=338)


def behsof() -> Finding:
    """1,513 images of 113 people at two hospitals."""
    return _made("behsof", images=1_513)


def smclud() -> Finding:
    """5,385 images of 1,021 patients, clean and with calipers."""
    return _made("smclud", images=5_385)


def deeplesion() -> Finding:
    """2,000 slices; typed lesions whose slice is there are imported, the others are listed with their reason."""
    return _made("deeplesion", images=None)


def _made(preset: str, *, images: int | None) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        source, parent = Path(folder) / "phantom", Path(folder) / "sites"
        drawing, _ = _run("simulation", "phantom", str(source), "--preset", preset)
        importing, told = _run("client", "import", preset, str(source), "--out", str(parent), *_options(preset, source))
        sites = json.loads(told)
        checking = sum(_run("client", "check", site["folder"], allowed=(0, 1))[0] for site in sites)
        taken = sum(site["images"] for site in sites)
        left = sum(site["skipped"] for site in sites)
    value = (
        f"{taken} images, {left} left out; drawn {drawing:.0f} s, imported {importing:.0f} s, checked {checking:.0f} s "
        "of processor time"
    )
    want = f"{images} images" if images else "every typed lesion whose slice is there"
    return Finding(value, want + " imported and checked", taken == images if images else taken > 0)


def _options(preset: str, source: Path) -> list[str]:
    if preset != "smclud":
        return ["--json"]
    return ["--json", "--patients", str(source / "patient_information.xlsx"), "--pattern", r"^(?P<patient>P\d+)_"]


def _run(room: str, *arguments: str, allowed: Sequence[int] = (0,)) -> tuple[float, str]:
    before = _processor_seconds()
    done = subprocess.run(
        [sys.executable, "-m", room, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in allowed:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return _processor_seconds() - before, done.stdout


def _processor_seconds() -> float:
    """What all children that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

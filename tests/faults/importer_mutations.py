"""Small valid sources, damaged at random and imported: only the project's own errors may come out of that.

`python -m tests.faults.importer_mutations COUNT [SEED] [FIXTURE…]` runs one batch and prints what it found as JSON. A
damage is named by its seed, fixture and place, and comes back from them.
"""

from __future__ import annotations

__all__ = ["Found", "batch", "run_batches"]

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from client.importers import import_site
from client.site import load_site
from common.errors import BadInput, RunFailed
from tests.faults.damage import Files, damage
from tests.faults.importer_fixtures import FIXTURES, Fixture

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 2**30
"""Address space that a batch may take beyond what it has at its start, in bytes."""
GROWTH_MIB = 512
"""Most that the peak of resident memory may grow during a batch."""
SECONDS = 20.0
"""Longest processor time of one import."""


@dataclass
class Found:
    """What came of a batch: `outcomes` by fixture, `kinds` of damage, `failures` with their seeds."""

    imports: int = 0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    grown_mib: int = 0
    slowest_seconds: float = 0.0

    def __add__(self, other: Found) -> Found:
        return Found(
            imports=self.imports + other.imports,
            outcomes={
                name: dict(Counter(self.outcomes.get(name, {})) + Counter(other.outcomes.get(name, {})))
                for name in {**self.outcomes, **other.outcomes}
            },
            kinds=dict(Counter(self.kinds) + Counter(other.kinds)),
            failures=self.failures + other.failures,
            grown_mib=max(self.grown_mib, other.grown_mib),
            slowest_seconds=max(self.slowest_seconds, other.slowest_seconds),
        )

    def __str__(self) -> str:
        lines = [
            f"{self.imports} damaged sources, {len(self.failures)} failures; memory grew by at most "
            f"{self.grown_mib} MiB, the slowest import took {self.slowest_seconds:.1f} s of processor time"
        ]
        lines += [
            f"  {name}: " + ", ".join(f"{k} {n}" for k, n in sorted(o.items())) for name, o in self.outcomes.items()
        ]
        lines.append("  damage: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items())))
        return "\n".join([*lines, *self.failures[:10]])


def batch(count: int, *, seed: int = 0, names: Sequence[str] = tuple(FIXTURES), note: Path | None = None) -> Found:
    """Import `count` damaged sources, fixture by fixture in turn;
    `note` is a file that always tells the present one.
    """
    found = Found()
    with tempfile.TemporaryDirectory(prefix="mutations-") as place:
        work = Path(place)
        sources = {name: _built(FIXTURES[name], work / "valid" / name) for name in names}
        for name in names:
            _undamaged(name, sources[name], work / "try")
        before = _peak()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, hard))
        for number in range(count):
            name = names[number % len(names)]
            which = f"seed {seed}, {name}, number {number}"
            if note is not None:
                note.write_text(which)
            _one(found, which, name, sources[name], work / "try")
        found.grown_mib = (_peak() - before) >> 10
    if found.grown_mib > GROWTH_MIB:
        found.failures.append(f"seed {seed}: memory grew by {found.grown_mib} MiB")
    return found


def _built(fixture: Fixture, folder: Path) -> tuple[str, Files]:
    """SOURCE relative to its folder, and all files there."""
    folder.mkdir(parents=True)
    source = fixture.build(folder).relative_to(folder).as_posix()
    return source, {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _undamaged(name: str, source: tuple[str, Files], work: Path) -> None:
    outcome, complaint = _imported(name, source[0], source[1], work)
    if outcome != "imported" or complaint:
        raise AssertionError(f"{name}: the undamaged fixture does not import: {outcome}{complaint}")


def _one(found: Found, which: str, name: str, source: tuple[str, Files], work: Path) -> None:
    files = dict(source[1])
    kinds = damage(random.Random(which), files)
    began = time.process_time()
    outcome, complaint = _imported(name, source[0], files, work)
    took = time.process_time() - began
    found.imports += 1
    counts = found.outcomes.setdefault(name, {})
    counts[outcome] = counts.get(outcome, 0) + 1
    for kind in kinds.split(" + "):
        found.kinds[kind] = found.kinds.get(kind, 0) + 1
    found.slowest_seconds = max(found.slowest_seconds, took)
    if took > SECONDS:
        complaint += f" took {took:.0f} s;"
    if complaint:
        found.failures.append(f"{which} ({kinds}):{complaint}")


def _imported(name: str, source: str, files: Files, work: Path) -> tuple[str, str]:
    """Import into an otherwise empty folder. Gives the outcome, and what is wrong with it."""
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("given", "around", "here", "temporary"):
        (work / folder).mkdir(parents=True)
    _write(files, work / "given")
    given = _listing(work / "given")
    fixture, parent = FIXTURES[name], work / "around/sites"
    before, tempfile.tempdir = os.getcwd(), str(work / "temporary")
    os.chdir(work / "here")
    complaint = ""
    try:
        for summary in import_site(
            fixture.format, work / "given" / source, parent, options=fixture.options_in(work / "given")
        ):
            load_site(summary.folder)
        outcome = "imported"
    except (BadInput, RunFailed) as error:
        outcome = type(error).__name__
        if "\n" in str(error) or error.__cause__ is not None or not str(error):
            complaint += " the message is not one line;"
    except BaseException as error:
        outcome = "wrong error"
        complaint += f" {type(error).__name__}: {str(error)[:200]};"
    finally:
        os.chdir(before)
        tempfile.tempdir = None
    return outcome, complaint + _traces(work, given, parent, outcome)


def _write(files: Files, folder: Path) -> None:
    """Write what a folder can hold: names that lead out of it, or clash with a folder, are left away."""
    for name, content in files.items():
        path = folder / name
        if name and ".." not in name and not name.startswith("/") and len(name) < 200 and not path.is_dir():
            if any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()}


def _traces(work: Path, given: Mapping[str, int], parent: Path, outcome: str) -> str:
    """What an import left where it may not."""
    told = ""
    if _listing(work / "given") != given:
        told += " the source changed;"
    if stray := [path for folder in ("here", "temporary") for path in (work / folder).iterdir()]:
        told += f" {len(stray)} files left outside;"
    if set(os.listdir(work)) != {"given", "around", "here", "temporary"} or set(os.listdir(work / "around")) - {
        "sites"
    }:
        told += " something beside the target;"
    left = set(os.listdir(parent)) if parent.exists() else set()
    if outcome == "imported":
        told += " a staging folder;" if any(name.startswith(".importing") for name in left) else ""
    elif left - {".pseudonym-key"}:
        told += f" a failed import left {sorted(left)};"
    return told


def _peak() -> int:
    """The greatest resident memory so far, of this process or a child, in KiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run_batches(count: int, *, seed: int = 0, size: int = 1000, names: Sequence[str] = tuple(FIXTURES)) -> Found:
    """`count` damaged sources in processes of `size`: one that dies is a failure, and names the source it died of."""
    total = Found()
    with tempfile.TemporaryDirectory() as place:
        note = Path(place) / "note"
        for start in range(0, count, size):
            line = [sys.executable, "-m", "tests.faults.importer_mutations", str(min(size, count - start))]
            done = subprocess.run(
                [*line, str(seed + start), *names],
                cwd=ROOT,
                env={**os.environ, "MUTATIONS_NOTE": str(note), "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                what = f"exit {done.returncode} {(done.stderr.strip().splitlines() or [''])[-1]}"
                total.failures.append(f"{note.read_text() if note.exists() else 'start'}: {what}")
                continue
            total += Found(**json.loads(done.stdout))
            if done.stderr:
                total.failures.append(f"seed {seed + start}: on stderr: {done.stderr.strip()[:200]}")
    return total


if __name__ == "__main__":
    wanted = sys.argv[3:] or list(FIXTURES)
    told_to = os.environ.get("MUTATIONS_NOTE")
    result = batch(
        int(sys.argv[1]), seed=int((*sys.argv, "0")[2]), names=wanted, note=Path(told_to) if told_to else None
    )
    if told_to:
        print(json.dumps(asdict(result)))
    else:
        print(result)

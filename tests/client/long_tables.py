"""How much more memory an import of a long table needs than that of a short one, each in a process of its own."""

from __future__ import annotations

__all__ = ["peak_growth", "peak_of"]

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES = 100
ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = """
import sys
from pathlib import Path
from client.importers import import_site
from common.config import ImportOptions

(summary,) = import_site("csv", Path(sys.argv[1]), Path(sys.argv[2]), options=ImportOptions(map=sys.argv[3], site="a"))
assert summary.images == 100, summary
assert summary.images + summary.skipped == int(sys.argv[4]), summary
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""
"""VmHWM is this process's own peak; ru_maxrss would begin at the peak of whoever started it."""


def peak_growth(*, few: int, many: int, others: str) -> float:
    """Peak resident memory with `many` rows less that with `few`, in MiB. See `peak_of`."""
    return peak_of(many, others=others) - peak_of(few, others=others)


def peak_of(rows: int, *, others: str) -> float:
    """Peak resident memory, in MiB, of importing `rows` rows that name 100 images.

    The `others` name files that are "absent", or the same images "again".
    """
    with tempfile.TemporaryDirectory() as place:
        table = _write(Path(place), rows, others)
        line = [sys.executable, "-c", _PROGRAM, str(table), f"{place}/out", f"{place}/map.toml", str(rows)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        with (Path(place) / "out/a/private/skipped.csv").open(encoding="utf-8") as file:
            assert sum(1 for _ in file) == rows - IMAGES + 1
    return int(done.stdout) / 1024


def _write(folder: Path, rows: int, others: str) -> Path:
    """The images lie at even distances between the other rows."""
    (folder / "pictures").mkdir()
    for number in range(IMAGES):
        gray = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(gray).save(folder / f"pictures/{number}.png")
    (folder / "map.toml").write_text('image = "file"\nlabel = "diagnosis"\npatient = "pid"\ncovariates = ["age"]\n')
    table = folder / "table.csv"
    every = rows // IMAGES
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "diagnosis", "pid", "age", "remark"])
        for row in range(rows):
            there = row % every == 0 or others == "again"
            name = f"pictures/{row // every % IMAGES}.png" if there else f"pictures/absent-{row}.png"
            writer.writerow([name, "ab"[row // every % 2], f"patient {row // every}", 20 + row % 70, f"remark {row}"])
    return table

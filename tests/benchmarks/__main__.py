"""Run benchmarks by name: `python -m tests.benchmarks [NAME …]`; without a name, all of them.

Prints a table and writes bench.json at the repository's root, where rows that were not run again stay. Exit 1 where a
row misses its limit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bench:
    """Where the function that returns a `Row` stands, `module:function`, and the limit of its ratio."""

    function: str
    least: float | None = None
    most: float | None = None

    def holds(self, ratio: float) -> bool:
        """Whether the ratio is within the limit."""
        return (self.least is None or ratio >= self.least) and (self.most is None or ratio <= self.most)

    @property
    def limit(self) -> str:
        """`>= 4`, `<= 0.5`."""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


BENCHES = {
    "train-vs-plain": Bench("tests.benchmarks.training:speed_against_plain", least=4),
    "train-vs-plain-group-norm": Bench("tests.benchmarks.training:group_norm_against_plain", least=2.5),
    "train-vs-plain-auc": Bench("tests.benchmarks.training:auc_against_plain", least=-0.01),
    "train-vs-resident": Bench("tests.benchmarks.training:resident", least=0.95),
    "convolutions-vs-torch": Bench("tests.benchmarks.convolutions:convolutions_against_torch", least=1),
    "federation-overhead": Bench("tests.benchmarks.federation:overhead", most=0.03),
    "cache-vs-decode": Bench("tests.benchmarks.reading:cached_against_decode", least=10),
    "cache-vs-decode-augmented": Bench("tests.benchmarks.reading:augmented_against_decode", least=2.5),
    "import-gib-per-minute": Bench("tests.benchmarks.reading:import_speed", least=0),
    "gate-seconds": Bench("tests.benchmarks.privacy:gate_seconds", most=0.2),
    "calibrate-seconds": Bench("tests.benchmarks.privacy:calibrate_seconds", most=2),
    "evidence-seconds": Bench("tests.benchmarks.evidence:evidence_seconds", most=10),
    "private-time": Bench("tests.benchmarks.private_training:time_float32", most=1.65),
    "private-time-bf16": Bench("tests.benchmarks.private_training:time_bf16", most=2.3),
    "private-memory": Bench("tests.benchmarks.private_training:memory", most=1.3),
    "help-seconds": Bench("tests.benchmarks.federation:help_seconds", most=0.5),
}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    names = parser.parse_args().names or list(BENCHES)
    if unknown := [name for name in names if name not in BENCHES]:
        print(f"error: no benchmark {unknown[0]}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    file = ROOT / "bench.json"
    rows = {row["name"]: row for row in json.loads(file.read_text())} if file.exists() else {}
    held = True
    for name in names:
        bench = BENCHES[name]
        row = _run(bench)
        rows[name] = asdict(row)
        held &= bench.holds(row.ratio)
        verdict = "holds" if bench.holds(row.ratio) else "MISSED"
        print(f"{name:28} {row.ratio:8.3f}  {bench.limit:8} {verdict:7}", end=" ")
        print(f"{row.ours:.4g} against {row.against:.4g} {row.unit}; {row.what}", flush=True)
        ordered = [rows[each] for each in BENCHES if each in rows]
        file.write_text(json.dumps(ordered, indent=1) + "\n")
    return 0 if held else 1


def _run(bench: Bench) -> Row:
    module, function = bench.function.split(":")
    row = getattr(importlib.import_module(module), function)()
    assert isinstance(row, Row)
    return row


if __name__ == "__main__":
    sys.exit(main())

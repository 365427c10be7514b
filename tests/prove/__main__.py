"""`python -m tests.prove [NAME]`: run the proofs, print them as they end, and write prove.json at the root."""

from __future__ import annotations

__all__ = ["PROOFS", "main"]

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import suggest
from common.files import read_json, write_json
from tests.prove import (
    engines,
    evidence,
    full_size,
    hostile,
    identity,
    phantoms,
    privacy,
    runs,
    shift,
    sums,
    tables,
    utility,
)
from tests.prove.finding import ROOT, Finding, Proof

PROOFS: Mapping[str, Proof] = {
    "identity-float64": identity.float64,
    "identity-float32": identity.float32,
    "same-bytes": runs.same_bytes,
    "kill-and-continue": runs.kill_and_continue,
    "auc-recomputed": runs.auc_recomputed,
    "engines-agree": engines.engines_agree,
    "ray-agrees": engines.ray_agrees,
    "privacy-account": privacy.account_agrees,
    "privacy-ledger-killed": privacy.ledger_killed,
    "privacy-clipped-sum": privacy.clipped_sum,
    "privacy-round-killed": privacy.round_killed,
    "privacy-deployed": privacy.deployed,
    "privacy-nominal": privacy.nominal_constants,
    "privacy-audit-spares": privacy.audit_spares,
    "privacy-audit-bugs": privacy.audit_finds_bugs,
    "privacy-membership": privacy.membership,
    "privacy-inversion": privacy.image_drawn_back,
    "privacy-table": utility.table,
    "phantom-shift": phantoms.shift_dial,
    "full-lymphus": full_size.lymphus,
    "full-behsof": full_size.behsof,
    "full-smclud": full_size.smclud,
    "full-deeplesion": full_size.deeplesion,
    "csv-million-rows": tables.csv_million_rows,
    "mutated-imports": hostile.mutated_imports,
    "shift-null": shift.shift_null,
    "shift-power": shift.shift_power,
    "shift-cause": shift.shift_cause,
    "bootstrap-agrees": shift.bootstrap_agrees,
    "repair": shift.repair,
    "sums-deployed": sums.sums_deployed,
    "sums-exact": sums.sums_exact,
    "sums-rosters": sums.sums_rosters,
    "sums-uniform": sums.sums_uniform,
    "federated-auc": evidence.federated_auc,
    "interval-coverage": evidence.interval_coverage,
    "paired-test": evidence.paired_test,
}


def main(names: Sequence[str], *, path: Path = ROOT / "prove.json", proofs: Mapping[str, Proof] = PROOFS) -> int:
    """Run the named proofs, or all; 0 where each holds, 1 where one does not, 2 where a name is unknown."""
    for name in names:
        if name not in proofs:
            print(f"error: no proof is called {name}{suggest(name, proofs)}; known are {', '.join(proofs)}")
            return 2
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("GIT_DIR", os.devnull)  # a commit made meanwhile must not show in the bytes of two runs
    entries = {entry["name"]: entry for entry in read_json(path)} if path.exists() else {}
    holds = True
    for name in names or proofs:
        entries[name] = _proved(name, proofs[name])
        holds &= entries[name]["holds"]
        print("{name}: {value} ({want}): {verdict}, {seconds} s".format(
            **entries[name], verdict="holds" if entries[name]["holds"] else "DOES NOT HOLD"
        ), flush=True)  # fmt: skip
        write_json(path, [entries[known] for known in proofs if known in entries])
    return 0 if holds else 1


def _proved(name: str, proof: Proof) -> dict[str, Any]:
    began = time.monotonic()
    try:
        found = proof()
    except Exception as error:  # a proof that breaks does not hold, and the others still run
        found = Finding(f"{type(error).__name__}: {error}", "no error", False)
    seconds = round(time.monotonic() - began, 1)
    return {"name": name, "value": found.value, "want": found.want, "holds": found.holds, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

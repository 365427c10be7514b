"""A synthetic run folder as `simulation compare` leaves it, small and drawn from a named seed."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from struct import pack
from typing import Any

import numpy as np

from common.randomness import derive

SITES = ("ge-logiq-5", "toshiba-aplio-300", "u-systems")
_STRENGTH = {"federated": 1.7, "pooled": 1.75, "local": 1.25, "ensemble": 1.5}
_NUMBERS = ("auc_patient", "sensitivity", "specificity", "calibration_slope", "calibration_intercept", "brier", "ece")


def png(shade: int, size: int = 24) -> bytes:
    """A gray PNG by hand: the server's tests open no image library."""
    ramp = np.linspace(0, shade, size * size).astype(np.uint8).reshape(size, size)
    raw = b"".join(b"\0" + row.tobytes() for row in ramp)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    head = pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


class Folder:
    """Builds rows with predictions that give exactly the AUC the row states."""

    def __init__(self, root: Path, *, sites: Sequence[str] = SITES, seeds: int = 3, cases: int = 120) -> None:
        self.root, self.sites, self.seeds, self.cases = root, tuple(sites), seeds, cases
        self.rows: list[dict[str, Any]] = []
        self.contrasts: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        root.mkdir(parents=True, exist_ok=True)

    def row(self, arm: str, protocol: str, seed: int, site: str, trained_on: Sequence[str], **given: Any) -> None:
        """Add a row (with predictions unless the site is `all`)."""
        rng = derive(7, arm, protocol, seed, site, *trained_on)
        labels = rng.random(self.cases) < 0.4
        shift = 0.35 * (sorted(self.sites).index(site) if site in self.sites else 1)
        logits = rng.normal(size=self.cases) + (_STRENGTH[arm] - shift) * (labels - 0.5)
        scores = 1 / (1 + np.exp(-logits))
        auc = float(np.mean(scores[labels][:, None] > scores[~labels]))
        place = f"predictions/{arm}-{protocol}-{seed}-{len(self.rows)}.csv" if site != "all" else None
        row: dict[str, Any] = {
            "arm": arm, "protocol": protocol, "seed": seed, "site": site, "held_out": site not in trained_on,
            "trained_on": list(trained_on), "predictions": place, "n_images": self.cases, "n_patients": self.cases // 2,
            "auc": auc, "auc_low": max(0.0, auc - 0.05), "auc_high": min(1.0, auc + 0.04),
            "threshold": 0.31, "why": None,
        }  # fmt: skip
        row |= {name: round(float(rng.uniform(0.1, 1.0)), 4) for name in _NUMBERS}
        row |= given
        self.rows.append(row)
        if place is not None:
            self._predictions(self.root / place, labels, scores)

    def _predictions(self, path: Path, labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> None:
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["patient", "image", "label", "score"])
            for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
                writer.writerow([f"p{i // 2}", f"images/{i}.png", int(label), repr(float(score))])

    def comparison(self, arms: Sequence[str] = ("federated", "pooled", "local", "ensemble")) -> Folder:
        """Every row of both protocols, for these arms."""
        for seed in range(self.seeds):
            for site in (*self.sites, "all"):
                others = [s for s in self.sites if s != site]
                for arm in arms:
                    if arm == "local":
                        for origin in self.sites:
                            self.row(arm, "in-federation", seed, site, [origin])
                            if origin != site:
                                self.row(arm, "leave-one-center-out", seed, site, [origin])
                    else:
                        self.row(arm, "in-federation", seed, site, self.sites)
                        self.row(arm, "leave-one-center-out", seed, site, others)
        for protocol in ("leave-one-center-out", "in-federation"):
            for site in (*self.sites, "all"):
                for b, delta in (("pooled", -0.01), ("local", 0.06)):
                    if b in arms:
                        self.contrast(b, protocol, site, delta, delta - 0.025, delta + 0.022, 0.31)
        return self

    def contrast(
        self, b: str, protocol: str, site: str, delta: float | None, low: Any, high: Any, p: float | None
    ) -> None:
        """Federated minus `b`."""
        names = ("a", "b", "protocol", "site", "delta_auc", "low", "high", "p")
        self.contrasts.append(dict(zip(names, ("federated", b, protocol, site, delta, low, high, p), strict=True)))

    def records(self) -> Folder:
        """Learning curves, seconds, one failure and every center's appearance."""
        for seed in range(self.seeds):
            for arm in ("federated", "pooled"):
                for left_out in self.sites:
                    run = f"{arm}/without-{left_out}/seed-{seed}"
                    for round_ in range(1, 11):
                        self._learning(run, round_, left_out)
                    self.events.append({"event": "model", "run": run, "arm": arm, "seed": seed, "seconds": 61.4})
        self.events.append({"event": "failure", "run": "federated/in-federation/seed-0", "round": 3,
                            "site": self.sites[0], "why": "no answer within 60 s"})  # fmt: skip
        for i, site in enumerate(self.sites):
            levels = np.exp(-(((np.arange(64) - 18 - 7 * i) / 11.0) ** 2)) * 90_000
            texture = {"mean gray": [0.3 + 0.1 * i, 0.06], "contrast": [0.18 - 0.02 * i, 0.03],
                       "speckle length, axial (px)": [1.4 + 0.5 * i, 0.3]}  # fmt: skip
            self.events.append({"event": "appearance", "site": site, "n_images": 120,
                                "histogram": [int(v) for v in levels], "descriptors": texture})  # fmt: skip
        return self

    def _learning(self, run: str, round_: int, left_out: str) -> None:
        drawn = float(derive(3, run, round_).normal() * 0.012)
        base = {"event": "evaluation", "run": run, "round": round_, "loss": 0.5, "n_images": 60}
        if run.startswith("federated"):
            held = {"site": left_out, "part": "test", "held_out": True, "auc": 0.86 - 0.3 * 0.7**round_ + drawn}
            self.events.append(base | held)
        seen = "+".join(s for s in self.sites if s != left_out)
        self.events.append(
            base | {"site": seen, "part": "val", "held_out": False, "auc": 0.9 - 0.3 * 0.6**round_ + drawn}
        )

    def pictures(self, number: int = 4) -> Folder:
        """Crops and attention maps of every center."""
        for site in self.sites:
            folder = self.root / "pictures" / site
            folder.mkdir(parents=True, exist_ok=True)
            index = []
            for i in range(1, number + 1):
                (folder / f"case-{i}.png").write_bytes(png(60 + 40 * i))
                (folder / f"case-{i}-attention.png").write_bytes(png(255 - 30 * i))
                index.append({"image": f"case-{i}.png", "attention": f"case-{i}-attention.png",
                              "label": ("malignant", "benign")[i % 2], "score": 0.93 / i,
                              "model": f"federated/without-{site}/seed-0"})  # fmt: skip
            (folder / "index.json").write_text(json.dumps(index))
        return self

    def write(self, **config: Any) -> Path:
        """Write results.json, config.toml and records.jsonl; returns the run folder."""
        experiment: dict[str, Any] = {
            "name": "busbra",
            "task": {"name": "breast-lesion", "classes": ["benign", "malignant"], "positive": "malignant"},
            "sites": [{"id": site, "role": "train"} for site in self.sites], "seed": 0, "threads": 1,
            "evaluation": {"looks": 2}, "comparison": {"seeds": self.seeds},
        } | config  # fmt: skip
        arms = sorted({row["arm"] for row in self.rows})
        document = {
            "config": experiment,
            "budget": {"sample_gradients": 38_400, "per_arm": dict.fromkeys(arms, 38400 * self.seeds * 4)},
            "provenance": {"commit": "3b9ac0ffee", "dirty": False, "versions": {"torch": "2.15.0"},
                           "processor": "x86-64", "device": "cpu", "threads": 1,
                           "data": dict.fromkeys(self.sites, "ab" * 32)},
            "rows": self.rows, "contrasts": self.contrasts,
        }  # fmt: skip
        (self.root / "results.json").write_text(json.dumps(document))
        (self.root / "config.toml").write_text('name = "busbra"\n[training]\nrounds = 10\n')
        if self.events:
            lines = [json.dumps({"time": "2026-11-21T07:00:00.000+00:00", **event}) for event in self.events]
            (self.root / "records.jsonl").write_text("\n".join(lines) + "\n")
        return self.root

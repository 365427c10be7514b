"""Write a phantom data set: a folder that is whole or absent."""

from __future__ import annotations

__all__ = ["PRESETS", "write_phantom"]

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from threadpoolctl import threadpool_limits

from common.errors import BadInput, RunFailed, suggest
from common.randomness import derive
from simulation.phantom.cases import DEFAULT_VISIBILITY, Case, center_case
from simulation.phantom.centers import Center, lymphus_centers
from simulation.phantom.truth import Value, csv_text

PRESETS = ("lymphus", "behsof", "smclud", "deeplesion")
"""Data sets whose format can be written."""

Progress = Callable[[int, int], None]


def write_phantom(
    out: Path,
    *,
    preset: str,
    seed: int,
    shift: float = 1.0,
    visibility: float = DEFAULT_VISIBILITY,
    extra_centers: int = 0,
    patients: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write phantom data in the exact on-disk format of the data set `preset` names, and `truth.csv`.

    out: a folder that is absent or empty. seed: the same seed gives the same bytes. shift: how far the centers differ,
    0 not at all, 1 as centers do (`simulation.phantom.centers`). visibility: how clearly features show, 0 to 1.
    extra_centers: further machines beyond the data set's own; only lymphus's format has room for them. patients: None
    for as many as the data set has, else at least 2, of each center in lymphus and behsof, in all in smclud and
    deeplesion. progress: called with the pictures done and their total.

    Raises BadInput for a value out of range or a folder that holds something, RunFailed where the disk fails.
    """
    _check(shift=shift, visibility=visibility, extra_centers=extra_centers, patients=patients)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} exists and is not an empty folder; name another one or empty it")
    if preset not in PRESETS:
        raise BadInput(f"preset {preset} is not known; known are {', '.join(PRESETS)}{suggest(preset, PRESETS)}")
    if extra_centers and preset != "lymphus":
        raise BadInput(f"{preset}'s format has no room for extra centers; leave them out, or take lymphus")

    def write(folder: Path) -> None:
        match preset:
            case "lymphus":
                centers = lymphus_centers(seed=seed, shift=shift, extra=extra_centers, patients=patients)
                _write_lymphus(folder, centers, seed, visibility, progress)
            case "behsof":
                from simulation.phantom.behsof import write_behsof

                write_behsof(
                    folder, seed=seed, shift=shift, visibility=visibility, patients=patients, progress=progress
                )
            case "smclud":
                from simulation.phantom.smclud import write_smclud

                write_smclud(
                    folder, seed=seed, shift=shift, visibility=visibility, patients=patients, progress=progress
                )
            case "deeplesion":
                from simulation.phantom.deeplesion import write_deeplesion

                write_deeplesion(
                    folder, seed=seed, shift=shift, visibility=visibility, patients=patients, progress=progress
                )

    # One thread: the pictures are small, and the number of threads must not show in the bytes.
    with threadpool_limits(1):
        _fill(out, write)


def _check(*, shift: float, visibility: float, extra_centers: int, patients: int | None) -> None:
    if not 0 <= shift <= 3:
        raise BadInput(f"shift is {shift:g}; give a number from 0 (same machine) to 3")
    if not 0 <= visibility <= 1.5:
        raise BadInput(f"visibility is {visibility:g}; give a number from 0 to 1.5")
    if not 0 <= extra_centers <= 50:
        raise BadInput(f"extra centers are {extra_centers}; give a whole number from 0 to 50")
    if patients is not None and patients < 2:
        raise BadInput(f"patients is {patients}; give at least 2, one of each class, or leave it out")


def _fill(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `out`, then rename it to `out`."""
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        write(temporary)
        temporary.chmod(0o755)
        temporary.rename(out)
    except OSError as error:
        raise RunFailed(f"cannot write {out}: {error.strerror}; free space or check permissions") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_lymphus(
    folder: Path, centers: tuple[Center, ...], seed: int, visibility: float, progress: Progress | None
) -> None:
    from simulation.phantom.lymphus import GROUPS, center_archive

    total = sum(center.benign + center.malignant for center in centers)
    truth: list[dict[str, Value]] = []

    def noted(center: Center) -> Iterator[tuple[int, Case]]:
        for k, case in _cases(center, seed=seed, visibility=visibility):
            place: dict[str, Value] = {
                "center": center.number,
                "group": GROUPS[case.malignant],
                "number": k,
            }
            truth.append({**place, **case.truth()})
            yield k, case
            if progress is not None:
                progress(len(truth), total)

    for center in centers:
        center_archive(folder / f"Center-{center.number}.zip", center.number, noted(center))
    (folder / "truth.csv").write_text(csv_text(truth), encoding="utf-8")


def _cases(center: Center, *, seed: int, visibility: float) -> Iterator[tuple[int, Case]]:
    """Every case of a center with its number within its class; each has a generator of its own."""
    for malignant, count in ((False, center.benign), (True, center.malignant)):
        for k in range(1, count + 1):
            rng = derive(seed, "phantom", "lymphus", center.number, int(malignant), k)
            yield k, center_case(rng, center, malignant=malignant, visibility=visibility)

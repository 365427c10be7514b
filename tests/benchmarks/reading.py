"""What decoding once gains, and how quickly a data set becomes site folders."""

from __future__ import annotations

__all__ = ["augmented_against_decode", "cached_against_decode", "import_speed"]

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from client.augment import augment
from client.crops import crop
from client.importers import import_site
from common.config import Augmentation, Crop
from tests.benchmarks.plain import Frames, Pictures, draw_frames
from tests.benchmarks.rows import Row, interleave

SIZE, BATCH = 224, 32


def cached_against_decode() -> Row:
    """Batches of uint8 crops from the memory-mapped cache, against decoding, cropping and resizing each with PIL."""
    return _against_decode("cache-vs-decode", _ours_plain, _theirs_plain, "no augmentation", batches=(400, 2))


def augmented_against_decode() -> Row:
    """The same with the training's default augmentation: on tensors here, by PIL and torchvision there."""
    return _against_decode(
        "cache-vs-decode-augmented", _ours_changed, _theirs_changed, "default augmentation", batches=(3, 2)
    )


_Batch = Callable[[np.ndarray], int]


def _against_decode(
    name: str,
    ours: Callable[[np.ndarray], _Batch],
    theirs: Callable[[Frames], _Batch],
    what: str,
    *,
    batches: tuple[int, int],
) -> Row:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        frames = draw_frames(Path(folder), images=160, seed=0)
        np.save(Path(folder) / "crops.npy", frames.crops(SIZE))
        mine, other = ours(np.load(Path(folder) / "crops.npy", mmap_mode="r")), theirs(frames)
        rng = np.random.default_rng(0)

        def turn(batch: _Batch, times: int) -> Callable[[], int]:
            return lambda: sum(batch(rng.permutation(len(frames.files))[:BATCH]) for _ in range(times))

        fast, slow = interleave(turn(mine, batches[0]), turn(other, batches[1]), rounds=7)
    return Row(name, fast / slow, fast, slow, "images/s", f"{SIZE} px, batches of {BATCH}, {what}, one thread")


def _ours_plain(crops: np.ndarray) -> _Batch:
    return lambda rows: len(torch.from_numpy(np.ascontiguousarray(crops[rows])))


def _theirs_plain(frames: Frames) -> _Batch:
    spec = Crop(size=SIZE)

    def batch(rows: np.ndarray) -> int:
        decoded = [crop(Image.open(frames.files[row]), frames.boxes[row], spec) for row in rows]
        return len(torch.from_numpy(np.stack(decoded)))

    return batch


def _ours_changed(crops: np.ndarray) -> _Batch:
    coins = torch.Generator().manual_seed(0)
    return lambda rows: len(augment(torch.from_numpy(np.ascontiguousarray(crops[rows])), Augmentation(), coins))


def _theirs_changed(frames: Frames) -> _Batch:
    pictures = Pictures(frames, SIZE, Augmentation())
    return lambda rows: len(torch.stack([pictures[int(row)][0] for row in rows]))


def import_speed(*, patients: int | None = None) -> Row:
    """GiB of the source a minute, from the largest phantom (DeepLesion's 16-bit slices) to site folders."""
    from simulation.phantom import write_phantom

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "phantom"
        write_phantom(source, preset="deeplesion", seed=0, patients=patients or 150)
        size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file()) / 2**30
        began = time.monotonic()
        import_site("deeplesion", source, Path(folder) / "sites")
        minutes = (time.monotonic() - began) / 60
    what = f"DeepLesion phantom of {size:.2f} GiB, read, checked, windowed, written and hashed, one thread"
    return Row("import-gib-per-minute", size / minutes, size, minutes, "GiB/min", what)

"""What made a number: the code, its versions, the machine. No time, no path, no host name."""

from __future__ import annotations

__all__ = ["Provenance", "provenance"]

import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

_PACKAGES = ("sonofed", "flwr", "torch", "torchvision", "numpy", "scipy", "pandas", "scikit-learn", "opacus", "pillow")


@dataclass(frozen=True)
class Provenance:
    """`commit` is None outside a git checkout; `dirty` says that files differ from it; `data` is a SHA-256 per site.

    `artificial_sites` were cut from one center and are no centers of their own; `models` has the SHA-256 of the files
    of models that were compared, by what they are called in results.
    """

    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    processor: str
    device: str
    threads: int
    data: dict[str, str]
    artificial_sites: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)


def provenance(
    *,
    threads: int,
    data: dict[str, str],
    artificial_sites: Iterable[str] = (),
    models: Mapping[str, str] | None = None,
) -> Provenance:
    """Describe this process and the checkout it runs from."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain") if commit else None
    versions = {"python": platform.python_version()} | {name: v for name in _PACKAGES if (v := _version(name))}
    dirty = bool(status) if commit else None
    artificial = tuple(sorted(artificial_sites))
    return Provenance(commit, dirty, versions, _processor(), _device(), threads, data, artificial, models or {})


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The model's name, the widest vector instructions that torch uses and whether our own loops are built.

    Bits depend on all of them.
    """
    import torch

    from common.convolution import unit_is_there
    from common.maps import compiled

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.machine()
    loops = ", compiled loops" if compiled() else ""
    loops += " on the matrix unit" if unit_is_there() else ""
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}{loops})"


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

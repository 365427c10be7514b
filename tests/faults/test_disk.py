"""A disk that is full: one line, exit 1, and the folder goes on from where it stopped once there is space."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from common import files
from simulation.__main__ import main
from tests.experiments import COMPARISON, command, write_experiment, write_uneven_sites

PROGRAM_LIMIT = 60_000
"""Bytes: more than any record or table of these runs, less than a checkpoint."""


def test_no_space_for_a_checkpoint_is_one_line(tmp_path: Path) -> None:
    """A process whose files may not grow: the system refuses the write in the middle of the file."""
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 32})
    config = write_experiment(tmp_path / "tiny.toml", sites)
    assert main(["run", str(config), "--out", str(tmp_path / "whole")]) == 0
    done = command("simulation", "run", config, "--out", tmp_path / "torn", preexec_fn=_small_files)
    assert done.returncode == 1
    assert (
        done.stderr == "error: cannot write round-0000.safetensors: File too large; free space or check permissions\n"
    )
    assert not any(path.stat().st_size == PROGRAM_LIMIT for path in (tmp_path / "torn").rglob("*"))
    assert main(["run", str(config), "--out", str(tmp_path / "torn"), "--resume"]) == 0
    for name in ("results.json", "model.safetensors"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def _small_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (PROGRAM_LIMIT, PROGRAM_LIMIT))


@pytest.mark.parametrize("verb", ["run", "compare"])
def test_a_disk_that_fills_up_at_any_write(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No space left at the n-th file that is made durable, for some n all through the run; then it goes on."""
    sites = write_uneven_sites(tmp_path / "sites", {"ash": 32, "birch": 32})
    changes = COMPARISON | {"comparison": {"arms": ["federated", "pooled"], "pictures": 1}}
    config = write_experiment(tmp_path / "tiny.toml", sites, **changes)
    real, count, full_at = os.fsync, 0, -1

    def fsync(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count >= full_at > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    assert main([verb, str(config), "--out", str(tmp_path / "whole")]) == 0
    total = count
    more = ["--resume"] if verb == "run" else []
    for share in (0.02, 0.3, 0.6):
        torn = tmp_path / f"torn-{share}"
        count, full_at = 0, max(1, round(share * total))
        capsys.readouterr()
        assert main([verb, str(config), "--out", str(torn)]) == 1
        assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
        full_at = -1
        assert main([verb, str(config), "--out", str(torn), *(more if any(torn.iterdir()) else [])]) == 0
        one, other = (folder / "results.json" for folder in (tmp_path / "whole", torn))
        assert one.read_bytes() == other.read_bytes()

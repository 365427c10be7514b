"""The second model of an evaluation that compares two, as the run folder keeps it until the sites have answered.

other.safetensors    the second model, byte for byte as it was given
against.json         the SHA-256 of both files, by what the models are called in results
"""

from __future__ import annotations

__all__ = ["keep_against", "read_against", "read_other"]

from pathlib import Path

from common.errors import BadInput
from common.files import read_json, sha256_bytes, sha256_file, write_atomic, write_json
from common.update import Weights
from common.weights import load
from server.paired import FIRST, SECOND, Against

_OTHER = "other.safetensors"
_ABOUT = "against.json"


def read_other(checkpoint: Path, other: Path) -> Weights:
    """The weights of `other`; BadInput where they are not of the same model as those of `checkpoint`."""
    first, second = load(checkpoint), load(other)
    for name in sorted(first.keys() | second.keys()):
        shapes = [tuple(one[name].shape) if name in one else None for one in (first, second)]
        if shapes[0] != shapes[1]:
            has, lacks = (other, checkpoint) if shapes[0] is None else (checkpoint, other)
            how = (
                f"{name} is in {has.name} and not in {lacks.name}"
                if None in shapes
                else f"{name} is {shapes[1]} there and {shapes[0]} in {checkpoint.name}"
            )
            raise BadInput(
                f"--against {other.name}: not of the same model as {checkpoint.name} ({how}); give a checkpoint or "
                "model.safetensors of a run with the same [model] and task"
            )
    return second


def keep_against(folder: Path, checkpoint: Path, other: Path) -> None:
    """Put the second model into the prepared run folder, then the marks of both files."""
    content = other.read_bytes()
    write_atomic(folder / _OTHER, content)
    write_json(folder / _ABOUT, {FIRST: sha256_file(checkpoint), SECOND: sha256_bytes(content)})


def read_against(folder: Path) -> Against | None:
    """The second model of a run folder; None where it compares nothing. BadInput where it was damaged."""
    if not (folder / _ABOUT).is_file():
        return None
    about = read_json(folder / _ABOUT)
    path = folder / _OTHER
    if not isinstance(about, dict) or about.keys() != {FIRST, SECOND}:
        raise BadInput(f"{_ABOUT}: not two models' checksums; start again with another --out")
    if not path.is_file() or sha256_file(path) != about[SECOND]:
        raise BadInput(f"{_OTHER}: the checksum is wrong; start again with another --out")
    return Against(load(path), {str(name): str(digest) for name, digest in about.items()})

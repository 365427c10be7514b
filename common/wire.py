"""Between plain values and Flower's records: tensors packed into few arrays, everything else as one JSON text.

Flower's cost is per array (45 MB in 122 arrays took four times as long as in 9), so tensors are laid end to end and cut
into pieces of about 5 MB; the first array is a directory, JSON as bytes, that says which bytes are which tensor.
"""

from __future__ import annotations

__all__ = [
    "arrays_of",
    "from_config",
    "pack",
    "payload_bytes",
    "to_config",
    "unpack",
    "weights_of",
    "words_array",
    "words_of",
]

import json
import math
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import TypeAdapter

from common.blocks import Words
from common.errors import BadInput
from common.parsing import parse
from common.update import Weights

_PIECE = 5 << 20
_DIRECTORY = "directory"
_FLOATS = {"<f2", "<f4", "<f8"}
_T = TypeVar("_T")


def arrays_of(weights: Weights) -> ArrayRecord:
    """The tensors as a directory and pieces of about 5 MB, uint8."""
    directory = json.dumps([[name, array.dtype.str, list(array.shape)] for name, array in weights.items()])
    flat = _joined([np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in weights.values()])
    pieces = [flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE)]
    record = {_DIRECTORY: Array(np.frombuffer(directory.encode(), dtype=np.uint8))}
    return ArrayRecord(record | {f"{i:04d}": Array(piece) for i, piece in enumerate(pieces)})


def _joined(parts: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)


def weights_of(arrays: ArrayRecord) -> Weights:
    """The inverse of `arrays_of`: views of one buffer, which may be written to.

    BadInput where the record is torn or holds anything but floating-point tensors.
    """
    try:
        directory = json.loads(arrays[_DIRECTORY].numpy().tobytes())
        flat = _joined([_bytes(arrays[key].numpy()) for key in sorted(arrays) if key != _DIRECTORY])
        weights: Weights = {}
        at = 0
        for name, kind, shape in directory:
            if kind not in _FLOATS:
                raise BadInput(f"message: tensor {name} has type {kind}; only floating-point tensors travel")
            count = math.prod(shape)
            if any(side < 0 for side in shape):
                raise ValueError(shape)
            weights[name] = np.frombuffer(flat.data, dtype=kind, count=count, offset=at).reshape(shape)
            at += weights[name].nbytes
        if at != len(flat):
            raise ValueError(at)
    except (KeyError, TypeError, ValueError, EOFError, OverflowError, BadZipFile) as error:
        raise BadInput(f"message: its tensors are torn ({type(error).__name__}); send it again") from None
    return weights


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(array.dtype)
    return array


def to_config(value: Any) -> ConfigRecord:
    """A dataclass as one JSON text."""
    return ConfigRecord({"json": TypeAdapter(type(value)).dump_json(value).decode()})


def from_config(kind: type[_T], record: ConfigRecord) -> _T:
    """The inverse of `to_config`; BadInput where the text does not fit `kind`."""
    try:
        table = json.loads(str(record["json"]))
    except (KeyError, ValueError) as error:
        raise BadInput(f"message: not in sonofed's form ({type(error).__name__}); run one release everywhere") from None
    return parse(kind, table, where="message")


def pack(value: Any, arrays: ArrayRecord | None = None) -> RecordDict:
    """`value` (a dataclass of common.orders) and, where given, tensors, as the content of one message."""
    content = RecordDict({"order": to_config(value)})
    if arrays is not None:
        content["arrays"] = arrays
    return content


def unpack(kind: type[_T], content: RecordDict) -> _T:
    """The plain value of a message made by `pack`."""
    if "order" not in content.config_records:
        raise BadInput("message: not in sonofed's form (no order); run one release everywhere")
    return from_config(kind, content.config_records["order"])


def words_array(words: Words) -> ArrayRecord:
    """Whole numbers modulo 2⁶⁴ as one array of bytes, little-endian."""
    return ArrayRecord({"words": Array(words.astype("<u8").view(np.uint8))})


def words_of(content: RecordDict) -> Words:
    """The inverse of `words_array`, from a message packed with it; BadInput where they are torn."""
    try:
        return _bytes(content.array_records["arrays"]["words"].numpy()).view("<u8").astype(np.uint64)
    except (KeyError, TypeError, ValueError, EOFError, OverflowError, BadZipFile) as error:
        raise BadInput(f"message: its sums are torn ({type(error).__name__}); send it again") from None


def payload_bytes(content: RecordDict) -> int:
    """Bytes of the tensors in a message."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())

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
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.constant import SType
from numpy.lib import format as npy
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
    """The tensors as a directory and pieces of about 5 MB, uint8: the bytes that `Array(piece)` has, copied once."""
    directory = json.dumps([[name, array.dtype.str, list(array.shape)] for name, array in weights.items()])
    record = {_DIRECTORY: _array([np.frombuffer(directory.encode(), dtype=np.uint8)])}
    tensors = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in weights.values()]
    return ArrayRecord(record | {f"{i:04d}": _array(parts) for i, parts in enumerate(_pieces(tensors))})


def _pieces(tensors: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    """What lies in each piece when the tensors are laid end to end, as views."""
    piece: list[NDArray[np.uint8]] = []
    room = _PIECE
    for tensor in tensors:
        while len(tensor):
            piece.append(tensor[:room])
            tensor, room = tensor[room:], room - len(piece[-1])
            if not room:
                yield piece
                piece, room = [], _PIECE
    if piece:
        yield piece


def _array(parts: Sequence[NDArray[np.uint8]]) -> Array:
    size = sum(map(len, parts))
    header = BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
    return Array("uint8", (size,), SType.NUMPY, b"".join([header.getvalue(), *(part.data for part in parts)]))


def weights_of(arrays: ArrayRecord) -> Weights:
    """The inverse of `arrays_of`: views of one buffer, which may be written to.

    BadInput where the record is torn or holds anything but floating-point tensors.
    """
    try:
        directory = json.loads(_bytes(arrays[_DIRECTORY]).tobytes())
        pieces = [_bytes(arrays[key]) for key in sorted(arrays) if key != _DIRECTORY]
        flat = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint8)
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
    except (KeyError, TypeError, ValueError, EOFError, OverflowError) as error:
        raise BadInput(f"message: its tensors are torn ({type(error).__name__}); send it again") from None
    return weights


def _bytes(array: Array) -> NDArray[np.uint8]:
    """A view of the bytes in an array; ValueError where it is none of bytes, or not whole."""
    data = BytesIO(array.data)
    if array.stype != SType.NUMPY or npy.read_magic(data) != (1, 0):
        raise ValueError(array.stype)
    shape, _, dtype = npy.read_array_header_1_0(data)
    if dtype != np.uint8 or shape != (len(array.data) - data.tell(),):
        raise ValueError(shape)
    return np.frombuffer(array.data, dtype=np.uint8, offset=data.tell())


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
        return _bytes(content.array_records["arrays"]["words"]).view("<u8").astype(np.uint64)
    except (KeyError, TypeError, ValueError, EOFError, OverflowError) as error:
        raise BadInput(f"message: its sums are torn ({type(error).__name__}); send it again") from None


def payload_bytes(content: RecordDict) -> int:
    """Bytes of the tensors in a message."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())

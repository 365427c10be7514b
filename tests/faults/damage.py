"""Random damage to files: bytes, headers, directories of zips, cells of tables, names."""

from __future__ import annotations

__all__ = ["Files", "damage"]

import io
import random
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

Files = dict[str, bytes]
"""A source's files by their path in the folder that holds it."""

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 50_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TEXTS = (
    b"", b"-1", b"0", b"1e999", b"nan", b"=1+1", b"99999999999999999999", b"\0", "é\u202e名".encode(), b"../../x",
    b"x" * 100_000, b'"', b"[0,0,0,0]", b"[1,1,99999,99999]", "٣".encode(), b"\xff\xfe", b"\n", b",", b"<", b"</v></c>",
    b"2000000000", b"no/such/file", b"&x;", b"malignant", b"Malignant",
)  # fmt: skip
_NAMES = (
    "../up.png",
    "/abs.png",
    "a\\b.png",
    "C:/x.png",
    "é名.png",
    "x" * 300,
    "a/./b",
    "",
    "a//b",
    "\u202ea",
    "CON",
    ".x",
)


def _flip(rng: random.Random, content: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _truncate(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def _insert(rng: random.Random, content: bytearray) -> None:
    place = rng.randrange(len(content) + 1)
    content[place:place] = rng.randbytes(rng.choice((1, 2, 16, 1000)))


def _duplicate(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    block = content[start : start + rng.choice((1, 8, 64, 512))]
    content[start:start] = block * rng.choice((1, 2, 50))


def _delete(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice((1, 4, 64))]


def _header(rng: random.Random, content: bytearray) -> None:
    """A number that is often fatal, in the first bytes."""
    _put_number(rng, content, rng.randrange(min(len(content), 128)))


def _put_number(rng: random.Random, content: bytearray, place: int) -> None:
    width = rng.choice((1, 2, 4))
    number = rng.choice(_NUMBERS) & (256**width - 1)
    content[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]


def _anywhere(rng: random.Random, content: bytearray) -> None:
    _put_number(rng, content, rng.randrange(len(content)))


def _size(rng: random.Random, content: bytearray) -> None:
    """Width and height of a PNG, BMP, JPEG or DICOM; of others the header."""
    width, height = (rng.choice((*_NUMBERS, 40, 60)) for _ in range(2))
    if content.startswith(b"\x89PNG"):
        content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    elif content.startswith(b"BM"):
        content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    elif match := re.search(rb"\xff[\xc0-\xc3]\0[\x0b\x11]\x08|\x28\x00[\x10\x11]\x00US\x02\x00", content):
        told = (height & 0xFFFF).to_bytes(2, rng.choice(("little", "big")))  # type: ignore[arg-type]
        content[match.end() : match.end() + 2] = told
    else:
        _header(rng, content)


def _element(rng: random.Random, content: bytearray) -> None:
    """Length, type or value of an element of DICOM's explicit kind; of a directory entry of a TIFF."""
    places = [match.start() for match in re.finditer(rb"[\0-\x40]\0.\0[A-Z]{2}", bytes(content[:4000]), re.DOTALL)]
    if not places:
        return _anywhere(rng, content)
    place = rng.choice(places) + rng.choice((0, 2, 4, 6, 8, 12))
    return _put_number(rng, content, min(place, len(content) - 1))


def _cell(rng: random.Random, content: bytearray) -> None:
    """A cell of a CSV, a text of an XML file."""
    found = list(re.finditer(rb">[^<>]*<|(?<![^,\n])[^,\n]*(?=[,\n])", bytes(content[:200_000])))
    if not found:
        return _anywhere(rng, content)
    match = rng.choice(found)
    text = rng.choice(_TEXTS)
    content[match.start() : match.end()] = b">" + text + b"<" if match[0].startswith(b">") else text
    return None


def _directory(rng: random.Random, content: bytearray) -> None:
    """A field of a zip: in a local header, in the central directory, in the end record."""
    places = [match.start() for match in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", bytes(content))]
    if not places:
        return _anywhere(rng, content)
    return _put_number(rng, content, min(rng.choice(places) + rng.randrange(4, 46), len(content) - 1))


_ON_BYTES: Mapping[str, Callable[[random.Random, bytearray], None]] = {
    "flip": _flip,
    "truncate": _truncate,
    "insert": _insert,
    "duplicate": _duplicate,
    "delete": _delete,
    "header": _header,
    "anywhere": _anywhere,
    "size": _size,
    "element": _element,
    "cell": _cell,
    "directory": _directory,
}
_FITTING = {".csv": ("cell",), ".xml": ("cell",), ".zip": ("directory",), ".xlsx": ("directory",), ".dcm": ("element",)}
"""Damage that is likelier in a file of this ending; elsewhere `element` and `size` are."""


def damage(rng: random.Random, files: Files) -> str:
    """Damage the files in place, once or up to three times; gives the kinds, such as `zip cell` and `splice`."""
    return " + ".join(sorted({_damage_once(rng, files) for _ in range(rng.choice((1, 1, 1, 2, 3)))}))


def _damage_once(rng: random.Random, files: Files) -> str:
    name = rng.choice(list(files))
    if rng.random() < 0.4:  # tables and archives are few among many pictures
        name = rng.choice(
            [one for one in files if one.endswith((".csv", ".xlsx", ".zip", "sheet1.xml"))] or list(files)
        )
    if zipfile.is_zipfile(io.BytesIO(files[name])) and rng.random() < 0.7:
        return "zip " + _damage_inside(rng, files, name)
    roll = rng.random()
    if roll < 0.06:
        return _damage_names(rng, files, name)
    if roll < 0.12:
        return _splice(rng, files, name)
    likelier = _FITTING.get(Path(name).suffix, ("element", "size", "size"))
    kind = rng.choice([*_ON_BYTES, *4 * likelier])
    content = bytearray(files[name] or b"\0")
    _ON_BYTES[kind](rng, content)
    files[name] = bytes(content)
    return kind


def _damage_inside(rng: random.Random, files: Files, name: str) -> str:
    """Unpack a zip (an xlsx is one), damage a member, pack it again:
    checksums fit, so that the parsers behind see it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(files[name])) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:  # damaged before
        return "nothing"
    if not members:
        return "nothing"
    kind = _damage_once(rng, members)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    files[name] = packed.getvalue()
    return kind


def _damage_names(rng: random.Random, files: Files, name: str) -> str:
    """Drop, rename or exchange files. A name that leads out only stands inside zips: a folder cannot hold it."""
    match rng.randrange(4):
        case 0 if len(files) > 1:
            del files[name]
            return "drop"
        case 1:
            other = rng.choice(list(files))
            files[name], files[other] = files[other], files[name]
            return "exchange"
        case 2:
            files[name.swapcase()] = files[name]
            return "case clash"
        case _:
            files[rng.choice(_NAMES)] = files[name]
            return "name"


def _splice(rng: random.Random, files: Files, name: str) -> str:
    """The beginning of one file before the rest of another."""
    other = files[rng.choice(list(files))]
    cut = rng.choice((4, 16, 60, 132, 400))
    files[name] = other[:cut] + files[name][cut:]
    return "splice"

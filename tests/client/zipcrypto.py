"""A writer of zips with the traditional encryption, from its public description: no library at hand writes them."""

from __future__ import annotations

__all__ = ["write_zipcrypto"]

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

_TABLE = []
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = (_value >> 1) ^ (0xEDB88320 if _value & 1 else 0)
    _TABLE.append(_value)


def _crc(value: int, byte: int) -> int:
    return (value >> 8) ^ _TABLE[(value ^ byte) & 0xFF]


def _encrypt(content: bytes, password: bytes) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = _crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = _crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in content:
        key = (keys[2] | 2) & 0xFFFF
        out.append(byte ^ (((key * (key ^ 1)) >> 8) & 0xFF))
        update(byte)
    return bytes(out)


def write_zipcrypto(path: Path, members: Mapping[str, bytes], password: bytes, *, plain: tuple[str, ...] = ()) -> Path:
    """Write a deflated zip whose members are encrypted, those in `plain` aside."""
    body, directory = bytearray(), bytearray()
    for name, content in members.items():
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed, check = packer.compress(content) + packer.flush(), zlib.crc32(content)
        if encrypted := name not in plain:
            packed = _encrypt(bytes(11) + bytes([check >> 24]) + packed, password)
        told = name.encode()
        common = struct.pack(
            "<HHHHIIIHH", 0x800 | encrypted, 8, 0, 0x21, check, len(packed), len(content), len(told), 0
        )
        directory += (
            struct.pack("<IHH", 0x02014B50, 20, 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + told
        )
        body += struct.pack("<IH", 0x04034B50, 20) + common + told + packed
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path

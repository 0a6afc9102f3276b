"""HDF5 files without the times at which they were written: equal transforms, equal files.

The library that ITK writes with stamps every object header. The stamps are part of a header's
checksum, so both are set anew. (HDF5 File Format Specification, version 3, IV.A.1.b.)
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

__all__ = ["checksum", "forget_times"]

_START = b"OHDR\x02"  # the signature and version of an object header
_HAS_TIMES, _HAS_LIMITS = 0x20, 0x10
_MASK = 0xFFFFFFFF


def forget_times(path: str | os.PathLike[str]) -> int:
    """Set every time stamp of an HDF5 file to zero; how many headers were changed."""
    path = Path(path)
    data = bytearray(path.read_bytes())
    changed, place = 0, data.find(_START)
    while place >= 0:
        changed += _clear(data, place)
        place = data.find(_START, place + len(_START))
    path.write_bytes(data)
    return changed


def _clear(data: bytearray, start: int) -> bool:
    """Clear the header that begins here, if it is one: its checksum tells."""
    flags = data[start + 5]
    times = start + 6
    width = 1 << (flags & 3)
    if not flags & _HAS_TIMES:
        return False
    place = times + 16 + (4 if flags & _HAS_LIMITS else 0)
    end = place + width + int.from_bytes(data[place : place + width], "little")
    if end + 4 > len(data) or struct.unpack_from("<I", data, end)[0] != checksum(data[start:end]):
        return False
    data[times : times + 16] = bytes(16)
    struct.pack_into("<I", data, end, checksum(data[start:end]))
    return True


def checksum(data: bytes | bytearray) -> int:
    """The checksum of HDF5's metadata: ``hashlittle`` of Bob Jenkins' lookup3, from 0.

    >>> hex(checksum(b"Four score and seven years ago"))
    '0x17770551'
    """
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    whole = max(len(data) - 1, 0) // 12 * 12
    for place in range(0, whole, 12):
        one, two, three = struct.unpack_from("<3I", data, place)
        a, b, c = _mix((a + one) & _MASK, (b + two) & _MASK, (c + three) & _MASK)
    rest = bytes(data[whole:])
    if not rest:
        return c
    one, two, three = struct.unpack("<3I", rest.ljust(12, b"\0"))
    return _final((a + one) & _MASK, (b + two) & _MASK, (c + three) & _MASK)


def _turn(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _MASK) ^ _turn(c, 4)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _turn(a, 6)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _turn(b, 8)
    b = (b + a) & _MASK
    a = ((a - c) & _MASK) ^ _turn(c, 16)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _turn(a, 19)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _turn(b, 4)
    b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for first, second, third in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - _turn(b, first)) & _MASK
        a = ((a ^ c) - _turn(c, second)) & _MASK
        b = ((b ^ a) - _turn(a, third)) & _MASK
    return ((c ^ b) - _turn(b, 24)) & _MASK

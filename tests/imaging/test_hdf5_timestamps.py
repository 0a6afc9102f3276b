"""HDF5 files without time stamps."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from deepmrseg_bids.imaging.hdf5_timestamps import checksum, forget_times


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0xDEADBEEF), (b"Four score and seven years ago", 0x17770551)],
)
def test_the_checksum_is_that_of_its_author(data: bytes, value: int) -> None:
    assert checksum(data) == value  # Jenkins, lookup3.c, driver5


def header(stamp: int, *, limits: bool) -> bytes:
    """An object header with four times and one message of ten bytes."""
    flags = 0x20 | (0x10 if limits else 0)
    body = b"OHDR\x02" + bytes([flags]) + struct.pack("<4I", stamp, stamp, stamp, stamp)
    body += bytes(4) if limits else b""
    body += bytes([10]) + b"0123456789"
    return body + struct.pack("<I", checksum(body))


@pytest.mark.parametrize("limits", [False, True])
def test_files_of_different_times_become_the_same(tmp_path: Path, limits: bool) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for stamp, path in zip((1, 1700000000), paths, strict=True):
        path.write_bytes(b"junk" + header(stamp, limits=limits) + b"OHDR\x02" + bytes(9))
        assert forget_times(path) == 1
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes()[4:].startswith(header(0, limits=limits))


def test_what_only_looks_like_a_header_is_left_alone(tmp_path: Path) -> None:
    damaged = bytearray(header(5, limits=False))
    damaged[-1] ^= 1
    path = tmp_path / "x.h5"
    path.write_bytes(damaged)
    assert forget_times(path) == 0
    assert path.read_bytes() == bytes(damaged)

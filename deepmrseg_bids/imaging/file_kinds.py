"""What a file is, by its first bytes: its name may say something else.

An image that is compressed under the name of one that is not, or the other way round, is read
all the same. What is no NIfTI image at all is told by what it is, with what to do.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

__all__ = ["PEEK", "folder_hint", "is_compressed", "opened", "pointer_hint", "what_it_is"]

PEEK = 1024  # bytes that tell what a file is

_GZIP = b"\x1f\x8b"
_AGAIN = "copy or download it again"
_ARCHIVE = "unpack it first"
_LOST = "only the placeholder of the image is present; run `git {} {}`"

_MARKS: tuple[tuple[int, bytes, str, str], ...] = (
    # place, mark, what it is, what to do
    (0, b"version https://git-lfs", "a Git LFS pointer file", _LOST.format("lfs", "pull")),
    (128, b"DICM", "a DICOM file", "convert the series with dcm2niix"),
    (0, _GZIP, "compressed twice with gzip", "run gunzip on it once"),
    (0, b"PK\x03\x04", "a zip archive", _ARCHIVE),
    (0, b"7z\xbc\xaf", "a 7z archive", _ARCHIVE),
    (257, b"ustar", "a tar archive", _ARCHIVE),
    (0, b"BZh", "compressed with bzip2", "decompress it, or compress it with gzip"),
    (0, b"\xfd7zXZ", "compressed with xz", "decompress it, or compress it with gzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it, or compress it with gzip"),
    (0, b"NRRD", "an NRRD image", "convert it to NIfTI, for example with 3D Slicer"),
    (0, b"ObjectType", "a MetaImage header", "convert it to NIfTI, for example with 3D Slicer"),
    (0, b"CDF\x01", "a MINC image", "convert it with mnc2nii"),
    (0, b"\x89HDF", "an HDF5 file (MINC?)", "convert it to NIfTI"),
    (0, b"\x89PNG", "a PNG picture", "give the NIfTI image of the scan"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "give the NIfTI image of the scan"),
    (0, b"%PDF", "a PDF document", "give the NIfTI image of the scan"),
    (0, b"\x93NUMPY", "a NumPy array", "save it as NIfTI, with its affine"),
    (344, b"ni1\0", "the header of a NIfTI pair (.hdr and .img)", "write both into one .nii file"),
    (4, b"ni2\0", "the header of a NIfTI pair (.hdr and .img)", "write both into one .nii file"),
)
_PAIR = ("half of an image in two files (.hdr and .img)", "write both into one .nii file")


def is_compressed(path: Path) -> bool:
    """Whether a file is compressed with gzip, whatever its name.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(len(_GZIP)) == _GZIP


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, decompressed where it is compressed with gzip.

    Raises:
        OSError: it cannot be read.
    """
    if is_compressed(path):
        with gzip.open(path) as stream:
            yield cast(BinaryIO, stream)
    else:
        with path.open("rb") as plain:
            yield plain


def what_it_is(path: Path, first: bytes) -> str:
    """What a file is that is no NIfTI image, and what to do; empty if it is not known.

    Args:
        first: the first ``PEEK`` bytes of its content.

    >>> what_it_is(Path("a.nii.gz"), b"<!DOCTYPE html><html>")
    'an HTML page (of a failed download, or a login?); download the image again'
    """
    what, advice = _named(path, first)
    return f"{what}; {advice}" if what else ""


def pointer_hint(path: Path) -> str:
    """What to do where a file of git-annex or Git LFS has no content here; else empty.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        first = stream.read(PEEK)
    what, advice = _named(path, first)
    return f"{what}; {advice}" if "pointer file" in what else ""


def _named(path: Path, first: bytes) -> tuple[str, str]:
    for place, mark, what, advice in _MARKS:
        if first[place : place + len(mark)] == mark:
            return what, advice
    if path.suffix.lower() in (".hdr", ".img") or _is_analyze(first):
        return _PAIR
    if _is_mgh(first):
        return "a FreeSurfer volume (MGH)", "convert it with mri_convert"
    if not first.strip(b"\0"):
        return "a file of zero bytes only", _AGAIN
    return _text(first)


def _text(first: bytes) -> tuple[str, str]:
    """What a file of text is."""
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"/annex/objects/" in text.replace(b"\\", b"/").split(b"\n")[0]:
        return "a git-annex pointer file", _LOST.format("annex", "get")
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page (of a failed download, or a login?)", "download the image again"
    if text.startswith(b"<?xml"):
        return "an XML file", _AGAIN
    if text.startswith((b"{", b"[")):
        return "a JSON file", _AGAIN
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in first):
        return "a text file", _AGAIN
    return "", ""


def _is_analyze(first: bytes) -> bool:
    """Whether these are the first bytes of an Analyze 7.5 header."""
    if len(first) < 348 or first[344:348].strip(b"\0"):
        return False
    return any(struct.unpack(f"{order}i", first[:4])[0] == 348 for order in "<>")


def _is_mgh(first: bytes) -> bool:
    """Whether a volume of FreeSurfer begins so: version 1, four edges, a known type."""
    if len(first) < 284:
        return False
    version, *edges, kind, _ = struct.unpack(">7i", first[:28])
    return version == 1 and all(0 < edge < 2**15 for edge in edges) and kind in (0, 1, 3, 4, 10)


def folder_hint(path: str | os.PathLike[str]) -> str:
    """What a folder is that was given in the place of an image, and what to do."""
    for name in sorted(os.listdir(path))[:50]:
        inner = Path(path) / name
        if inner.is_file():
            with inner.open("rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return "a folder of DICOM files; convert the series with dcm2niix"
    return "a folder; give the NIfTI file of the scan"

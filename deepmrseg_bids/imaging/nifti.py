"""Images in memory and on disk: the only user of nibabel.

A scan is read once, checked once, and trusted afterwards.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from deepmrseg_bids.errors import ImageReadError, SignalError
from deepmrseg_bids.files import replacing
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.air import find_air, with_air_at_zero
from deepmrseg_bids.imaging.file_kinds import PEEK, folder_hint, is_compressed, opened, what_it_is
from deepmrseg_bids.imaging.grid import Array, Forms, Grid
from deepmrseg_bids.imaging.morphology import box_of
from deepmrseg_bids.imaging.placement import check_rotation, place
from deepmrseg_bids.imaging.scaling import in_range, logarithms, odd_scaling, rescaled
from deepmrseg_bids.system import usable_memory_mib
from deepmrseg_bids.wording import counted

__all__ = [
    "LabelMap",
    "Volume",
    "nifti_bytes",
    "read_grid",
    "read_labels",
    "read_volume",
    "voxel_count",
    "write_labels",
    "write_probabilities",
]

_READ_ERRORS = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    OverflowError,
    MemoryError,
    TypeError,  # colour images
)


_NO_LOG = logging.Logger("nibabel.silent", logging.CRITICAL + 1)
_LARGEST_LABEL = 2**24  # up to here float32 holds every whole number
_MOST_VOXELS = 2**30  # 1024^3: 0.25 mm over a whole head
_GZIP_LIMIT = 1032  # deflate makes nothing smaller than this many times


class _NoExtensions(nib.nifti1.Nifti1Extensions):
    """Extensions are not needed, and a damaged one may promise gigabytes."""

    @classmethod
    def from_fileobj(cls, fileobj: object, size: int, byteswap: bool) -> _NoExtensions:
        return cls()


class _Silent:
    """Repairs of nibabel are not logged: what they mean becomes a finding of ours."""

    exts_klass = _NoExtensions

    def check_fix(self, logger: Any = None, error_level: int | None = None) -> None:
        super().check_fix(_NO_LOG, error_level)  # type: ignore[misc]

    @classmethod
    def stored(cls, first: bytes) -> Any:
        """The header at the beginning of a file as it is, without repairs."""
        order = "<" if first[0] else ">"  # of its length, 348 or 540; nibabel looks at `dim`
        return cls.from_fileobj(BytesIO(first), order, check=False)  # type: ignore[attr-defined]


class _Header(_Silent, nib.Nifti1Header):
    pass


class _Header2(_Silent, nib.Nifti2Header):
    pass


class _Scan(nib.Nifti1Image):
    header_class = _Header


class _Scan2(nib.Nifti2Image):
    header_class = _Header2


@dataclass(frozen=True, eq=False)
class _Stored:
    """An image on disk, of which only the header was read.

    Attributes:
        nib: with the header as nibabel repairs it.
        stored: the header as it is in the file.
    """

    path: Path
    nib: nib.Nifti1Image
    stored: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Without edges of length 1 behind the third."""
        shape = tuple(int(edge) for edge in self.nib.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        return shape

    @property
    def promised(self) -> int:
        """How many bytes the header announces."""
        kind = self.nib.get_data_dtype()
        return int(cast(Any, self.nib.dataobj).offset + math.prod(self.shape) * kind.itemsize)

    def volume_shape(self) -> tuple[int, int, int]:
        """The three edges of a scan.

        Raises:
            ImageReadError: it is not one volume.
        """
        shape = self.shape
        if len(shape) != 3 or min(shape) < 2:
            listed = " x ".join(map(str, shape))
            raise ImageReadError(f"{self.path}: one 3D volume was expected, found {listed}")
        return shape[0], shape[1], shape[2]


@dataclass(frozen=True, eq=False)
class Volume:
    """One scan: intensities and where they lie.

    Attributes:
        data: (I, J, K) float32, finite; air, and what was not scanned, is near 0.
        grid: the scan's own grid.
        findings: what was noticed and mended while reading.
        source: the file it came from, if any.
    """

    data: NDArray[np.float32]
    grid: Grid
    findings: tuple[Finding, ...] = ()
    source: Path | None = None

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise ValueError(f"data of shape {self.data.shape} on a grid of {self.grid.shape}")


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One label an integer, voxel by voxel: ``data`` (I, J, K) on ``grid``."""

    data: NDArray[np.integer[Any]]
    grid: Grid

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise ValueError(f"labels of shape {self.data.shape} on a grid of {self.grid.shape}")


def read_volume(path: str | os.PathLike[str], *, force_header: bool = False) -> Volume:
    """Read a scan, mend what can be mended, and refuse the rest.

    Args:
        force_header: read a scan with neither sform nor qform too; its axes are then taken to
            run to the left, to the front and up, as most software does.

    Raises:
        ImageReadError: missing, empty, truncated, not NIfTI, or with several volumes.
        HeaderError: no usable affine.
        SignalError: all voxels are equal.
    """
    image = _load(Path(path))
    path = image.path
    shape = image.volume_shape()
    grid, findings = place(image.stored, image.nib.header, shape, path, force=force_header)
    findings += odd_scaling(image.stored)
    data: NDArray[np.float32] = _array(image, findings=findings)
    if len(image.nib.shape) > 3:
        text = f"{len(image.nib.shape)}D image with one volume: processed as 3D"
        findings.append(Finding("single-volume-4d", "warning", text))
    bad = ~np.isfinite(data)
    if bad.any():
        text = f"{int(bad.sum())} NaN or infinite voxels were set to 0"
        findings.append(Finding("nan-voxels", "warning", text))
        data = np.where(bad, np.float32(0), data)
    if data.min() == data.max():
        raise SignalError(f"{path}: no signal, every voxel is {data.flat[0]:g}")
    findings += logarithms(data)
    air = find_air(data)
    findings += air.findings(data)
    return Volume(with_air_at_zero(data, air), grid, tuple(findings), path)


def read_grid(path: str | os.PathLike[str], *, force_header: bool = False) -> Grid:
    """Where the voxels of a scan lie, from its header alone.

    Raises:
        ImageReadError, HeaderError: as :func:`read_volume`, for what the header tells.
    """
    image = _load(Path(path))
    shape = image.volume_shape()
    grid, _ = place(image.stored, image.nib.header, shape, image.path, force=force_header)
    _check_size(image)
    return grid


def voxel_count(path: str | os.PathLike[str]) -> int:
    """How many voxels the header promises; 0 if the scan cannot be read."""
    try:
        image = _load(Path(path))
        _check_size(image)
        return math.prod(image.shape)
    except ImageReadError:
        return 0


def read_labels(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map.

    Raises:
        ImageReadError: unreadable, not 3D, or with values that are not whole numbers >= 0.
        HeaderError: no usable affine.
    """
    image = _load(Path(path))
    path = image.path
    data = _array(image, integers=True)
    if data.ndim != 3:
        raise ImageReadError(f"{path}: a 3D label map was expected, found shape {data.shape}")
    if (data.dtype.kind == "f" and _has_fractions(data)) or data.min() < 0:
        raise ImageReadError(
            f"{path}: a label map contains only whole numbers >= 0, found other values"
        )
    if data.max() > _LARGEST_LABEL:
        raise ImageReadError(
            f"{path}: labels go up to {_LARGEST_LABEL}, found {data.max():.0f}: is it a label map?"
        )
    labels = data.astype(_smallest_type(int(data.max())), copy=False)
    shape = (data.shape[0], data.shape[1], data.shape[2])
    return LabelMap(labels, place(image.stored, image.nib.header, shape, path)[0])


def write_labels(path: str | os.PathLike[str], labels: LabelMap) -> None:
    """Write a label map in the smallest unsigned type; the same input gives the same bytes.

    Where its grid was read from a file, it gets that file's sform, qform and codes, so that each
    program places both alike.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written.
    """
    data = labels.data.astype(_smallest_type(int(labels.data.max(initial=0))), copy=False)
    _write(Path(path), [data], labels.grid, data.shape, data.dtype, intent="label")


def nifti_bytes(data: Array, grid: Grid) -> bytes:
    """An array (I, J, K) of integers as an uncompressed NIfTI file, for a program that reads it
    from memory.
    """
    header = _header(grid, data.shape, data.dtype, intent="none")
    return b"".join((header.binaryblock, bytes(4), _in_file_order(data)))


def write_probabilities(
    path: str | os.PathLike[str], posteriors: Iterable[Array], grid: Grid, *, count: int
) -> None:
    """Write posteriors in [0, 1] as a 4D image, one volume a label, 8 bit, scaled.

    Args:
        posteriors: ``count`` arrays (I, J, K); one after the other is taken and written.

    Raises:
        ValueError: one of them is not on ``grid``, or there are not ``count``.
    """

    def steps() -> Iterator[Array]:
        for data in posteriors:
            if data.shape != grid.shape:
                raise ValueError(f"posteriors of shape {data.shape} on a grid of {grid.shape}")
            yield np.round(data * 255).astype(np.uint8)

    shape = (*grid.shape, count)
    _write(Path(path), steps(), grid, shape, np.uint8, intent="none", slope=1 / 255)


def _has_fractions(data: Array) -> bool:
    return not np.isfinite(data).all() or bool((data != np.round(data)).any())


def _load(path: Path) -> _Stored:
    """The header of an image; what is no NIfTI image is refused with what it is."""
    if path.is_symlink() and not path.exists():
        raise ImageReadError(
            f"{path}: the link points to nothing; in a DataLad data set, run `git annex get`"
        )
    try:
        if path.is_dir():
            raise ImageReadError(f"{path}: a NIfTI image was expected, found {folder_hint(path)}")
        if not path.is_file():
            raise ImageReadError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise ImageReadError(f"{path}: the file is empty; copy or download it again")
        with opened(path) as stream:
            first = stream.read(PEEK)
        kind = next((kind for kind in (_Scan, _Scan2) if _is_single(kind, first)), None)
        if kind is None:
            found = what_it_is(path, first) or "another kind of file, or a damaged one"
            raise ImageReadError(f"{path}: not a readable NIfTI image: it is {found}")
        stored = kind.header_class.stored(first)
        _check_numbers(stored, path)
        check_rotation(stored, path)
        with opened(path) as stream:
            image = _from_stream(kind, stream)
    except _READ_ERRORS as error:
        cut = isinstance(error, EOFError | zlib.error)
        advice = "; copy or download it again" if cut else ""
        raise ImageReadError(f"{path}: not a readable NIfTI image ({error}){advice}") from error
    return _Stored(path, image, stored)


def _from_stream(kind: type[nib.Nifti1Image], stream: BinaryIO) -> nib.Nifti1Image:
    """The header of an image; its voxels are read when they are asked for, from this stream."""
    holder = nib.FileHolder(fileobj=cast(Any, stream))
    # no memory map: one of a file that shrinks kills the process
    with np.errstate(all="ignore"):  # of an infinite quaternion
        image: nib.Nifti1Image = cast(Any, kind).from_file_map({"image": holder}, mmap=False)
    return image


def _is_single(kind: type[nib.Nifti1Image], first: bytes) -> bool:
    """Whether a file begins as a NIfTI image of this kind, header and voxels in one file."""
    size, place, magic = (348, 344, b"n+1") if kind is _Scan else (540, 4, b"n+2")
    length = first[:4]
    whole = any(int.from_bytes(length, order) == size for order in ("little", "big"))
    return whole and first[place : place + 3] == magic


def _check_numbers(header: Any, path: Path) -> None:
    """See that the numbers without which nothing can be read are numbers."""
    dimensions, start = int(header["dim"][0]), float(header["vox_offset"])
    slope, offset = float(header["scl_slope"]), float(header["scl_inter"])
    wrong = ""
    if not 1 <= dimensions <= 7:
        wrong = counted(dimensions, "dimension")
    elif not math.isfinite(start) or start < 0:
        wrong = f"voxels from byte {start:g} on"
    elif slope and math.isfinite(slope) and not math.isfinite(offset):
        wrong = f"an intercept of {offset:g}"
    if wrong:
        raise ImageReadError(
            f"{path}: the header announces {wrong}; it is damaged: copy or download the file again"
        )


def _check_size(image: _Stored) -> None:
    """See, before memory is asked for, that the file can hold what its header promises."""
    path, shape = image.path, image.shape
    listed = " x ".join(map(str, shape))
    if min(shape, default=0) < 1:
        raise ImageReadError(f"{path}: one 3D volume was expected, found {listed or 'no voxels'}")
    if math.prod(shape) > _MOST_VOXELS:
        raise ImageReadError(
            f"{path}: the header announces {listed} voxels, more than any head scan "
            "has; it is damaged: copy or download the file again"
        )
    size = path.stat().st_size
    if image.promised > size * (_GZIP_LIMIT if is_compressed(path) else 1):
        raise ImageReadError(
            f"{path}: the file is truncated: its header announces {image.promised} bytes, "
            f"it has {size}; copy or download it again"
        )
    needed, free = math.prod(shape) * _bytes_per_voxel(image) / 2**20, usable_memory_mib()
    if needed > free:
        raise ImageReadError(
            f"{path}: reading {listed} voxels needs {needed / 1024:.1f} GiB of memory, but "
            f"{free / 1024:.1f} GiB are available; request more memory, or correct the header"
        )


def _bytes_per_voxel(image: _Stored) -> int:
    """Memory that a voxel takes while it is read: as it is stored, and as float32."""
    kind = image.nib.get_data_dtype()
    return int(kind.itemsize) + (0 if kind == np.float32 else 4)


def _array(
    image: _Stored, *, integers: bool = False, findings: list[Finding] | None = None
) -> Array:
    """The voxels as float32, or, if wanted and stored so, as the integers they are.

    Returns:
        (I, J, K), or the shape of an image that is none of one volume.
    """
    kind = image.nib.get_data_dtype()
    if kind.kind not in "iuf":
        raise ImageReadError(
            f"{image.path}: one number per voxel was expected, found {kind.name} (a colour or "
            "complex image); convert it to a magnitude image"
        )
    _check_size(image)
    notes: list[Finding] = [] if findings is None else findings
    try:
        with opened(image.path) as stream:
            data = _voxels(_from_stream(type(image.nib), stream), notes, integers=integers)
            # nibabel stops short of the end of a gzip, where its checksum stands
            stream.seek(image.promised)
            _note_surplus(image, sum(map(len, iter(lambda: stream.read(1 << 22), b""))), notes)
    except MemoryError as error:
        raise ImageReadError(
            f"{image.path}: not enough memory to read it ({error}); request more memory"
        ) from error
    except _READ_ERRORS as error:
        raise ImageReadError(
            f"{image.path}: the voxels cannot be read, the file is truncated or damaged ({error}); "
            "copy or download it again"
        ) from error
    return data.reshape(image.shape)


def _note_surplus(image: _Stored, left: int, findings: list[Finding]) -> None:
    """Say that a file holds more than its header announces, from one more slice on."""
    kind = image.nib.get_data_dtype()
    slices = left // max(math.prod(image.shape[:2]) * kind.itemsize, 1)
    if slices:
        text = (
            f"the file contains {counted(slices, 'slice')} in addition to the {image.shape[2]} "
            "that its header announces: part of the scan may be missing"
        )
        findings.append(Finding("surplus-data", "warning", text))


def _voxels(image: nib.Nifti1Image, findings: list[Finding], *, integers: bool) -> Array:
    stored = cast(Any, image.dataobj)
    plain = stored.slope == 1 and stored.inter == 0
    if integers and plain and image.get_data_dtype().kind in "ui":
        return np.asanyarray(stored)
    with np.errstate(all="ignore"):
        data: NDArray[np.float32] = image.get_fdata(dtype=np.float32, caching="unchanged")
        if not integers and not in_range(data):
            data, more = rescaled(np.asanyarray(stored), data)
            findings.extend(more)
    return data


def _smallest_type(largest: int) -> type[np.unsignedinteger[Any]]:
    for kind in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(kind).max:
            return kind
    raise ValueError(f"label {largest} does not fit in 32 bits")


def _write(
    path: Path,
    volumes: Iterable[Array],
    grid: Grid,
    shape: tuple[int, ...],
    kind: DTypeLike,
    *,
    intent: str,
    slope: float = 1.0,
) -> None:
    header = _header(grid, shape, kind, intent=intent, slope=slope)
    left = math.prod(shape)
    # no time stamp and no file name in the gzip header: equal labels are equal files
    with replacing(path) as raw:
        with gzip.GzipFile("", "wb", 4, raw, mtime=0) as stream:
            stream.write(header.binaryblock + bytes(4))
            for volume in volumes:
                stream.write(_in_file_order(volume))
                left -= volume.size
        if left:
            raise ValueError(f"{path}: the volumes do not fill an image of {shape}")


def _in_file_order(volume: Array) -> memoryview:
    """The bytes of (I, J, K), the first axis fastest.

    Turning an array is slow, and most of a label map is empty: what is not is turned.
    """
    out = np.zeros(volume.shape, volume.dtype, order="F")
    if (box := box_of(volume)) is not None:
        out[box] = volume[box]
    return out.reshape(-1, order="F").view(np.uint8).data


def _header(
    grid: Grid, shape: tuple[int, ...], kind: DTypeLike, *, intent: str, slope: float = 1.0
) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header.set_intent(intent)
    header.set_xyzt_units("mm", "sec")
    forms = grid.forms or Forms(grid.affine, 1, grid.affine, 1)
    header.set_sform(forms.sform, code=forms.sform_code)
    header.set_qform(forms.qform, code=forms.qform_code, strip_shears=True)
    if not np.allclose(header.get_qform(), forms.qform, atol=1e-3):
        header.set_qform(None, code=0)  # a quaternion cannot hold shears
    header.set_slope_inter(slope, 0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return header

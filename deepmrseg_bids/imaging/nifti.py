"""Images in memory and on disk: the only user of nibabel.

A scan is read once, checked once, and trusted afterwards.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from deepmrseg_bids.errors import HeaderError, ImageReadError, SignalError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid

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


_LARGEST_LABEL = 2**24  # up to here float32 holds every whole number
_MOST_VOXELS = 2**30  # 1024^3: 0.25 mm over a whole head
_SAME_WAY = 0.7  # cosine: 45 degrees between the axes of two forms
_GZIP_LIMIT = 1032  # deflate makes nothing smaller than this many times


class _NoExtensions(nib.nifti1.Nifti1Extensions):
    """Extensions are not needed, and a damaged one may promise gigabytes."""

    @classmethod
    def from_fileobj(cls, fileobj: object, size: int, byteswap: bool) -> _NoExtensions:
        return cls()


class _Header(nib.Nifti1Header):
    exts_klass = _NoExtensions


class _Header2(nib.Nifti2Header):
    exts_klass = _NoExtensions


class _Scan(nib.Nifti1Image):
    header_class = _Header


class _Scan2(nib.Nifti2Image):
    header_class = _Header2


@dataclass(frozen=True, eq=False)
class Volume:
    """One scan: intensities and where they lie.

    Attributes:
        data: (I, J, K) float32, finite.
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
    path = Path(path)
    image = _load(path)
    findings: list[Finding] = []
    shape = _shape(image, path)
    affine = _affine(image, path, findings, force=force_header)
    data: NDArray[np.float32] = _array(image, path)
    if data.ndim == 4:
        text = "4D image with one volume: processed as 3D"
        findings.append(Finding("single-volume-4d", "warning", text))
        data = data[..., 0]
    grid = Grid(shape, affine)
    bad = ~np.isfinite(data)
    if bad.any():
        text = f"{int(bad.sum())} NaN or infinite voxels were set to 0"
        findings.append(Finding("nan-voxels", "warning", text))
        data = np.where(bad, np.float32(0), data)
    if data.min() == data.max():
        raise SignalError(f"{path}: no signal, every voxel is {data.flat[0]:g}")
    return Volume(data, grid, tuple(findings), path)


def read_grid(path: str | os.PathLike[str], *, force_header: bool = False) -> Grid:
    """Where the voxels of a scan lie, from its header alone.

    Raises:
        ImageReadError, HeaderError: as :func:`read_volume`, for what the header tells.
    """
    path = Path(path)
    image = _load(path)
    a, b, c = _shape(image, path)
    _check_size(image, path)
    return Grid((a, b, c), _affine(image, path, [], force=force_header))


def _shape(image: nib.Nifti1Image, path: Path) -> tuple[int, int, int]:
    """The three edges of a scan."""
    single = len(image.shape) == 4 and image.shape[3] == 1
    if not (len(image.shape) == 3 or single) or min(image.shape[:3]) < 2:
        shape = " x ".join(map(str, image.shape))
        raise ImageReadError(f"{path}: one 3D volume was expected, found {shape}")
    a, b, c = image.shape[:3]
    return a, b, c


def voxel_count(path: str | os.PathLike[str]) -> int:
    """How many voxels the header promises; 0 if the scan cannot be read."""
    try:
        image = _load(Path(path))
        _check_size(image, Path(path))
        return math.prod(image.shape)
    except ImageReadError:
        return 0


def read_labels(path: str | os.PathLike[str]) -> LabelMap:
    """Read a label map.

    Raises:
        ImageReadError: unreadable, not 3D, or with values that are not whole numbers >= 0.
        HeaderError: no usable affine.
    """
    path = Path(path)
    image = _load(path)
    data = _array(image, path, integers=True)
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
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
    labels = data.astype(_smallest_type(int(data.max())))
    grid = Grid((data.shape[0], data.shape[1], data.shape[2]), _affine(image, path, []))
    return LabelMap(labels, grid)


def write_labels(path: str | os.PathLike[str], labels: LabelMap) -> None:
    """Write a label map in the smallest unsigned type; the same input gives the same bytes."""
    data = labels.data.astype(_smallest_type(int(labels.data.max(initial=0))))
    _write(Path(path), [data], labels.grid, data.shape, data.dtype, intent="label")


def nifti_bytes(data: Array, grid: Grid) -> bytes:
    """An array (I, J, K) of integers as an uncompressed NIfTI file, for a program that reads it
    from memory.
    """
    header = _header(grid, data.shape, data.dtype, intent="none")
    return bytes(header.binaryblock) + bytes(4) + data.tobytes(order="F")


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


def _load(path: Path) -> nib.Nifti1Image:
    if path.is_symlink() and not path.exists():
        raise ImageReadError(
            f"{path}: the link points to nothing; in a DataLad data set, run `git annex get`"
        )
    if not path.is_file():
        raise ImageReadError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ImageReadError(f"{path}: the file is empty; copy or download it again")
    try:
        kinds = (kind for kind in (_Scan, _Scan2) if kind.path_maybe_image(path)[0])
        kind = next(kinds, None)
        # no memory map: one of a file that shrinks kills the process
        image = nib.load(path) if kind is None else kind.from_filename(path, mmap=False)
    except _READ_ERRORS as error:
        raise ImageReadError(f"{path}: not a readable NIfTI image ({error})") from error
    if not isinstance(image, nib.Nifti1Image):
        raise ImageReadError(f"{path}: a NIfTI image was expected, found {type(image).__name__}")
    return image


def _check_size(image: nib.Nifti1Image, path: Path) -> None:
    """See, before memory is asked for, that the file can hold what its header promises."""
    stored = cast(Any, image.dataobj)
    shape = " x ".join(map(str, image.shape))
    if min(image.shape, default=0) < 1:
        raise ImageReadError(f"{path}: one 3D volume was expected, found {shape or 'no voxels'}")
    if math.prod(image.shape) > _MOST_VOXELS:
        raise ImageReadError(
            f"{path}: the header announces {shape} voxels, more than any head scan "
            "has; it is damaged: copy or download the file again"
        )
    promised = stored.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    size = path.stat().st_size
    if promised > size * (_GZIP_LIMIT if path.suffix == ".gz" else 1):
        raise ImageReadError(
            f"{path}: the file is truncated: its header announces {promised} bytes, "
            f"it has {size}; copy or download it again"
        )


@contextmanager
def _to_the_end(image: nib.Nifti1Image, path: Path) -> Iterator[nib.Nifti1Image]:
    """The same image, of a gzip that is then read to its end, where its checksum stands.

    nibabel stops short of it.
    """
    with gzip.open(path) as stream:
        yield type(image).from_file_map({"image": nib.FileHolder(fileobj=stream)})
        while stream.read(1 << 22):
            pass


def _array(image: nib.Nifti1Image, path: Path, *, integers: bool = False) -> Array:
    """The voxels as float32, or, if wanted and stored so, as the integers they are."""
    kind = image.get_data_dtype()
    if kind.kind not in "iuf":
        raise ImageReadError(
            f"{path}: one number per voxel was expected, found {kind} (a colour or "
            "complex image); convert it to a magnitude image"
        )
    _check_size(image, path)
    try:
        if path.suffix == ".gz":
            with _to_the_end(image, path) as whole:
                return _voxels(whole, integers=integers)
        return _voxels(image, integers=integers)
    except _READ_ERRORS as error:
        raise ImageReadError(
            f"{path}: the voxels cannot be read, the file is truncated or damaged ({error}); "
            "copy or download it again"
        ) from error


def _voxels(image: nib.Nifti1Image, *, integers: bool) -> Array:
    stored = cast(Any, image.dataobj)
    plain = stored.slope == 1 and stored.inter == 0
    if integers and plain and image.get_data_dtype().kind in "ui":
        return np.asanyarray(stored)
    with np.errstate(all="ignore"):
        return cast("NDArray[np.float32]", image.get_fdata(dtype=np.float32, caching="unchanged"))


def _affine(
    image: nib.Nifti1Image, path: Path, findings: list[Finding], *, force: bool = False
) -> NDArray[np.float64]:
    header = image.header
    sform, s_code = header.get_sform(coded=True)
    try:
        qform, q_code = header.get_qform(coded=True)
    except (ValueError, np.linalg.LinAlgError):
        qform, q_code = None, 0
    if s_code or q_code:
        affine = np.asarray(sform if s_code else qform, dtype=np.float64)
    elif force:
        affine = np.asarray(header.get_base_affine(), dtype=np.float64)
        text = (
            "neither sform nor qform is set: the axes are assumed to point left, "
            "anterior and superior; left and right may be exchanged"
        )
        findings.append(Finding("assumed-geometry", "warning", text))
    else:
        raise HeaderError(
            f"{path}: neither sform nor qform is set, so left and right cannot be "
            "determined; convert the scan again with its geometry, or use "
            "--force-header to assume that the axes point left, anterior and superior"
        )
    if not np.isfinite(affine).all():
        raise HeaderError(f"{path}: the affine contains NaN or infinite values")
    volume = abs(np.linalg.det(affine[:3, :3]))
    edges = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if edges.min() < 0.05 or edges.max() > 20 or volume < 0.5 * float(np.prod(edges)):
        raise HeaderError(
            f"{path}: the affine is singular or its voxels are impossible "
            f"({', '.join(f'{edge:.3g}' for edge in edges)} mm)"
        )
    if s_code and q_code and qform is not None and np.isfinite(qform).all():
        findings += _disagreement(affine, qform)
    space = {3: "Talairach space", 4: "MNI space"}.get(s_code or q_code)
    if space:
        text = (
            f"according to the header, the image was aligned to {space}: it is not in scanner space"
        )
        findings.append(Finding("not-scanner-space", "info", text))
    return affine


def _disagreement(sform: NDArray[np.float64], qform: NDArray[np.float64]) -> list[Finding]:
    """What the two positions of a header disagree about; the sform is used."""
    one, other = sform[:3, :3], qform[:3, :3]
    edges = np.linalg.norm(one, axis=0)
    cosines = (one * other).sum(axis=0) / np.maximum(edges * np.linalg.norm(other, axis=0), 1e-9)
    if cosines.min() < _SAME_WAY:
        text = (
            "sform and qform have different orientations: the sform is used; "
            "determine which one is correct before using the results"
        )
        return [Finding("orientation-differs", "error", text)]
    edge = float(edges.min())
    if not np.allclose(sform, qform, atol=0.05 * edge):
        text = "sform and qform differ: the sform is used"
        return [Finding("sform-qform-differ", "warning", text)]
    return []


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
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as stream:
        stream.write(header.binaryblock + bytes(4))
        for volume in volumes:
            stream.write(volume.tobytes(order="F"))
            left -= volume.size
    if left:
        raise ValueError(f"{path}: the volumes do not fill an image of {shape}")


def _header(
    grid: Grid, shape: tuple[int, ...], kind: DTypeLike, *, intent: str, slope: float = 1.0
) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(kind)
    header.set_data_shape(shape)
    header.set_intent(intent)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code="scanner")
    header.set_qform(grid.affine, code="scanner", strip_shears=True)
    if not np.allclose(header.get_qform(), grid.affine, atol=1e-3):
        header.set_qform(None, code=0)  # a quaternion cannot hold shears
    header.set_slope_inter(slope, 0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return header

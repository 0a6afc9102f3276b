"""Images in memory and on disk: the only user of nibabel.

A scan is read once, checked once, and trusted afterwards.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from deepmrseg_bids.errors import HeaderError, ImageReadError, SignalError
from deepmrseg_bids.geometry import Array, Grid

__all__ = [
    "LabelMap",
    "Volume",
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


@dataclass(frozen=True, eq=False)
class Volume:
    """One scan: intensities and where they lie.

    Attributes:
        data: (I, J, K) float32, finite.
        grid: the scan's own grid.
        warnings: what was found and mended while reading, one line each.
        source: the file it came from, if any.
    """

    data: NDArray[np.float32]
    grid: Grid
    warnings: tuple[str, ...] = ()
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


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read a scan, mend what can be mended, and refuse the rest.

    Raises:
        ImageReadError: missing, empty, truncated, not NIfTI, or with several volumes.
        HeaderError: no usable affine.
        SignalError: all voxels are equal.
    """
    path = Path(path)
    image = _load(path)
    data: NDArray[np.float32] = _array(image, path)
    warnings: list[str] = []
    if data.ndim == 4 and data.shape[3] == 1:
        warnings.append("4D with one volume: taken as 3D")
        data = data[..., 0]
    if data.ndim != 3 or min(data.shape, default=0) < 2:
        shape = " x ".join(map(str, data.shape))
        raise ImageReadError(f"{path}: one 3D volume was expected, found {shape}")
    grid = Grid((data.shape[0], data.shape[1], data.shape[2]), _affine(image, path, warnings))
    bad = ~np.isfinite(data)
    if bad.any():
        warnings.append(f"{int(bad.sum())} voxels are NaN or infinite: set to 0")
        data = np.where(bad, np.float32(0), data)
    if data.min() == data.max():
        raise SignalError(f"{path}: no signal, every voxel is {data.flat[0]:g}")
    return Volume(data, grid, tuple(warnings), path)


def voxel_count(path: str | os.PathLike[str]) -> int:
    """How many voxels the header promises; 0 if it cannot be read."""
    try:
        return math.prod(_load(Path(path)).shape)
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
        raise ImageReadError(f"{path}: a label map holds whole numbers >= 0, found others")
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
    _write(Path(path), data, labels.grid, intent="label")


def write_probabilities(path: str | os.PathLike[str], data: Array, grid: Grid) -> None:
    """Write posteriors (K, I, J, K') in [0, 1] as a 4D image (I, J, K', K), 8 bit, scaled."""
    if data.shape[1:] != grid.shape:
        raise ValueError(f"posteriors of shape {data.shape} on a grid of {grid.shape}")
    steps = np.round(np.moveaxis(data, 0, -1) * 255).astype(np.uint8)
    _write(Path(path), steps, grid, intent="none", slope=1 / 255)


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
        image = nib.load(path)
    except _READ_ERRORS as error:
        raise ImageReadError(f"{path}: not a readable NIfTI image ({error})") from error
    if not isinstance(image, nib.Nifti1Image):
        raise ImageReadError(f"{path}: a NIfTI image was expected, found {type(image).__name__}")
    return image


def _array(image: nib.Nifti1Image, path: Path, *, integers: bool = False) -> Array:
    """The voxels as float32, or, if wanted and stored so, as the integers they are."""
    try:
        stored = cast(Any, image.dataobj)
        plain = stored.slope == 1 and stored.inter == 0
        if integers and plain and image.get_data_dtype().kind in "ui":
            return np.asanyarray(stored)
        with np.errstate(all="ignore"):
            return cast(
                "NDArray[np.float32]", image.get_fdata(dtype=np.float32, caching="unchanged")
            )
    except _READ_ERRORS as error:
        raise ImageReadError(
            f"{path}: the voxels cannot be read, the file is truncated or damaged ({error}); "
            "copy or download it again"
        ) from error


def _affine(image: nib.Nifti1Image, path: Path, warnings: list[str]) -> NDArray[np.float64]:
    header = image.header
    sform, s_code = header.get_sform(coded=True)
    try:
        qform, q_code = header.get_qform(coded=True)
    except (ValueError, np.linalg.LinAlgError):
        qform, q_code = None, 0
    if not s_code and not q_code:
        raise HeaderError(
            f"{path}: neither sform nor qform is set, so left and right cannot be told apart; "
            "convert the scan again with its geometry"
        )
    affine = np.asarray(sform if s_code else qform, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise HeaderError(f"{path}: the affine holds NaN or infinite values")
    volume = abs(np.linalg.det(affine[:3, :3]))
    edges = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if edges.min() < 0.05 or edges.max() > 20 or volume < 0.5 * float(np.prod(edges)):
        raise HeaderError(
            f"{path}: the affine is singular or its voxels are impossible "
            f"({', '.join(f'{edge:.3g}' for edge in edges)} mm)"
        )
    both = s_code and q_code and qform is not None and np.isfinite(qform).all()
    if both and not np.allclose(sform, qform, atol=0.05 * float(edges.min())):
        warnings.append("sform and qform differ: the sform is used")
    return affine


def _smallest_type(largest: int) -> type[np.unsignedinteger[Any]]:
    for kind in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(kind).max:
            return kind
    raise ValueError(f"label {largest} does not fit in 32 bits")


def _write(path: Path, data: Array, grid: Grid, *, intent: str, slope: float = 1.0) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header.set_intent(intent)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code="scanner")
    header.set_qform(grid.affine, code="scanner", strip_shears=True)
    if not np.allclose(header.get_qform(), grid.affine, atol=1e-3):
        header.set_qform(None, code=0)  # a quaternion cannot hold shears
    header.set_slope_inter(slope, 0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    # no time stamp and no file name in the gzip header: equal labels are equal files
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as stream:
        stream.write(header.binaryblock + bytes(4) + data.tobytes(order="F"))

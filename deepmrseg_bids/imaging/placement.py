"""Where a NIfTI header says that the voxels lie, and what its numbers disagree about.

A header gives sizes and positions several times (sform, qform, pixdim, units). What cannot be a
head is refused, before any array is made from it; what is doubtful becomes a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import HeaderError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Forms, Grid

__all__ = ["check_rotation", "place"]

_Matrix = NDArray[np.float64]

_SAME_WAY = 0.7  # cosine: 45 degrees between the axes of two forms
_SAME_SIZE = 0.01  # of a voxel's edge
_WRONG_VOLUME = 0.05  # of a voxel's volume: every volume in mm3 would be wrong by as much
_EDGE_MM = (0.05, 20.0)
_LARGEST_MM = 600.0  # 350 is a large field of view; grids of this extent are made in memory
_SMALLEST_MM = 60.0  # a crop may be so small, but not with
_MANY, _FINE_MM = 96, 0.25  # so many voxels along each axis, or voxels as fine as that
_FAR_MM, _FARTHEST_MM = 2000.0, 1e5  # of the middle from the scanner's: a table moves by 1 m
_ABSURD = 1e9  # sums of squares of larger numbers tell nothing
_ROUNDED = 3.5e-7  # by which a unit quaternion may be too long
_SHEAR_DEG, _MOST_SHEAR_DEG = 0.1, 45.0  # rounding makes less than a hundredth of a degree
_SPACES = {3: "Talairach space", 4: "MNI space", 5: "a template"}
_KNOWN_CODES = range(6)
_AGAIN = "convert the scan again, or correct its header"
_UNITS = {1: ("metres", 1000.0), 2: ("millimetres", 1.0), 3: ("micrometres", 0.001)}
_LOW_BITS = 7  # of xyzt_units: the unit of length


@dataclass
class _Header:
    """A header while it is looked at.

    Attributes:
        stored: as it is in the file.
        mended: as nibabel understands it.
        shape: edges of the volume.
    """

    path: Path
    stored: Any
    mended: Any
    shape: tuple[int, int, int]
    findings: list[Finding]

    def note(self, code: str, severity: Any, text: str) -> None:
        self.findings.append(Finding(code, severity, text))

    def sizes(self) -> _Matrix:
        """The edges of a voxel as ``pixdim`` has them."""
        return np.asarray(self.stored["pixdim"][1:4], dtype=np.float64)


def place(
    stored: Any, mended: Any, shape: tuple[int, int, int], path: Path, *, force: bool = False
) -> tuple[Grid, list[Finding]]:
    """The grid of a scan, with the forms of its header, and what is odd about them.

    Args:
        stored: the NIfTI header as it is in the file.
        mended: the same header after nibabel's repairs.
        force: take a header without sform and qform too.

    Raises:
        HeaderError: no usable position, or sizes that no head has.
    """
    header = _Header(path, stored, mended, shape, [])
    sform, qform = _form(header, "sform"), _form(header, "qform")
    affine = sform if sform is not None else qform
    if affine is None:
        affine = _assumed(header, force=force)
    _check_numbers(header, affine)
    scale = _unit(header, affine)
    if scale != 1:
        affine, sform, qform = (_scaled(form, scale) for form in (affine, sform, qform))
        assert affine is not None
    _check_edges(header, affine)
    grid = Grid(shape, affine, _forms(header, affine, sform, qform))
    _check_extent(header, grid)
    _check_distance(header, grid)
    _check_shear(header, grid)
    if sform is None:
        _check_used_sizes(header)
    else:
        header.findings += _disagreement(header, sform, qform, scale)
    _check_space(header, assumed=sform is None and qform is None)
    return grid, header.findings


def _form(header: _Header, name: str) -> _Matrix | None:
    """One of the two forms; None where it is not set, or a qform cannot be understood."""
    code = int(header.stored[f"{name}_code"])
    if code not in _KNOWN_CODES:
        text = f"{name}_code is {code}, which has no meaning in NIfTI: the {name} is not used"
        header.note("header-values", "warning", text)
        return None
    if not code:
        return None
    if name == "sform":
        return np.asarray(header.mended.get_sform(), dtype=np.float64)
    used = not int(header.stored["sform_code"])
    if used:
        _check_qfac(header)
    try:
        with np.errstate(all="ignore"):
            form = np.asarray(header.mended.get_qform(), dtype=np.float64)
    except (ValueError, np.linalg.LinAlgError):
        form = np.full((4, 4), np.nan)
    if used or _possible(form):
        return form
    text = "the qform contains impossible numbers: it is not used"
    header.note("header-values", "warning", text)
    return None


def _possible(form: _Matrix) -> bool:
    """Whether a form is of numbers that a scanner could mean."""
    return bool(np.isfinite(form).all() and np.abs(form).max() <= _FARTHEST_MM)


def check_rotation(stored: Any, path: Path) -> None:
    """See that the quaternion of a header is a rotation, where its qform is what counts.

    Args:
        stored: the NIfTI header as it is in the file.

    Raises:
        HeaderError: it is none.
    """
    if int(stored["sform_code"]) or not int(stored["qform_code"]):
        return
    numbers = [float(stored[f"quatern_{letter}"]) for letter in "bcd"]
    if not sum(number**2 for number in numbers) <= 1 + _ROUNDED:
        raise HeaderError(
            f"{path}: the qform is no rotation (quaternion "
            f"{', '.join(f'{number:.4g}' for number in numbers)}), and there is no sform; {_AGAIN}"
        )


def _check_qfac(header: _Header) -> None:
    """Note a direction of the third axis that is neither of the two."""
    qfac = float(header.stored["pixdim"][0])
    if qfac not in (-1, 0, 1):
        text = (
            f"the direction of the third axis in the header (pixdim[0]) is {qfac:g}: taken as 1; "
            "the image may be mirrored"
        )
        header.note("header-values", "warning", text)


def _assumed(header: _Header, *, force: bool) -> _Matrix:
    """The affine of a header without forms, if it may be assumed.

    Raises:
        HeaderError: it may not.
    """
    if not force:
        raise HeaderError(
            f"{header.path}: neither sform nor qform is set, so left and right cannot be "
            "determined; convert the scan again with its geometry, or use "
            "--force-header to assume that the axes point left, anterior and superior"
        )
    text = (
        "neither sform nor qform is set: the axes are assumed to point left, "
        "anterior and superior; left and right may be exchanged"
    )
    header.note("assumed-geometry", "warning", text)
    return np.asarray(header.mended.get_base_affine(), dtype=np.float64)


def _unit(header: _Header, affine: _Matrix) -> float:
    """Millimetres in a unit of the header's numbers, as far as a head has such a size."""
    code = int(header.stored["xyzt_units"]) & _LOW_BITS
    if code not in _UNITS:
        if code:
            text = f"the unit of length has the code {code}, which has no meaning: taken as mm"
            header.note("units-doubtful", "info", text)
        return 1.0
    name, scale = _UNITS[code]
    if scale == 1:
        return scale
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if _could_be_head(header.shape, edges * scale):
        text = f"the header's unit is {name}: its numbers were converted to millimetres"
        header.note("units-doubtful", "info", text)
        return scale
    if _could_be_head(header.shape, edges):
        text = (
            f"the header's unit is {name}, but its numbers are those of millimetres: "
            "they were taken as millimetres"
        )
        header.note("units-doubtful", "warning", text)
    return 1.0


def _could_be_head(shape: tuple[int, int, int], edges: _Matrix) -> bool:
    extent = edges * np.array(shape)
    sound = edges.min() >= _EDGE_MM[0] and edges.max() <= _EDGE_MM[1]
    return bool(sound and extent.max() <= _LARGEST_MM)


def _scaled(form: _Matrix | None, scale: float) -> _Matrix | None:
    return None if form is None else np.diag([scale, scale, scale, 1.0]) @ form


def _check_numbers(header: _Header, affine: _Matrix) -> None:
    """See that a position is made of numbers.

    Raises:
        HeaderError: it is not.
    """
    if not np.isfinite(affine).all():
        raise HeaderError(f"{header.path}: the affine contains NaN or infinite values; {_AGAIN}")
    if (largest := float(np.abs(affine).max())) > _ABSURD:
        raise HeaderError(
            f"{header.path}: the affine contains impossible values ({largest:.3g} mm); {_AGAIN}"
        )


def _check_distance(header: _Header, grid: Grid) -> None:
    """See that the image lies near the middle of the scanner, or of its space.

    Raises:
        HeaderError: it lies where positions in 32 bit are no longer exact.
    """
    middle = (np.array(grid.shape) - 1) / 2
    away = float(np.linalg.norm(grid.to_world(middle[None])[0]))
    where = f"the header places the image {away / 1000:.3g} m from the centre of the scanner"
    if away > _FARTHEST_MM:
        raise HeaderError(f"{header.path}: {where}: impossible; {_AGAIN}")
    if away > _FAR_MM:
        text = f"{where}: other programs may not show it; check the origin in the header"
        header.note("header-values", "warning", text)


def _check_edges(header: _Header, affine: _Matrix) -> None:
    """See that voxels have a size and a volume.

    Raises:
        HeaderError: they have none.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    volume = abs(np.linalg.det(affine[:3, :3]))
    low, high = _EDGE_MM
    if edges.min() < low or edges.max() > high or volume < 0.5 * float(np.prod(edges)):
        raise HeaderError(
            f"{header.path}: the affine is singular or its voxels are impossible "
            f"({', '.join(f'{edge:.3g}' for edge in edges)} mm)"
        )


def _check_extent(header: _Header, grid: Grid) -> None:
    """See that the image has the size of something that holds a head.

    Raises:
        HeaderError: it has not.
    """
    extent = np.array(grid.shape) * grid.spacing
    advice = "check the voxel size in the header"
    if extent.max() > _LARGEST_MM:
        raise HeaderError(
            f"{header.path}: according to the header, the image covers {_times(extent)} mm, more "
            f"than any scan of a head (at most {_LARGEST_MM:.0f} mm); {advice}"
        )
    fine = min(grid.shape) >= _MANY or max(grid.spacing) < _FINE_MM
    if extent.max() < _SMALLEST_MM and fine:
        raise HeaderError(
            f"{header.path}: according to the header, the image of {_times(grid.shape)} voxels "
            f"covers only {_times(extent)} mm: not a human head? {advice}"
        )


def _times(edges: Any) -> str:
    return " x ".join(f"{edge:.4g}" for edge in edges)


def _check_shear(header: _Header, grid: Grid) -> None:
    """See that the axes of the voxels are perpendicular.

    Raises:
        HeaderError: they are far from it.
    """
    angle = grid.shear
    if angle > _MOST_SHEAR_DEG:
        raise HeaderError(
            f"{header.path}: the axes of the voxels are sheared by {angle:.0f} degrees; "
            "resample the image to perpendicular axes"
        )
    if angle > _SHEAR_DEG:
        text = (
            f"the axes of the voxels are sheared by {angle:.1f} degrees (gantry tilt, or an "
            "affine registration): other programs may place the image differently"
        )
        header.note("sheared", "warning", text)


def _check_used_sizes(header: _Header) -> None:
    """See that the sizes in ``pixdim``, which a qform needs, are sizes.

    Raises:
        HeaderError: one is zero.
    """
    sizes = header.sizes()
    if (sizes == 0).any():
        raise HeaderError(
            f"{header.path}: the header gives voxel sizes of {_times(sizes)} mm (pixdim); convert "
            "the scan again"
        )
    if (sizes < 0).any():
        text = f"negative voxel sizes in the header ({_times(sizes)} mm) were taken as positive"
        header.note("header-values", "warning", text)


def _disagreement(
    header: _Header, sform: _Matrix, qform: _Matrix | None, scale: float
) -> Iterator[Finding]:
    """What the other numbers of a header disagree about with its sform, which is used."""
    yield from _other_sizes(header.sizes() * scale, sform[:3, :3])
    if qform is None:
        return
    one, other = sform[:3, :3], qform[:3, :3]
    edges = np.linalg.norm(one, axis=0)
    cosines = (one * other).sum(axis=0) / np.maximum(edges * np.linalg.norm(other, axis=0), 1e-9)
    if cosines.min() < _SAME_WAY:
        text = (
            "sform and qform have different orientations: the sform is used; "
            "determine which one is correct before using the results"
        )
        yield Finding("orientation-differs", "error", text)
    elif not np.allclose(sform, qform, atol=0.05 * float(edges.min())):
        text = "sform and qform differ: the sform is used"
        yield Finding("sform-qform-differ", "warning", text)


def _other_sizes(sizes: _Matrix, axes: _Matrix) -> Iterator[Finding]:
    """What ``pixdim`` says of the edges of a voxel, where it is not what the sform says."""
    edges = np.linalg.norm(axes, axis=0)
    if np.allclose(sizes, edges, rtol=_SAME_SIZE, atol=0):
        return
    said = f"the header gives two voxel sizes, {_times(sizes)} mm (pixdim) and {_times(edges)} mm"
    ratio = abs(float(np.prod(sizes) / np.linalg.det(axes)))
    if np.isfinite(ratio) and abs(ratio - 1) <= _WRONG_VOLUME:
        yield Finding("voxel-size-differs", "warning", f"{said} (sform): the sform is used")
        return
    text = f"{said} (sform): the sform is used; volumes are wrong if it is not the correct one"
    yield Finding("voxel-size-differs", "error", text)


def _check_space(header: _Header, *, assumed: bool) -> None:
    codes = (int(header.mended[f"{name}_code"]) for name in ("sform", "qform"))
    space = None if assumed else _SPACES.get(next((code for code in codes if code), 0))
    if space:
        text = (
            f"according to the header, the image was aligned to {space}: it is not in scanner space"
        )
        header.note("not-scanner-space", "info", text)


def _forms(
    header: _Header, affine: _Matrix, sform: _Matrix | None, qform: _Matrix | None
) -> Forms | None:
    """The forms that label maps of this scan get: its own; one that is missing is made."""
    if sform is None and qform is None:
        return None
    codes = [int(header.stored[f"{name}_code"]) for name in ("sform", "qform")]
    s_code, q_code = (code if form is not None else 0
                      for code, form in zip(codes, (sform, qform), strict=True))  # fmt: skip
    return Forms(
        affine if sform is None else sform,
        s_code or q_code,
        affine if qform is None else qform,
        q_code or s_code,
    )

"""Whether a scan has the contrast of a T1w: white matter brighter than grey, grey than fluid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding, Severity
from deepmrseg_bids.imaging.grid import Array, Grid
from deepmrseg_bids.imaging.morphology import box_of, eroded, widened

__all__ = ["brighter_than_white", "check_contrast"]

_RIM_MM, _CORE_MM = 4.0, 14.0  # depth: fluid and cortex; white matter and deep nuclei
_KNOWN_MM = 2.0  # voxels for which the limits below were found
_SMOOTHED_MM = 1.4  # sigma, so that noise is no tissue
_EVENED_MM = 12.0  # sigma of the brightness that is taken out
_TISSUE = 0.65  # of the median of the brain; what is darker may be fluid
_LEFT_OUT_MM = 2.0  # partial volumes at the rim
_DEEP_MM = 10.0
_EVEN_PERCENT = 30.0  # of the deep voxels: those that differ least from their neighbours
_COIL_MM, _WHITE, _LEAST_START = 15.0, 0.25, 0.3
_BRIGHTER, _DARKER = 1.06, 0.9  # of the level of white matter
_BINS = 60
# none of 60 T1w exceeds both, all of 30 FLAIRs do
_LEAST_BRIGHT = 0.09  # of the brain
_MOST_BRIGHT = 0.14  # of what is brighter or darker than white matter


def check_contrast(mask: NDArray[np.bool_], image: Array, grid: Grid) -> list[Finding]:
    """Whether the tissues of a brain have the order of a T1w.

    Args:
        mask: (I, J, K) of the brain.
        image: (I, J, K) intensities of the scan, air at 0.
        grid: where both lie, isotropic.
    """
    if severity := brighter_than_white(mask, image, grid):
        text = (
            "contrast is not T1-like (grey matter or fluid is brighter than white matter, as in a "
            "FLAIR, T2w or PD image)"
        )
        if severity == "error":
            text += ": do not use the results of tasks that require a T1w"
        return [Finding("contrast-doubtful", severity, text)]
    rim = mask & ~eroded(mask, round(_RIM_MM / grid.spacing[0]))
    core = eroded(mask, round(_CORE_MM / grid.spacing[0]))
    if not core.any() or image[core].mean() > image[rim].mean():
        return []
    text = "contrast is not T1-like (the centre of the brain is darker than its surface)"
    return [Finding("contrast-doubtful", "warning", text)]


def brighter_than_white(mask: NDArray[np.bool_], image: Array, grid: Grid) -> Severity | None:
    """Whether much of a brain is brighter than its white matter; an error where that is certain.

    White matter is the largest even tissue far from the surface, in any contrast. It is looked
    for in the scan as it is, and in one whose slow changes of brightness are taken out; both have
    to agree. It is certain if it is not the coils, which make all tissue brighter towards the
    surface: what white matter shows of that is taken out, too.
    """
    held = box_of(mask)
    if max(abs(edge - _KNOWN_MM) for edge in grid.spacing) > 0.1 or held is None:
        return None
    box = widened(held, 2, mask.shape)
    mask, mm = mask[box], grid.spacing[0]
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] * mm
    deep, inner = depth >= _DEEP_MM, depth >= _LEFT_OUT_MM
    if not deep.any():
        return None
    smooth = ndimage.gaussian_filter(image[box].astype(np.float32), _SMOOTHED_MM / mm)
    tissue = inner & (smooth > _TISSUE * np.median(smooth[inner]))
    evened = smooth / np.maximum(_local_mean(smooth, tissue, _EVENED_MM / mm), 1e-6)
    steps = ndimage.gaussian_gradient_magnitude(evened, 1.0)
    even = deep & (steps <= np.percentile(steps[deep], _EVEN_PERCENT))
    if not all(_mostly_brighter(part[inner], _mode(part[even])) for part in (smooth, evened)):
        return None
    level = smooth / _towards_surface(smooth, depth, even)
    return "error" if _mostly_brighter(level[inner], _mode(level[even])) else "warning"


def _towards_surface(image: Array, depth: Array, even: NDArray[np.bool_]) -> Array:
    """(I, J, K) how much brighter coils make each voxel, by the white matter of all depths."""
    level = _mode(image[even])
    white = even & (np.abs(image / level - 1) < _WHITE)
    nearness = np.exp(-depth / _COIL_MM)
    slope, start = np.polyfit(nearness[white], image[white] / level, 1)
    factor: Array = 1 + max(0.0, float(slope) / max(float(start), _LEAST_START)) * nearness
    return factor


def _local_mean(image: Array, inside: NDArray[np.bool_], sigma: float) -> Array:
    """(I, J, K) the mean of the voxels inside, near each voxel."""
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma)
    total = ndimage.gaussian_filter(np.where(inside, image, 0), sigma)
    mean: Array = total / np.maximum(weight, 1e-3)
    return mean


def _mode(values: Array) -> float:
    """The most frequent level."""
    low, high = np.percentile(values, (1, 99))
    counts, edges = np.histogram(values, _BINS, range=(float(low), float(high)))
    best = int(ndimage.gaussian_filter1d(counts.astype(float), 2.0).argmax())
    return float(edges[best] + edges[best + 1]) / 2


def _mostly_brighter(brain: Array, white: float) -> bool:
    bright = float((brain > _BRIGHTER * white).mean())
    dark = float((brain < _DARKER * white).mean())
    return bright > _LEAST_BRIGHT and bright > _MOST_BRIGHT * (bright + dark)

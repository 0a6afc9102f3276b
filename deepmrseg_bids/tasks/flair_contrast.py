"""Whether a scan that is given as a FLAIR has the contrast of one.

In a FLAIR fluid is dark, and white matter is a little darker than the cortex. Both are looked for
where lesions, thick slices and a tight brain extraction do not hide them: fluid by whether more of
the brain is very bright than dark, and white matter by what lies behind the cortex, seen from the
nearest fluid or surface. Lesions lie deeper, and those beside the ventricles make the step from
cortex to white matter smaller, not larger.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid
from deepmrseg_bids.imaging.morphology import box_of, widened
from deepmrseg_bids.tasks.contrast import brighter_than_white

__all__ = ["MOST_STEP", "check_flair", "tissue_step"]

MOST_STEP = 1.057
"""Of white matter over cortex: up to 1.06 in FLAIRs (1.08 in slices of 8 mm), 1.05 to 1.28 in T1ws,
of which one has less than this (``docs/accuracy.md``)."""

_DARK, _BRIGHT = 0.6, 1.5  # of the brain's median: fluid in a FLAIR; fluid in a T2w
_LEAST_DARK = 0.015  # of the brain; 0.02 and more in FLAIRs, also where 4 mm of the rim is lost
_MOST_BRIGHT = 0.05  # of the brain: lesions, or fluid; and twice as much as is dark
_CORTEX_MM, _BEHIND_MM = (2.5, 4.5), (4.5, 6.5)  # from the nearest fluid or surface
_FEWEST = 50  # voxels
_KNOWN_MM = 2.0  # voxels for which all of this was found


def check_flair(image: Array, inside: NDArray[np.bool_], grid: Grid) -> list[Finding]:
    """Whether fluid is dark and white matter is no brighter than it is in a FLAIR.

    Args:
        image: (I, J, K) intensities of the scan, air at 0.
        inside: (I, J, K) the brain.
        grid: where both lie, isotropic.
    """
    if not inside.any():
        return []
    level = image[inside] / max(float(np.median(image[inside])), 1e-6)
    dark, bright = float((level < _DARK).mean()), float((level > _BRIGHT).mean())
    if dark < _LEAST_DARK:
        text = (
            f"FLAIR: only {100 * dark:.1f} % of the brain is dark fluid: is it a T2w or PD image?"
        )
        return [Finding("flair-contrast", "error", text)]
    if bright > max(_MOST_BRIGHT, 2 * dark):
        text = (
            f"FLAIR: {100 * bright:.0f} % of the brain is very bright and {100 * dark:.0f} % is "
            "dark: is fluid bright, as in a T2w?"
        )
        return [Finding("flair-contrast", "error", text)]
    step = tissue_step(image, inside, grid)
    if step <= MOST_STEP or abs(grid.spacing[0] - _KNOWN_MM) > 0.1:
        return []
    if brighter_than_white(inside, image, grid):
        return []
    text = f"FLAIR: white matter is brighter than the cortex ({step:.2f}): is it a T1w?"
    return [Finding("flair-contrast", "error", text)]


def tissue_step(image: Array, inside: NDArray[np.bool_], grid: Grid) -> float:
    """Brightness behind the cortex over that of the cortex; 1 where they cannot be told apart."""
    held = box_of(inside)
    if held is None:
        return 1.0
    box = widened(held, 1, inside.shape)
    image, inside = image[box], inside[box]
    solid = inside & (image >= _DARK * np.median(image[inside]))
    away = ndimage.distance_transform_edt(np.pad(solid, 1), sampling=grid.spacing)[1:-1, 1:-1, 1:-1]
    levels = []
    for low, high in (_CORTEX_MM, _BEHIND_MM):
        part = image[(away >= low) & (away < high)]
        if len(part) < _FEWEST:
            return 1.0
        levels.append(float(np.median(part)))
    step = levels[1] / levels[0] if levels[0] else math.nan
    return step if math.isfinite(step) else 1.0

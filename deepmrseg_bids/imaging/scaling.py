"""Numbers that a file stores in another way than as float32: slopes, and sizes beyond it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.findings import Finding

__all__ = ["odd_scaling", "rescaled", "too_small_for"]

_TINY = 1e-30  # float32 ends at 1e-38 and 3e38
_LARGEST = 1000.0  # intensity after rescaling


def odd_scaling(header: Any) -> list[Finding]:
    """What is odd about the slope and the offset in a NIfTI header, as it is in the file."""
    slope, offset = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if math.isfinite(slope) and slope < 0:
        text = f"the scaling slope in the header is negative ({slope:g}): is the image inverted?"
        return [Finding("header-values", "warning", text)]
    unset = math.isnan(slope) and (math.isnan(offset) or offset == 0)  # as nibabel writes it
    if math.isfinite(slope) or unset:
        return []
    text = f"the scaling in the header (slope {slope:g}, intercept {offset:g}) was ignored"
    return [Finding("header-values", "warning", text)]


def too_small_for(data: NDArray[np.float32]) -> bool:
    """Whether float32 may have been too small for the numbers of an image."""
    most = float(np.abs(data).max(initial=0))
    return not _TINY < most < math.inf


def rescaled(
    exact: NDArray[Any], data: NDArray[np.float32]
) -> tuple[NDArray[np.float32], list[Finding]]:
    """Numbers beyond the range of float32, divided so that they fit: networks know no units.

    Args:
        exact: as they are in the file.
        data: the same as float32, which is kept where it is good.
    """
    most = np.abs(exact[np.isfinite(exact)]).max(initial=0)
    if not most or _TINY < most < np.finfo(np.float32).max:
        return data, []
    text = f"intensities of up to {most:.3g} were divided by {most / _LARGEST:.3g}"
    finding = Finding("rescaled-values", "info", text)
    return (exact / most * _LARGEST).astype(np.float32), [finding]

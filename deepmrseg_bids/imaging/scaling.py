"""Numbers that a file stores in another way than as float32: slopes, and sizes beyond it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.findings import Finding

__all__ = ["in_range", "logarithms", "odd_scaling", "rescaled"]

_LOW, _HIGH = 1e-4, 1e12  # squares are summed, and differences of 1e-6 are none
_BRIGHT = 1000.0  # intensity of bright voxels after rescaling
_SAMPLED = 200_000
_BASES = (math.e, 2.0, 10.0)
_MOST_EXPONENT, _LEAST_LEVELS = 24.0, 20  # of whole numbers that images are stored as
_WHOLE, _ALMOST_ALL = 0.02, 0.98


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


def in_range(data: NDArray[Any]) -> bool:
    """Whether sums of squares of an image, and steps of it, are numbers in float32."""
    return _LOW < _level(data) < _HIGH


def rescaled(
    exact: NDArray[Any], data: NDArray[np.float32]
) -> tuple[NDArray[np.float32], list[Finding]]:
    """Numbers that are too large or too small, divided by one number: networks know no units.

    Args:
        exact: as they are in the file.
        data: the same as float32, which is kept where it is good.
    """
    level = _level(exact)
    if not level or _LOW < level < _HIGH:
        return data, []
    factor = level / _BRIGHT
    text = f"intensities around {level:.3g} were divided by {factor:.3g}"
    with np.errstate(over="ignore"):
        scaled = (exact / factor).astype(np.float32)
    return scaled, [Finding("rescaled-values", "info", text)]


def logarithms(data: NDArray[Any]) -> list[Finding]:
    """Whether intensities are logarithms of whole numbers, of which scanners make images.

    Args:
        data: finite intensities, any shape.

    >>> counts = np.arange(1.0, 400.0)
    >>> [one.code for one in logarithms(np.log1p(counts))], logarithms(counts / 40)
    (['log-transformed'], [])
    """
    levels = np.unique(data.ravel(order="K")[:: max(1, data.size // _SAMPLED)]).astype(np.float64)
    if len(levels) < _LEAST_LEVELS or _mostly_whole(levels):
        return []
    if levels[0] < 0 or not any(
        levels[-1] * math.log(base) < _MOST_EXPONENT and _mostly_whole(base**levels)
        for base in _BASES
    ):
        return []
    text = (
        "intensities are logarithms of whole numbers: the image was log-transformed, and volumes "
        "may be wrong; use the original image"
    )
    return [Finding("log-transformed", "warning", text)]


def _mostly_whole(values: NDArray[np.float64]) -> bool:
    return float((np.abs(values - np.round(values)) < _WHOLE).mean()) >= _ALMOST_ALL


def _level(data: NDArray[Any]) -> float:
    """How bright the bright voxels of an image are, whatever a few of them say."""
    sample = data.ravel(order="K")[:: max(1, data.size // _SAMPLED)]
    sample = np.abs(sample[np.isfinite(sample)])
    high = float(np.percentile(sample, 99.5)) if sample.size else 0.0
    if high:
        return high
    finite = data[np.isfinite(data)]
    return float(np.abs(finite).max(initial=0))

"""Whether intensities are those of a CT: Hounsfield units, as they are or stored without sign."""

from __future__ import annotations

import numpy as np

from deepmrseg_bids.imaging.grid import Array

__all__ = ["zero_of_hounsfield"]

_ZEROS = (0.0, 1024.0, 1000.0)  # what files without negative numbers add
_AIR, _LEAST_AIR = -850.0, 0.02  # of the voxels; what was not scanned is darker still
_HEAD, _SOFT = -500.0, 150.0
_TISSUE = (-20.0, 80.0)  # the middle of soft tissue: the brain is at 20 to 40
_NEAR, _MOST_NEAR = 30.0, 0.3  # made-up CTs 0.38 and more; MRI brought to that range less than 0.25


def zero_of_hounsfield(data: Array) -> float | None:
    """The intensity that stands for 0 Hounsfield units (water), or None for what is no CT.

    A CT has its tissues within a few units of each other, far from air. That holds whatever its
    air is: noise, one value, or cut away.

    Args:
        data: finite intensities, any shape.

    >>> rng = np.random.default_rng(0)
    >>> ct = np.concatenate([np.full(500, -1000.0), rng.normal(35, 8, 400), np.full(100, 900.0)])
    >>> zero_of_hounsfield(ct), zero_of_hounsfield(ct + 1024)
    (0.0, 1024.0)
    >>> zero_of_hounsfield(rng.gamma(2, 200, 1000) - 1000)
    """
    return next((zero for zero in _ZEROS if _fits(data, zero)), None)


def _fits(data: Array, zero: float) -> bool:
    """Whether air, soft tissue and the width of soft tissue are those of a CT with this zero."""
    if float((data < zero + _AIR).mean()) < _LEAST_AIR:
        return False
    head = data[data > zero + _HEAD] - zero
    soft = head[np.abs(head) <= _SOFT]
    if not soft.size:
        return False
    middle = float(np.median(soft))
    low, high = _TISSUE
    near = float((np.abs(head - middle) <= _NEAR).mean())
    return low <= middle <= high and near > _MOST_NEAR

"""Normalisation: the same few lines for training and for inference.

Both scale and shift of the scanner's intensities are taken out. The voxels that count get mean
0; inside a brain or a crop they get standard deviation 1, in a whole head air gets a fixed
value, so that an image of weak contrast has no other air than one of strong contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import SignalError
from deepmrseg_bids.imaging.grid import Array

__all__ = ["AIR", "OUTSIDE", "IntensityMode", "brain_coordinates", "normalise"]

IntensityMode = Literal["head", "brain", "crop"]

AIR = -2.5
OUTSIDE = -3.0  # what a voxel outside the brain mask becomes: darker than fluid in a T1w
_CLIP = 5.0
_FAR_MM = 60.0  # from the middle of the brain, about half way to its ends
_SAMPLED_VOXELS = 100_000  # enough for percentiles to the third digit
_FOREGROUND = 0.1  # of the way from the darkest to the brightest percentile


def normalise(
    data: Array,
    *,
    mode: IntensityMode,
    mask: NDArray[np.bool_] | None = None,
    scanned: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Scale intensities by the voxels that count.

    Args:
        data: (*space), any real type.
        mode: ``head`` counts the voxels that are not air (air becomes ``AIR``), ``brain``
            those in ``mask`` (the others become ``OUTSIDE``), ``crop`` those in ``mask``, or
            all of them (the others become 0, the mean).
        mask: (*space), needed by ``brain``, ignored by ``head``.
        scanned: (*space), for ``head``: the field of view. Voxels beyond it tell nothing about
            the scan; they become ``AIR``.

    Raises:
        SignalError: the voxels that count are all equal, or there are none.

    >>> out = normalise(np.array([0.0, 1.0, 2.0, 3.0]), mode="crop")
    >>> float(abs(out.mean())) < 1e-6
    True
    """
    data = np.asarray(data, dtype=np.float32)
    own = data if mode != "head" or scanned is None else data[scanned]
    counted = _counted(own, mode, mask)
    if counted.size == 0:
        raise SignalError(f"no voxel to scale the intensities by (mode {mode!r})")
    low, high = np.percentile(_thin(counted), (0.5, 99.5))
    inner = np.clip(counted, low, high)
    mean, deviation = float(inner.mean(dtype=np.float64)), float(inner.std(dtype=np.float64))
    if deviation <= 1e-6 * max(abs(mean), 1e-12):
        raise SignalError("the image has constant intensity")
    unit = (mean - float(_darkest(own))) / -AIR if mode == "head" else deviation
    scaled = (data - np.float32(mean)) * np.float32(1 / unit)
    np.clip(scaled, -_CLIP, _CLIP, out=scaled)
    if mode == "head" and scanned is not None:
        scaled[~scanned] = AIR
    elif mode == "brain" and mask is not None:
        scaled[~mask] = OUTSIDE
    elif mode == "crop" and mask is not None:
        scaled[~mask] = 0
    return scaled


def brain_coordinates(
    shape: tuple[int, int, int], centre: Sequence[float], spacing: float
) -> NDArray[np.float32]:
    """How far each voxel lies from the middle of the brain, in units of 60 mm.

    The first channel does not tell left from right: it is the distance from the middle.

    Args:
        shape: voxels of an image in RAS.
        centre: (3,) the mean place of the brain's voxels, in voxels; it may lie outside.
        spacing: edge of the voxels, mm.

    Returns:
        (3, *shape): to either side, to the front, upwards.

    >>> brain_coordinates((3, 1, 2), (1, 0, 0), 60.0)[[0, 2], :, 0].tolist()
    [[[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]]
    """
    axes = [
        ((np.arange(edge) - middle) * spacing / _FAR_MM).astype(np.float32)
        for edge, middle in zip(shape, centre, strict=True)
    ]
    axes[0] = np.abs(axes[0])
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _counted(data: Array, mode: IntensityMode, mask: NDArray[np.bool_] | None) -> Array:
    if mode == "crop" and mask is None:
        return data.ravel()
    if mode in ("brain", "crop"):
        if mask is None or mask.shape != data.shape:
            found = None if mask is None else mask.shape
            raise ValueError(f"mode {mode!r} needs a mask of shape {data.shape}, got {found}")
        return data[mask]
    low, high = _darkest(data), np.percentile(_thin(data.ravel()), 99.5)
    counted: Array = data[data > low + _FOREGROUND * (high - low)]
    return counted


def _darkest(data: Array) -> np.floating[Any]:
    """The intensity of air: the first percentile of a whole head."""
    return np.percentile(_thin(data.ravel()), 1)


def _thin(values: Array) -> Array:
    """Every n-th value, so that a percentile of a large image costs nothing."""
    return values[:: max(1, values.size // _SAMPLED_VOXELS)]

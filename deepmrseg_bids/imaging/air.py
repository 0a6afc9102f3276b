"""What lies outside a head: the level of air, and voxels that were never scanned.

Magnitude images have air near 0. Others do not: CT and shifted images, z-scores, negated ones;
and what pads a scan, rotates it or strips it writes one value around it that may be anything.
Everything after the reader takes 0 for air, so the reader makes it so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.imaging.hounsfield import zero_of_hounsfield
from deepmrseg_bids.imaging.morphology import dilated

__all__ = ["Air", "find_air", "with_air_at_zero"]

_SAMPLED = 2_000_000  # voxels that are looked at
_FACES = 0.2  # share of the outer faces that one value takes to be no chance
_NEAR = 0.02  # of the range of the head: two levels that close are one
_DARK, _BRIGHT = 0.1, 0.8  # of that range: what lies beside air; beside negated air
_GAP = 0.5  # of that range: a background further below the brain was not measured
_BELOW = 0.15  # of that range: how far air lies below the darkest of a brain
_FLAT = 0.05  # of that range: spread of negated air on a face
_QUARTILES = (25, 50, 75)
_SIDES = 4  # faces of six that are air around a negated head
_ENDS = [(axis, end) for axis in range(3) for end in (False, True)]
_PADDINGS = 4  # around one scan, one after the other


@dataclass(frozen=True)
class Air:
    """Where the intensities of a scan begin.

    Attributes:
        level: of air.
        outside: the values of voxels that were not scanned (padding, stripped parts) and that
            differ from air.
        negated: air is brighter than the head.
    """

    level: float = 0.0
    outside: tuple[float, ...] = ()
    negated: bool = False

    def findings(self, data: NDArray[np.float32]) -> list[Finding]:
        """What a reader of the results should know of the intensities."""
        found = []
        least = float(data.min())
        if least < 0:
            share = 100 * float((data < 0).mean())
            text = f"{share:.2g} % of the voxels are negative, the minimum is {least:g}"
            found.append(Finding("negative-values", "info", text))
        zero = None if self.negated else zero_of_hounsfield(_thinned(data))
        if zero is not None:
            text = (
                f"intensities are those of a CT (air near {zero - 1000:g}, soft tissue near "
                f"{zero:g}), not of an MRI"
            )
            found.append(Finding("computed-tomography", "error", text))
        if self.negated:
            text = (
                "air is brighter than the head: the intensities are negated. They were reversed "
                "for the segmentation; inspect the file"
            )
            found.append(Finding("intensities-negated", "warning", text))
        elif self.outside:
            values = ", ".join(f"{value:g}" for value in self.outside)
            several = "values" if len(self.outside) > 1 else "value"
            text = f"voxels outside the scan have the {several} {values}: taken as air"
            found.append(Finding("scan-padded", "info", text))
        return found


def find_air(data: NDArray[np.float32]) -> Air:
    """The air of a scan (I, J, K) of finite intensities, by its outer faces.

    A scan in which no air is recognised, such as a crop within a head, keeps its level of 0.

    >>> head = np.full((40, 40, 40), -1024.0, np.float32)
    >>> head[5:35, 5:35, 5:35] += np.random.default_rng(0).gamma(2, 50, (30, 30, 30))
    >>> find_air(head).level
    -1024.0
    """
    thin = _thinned(data)
    inner, layers = _peeled(thin)
    if len(layers) < 2:  # one value around a head is its air, or is judged beside it
        return _air_of(thin)
    air = _air_of(inner)
    beyond = tuple(value for value in layers if value not in (air.level, *air.outside))
    return replace(air, outside=(*beyond, *air.outside))


def _peeled(thin: Array) -> tuple[Array, list[float]]:
    """What is left of a scan without its outer layers of one value each, and these values.

    Padding with several values, one after the other or one for each side, has more than one.
    """
    values: list[float] = []
    for axis, end in _ENDS * _PADDINGS:
        layers = np.moveaxis(thin, axis, 0)[:: -1 if end else 1]
        value = layers[0].flat[0]
        if not (layers[0] == value).all():
            continue
        differs = (layers != value).reshape(len(layers), -1).any(axis=1)
        if not differs.any():
            break
        if (level := float(value)) not in values:
            values.append(level)
        kept = slice(int(differs.argmax()), None)
        thin = np.moveaxis(layers[kept][:: -1 if end else 1], 0, axis)
    return thin, values


def _air_of(thin: Array) -> Air:
    """The air of a scan around which there is at most one value that was not measured."""
    common, share = _most_common(np.concatenate([face.ravel() for face in _faces(thin)]))
    if share < _FACES:
        return _without_padding(thin)
    scanned = thin != common
    if not scanned.any():
        return Air()
    low, high = (float(level) for level in np.percentile(thin[scanned], (1, 99.5)))
    span = high - low
    beside = thin[scanned & dilated(~scanned)]
    # a scan that was stripped may have -1 around its brain: near 0, and below all of it
    usual = _usual(common, span) if common >= min(0.0, float(thin[scanned].min())) else Air(common)
    if span == 0 or not beside.size or abs(common - low) <= _NEAR * span:
        return usual
    bottom, rim, top = ((float(level) - low) / span for level in np.percentile(beside, _QUARTILES))
    if rim > _BRIGHT and top - bottom < _FLAT and not 0 <= common - high <= _DARK * span:
        return Air(high, outside=(common,), negated=True)
    if common >= high and (rim > _BRIGHT or rim * span + low > np.median(thin[scanned])):
        return Air(common, negated=True)
    if rim < _DARK:
        return Air(_usual(low, span).level, outside=(common,))
    if common > low or low - common > _GAP * span:
        return Air(low - _BELOW * span, outside=(common,))
    return usual


def with_air_at_zero(data: NDArray[np.float32], air: Air) -> NDArray[np.float32]:
    """The same scan with air, and what was not scanned, at 0; itself where it is so already."""
    if air == Air():
        return data
    level = np.float32(air.level)
    out: NDArray[np.float32] = level - data if air.negated else data - level
    if air.outside:
        out[_connected(np.isin(data, np.array(air.outside, dtype=np.float32)))] = 0
    return out


def _usual(level: float, span: float) -> Air:
    """Air of this level; a level that is nearly 0 beside the range of a head is 0."""
    return Air() if abs(level) <= _NEAR * span else Air(level)


def _without_padding(thin: Array) -> Air:
    """The air of a scan whose faces hold no value more often than chance would."""
    low, high = (float(level) for level in np.percentile(thin, (1, 99.5)))
    span = high - low
    faces = [(np.percentile(face, _QUARTILES) - low) / span for face in _faces(thin)]
    dark = sum(middle < _DARK for _, middle, _ in faces)
    bright = sum(middle > 1 - _DARK and top - bottom < _FLAT for bottom, middle, top in faces)
    if bright >= _SIDES:
        return Air(float(np.percentile(thin, 99)), negated=True)
    return _usual(low, span) if dark else Air()


def _connected(equal: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask (I, J, K) that reaches the outer faces."""
    pieces, count = ndimage.label(equal)
    if count < 2:
        return equal
    outer = np.unique(np.concatenate([face.ravel() for face in _faces(pieces)]))
    reached = np.zeros(count + 1, dtype=bool)
    reached[outer] = True
    reached[0] = False
    kept: NDArray[np.bool_] = reached[pieces]
    return kept


def _thinned(data: Array) -> Array:
    step = max(1, round((data.size / _SAMPLED) ** (1 / 3)))
    return data[::step, ::step, ::step]


def _faces(data: Array) -> list[Array]:
    return [np.moveaxis(data, axis, 0)[end] for axis in range(3) for end in (0, -1)]


def _most_common(values: Array) -> tuple[float, float]:
    """The value that is found most often, and its share."""
    found, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return float(found[best]), float(counts[best]) / values.size

"""What the errors of a model on scans it never saw say of a volume: interval, floor, confidence.

A bundle states this in its facts, by the name of the structure:

``volume_interval``
    two factors, of a volume of any size.
``volume_interval_ranges``
    factors by range of the volume, and an offset that is added to volumes before and taken away
    after: ``{"offset_mm3": 100, "ranges": [[5000, 0.5, 1.8], [null, 0.7, 1.4]]}``; each range has
    its upper end, null for none.
``volume_floor``
    volumes below it are not distinguishable from none, in mm3.
``volume_if_none``
    the upper end where nothing was found, in mm3.
``confidence_fit``
    three numbers a, b, c: the Dice is the logistic function of
    ``a + b log10(volume in ml) + c logit(Dice that the posteriors promise)``.

``volume_thresholds``
    from which posterior on a voxel belongs to the structure, by the volume at one half:
    ``[[8000, 0.9], [20000, 0.5]]``, volumes in mm3 rising; between them it changes with the
    logarithm of the volume. Where there is little, most of what is doubtful is nothing.

All are optional, and those of older bundles hold as they did.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Calibration", "logit"]

_LEAST_ML = 0.01  # smaller volumes tell no more of the confidence
_EDGE = 1e-3  # a Dice of 0 or 1 has no logit


def logit(share: float) -> float:
    """The logarithm of the odds, of a share that is kept off 0 and 1."""
    kept = min(max(share, _EDGE), 1 - _EDGE)
    return math.log(kept / (1 - kept))


@dataclass(frozen=True)
class Calibration:
    """What is known of the volume of one structure.

    Attributes:
        ranges: upper end in mm3 and two factors each, rising; the last end is infinite.
        offset_mm3: added to a volume before the factors and taken away after.
        floor_mm3: see the module; 0 if there is none.
        if_none_mm3: None if it is not known.
        fit: of the confidence; None: it is the Dice that the posteriors promise.
        thresholds: volume in mm3 and threshold each, rising; empty: one half for any volume.
    """

    ranges: tuple[tuple[float, float, float], ...] = ()
    offset_mm3: float = 0.0
    floor_mm3: float = 0.0
    if_none_mm3: float | None = None
    fit: tuple[float, float, float] | None = None
    thresholds: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, facts: Mapping[str, Any], name: str) -> Calibration:
        """What the facts of a bundle say of a structure."""
        ranges: Sequence[Sequence[float | None]] = ()
        offset = 0.0
        if name in facts.get("volume_interval_ranges", {}):
            stated = facts["volume_interval_ranges"][name]
            ranges, offset = stated["ranges"], float(stated.get("offset_mm3", 0.0))
        elif name in facts.get("volume_interval", {}):
            ranges = [[None, *facts["volume_interval"][name]]]
        if_none = facts.get("volume_if_none", {}).get(name)
        fit = facts.get("confidence_fit", {}).get(name)
        return cls(
            tuple(
                (math.inf if end is None else float(end), float(low or 0.0), float(high or 0.0))
                for end, low, high in ranges
            ),
            offset,
            float(facts.get("volume_floor", {}).get(name, 0.0)),
            None if if_none is None else float(if_none),
            None if fit is None else (float(fit[0]), float(fit[1]), float(fit[2])),
            tuple(
                (float(end), float(threshold))
                for end, threshold in facts.get("volume_thresholds", {}).get(name, ())
            ),
        )

    def threshold(self, volume_mm3: float) -> float:
        """From which posterior on a voxel belongs to the structure.

        Args:
            volume_mm3: of the voxels whose posterior is above one half.

        >>> known = Calibration(thresholds=((8000.0, 0.9), (20000.0, 0.5)))
        >>> known.threshold(0.0), known.threshold(8000.0), known.threshold(30000.0)
        (0.9, 0.9, 0.5)
        >>> round(known.threshold(12649.1), 3)
        0.7
        """
        if not self.thresholds:
            return 0.5
        volumes, thresholds = zip(*self.thresholds, strict=True)
        place = math.log(max(volume_mm3, 1.0))
        return float(np.interp(place, np.log(volumes), thresholds))

    def below_floor(self, volume_mm3: float) -> bool:
        """Whether a volume is not distinguishable from none."""
        return volume_mm3 < self.floor_mm3

    def interval(self, volume_mm3: float) -> tuple[float, float] | tuple[None, None]:
        """The 90 % interval of a volume, mm3.

        A volume below the floor may be none at all, and no more than that in which nothing
        was found may be certain.

        >>> known = Calibration(((1000.0, 0.5, 2.0), (math.inf, 0.8, 1.2)), floor_mm3=300.0)
        >>> known.interval(100.0), known.interval(500.0), known.interval(2000.0)
        ((0.0, 300.0), (250.0, 1000.0), (1600.0, 2400.0))
        """
        if volume_mm3 == 0:  # a factor says nothing of what was missed
            return (None, None) if self.if_none_mm3 is None else (0.0, self.if_none_mm3)
        for end, low_factor, high_factor in self.ranges:
            if volume_mm3 < end:
                whole = volume_mm3 + self.offset_mm3
                low = max(whole * low_factor - self.offset_mm3, 0.0)
                high = max(whole * high_factor - self.offset_mm3, low)
                if not self.below_floor(volume_mm3):
                    return low, high
                return 0.0, max(high, self.floor_mm3, self.if_none_mm3 or 0.0)
        return None, None

    def confidence(self, promised: float | None, volume_mm3: float) -> float | None:
        """The Dice to expect; None if nothing was found.

        Args:
            promised: by the posteriors, see :func:`deepmrseg_bids.tasks.results.expected_dice`.
        """
        if promised is None or self.fit is None:
            return promised
        a, b, c = self.fit
        odds = a + b * math.log10(max(volume_mm3 / 1000, _LEAST_ML)) + c * logit(promised)
        return 1 / (1 + math.exp(-min(max(odds, -30.0), 30.0)))

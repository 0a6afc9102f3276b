"""Scans of any contrast from label maps (after Billot et al. 2023): a mean and a spread a
tissue, drawn at random, the same on both sides of the head.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAIRS", "synthesize"]

PAIRS = {
    41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13,
    53: 17, 54: 18, 57: 25, 58: 26, 60: 28, 62: 30, 137: 136, 164: 163,
}  # fmt: skip
"""FreeSurfer codes of the right side, and the left code whose tissue they share."""

_LIKE = {5: 4, 14: 4, 15: 4, 72: 4, 26: 11, 18: 17, 28: 10, 25: 2, 85: 2, 30: 2}
"""Tissues that look alike in every contrast; each differs a little from the other."""


def synthesize(codes: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.float32]:
    """A scan of a random contrast.

    Args:
        codes: (*space) FreeSurfer codes; 500 and up are outside the brain; 0 is air.

    Returns:
        (*space) float32, about [0, 1].
    """
    largest = int(codes.max()) + 1
    means, spreads = np.zeros(largest, np.float32), np.zeros(largest, np.float32)
    for code in (int(code) for code in np.unique(codes)):
        if code == 0:
            means[0], spreads[0] = rng.uniform(0, 0.03), rng.uniform(0, 0.02)
            continue
        left = PAIRS.get(code, code)
        drawn = left not in (0, code) and means[left] > 0
        like = _LIKE.get(left)
        if drawn:
            means[code], spreads[code] = means[left], spreads[left]
        elif like is not None and like < largest and means[like] > 0:
            means[code] = np.clip(means[like] + rng.normal(0, 0.05), 0.02, 1)
            spreads[code] = spreads[like]
        else:
            means[code], spreads[code] = rng.uniform(0.05, 1), rng.uniform(0.01, 0.06)
    _t1_like(means, rng)
    image = means[codes] + spreads[codes] * rng.standard_normal(codes.shape, dtype=np.float32)
    clipped: NDArray[np.float32] = np.clip(image, 0, None)
    return clipped


def _t1_like(means: NDArray[np.float32], rng: np.random.Generator) -> None:
    """In half of the draws, order the tissues as a T1w scan does."""
    if rng.random() < 0.5:
        return
    white, grey = rng.uniform(0.7, 1.0), rng.uniform(0.4, 0.68)
    fluid = rng.uniform(0.05, 0.3)
    groups = {
        white: (2, 41, 7, 46, 16, 85),
        grey: (3, 42, 8, 47, 11, 50, 17, 53, 18, 54, 26, 58),
        (grey + white) / 2: (12, 51, 28, 60),
        0.35 * grey + 0.65 * white: (10, 49),
        0.2 * grey + 0.8 * white: (13, 52),
        fluid: (4, 43, 5, 44, 14, 15, 24, 72),
    }
    for mean, codes in groups.items():
        jitter = rng.normal(0, 0.015)
        for code in codes:
            if code < len(means) and means[code] > 0:
                means[code] = mean + jitter

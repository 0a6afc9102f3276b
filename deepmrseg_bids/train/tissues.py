"""The tissues of a head that look alike in every scan, and the codes that stand for them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FREESURFER_OF_MUSE",
    "HEAD_TISSUES",
    "OUTSIDE_BRAIN",
    "TISSUES",
    "TISSUE_OF",
    "Tissue",
    "tissue_shares",
]

_CODES = 1024

OUTSIDE_BRAIN = 500
"""Codes from here on lie outside the brain, in label maps that scans are synthesised from."""


class Tissue(IntEnum):
    """What a code of a label map stands for; from ``HEAD`` on tissues outside the brain."""

    AIR = 0
    WHITE = 1
    CORTEX = 2
    FLUID = 3
    OUTER = 4
    STRIATUM = 5
    THALAMUS = 6
    PALLIDUM = 7
    HIPPOCAMPUS = 8
    STEM = 9
    CEREBELLAR_WHITE = 10
    CEREBELLAR_GREY = 11
    DIENCEPHALON = 12
    OTHER = 13
    HEAD = 14


HEAD_TISSUES = 17
"""Tissues outside the brain that may look different from one another."""

TISSUES = Tissue.HEAD + HEAD_TISSUES
"""How many tissues there are."""

_FREESURFER = {
    Tissue.AIR: (0,),
    Tissue.WHITE: (2, 41, 85),
    Tissue.CORTEX: (3, 42),
    Tissue.FLUID: (4, 43, 5, 44, 14, 15, 72),
    Tissue.OUTER: (24,),
    Tissue.STRIATUM: (11, 50, 12, 51, 26, 58),
    Tissue.THALAMUS: (10, 49),
    Tissue.PALLIDUM: (13, 52),
    Tissue.HIPPOCAMPUS: (17, 53, 18, 54),
    Tissue.STEM: (16,),
    Tissue.CEREBELLAR_WHITE: (7, 46),
    Tissue.CEREBELLAR_GREY: (8, 47),
    Tissue.DIENCEPHALON: (28, 60),
}


def _table() -> NDArray[np.uint8]:
    table = np.full(_CODES, Tissue.OTHER, dtype=np.uint8)
    for tissue, codes in _FREESURFER.items():
        table[list(codes)] = tissue
    outside = np.arange(OUTSIDE_BRAIN, _CODES)
    table[outside] = Tissue.HEAD + outside % HEAD_TISSUES
    return table


TISSUE_OF = _table()
"""(codes,) the tissue of each FreeSurfer code."""


def _freesurfer_of_muse() -> NDArray[np.int16]:
    table = np.zeros(256, dtype=np.int16)
    for first, other, codes in (
        (3, 42, range(100, 208)),
        (2, 41, range(81, 96)),
    ):  # a code of the left side is odd in the cortex and even in the white matter
        for code in codes:
            left = (code % 2 == 1) == (first == 3)
            table[code] = first if left else other
    table[[4, 11, 35, 46, 1, 69, 71, 72, 73, 75, 76]] = 14, 15, 16, 24, 24, 85, 8, 8, 47, 28, 60
    table[[23, 30, 31, 32, 36, 37, 38, 39, 40, 41]] = 58, 26, 54, 18, 50, 11, 47, 8, 46, 7
    table[[44, 45, 47, 48, 49, 50, 51, 52]] = 41, 2, 53, 17, 44, 5, 43, 4
    table[[55, 56, 57, 58, 59, 60, 61, 62]] = 52, 13, 51, 12, 49, 10, 60, 28
    return table


FREESURFER_OF_MUSE = _freesurfer_of_muse()
"""(256,) the FreeSurfer code of the tissue and side of each code of MUSE; 0 outside the brain."""


def tissue_shares(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    """(tissues,) voxels of each tissue within the brain."""
    counts = np.bincount(TISSUE_OF[codes].ravel(), minlength=TISSUES).astype(np.float64)
    counts[Tissue.AIR] = 0
    counts[Tissue.HEAD :] = 0
    return counts

"""The tissues of a head that look alike in every scan, and the codes that stand for them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEAD_TISSUES", "OUTSIDE_BRAIN", "TISSUES", "TISSUE_OF", "Tissue", "tissue_shares"]

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


def tissue_shares(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    """(tissues,) voxels of each tissue within the brain."""
    counts = np.bincount(TISSUE_OF[codes].ravel(), minlength=TISSUES).astype(np.float64)
    counts[Tissue.AIR] = 0
    counts[Tissue.HEAD :] = 0
    return counts

"""A small made-up head as a label map, and lesions for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

EDGE = 64
_BALLS = (  # centre in voxels from the middle, radius, code: later ones over earlier ones
    ((0, 0, 0), 29, 506), ((0, 0, 0), 27, 24), ((-5, 0, 0), 24, 3), ((5, 0, 0), 24, 42),
    ((-8, 0, 2), 19, 2), ((8, 0, 2), 19, 41), ((-5, 0, 6), 4, 4), ((5, 0, 6), 4, 43),
    ((-5, -6, 0), 3, 10), ((5, -6, 0), 3, 49), ((-6, 6, 0), 3, 11), ((6, 6, 0), 3, 50),
    ((-11, 2, 0), 3, 12), ((11, 2, 0), 3, 51), ((-9, -3, -9), 3, 17), ((9, -3, -9), 3, 53),
)  # fmt: skip


def head() -> np.ndarray:
    """(64, 64, 64) int16 FreeSurfer codes."""
    places = np.indices((EDGE,) * 3) - EDGE // 2
    codes = np.zeros((EDGE,) * 3, np.int16)
    for centre, radius, code in _BALLS:
        away = sum((axis - c) ** 2 for axis, c in zip(places, centre, strict=True))
        codes[away <= radius**2] = code
    return codes


def write_lesions(path: Path, *, patient: bool = True) -> Path:
    """Two cubes of 24 mm in the white matter of both sides, MNI152."""
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = 90, -126, -72
    cube = np.indices((24, 24, 24)).reshape(3, -1).T
    corners = [np.linalg.inv(affine)[:3, :3] @ (np.array(point) - affine[:3, 3])
               for point in ((-24.0, -30.0, 10.0), (48.0, -30.0, 10.0))]  # fmt: skip
    ijk = np.concatenate([cube + np.round(corner).astype(int) for corner in corners])
    start = np.array([0, len(ijk)]) if patient else np.array([0, len(ijk) // 2, len(ijk)])
    more = {"patient": np.array([1])} if patient else {}
    np.savez(path, ijk=ijk.astype(np.int16), start=start, affine=affine,
             shape=np.array([182, 218, 182]), **more)  # fmt: skip
    return path

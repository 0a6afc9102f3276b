"""Helpers that several test modules import."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid

ORIENTATIONS = [
    "".join(pick)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for pick in itertools.product(*axes)
]


def stored_as(data: np.ndarray, grid: Grid, codes: str) -> tuple[np.ndarray, Grid]:
    """The same RAS scan with its array permuted and flipped: axes grow towards ``codes``."""
    order = [next(k for k, pair in enumerate(("LR", "PA", "IS")) if c in pair) for c in codes]
    affine = grid.affine[:, [*order, 3]].copy()
    moved = data.transpose(order)
    for axis, code in enumerate(codes):
        if code in "LPI":
            moved = np.flip(moved, axis)
            affine[:, 3] += affine[:, axis] * (moved.shape[axis] - 1)
            affine[:, axis] *= -1
    return np.ascontiguousarray(moved), Grid(moved.shape, affine)


def images_of(t1w: str | Path | None = None, flair: str | Path | None = None) -> dict[str, Path]:
    """The images that a session has, by modality."""
    every = {"T1w": t1w, "FLAIR": flair}
    return {modality: Path(path) for modality, path in every.items() if path is not None}


def ball(seed: int, edge: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and its label map (code 5)."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(8, edge - 8, 3)
    away = sum((i - c) ** 2 for i, c in zip(np.indices((edge,) * 3), centre, strict=True))
    inside = away < rng.uniform(3.5, 5) ** 2
    image = 100 + 10 * rng.standard_normal(inside.shape) + 60 * inside
    return image.astype(np.float32), (inside * 5).astype(np.uint8)


_NOBODY = 65534


@contextlib.contextmanager
def no_root() -> Iterator[None]:
    """Where root runs the tests: be nobody for a while, whom permissions bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def need(*programs: str, package: str) -> None:
    """Skip the test where a real part is not installed; where CI runs it, fail instead.

    ``.ci/run`` installs every real part and sets ``DEEPMRSEG_CI=1``: a test that skipped there
    would look like one that passed.

    Args:
        programs: what must be on PATH (``/usr/sbin`` is looked at too).
        package: what to install, for the message.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if not missing:
        return
    unavailable(f"{', '.join(missing)} not found: install {package}")


def unavailable(message: str) -> NoReturn:
    """Skip the test, saying why; where CI runs it, fail instead."""
    if os.environ.get("DEEPMRSEG_CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """A small file system of its own; where this may not be made, the test is skipped."""
    place.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)

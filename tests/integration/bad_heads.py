"""Heads that went wrong, made of one good one: what users have in their data sets."""

from __future__ import annotations

import struct
from importlib.resources import files

import nibabel as nib
import numpy as np
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid, resample
from tests.integration.conftest import coarse, packed
from tests.support import stored_as
from tests.tasks.phantom import tilted


def image(data: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.ascontiguousarray(data, dtype=np.float32), affine)


def moved(scan: nib.Nifti1Image, target: Grid) -> nib.Nifti1Image:
    """The same head on another grid."""
    data = np.asarray(scan.dataobj, dtype=np.float32)
    return image(resample(data, Grid(data.shape, scan.affine), target), target.affine)


def grid_of(scan: nib.Nifti1Image) -> Grid:
    return Grid(scan.shape, scan.affine)


# --- files


def flipped_bytes(scan: nib.Nifti1Image) -> bytes:
    raw = bytearray(packed(scan.to_bytes()))
    for place in range(len(raw) // 2, len(raw) // 2 + 400):
        raw[place] ^= 0xFF
    return bytes(raw)


def with_affine(scan: nib.Nifti1Image, rows: list[float]) -> bytes:
    """A file whose sform is these twelve numbers, and no qform."""
    raw = bytearray(scan.to_bytes())
    raw[280:328] = struct.pack("<12f", *rows)
    raw[252:256] = struct.pack("<hh", 0, 1)
    return packed(bytes(raw))


def without_forms(scan: nib.Nifti1Image) -> bytes:
    raw = bytearray(scan.to_bytes())
    raw[252:256] = struct.pack("<hh", 0, 0)
    return packed(bytes(raw))


def with_other_qform(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    other = scan.affine.copy()
    other[:3, 3] += 7
    scan = image(np.asarray(scan.dataobj), scan.affine)
    scan.set_sform(scan.affine, code=1)
    scan.set_qform(other, code=1)
    return scan


# --- numbers


def scaled(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    """16-bit integers with a slope and an intercept."""
    data = np.asarray(scan.dataobj, dtype=np.float32)
    stored = nib.Nifti1Image(data, scan.affine)
    stored.set_data_dtype(np.int16)
    return stored


def typed(scan: nib.Nifti1Image, kind: type) -> nib.Nifti1Image:
    data = np.round(np.asarray(scan.dataobj, dtype=np.float64) * 1000)
    return nib.Nifti1Image(data.astype(kind), scan.affine)


# --- heads


def oblique(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    return moved(scan, tilted(grid_of(scan), 12))


def stored(scan: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """The same voxels with axes that grow towards ``codes``."""
    ras = nib.as_closest_canonical(scan)
    data, grid = stored_as(np.asarray(ras.dataobj, dtype=np.float32), grid_of(ras), codes)
    return image(data, grid.affine)


def upside_down(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    return image(np.asarray(scan.dataobj), np.diag([1, 1, -1, 1.0]) @ scan.affine)


def thick(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    grid = grid_of(scan)
    affine = grid.affine @ np.diag([1, 1, 2.5, 1])
    return moved(scan, Grid((*grid.shape[:2], int(grid.shape[2] / 2.5)), affine))


def part(scan: nib.Nifti1Image, axis: int, start: int, stop: int) -> nib.Nifti1Image:
    """Some slices of a head."""
    low, high = [0, 0, 0], list(scan.shape)
    low[axis], high[axis] = start, stop
    return moved(scan, grid_of(scan).crop(low, high))


def inside(scan: nib.Nifti1Image) -> np.ndarray:
    """Where the brain is, and each tissue in it: grey and white matter, (2, *shape)."""
    folder = files("nilearn.datasets") / "data"
    tissues = []
    for tissue in ("gm", "wm"):
        name = str(folder / f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz")
        data = np.asarray(nib.load(name).dataobj, dtype=np.float32)[::2, ::2, ::2]
        tissues.append(data / data.max())
    assert tissues[0].shape == scan.shape
    return np.stack(tissues)


def brain_of(scan: nib.Nifti1Image) -> np.ndarray:
    whole = ndimage.binary_closing(inside(scan).sum(axis=0) > 0.3, iterations=3)
    return ndimage.binary_fill_holes(whole)


def enhanced(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    """The rim of the brain, where vessels and meninges are, as bright as contrast makes it."""
    data = np.asarray(scan.dataobj, dtype=np.float32).copy()
    brain = brain_of(scan)
    rim = ndimage.binary_dilation(brain, iterations=2) & ~brain
    vessels = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=data.shape), 1.5) > 0.1
    data[rim & vessels] = 1.5 * np.percentile(data, 99.5)
    return image(data, scan.affine)


def t2w(scan: nib.Nifti1Image) -> nib.Nifti1Image:
    """Fluid bright, grey matter in between, white matter dark."""
    grey, white = inside(scan)
    data = np.asarray(scan.dataobj, dtype=np.float32)
    head = data > 0.1 * np.percentile(data, 99)
    fluid = brain_of(scan) * np.clip(1 - grey - white, 0, 1)
    levels = 100 * fluid + 60 * grey + 35 * white
    return image(np.where(brain_of(scan), levels, 40 * head), scan.affine)


def sphere() -> nib.Nifti1Image:
    away = np.sqrt(((np.indices((90, 90, 90)) - 44.5) ** 2).sum(axis=0))
    data = np.where(away < 40, 100, 0) + np.random.default_rng(0).normal(0, 3, away.shape)
    return image(data, np.diag([2, 2, 2, 1.0]))


def noise() -> nib.Nifti1Image:
    return image(np.random.default_rng(0).normal(100, 5, (90, 110, 90)), np.diag([2, 2, 2, 1.0]))


def good() -> nib.Nifti1Image:
    return coarse()

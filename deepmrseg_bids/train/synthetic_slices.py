"""Slices of T1w and FLAIR from label maps, with lesions.

``render`` makes the two images and the target of a :class:`~deepmrseg_bids.train.scene.Scene`,
and works on the slice alone. Equal scenes give equal images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.train.lesion_bank import load_lesions
from deepmrseg_bids.train.scene import T1W_LEVELS, Anatomy, Artifacts, Contrast, Geometry, Scene
from deepmrseg_bids.train.smooth_fields import shade, smooth
from deepmrseg_bids.train.tissues import TISSUE_OF, TISSUES, Tissue

__all__ = ["render"]

_GREY = (Tissue.CORTEX, Tissue.HIPPOCAMPUS)
_CLIP = 5.0
_LEAST = 0.35  # of a labelled pixel that is lesion, after its edges were softened


@dataclass(frozen=True, eq=False)
class _Slab:
    """The part of a head that a slice shows; (planes, H, W) each.

    Attributes:
        points: (3, planes, H, W) voxels of the label map.
        flat: the nearest voxel's flat number; ``inside``: whether it is in the label map.
        near: millimetres from the ventricles.
        texture: of the head's T1w, if there is one.
    """

    points: NDArray[np.float32]
    flat: NDArray[np.int64]
    inside: NDArray[np.bool_]
    tissue: NDArray[np.uint8]
    near: NDArray[np.float32]
    texture: NDArray[np.float32] | None


def render(
    anatomy: Anatomy, scene: Scene, crop: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The slice: (2, *crop) FLAIR and T1w as the network sees them, and the classes (*crop)."""
    rng = np.random.default_rng(scene.seed)
    slab = _slab(anatomy, scene.geometry, crop)
    share, lesion = _lesion(anatomy, scene, slab, rng)
    images = _tissues_seen(scene.contrast, slab, share, lesion, rng)
    brain = _outline(slab.tissue, scene.artifacts.outline)
    pair = _scaled(_scan(images, scene.artifacts, rng), anatomy.shares, scene)
    pair = np.where(brain, np.clip(pair, -_CLIP, _CLIP), np.float32(OUTSIDE)).astype(np.float32)
    if scene.artifacts.no_t1w:
        pair[1] = OUTSIDE
    if anatomy.target is not None:
        middle = len(slab.flat) // 2
        classes = anatomy.target.ravel()[slab.flat[middle]]
        return pair, np.where(slab.inside[middle], classes, 0).astype(np.uint8)
    seen = share.mean(0) >= _LEAST  # a speck that its soft edges swallow teaches nothing
    return pair, ((lesion.mean(0) >= 0.5) & seen & brain).astype(np.uint8)


def _slab(anatomy: Anatomy, geometry: Geometry, crop: tuple[int, int]) -> _Slab:
    points = _points(geometry, crop)
    voxels = np.rint(points).astype(np.int32)
    sizes = np.array(anatomy.codes.shape)[:, None, None, None]
    inside: NDArray[np.bool_] = np.all((voxels >= 0) & (voxels < sizes), axis=0)
    flat = np.ravel_multi_index(tuple(np.clip(voxels, 0, sizes - 1)), anatomy.codes.shape)
    tissue = np.where(inside, TISSUE_OF[anatomy.codes.ravel()[flat]], np.uint8(Tissue.AIR))
    near = anatomy.near.ravel()[flat].astype(np.float32) / 2
    texture = None
    if anatomy.texture is not None:
        texture = anatomy.texture.ravel()[flat].astype(np.float32)
    return _Slab(points, flat, inside, tissue, near, texture)


def _points(geometry: Geometry, crop: tuple[int, int]) -> NDArray[np.float32]:
    """(3, planes, *crop) voxels of the label map; a thick slice has several planes."""
    planes = int(np.clip(round(geometry.thickness), 1, 6))
    across = ((np.arange(planes) + 0.5) / planes - 0.5) * geometry.thickness
    grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in crop), indexing="ij")).astype(
        np.float32
    )
    if geometry.elastic.any():
        grid += smooth(geometry.elastic, crop)
    frame = geometry.frame.astype(np.float32)
    flat = np.tensordot(frame[:, 1:], grid, axes=1)
    away = frame[:, :1] * across.astype(np.float32)
    start = geometry.centre.astype(np.float32)[:, None, None, None]
    points: NDArray[np.float32] = start + flat[:, None] + away[:, :, None, None]
    return points


def _lesion(
    anatomy: Anatomy, scene: Scene, slab: _Slab, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How much of each voxel is lesion (its edge is soft), and whether it is labelled."""
    contrast = scene.contrast
    lesion = _patient_lesions(anatomy, scene.geometry, slab.points)
    if contrast.band:
        reach = contrast.band * (_field(rng, lesion.shape[1:], 0.9, points=8) - 0.4)
        lesion |= (slab.near > 0) & (slab.near < reach)
    allowed = np.zeros(TISSUES, dtype=bool)
    allowed[[Tissue.WHITE, Tissue.STEM, Tissue.CEREBELLAR_WHITE]] = True
    allowed[[Tissue.THALAMUS, Tissue.STRIATUM, Tissue.DIENCEPHALON]] = contrast.deep
    allowed[Tissue.CORTEX] = contrast.cortical
    lesion &= allowed[slab.tissue]
    soft = _blurred(lesion.astype(np.float32), contrast.edge) if lesion.any() else lesion * 1.0
    return soft.astype(np.float32), lesion


def _patient_lesions(
    anatomy: Anatomy, geometry: Geometry, points: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """(planes, H, W) where the lesions of the scene lie, whatever the tissue there."""
    if geometry.lesions is None or anatomy.lesions is None or anatomy.to_mni is None:
        return np.zeros(points.shape[1:], dtype=bool)
    grid = load_lesions(anatomy.lesions).grid
    painted = np.zeros(grid.shape, dtype=bool)
    painted.ravel()[geometry.lesions] = True
    back = np.linalg.inv(grid.affine)
    matrix = (back[:3, :3] @ anatomy.to_mni[:3, :3]).astype(np.float32)
    offset = back[:3, :3] @ (anatomy.to_mni[:3, 3] - geometry.moved) + back[:3, 3]
    places = np.tensordot(matrix, points, axes=1)
    places += offset.astype(np.float32)[:, None, None, None]
    voxels = np.rint(places).astype(np.int32)
    sizes = np.array(grid.shape)[:, None, None, None]
    inside = ((voxels >= 0) & (voxels < sizes)).all(0)
    flat = np.ravel_multi_index(tuple(np.clip(voxels, 0, sizes - 1)), grid.shape)
    lesions: NDArray[np.bool_] = painted.ravel()[flat] & inside
    return lesions


def _tissues_seen(
    contrast: Contrast,
    slab: _Slab,
    share: NDArray[np.float32],
    lesion: NDArray[np.bool_],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """(2, *crop): FLAIR and T1w of the slice before they are scanned."""
    tissue = slab.tissue
    crop = (tissue.shape[1], tissue.shape[2])
    unlabelled = _unlabelled(contrast, slab.near, rng)
    if contrast.halo and lesion.any():
        halo = _blurred(lesion.astype(np.float32), 2.5)
        unlabelled += contrast.halo * (contrast.bright - 1) * halo
    unlabelled *= (tissue == Tissue.WHITE).astype(np.float32)
    plain_flair, plain_t1w = _plain(contrast, slab)
    flair = plain_flair + unlabelled
    if contrast.grey:  # the cortex around the central sulcus, the insula, the hippocampus
        places = np.clip(_field(rng, crop, 1.0, points=10) - 1, 0, 2)
        flair += contrast.grey * places * np.isin(tissue, _GREY)
    uneven = np.clip(_field(rng, crop, 0.3, points=12), 0.6, 1.6)
    flair += share * (1 + (contrast.bright - 1) * uneven - flair)
    t1w = plain_t1w - 0.3 * unlabelled * (1 - contrast.dark)
    uneven = np.clip(_field(rng, crop, 0.4), 0.3, 1.5)
    t1w += share * (1 + (contrast.dark - 1) * uneven - t1w)
    images = np.stack([flair.mean(0), t1w.mean(0)])
    if contrast.flow:
        wet = np.isin(tissue, (Tissue.FLUID, Tissue.OUTER)).mean(0, dtype=np.float32)
        spots = np.clip(_field(rng, crop, 1.0, points=14) - 1.6, 0, 1)
        images[0] += wet * contrast.flow * spots
    if contrast.plexus:
        inner = (tissue == Tissue.FLUID).mean(0, dtype=np.float32)
        spots = np.clip(4 * (_field(rng, crop, 1.0, points=crop[0] // 4) - 1.9), 0, 1)
        images += inner * spots * np.array([contrast.plexus, 0.4], np.float32)[:, None, None]
    return images


def _plain(contrast: Contrast, slab: _Slab) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """FLAIR and T1w of a healthy head: the mean of each tissue, or the texture of a real T1w.

    Of a real one, the intensities between the tissues are carried over to those of the contrast:
    the FLAIR has the details of the T1w.
    """
    means = contrast.means
    if slab.texture is None:
        return means[0][slab.tissue], means[1][slab.tissue]
    levels = np.array([0.0, *T1W_LEVELS, 1.5], dtype=np.float32)
    flair, t1w = (
        np.interp(
            slab.texture,
            levels,
            [0.5 * of[Tissue.FLUID], of[Tissue.FLUID], of[Tissue.CORTEX], 1.0, 1.0 + more],
        ).astype(np.float32)
        for of, more in zip(means, (-0.1, 0.4), strict=True)
    )
    return flair, t1w


def _unlabelled(
    contrast: Contrast, near: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """What is bright around the ventricles without being a lesion."""
    crop = near.shape[1:]
    strength, reach = contrast.dirty
    bright = strength * np.exp(-near / np.float32(reach)) * _field(rng, crop, 0.6)
    rim, width = contrast.rim
    if rim:
        bright += rim * np.clip(width + 1 - near, 0, 1) * np.clip(_field(rng, crop, 0.9), 0, 1.5)
    bright += strength * 0.5 * np.clip(_field(rng, crop, 0.8, points=12) - 1.2, 0, 1)
    caps, depth = contrast.caps
    if caps:
        places = np.clip(_field(rng, crop, 1.0, points=9) - 0.9, 0, 1.2)
        bright += caps * np.exp(-((near / np.float32(depth)) ** 2)) * places
    return np.asarray(bright, dtype=np.float32)


def _outline(tissue: NDArray[np.uint8], outline: tuple[bool, int]) -> NDArray[np.bool_]:
    """The brain mask of the slice, as a network of brains might find it."""
    wet, grown = outline
    share = (
        (tissue != Tissue.AIR) & (tissue < Tissue.HEAD) & (wet | (tissue != Tissue.OUTER))
    ).mean(0)
    mask: NDArray[np.bool_] = share > 0.5
    if not wet:
        mask = ndimage.binary_closing(np.pad(mask, 4), iterations=3)[4:-4, 4:-4]
    if grown > 1:
        mask = ndimage.binary_dilation(mask, iterations=grown - 1)
    return mask


def _scan(
    images: NDArray[np.float32], artifacts: Artifacts, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(2, *crop): what a scanner makes of the two images."""
    crop = images.shape[1:]
    out = np.empty_like(images)
    field = smooth(artifacts.bias, crop)
    for channel, image in enumerate(images):
        x = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        pixel = artifacts.pixel[channel]
        if pixel > 1:
            edges = [max(8, round(n / pixel)) for n in crop]
            small = functional.interpolate(x, size=edges, mode="area")
            x = functional.interpolate(small, size=crop, mode="bilinear", align_corners=False)
        else:
            x = torch.from_numpy(_blurred(x[0].numpy(), 0.45))[None]
        if channel == 1:
            x = _displaced(x, artifacts.misplaced)
        plane = x[0, 0].numpy() * np.exp(field[channel]) * shade(artifacts.shading[channel], crop)
        strength, shift, axis = artifacts.ghost
        if strength:
            plane = plane + strength * np.roll(plane, shift, axis) * rng.choice([-1.0, 1.0])
        level = artifacts.noise[channel] * 0.3
        real, imaginary = rng.standard_normal((2, *crop), dtype=np.float32) * np.float32(level)
        if pixel > 1:  # noise is as coarse as the pixels were
            real, imaginary = _blurred(np.stack([real, imaginary]), 0.4 * pixel)
        out[channel] = np.hypot(plane + real, imaginary)
    return out


def _scaled(
    pair: NDArray[np.float32], shares: NDArray[np.float64], scene: Scene
) -> NDArray[np.float32]:
    """(2, *crop) scaled as the whole brain would have been: the slice alone has other tissues."""
    contrast, artifacts = scene.contrast, scene.artifacts
    lesions = scene.geometry.lesions
    counts = shares.copy()
    if not artifacts.outline[0]:
        counts[Tissue.OUTER] *= 0.35
    counts = np.append(counts, 0.0 if lesions is None else float(len(lesions)))
    looks = ((contrast.means[0], contrast.bright), (contrast.means[1], contrast.dark))
    for channel, (means, lesion) in enumerate(looks):
        values = np.append(means.astype(np.float64), lesion)
        mean = float((counts * values).sum() / counts.sum())
        spread = float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum()))
        pair[channel] = (pair[channel] - np.float32(mean)) / np.float32(spread)
        pair[channel] = pair[channel] * artifacts.scale[channel] + artifacts.shift[channel]
    return pair


def _field(
    rng: np.random.Generator, crop: tuple[int, ...], spread: float, points: int = 7
) -> NDArray[np.float32]:
    """(*crop) a smooth field around 1."""
    knots = rng.standard_normal((1, points, points), dtype=np.float32)
    return np.asarray(1 + np.float32(spread) * smooth(knots, crop)[0], dtype=np.float32)


def _blurred(images: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Each plane of (N, H, W) smoothed."""
    reach = max(1, int(2.5 * sigma + 0.5))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    x = torch.from_numpy(np.ascontiguousarray(images))[:, None]
    x = functional.conv2d(x, taps.reshape(1, 1, -1, 1), padding=(reach, 0))
    x = functional.conv2d(x, taps.reshape(1, 1, 1, -1), padding=(0, reach))
    smoothed: NDArray[np.float32] = x[:, 0].numpy()
    return smoothed


def _displaced(x: Tensor, misplaced: NDArray[np.float64]) -> Tensor:
    """(1, 1, H, W) turned and shifted a little."""
    angle, right, up = misplaced
    height, width = x.shape[2:]
    turn = torch.tensor([[
        [np.cos(angle), -np.sin(angle) * height / width, 2 * right / width],
        [np.sin(angle) * width / height, np.cos(angle), 2 * up / height],
    ]], dtype=torch.float32)  # fmt: skip
    places = functional.affine_grid(turn, [1, 1, height, width], align_corners=False)
    return functional.grid_sample(x, places, align_corners=False, padding_mode="border")

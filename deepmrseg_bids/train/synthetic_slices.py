"""Slices of T1w and FLAIR from label maps, with lesions: drawn first, rendered second.

``draw_scene`` turns a random generator into a :class:`Scene`, a plain value: how the slice
lies in the head, how thick it is, what each tissue looks like, which lesions there are and
what the scanner does. ``render`` makes the two images and the target of it, and works on
the slice alone. Equal scenes give equal images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.train.config import AugmentConfig, PairConfig
from deepmrseg_bids.train.lesion_bank import load_lesions
from deepmrseg_bids.train.smooth_fields import smooth

__all__ = ["Anatomy", "Scene", "draw_scene", "render"]

_GROUPS = (
    (0,), (2, 41, 85), (3, 42), (4, 43, 5, 44, 14, 15, 72), (24,), (11, 50, 12, 51, 26, 58),
    (10, 49), (13, 52), (17, 53, 18, 54), (16,), (7, 46), (8, 47), (28, 60),
)  # fmt: skip
_AIR, _WHITE, _CORTEX, _FLUID, _OUTER, _STRIATUM, _THALAMUS, _PALLIDUM, _HIPPOCAMPUS, _STEM, \
    _CEREBELLAR_WHITE, _CEREBELLAR_GREY, _DIENCEPHALON, _OTHER, _HEAD = range(15)  # fmt: skip
_GREY = (_CORTEX, _HIPPOCAMPUS)
_HEAD_CODES = 17  # tissues outside the brain that may look different from one another
_CODES = 1024
_CONTROL = 6  # points an edge of the smooth fields
_CLIP = 5.0
_LEAST = 0.35  # of a labelled pixel that is lesion, after its edges were softened


def _tissues() -> NDArray[np.uint8]:
    """(codes,) the tissue of each FreeSurfer code."""
    table = np.full(_CODES, _OTHER, dtype=np.uint8)
    for tissue, codes in enumerate(_GROUPS):
        table[list(codes)] = tissue
    outside = np.arange(500, _CODES)
    table[outside] = _HEAD + outside % _HEAD_CODES
    return table


_TISSUE = _tissues()
_TISSUES = _HEAD + _HEAD_CODES


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head as a label map, ready for :func:`render`.

    Attributes:
        codes: (I, J, K) int16 FreeSurfer codes at 1 mm, RAS.
        target: (I, J, K) uint8 classes; None where the lesions are what is looked for.
        near: (I, J, K) uint8, half millimetres from the ventricles.
        to_mni: (4, 4), voxels to millimetres in MNI152; None without lesions.
        places: (N, 3) int16, some voxels of the brain.
        shares: (tissues,) how much of the brain each tissue is.
        lesions: where the lesions come from.
    """

    codes: NDArray[np.int16]
    target: NDArray[np.uint8] | None
    near: NDArray[np.uint8]
    to_mni: NDArray[np.float64] | None
    places: NDArray[np.int16]
    shares: NDArray[np.float64]
    lesions: Path | None
    weight: float = 1.0


def tissue_shares(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    """(tissues,) voxels of each tissue within the brain."""
    counts = np.bincount(_TISSUE[codes].ravel(), minlength=_TISSUES).astype(np.float64)
    counts[_AIR] = 0
    counts[_HEAD:] = 0
    return counts


@dataclass(frozen=True, eq=False)
class Scene:
    """All choices for one synthetic slice; lengths are millimetres.

    Attributes:
        frame: (3, 3) columns: across the slice, first and second axis in it, in voxels of
            the label map a millimetre.
        centre: (3,) voxel of the label map in the middle of the crop.
        lesions: flat voxels of the lesions on their own grid.
        moved: (3,) millimetres by which the lesions are moved.
        flair, t1w: (tissues,) mean of each tissue, white matter is 1.
        bright, dark: a lesion in the FLAIR and in the T1w.
        band: how far labelled lesions around the ventricles reach; 0 for none.
        dirty: (strength, reach) of the unlabelled brightness around the ventricles.
        rim: (strength, width) of unlabelled caps and bands.
        halo: strength of the unlabelled brightness around lesions.
        flow: strength of bright fluid.
        plexus: brightness of spots in the ventricles, as of the choroid plexus.
        grey: by which part places of grey matter are brighter in the FLAIR than the rest of it.
        deep: lesions are allowed in deep grey matter, too; cortical: in the cortex.
        pixel: (2,) of the scans, FLAIR and T1w.
        ghost: (strength, shift in pixels, axis).
        misplaced: (3,) angle in radians and shift in pixels of the T1w.
        outline: how the brain mask was made: with the outer fluid, and grown by how much.
        scale, shift: (2,) of the scaled intensities.
        seed: for the smooth fields and the noise.
    """

    frame: NDArray[np.float64]
    centre: NDArray[np.float64]
    thickness: float
    elastic: NDArray[np.float32]
    lesions: NDArray[np.int64] | None
    moved: NDArray[np.float64]
    flair: NDArray[np.float32]
    t1w: NDArray[np.float32]
    bright: float
    dark: float
    band: float
    dirty: tuple[float, float]
    rim: tuple[float, float]
    halo: float
    edge: float
    flow: float
    plexus: float
    grey: float
    deep: bool
    cortical: bool
    pixel: tuple[float, float]
    ghost: tuple[float, int, int]
    misplaced: NDArray[np.float64]
    outline: tuple[bool, int]
    bias: NDArray[np.float32]
    noise: tuple[float, float]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    no_t1w: bool
    seed: int


def draw_scene(
    rng: np.random.Generator, anatomy: Anatomy, pairs: PairConfig, augment: AugmentConfig
) -> Scene:
    """Draw all choices; the same generator state gives the same choices."""
    flair, t1w = _means(rng)
    lesions, moved = None, rng.uniform(-3, 3, 3)
    centre = anatomy.places[int(rng.integers(len(anatomy.places)))].astype(np.float64)
    ill = anatomy.lesions is not None and rng.random() >= pairs.healthy
    if ill and anatomy.lesions is not None and anatomy.to_mni is not None:
        bank = load_lesions(anatomy.lesions)
        lesions = bank.draw(rng)
        if rng.random() < 0.75:
            voxel = np.unravel_index(lesions[int(rng.integers(len(lesions)))], bank.grid.shape)
            point = bank.grid.to_world([[float(v) for v in voxel]])[0] + moved
            inverse = np.linalg.inv(anatomy.to_mni)
            centre = inverse[:3, :3] @ point + inverse[:3, 3]
    frame = _frame(rng, augment)
    centre = centre + frame[:, 1:] @ rng.uniform(-1, 1, 2) * augment.shift_mm
    thick = 1.0 if rng.random() < 0.35 else float(rng.uniform(1, max(pairs.thick_mm, 1)))
    grey = float(flair[_CORTEX])
    contrast = float(np.exp(rng.uniform(*np.log(pairs.lesion))))
    often = rng.random(9)
    return Scene(
        frame=frame,
        centre=centre,
        thickness=thick,
        elastic=(rng.standard_normal((2, _CONTROL, _CONTROL)) * augment.elastic_mm).astype("f4"),
        lesions=lesions,
        moved=moved,
        flair=flair,
        t1w=t1w,
        bright=grey + contrast,
        dark=float(rng.uniform(t1w[_CORTEX] - 0.2, 0.5 + 0.5 * t1w[_CORTEX])),
        band=float(rng.uniform(2, 9)) if ill and often[0] < pairs.band else 0.0,
        dirty=(float(rng.uniform(0, pairs.dirty)) * contrast, float(rng.uniform(3, 12))),
        rim=(
            float(rng.uniform(0.1, 0.6)) * contrast * (often[1] < 0.6),
            float(rng.uniform(0.7, 2)),
        ),
        halo=float(rng.uniform(0, 0.3)) * (often[2] < 0.6),
        edge=float(rng.uniform(0.3, 0.8)),
        flow=float(rng.uniform(0.2, 1.0)) * (often[3] < pairs.flow),
        plexus=float(rng.uniform(0.3, 1.4)) * (often[8] < pairs.plexus),
        grey=float(rng.uniform(0, pairs.grey)) * (often[7] < 0.8),
        deep=bool(often[4] < 0.3),
        cortical=bool(often[5] < 0.2),
        pixel=(float(rng.uniform(0.7, 2.1)), float(rng.uniform(0.7, 2.1))),
        ghost=(
            float(rng.uniform(0, pairs.ghost)) * (often[6] < 0.3),
            int(rng.integers(8, 50)),
            int(rng.integers(2)),
        ),
        misplaced=rng.normal(0, 1, 3)
        * [np.radians(pairs.misplaced_deg), pairs.misplaced_mm, pairs.misplaced_mm],
        outline=(bool(rng.random() < 0.4), int(rng.integers(0, 4))),
        bias=(rng.uniform(-1, 1, (2, 4, 4)) * augment.bias * rng.random()).astype("f4"),
        noise=(float(rng.random() * augment.noise), float(rng.random() * augment.noise)),
        scale=np.exp(rng.uniform(-1, 1, 2) * augment.contrast),
        shift=rng.uniform(-1, 1, 2) * augment.brightness,
        no_t1w=bool(rng.random() < pairs.drop_t1w),
        seed=int(rng.integers(2**31)),
    )


def _frame(rng: np.random.Generator, augment: AugmentConfig) -> NDArray[np.float64]:
    """Axial, coronal or sagittal, tilted and scaled."""
    kind = rng.random()
    order = (2, 0, 1) if kind < 0.6 else (0, 1, 2) if kind < 0.85 else (1, 0, 2)
    upright = np.eye(3)[:, list(order)]
    angles = np.radians(rng.uniform(-1, 1, 3) * augment.rotate_deg)
    (a, b, c), (d, e, f) = np.cos(angles), np.sin(angles)
    turn = (
        np.array([[1, 0, 0], [0, a, -d], [0, d, a]])
        @ np.array([[b, 0, e], [0, 1, 0], [-e, 0, b]])
        @ np.array([[c, -f, 0], [f, c, 0], [0, 0, 1]])
    )
    frame: NDArray[np.float64] = (
        turn @ upright @ np.diag([1.0, *np.exp(rng.uniform(-1, 1, 2) * augment.scale)])
    )
    if rng.random() < augment.flip:
        frame[0] *= -1  # the mirror image of the head
    return frame


def _means(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the tissues look like in FLAIR and T1w; white matter is 1."""
    u = rng.uniform
    flair, t1w = np.zeros(_TISSUES, np.float32), np.zeros(_TISSUES, np.float32)
    flair[_HEAD:] = u(0.05, 1.8, _HEAD_CODES)
    t1w[_HEAD:] = u(0.05, 1.5, _HEAD_CODES)
    grey, fluid = u(1.08, 1.45), u(0.08, 0.5)
    flair[:_HEAD] = (
        u(0, 0.06), 1.0, grey, fluid, fluid + u(0, 0.25), 1 + (grey - 1) * u(0.3, 0.9),
        1 + (grey - 1) * u(0.1, 0.6), u(0.75, 1.02), grey * u(1.0, 1.12), u(0.95, 1.2),
        u(0.92, 1.12), 1 + (grey - 1) * u(0.5, 1.1), u(0.9, 1.1), u(0.5, 1.3),
    )  # fmt: skip
    if rng.random() < 0.75:
        grey, fluid = u(0.55, 0.82), u(0.12, 0.4)
    else:  # spin echo
        grey, fluid = u(0.8, 0.96), u(0.3, 0.65)
    t1w[:_HEAD] = (
        u(0, 0.06), 1.0, grey, fluid, fluid + u(0, 0.15), grey + (1 - grey) * u(0.1, 0.45),
        grey + (1 - grey) * u(0.35, 0.75), grey + (1 - grey) * u(0.6, 0.95), grey * u(0.95, 1.05),
        u(0.88, 1.0), u(0.93, 1.03), grey * u(0.95, 1.1), u(0.8, 0.98), u(0.4, 1.0),
    )  # fmt: skip
    return flair, t1w


def render(
    anatomy: Anatomy, scene: Scene, crop: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The slice: (2, *crop) FLAIR and T1w as the network sees them, and the classes (*crop)."""
    rng = np.random.default_rng(scene.seed)
    points = _points(scene, crop)
    voxels = np.rint(points).astype(np.int32)
    sizes = np.array(anatomy.codes.shape)[:, None, None, None]
    inside: NDArray[np.bool_] = np.all((voxels >= 0) & (voxels < sizes), axis=0)
    flat = np.ravel_multi_index(tuple(np.clip(voxels, 0, sizes - 1)), anatomy.codes.shape)
    tissue = np.where(inside, _TISSUE[anatomy.codes.ravel()[flat]], np.uint8(_AIR))
    near = anatomy.near.ravel()[flat].astype(np.float32) / 2
    white = (tissue == _WHITE).astype(np.float32)
    change, lesion = _lesion(anatomy, scene, points, tissue, near, rng)
    unlabelled = _unlabelled(scene, near, rng)
    if scene.halo and lesion.any():
        unlabelled += scene.halo * (scene.bright - 1) * _blurred(lesion.astype(np.float32), 2.5)
    unlabelled *= white
    flair = scene.flair[tissue] + unlabelled
    if scene.grey:  # the cortex around the central sulcus, the insula, the hippocampus
        places = np.clip(_field(rng, crop, 1.0, points=10) - 1, 0, 2)
        flair += scene.grey * places * np.isin(tissue, _GREY)
    uneven = np.clip(_field(rng, crop, 0.3, points=12), 0.6, 1.6)
    flair += change * (1 + (scene.bright - 1) * uneven - flair)
    t1w = scene.t1w[tissue] - 0.3 * unlabelled * (1 - scene.dark)
    t1w += change * (1 + (scene.dark - 1) * np.clip(_field(rng, crop, 0.4), 0.3, 1.5) - t1w)
    brain = _outline(tissue, scene)
    images = np.stack([flair.mean(0), t1w.mean(0)])
    if scene.flow:
        wet = np.isin(tissue, (_FLUID, _OUTER)).mean(0, dtype=np.float32)
        images[0] += wet * scene.flow * np.clip(_field(rng, crop, 1.0, points=14) - 1.6, 0, 1)
    if scene.plexus:
        inner = (tissue == _FLUID).mean(0, dtype=np.float32)
        spots = np.clip(4 * (_field(rng, crop, 1.0, points=crop[0] // 4) - 1.9), 0, 1)
        images += inner * spots * np.array([scene.plexus, 0.4], np.float32)[:, None, None]
    pair = _scan(images, scene, rng)
    total = 0 if scene.lesions is None else len(scene.lesions)
    for channel, means in enumerate((scene.flair, scene.t1w)):
        value = scene.bright if channel == 0 else scene.dark
        pair[channel] = _scaled(pair[channel], means, anatomy.shares, scene, value, total)
        pair[channel] = pair[channel] * scene.scale[channel] + scene.shift[channel]
    pair = np.where(brain, np.clip(pair, -_CLIP, _CLIP), np.float32(OUTSIDE)).astype(np.float32)
    if scene.no_t1w:
        pair[1] = OUTSIDE
    if anatomy.target is not None:
        middle = flat[len(flat) // 2]
        classes = np.where(inside[len(flat) // 2], anatomy.target.ravel()[middle], 0)
        return pair, classes.astype(np.uint8)
    seen = change.mean(0) >= _LEAST  # a speck that its soft edges swallow teaches nothing
    return pair, ((lesion.mean(0) >= 0.5) & seen & brain).astype(np.uint8)


def _points(scene: Scene, crop: tuple[int, int]) -> NDArray[np.float32]:
    """(3, planes, *crop) voxels of the label map; a thick slice has several planes."""
    planes = int(np.clip(round(scene.thickness), 1, 6))
    across = ((np.arange(planes) + 0.5) / planes - 0.5) * scene.thickness
    grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in crop), indexing="ij")).astype(
        np.float32
    )
    if scene.elastic.any():
        grid += smooth(scene.elastic, crop)
    frame = scene.frame.astype(np.float32)
    flat = np.tensordot(frame[:, 1:], grid, axes=1)
    away = frame[:, :1] * across.astype(np.float32)
    start = scene.centre.astype(np.float32)[:, None, None, None]
    points: NDArray[np.float32] = start + flat[:, None] + away[:, :, None, None]
    return points


def _lesion(
    anatomy: Anatomy,
    scene: Scene,
    points: NDArray[np.float32],
    tissue: NDArray[np.uint8],
    near: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How much of each voxel is lesion (its edge is soft), and whether it is labelled."""
    lesion = np.zeros(tissue.shape, dtype=bool)
    crop = tissue.shape[1:]
    if scene.lesions is not None and anatomy.lesions is not None and anatomy.to_mni is not None:
        grid = load_lesions(anatomy.lesions).grid
        painted = np.zeros(grid.shape, dtype=bool)
        painted.ravel()[scene.lesions] = True
        back = np.linalg.inv(grid.affine)
        matrix = (back[:3, :3] @ anatomy.to_mni[:3, :3]).astype(np.float32)
        offset = back[:3, :3] @ (anatomy.to_mni[:3, 3] - scene.moved) + back[:3, 3]
        there = np.tensordot(matrix, points, axes=1)
        there += offset.astype(np.float32)[:, None, None, None]
        there = np.rint(there).astype(np.int32)
        sizes = np.array(grid.shape)[:, None, None, None]
        inside = ((there >= 0) & (there < sizes)).all(0)
        flat = np.ravel_multi_index(tuple(np.clip(there, 0, sizes - 1)), grid.shape)
        lesion = painted.ravel()[flat] & inside
    if scene.band:
        lesion |= (near > 0) & (near < scene.band * (_field(rng, crop, 0.9, points=8) - 0.4))
    allowed = np.zeros(_TISSUES, dtype=bool)
    allowed[[_WHITE, _STEM, _CEREBELLAR_WHITE]] = True
    allowed[[_THALAMUS, _STRIATUM, _DIENCEPHALON]] = scene.deep
    allowed[_CORTEX] = scene.cortical
    lesion &= allowed[tissue]
    soft = _blurred(lesion.astype(np.float32), scene.edge) if lesion.any() else lesion * 1.0
    return soft.astype(np.float32), lesion


def _unlabelled(
    scene: Scene, near: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """What is bright around the ventricles without being a lesion."""
    crop = near.shape[1:]
    strength, reach = scene.dirty
    bright = strength * np.exp(-near / np.float32(reach)) * _field(rng, crop, 0.6)
    rim, width = scene.rim
    if rim:
        bright += rim * np.clip(width + 1 - near, 0, 1) * np.clip(_field(rng, crop, 0.9), 0, 1.5)
    bright += strength * 0.5 * np.clip(_field(rng, crop, 0.8, points=12) - 1.2, 0, 1)
    return np.asarray(bright, dtype=np.float32)


def _outline(tissue: NDArray[np.uint8], scene: Scene) -> NDArray[np.bool_]:
    """The brain mask of the slice, as a network of brains might find it."""
    wet, grown = scene.outline
    share = ((tissue != _AIR) & (tissue < _HEAD) & (wet | (tissue != _OUTER))).mean(0)
    mask: NDArray[np.bool_] = share > 0.5
    if not wet:
        mask = ndimage.binary_closing(np.pad(mask, 4), iterations=3)[4:-4, 4:-4]
    if grown > 1:
        mask = ndimage.binary_dilation(mask, iterations=grown - 1)
    return mask


def _scan(
    images: NDArray[np.float32], scene: Scene, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(2, *crop): what a scanner makes of the two images."""
    crop = images.shape[1:]
    out = np.empty_like(images)
    field = smooth(scene.bias, crop)
    for channel, image in enumerate(images):
        x = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        pixel = scene.pixel[channel]
        if pixel > 1:
            edges = [max(8, round(n / pixel)) for n in crop]
            small = functional.interpolate(x, size=edges, mode="area")
            x = functional.interpolate(small, size=crop, mode="bilinear", align_corners=False)
        else:
            x = torch.from_numpy(_blurred(x[0].numpy(), 0.45))[None]
        if channel == 1:
            x = _turned(x, scene.misplaced)
        plane = x[0, 0].numpy() * np.exp(field[channel])
        strength, shift, axis = scene.ghost
        if strength:
            plane = plane + strength * np.roll(plane, shift, axis) * rng.choice([-1.0, 1.0])
        level = scene.noise[channel] * 0.3
        real, imaginary = rng.standard_normal((2, *crop), dtype=np.float32) * np.float32(level)
        if pixel > 1:  # noise is as coarse as the pixels were
            real, imaginary = _blurred(np.stack([real, imaginary]), 0.4 * pixel)
        out[channel] = np.hypot(plane + real, imaginary)
    return out


def _scaled(
    image: NDArray[np.float32],
    means: NDArray[np.float32],
    shares: NDArray[np.float64],
    scene: Scene,
    lesion: float,
    voxels: int,
) -> NDArray[np.float32]:
    """Scaled as the whole brain would have been: the slice alone has other tissues."""
    counts = shares.copy()
    if not scene.outline[0]:
        counts[_OUTER] *= 0.35
    values = np.append(means.astype(np.float64), lesion)
    counts = np.append(counts, float(voxels))
    mean = float((counts * values).sum() / counts.sum())
    spread = float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum()))
    return (image - np.float32(mean)) / np.float32(spread)


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


def _turned(x: Tensor, misplaced: NDArray[np.float64]) -> Tensor:
    """(1, 1, H, W) turned and shifted a little."""
    angle, right, up = misplaced
    height, width = x.shape[2:]
    turn = torch.tensor([[
        [np.cos(angle), -np.sin(angle) * height / width, 2 * right / width],
        [np.sin(angle) * width / height, np.cos(angle), 2 * up / height],
    ]], dtype=torch.float32)  # fmt: skip
    places = functional.affine_grid(turn, [1, 1, height, width], align_corners=False)
    return functional.grid_sample(x, places, align_corners=False, padding_mode="border")

"""Augmentation (section 3.7 of the paper, and more): drawn first, applied second.

``draw`` turns a random generator into an :class:`Augmentation`, a plain value; ``apply``
turns a prepared sample and that value into one training crop. Equal values give equal crops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.morphology import grown
from deepmrseg_bids.train.config import AugmentConfig, TrainConfig
from deepmrseg_bids.train.samples import Prepared
from deepmrseg_bids.train.smooth_fields import shade, smooth
from deepmrseg_bids.train.synthetic_heads import synthesize

__all__ = ["Augmentation", "apply", "brain_centre", "draw"]

T = TypeVar("T", bound=np.generic)

_CONTROL_POINTS = 6  # an edge, for smooth fields
_PARTIAL_VOLUME = 0.5  # sigma in voxels: edges between synthetic tissues are never sharp
_CURVE_POINTS = 6  # of a random intensity curve


@dataclass(frozen=True, eq=False)
class Augmentation:
    """All random choices for one crop; see :class:`AugmentConfig` for the units.

    Attributes:
        linear: (3, 3) from crop offsets to image offsets, voxels.
        shift: (3,) voxels.
        elastic: (3, c, c, c) displacement at the control points, voxels.
        bias: (c, c, c) logarithm of the multiplicative field.
        shading: (2, 3) logarithm of the brightness: its slope along each axis per 100 mm, and
            its curvature per 100 mm squared.
        curve: (points,) values of the intensity curve, or None for the identity.
        thick: (axis, voxels) of imitated thick slices.
        outline: voxels by which the stripped brain is grown, or None to keep the head.
        coarse: voxels along an edge of the coarse voxels that are imitated; 1 for none.
        contrast, brightness: factor and shift of the scaled intensities.
        deface: (3,) unit normal pointing at the face and its distance, or None.
        seed: for the noise and the synthesis.
    """

    flip: bool
    linear: NDArray[np.float64]
    shift: NDArray[np.float64]
    elastic: NDArray[np.float32]
    bias: NDArray[np.float32]
    gamma: float
    noise: float
    blur: float
    thick: tuple[int, float]
    curve: NDArray[np.float64] | None
    outline: int | None
    deface: tuple[float, float, float] | None
    seed: int
    contrast: float = 1.0
    brightness: float = 0.0
    coarse: float = 1.0
    shading: NDArray[np.float64] | None = None


def draw(rng: np.random.Generator, config: AugmentConfig, *, spacing: float) -> Augmentation:
    """Draw all choices; the same generator state gives the same choices."""
    angles = np.radians(rng.uniform(-1, 1, 3) * config.rotate_deg)
    scales = np.exp(rng.uniform(-1, 1, 3) * config.scale)
    shear = np.eye(3) + np.triu(rng.uniform(-1, 1, (3, 3)) * config.shear, 1)
    points = (_CONTROL_POINTS,) * 3
    return Augmentation(
        flip=bool(rng.random() < config.flip),
        linear=_rotation(angles) @ shear @ np.diag(scales),
        shift=rng.uniform(-1, 1, 3) * config.shift_mm / spacing,
        elastic=(rng.standard_normal((3, *points)) * config.elastic_mm / spacing).astype("f4"),
        bias=(rng.uniform(-1, 1, points) * config.bias * rng.random()).astype("f4"),
        gamma=float(np.exp(rng.uniform(-1, 1) * config.gamma)),
        noise=float(rng.random() * config.noise * (rng.random() < 0.7)),
        blur=float(rng.random() * config.blur_mm / spacing * (rng.random() < 0.5)),
        thick=(
            int(rng.integers(3)),
            _coarseness(rng, 0.3, config.thick_mm / spacing),
        ),
        curve=_curve(rng, config),
        outline=_outline(rng, config, spacing),
        deface=_face_plane(rng) if rng.random() < config.deface else None,
        seed=int(rng.integers(2**31)),
        contrast=float(np.exp(rng.uniform(-1, 1) * config.contrast)) if config.contrast else 1.0,
        brightness=float(rng.uniform(-1, 1) * config.brightness) if config.brightness else 0.0,
        coarse=_coarseness(rng, 0.4, config.coarse_mm / spacing) if config.coarse_mm else 1.0,
        shading=_shading(rng, config.shading) if config.shading else None,
    )


def _outline(rng: np.random.Generator, config: AugmentConfig, spacing: float) -> int | None:
    if rng.random() >= config.strip:
        return None
    return int(rng.integers(0, 4)) + round(config.strip_room_mm / spacing)


def _shading(rng: np.random.Generator, most: float) -> NDArray[np.float64]:
    """In any direction, and alike in all directions from the middle outwards."""
    direction = rng.standard_normal(3)
    slope = direction / np.linalg.norm(direction) * rng.random() * most
    return np.stack([slope, np.full(3, rng.uniform(-1, 1) * most)])


def _coarseness(rng: np.random.Generator, chance: float, most: float) -> float:
    """With a chance from 1 to ``most`` voxels, else 1."""
    return 1 + float(rng.random() < chance) * rng.random() * max(most - 1, 0)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = x @ y @ z
    return turned


def _curve(rng: np.random.Generator, config: AugmentConfig) -> NDArray[np.float64] | None:
    kind = rng.random()
    if kind < config.invert:
        return np.concatenate([[0.0], rng.random(_CURVE_POINTS - 1)])
    if kind < config.invert + config.remap:
        steps = rng.dirichlet(np.full(_CURVE_POINTS - 1, 3.0))
        return np.concatenate([[0.0], np.cumsum(steps)])
    return None


def _face_plane(rng: np.random.Generator) -> tuple[float, float, float]:
    """Forward and downward parts of the normal, and millimetres ahead of the brain's front."""
    angle = np.radians(rng.uniform(15, 70))
    return float(np.cos(angle)), float(-np.sin(angle)), float(rng.uniform(2, 25))


def apply(
    prepared: Prepared, chosen: Augmentation, config: TrainConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """One training crop: image (*crop) float32 as the network sees it, classes (*crop)."""
    shape = config.loop.crop
    coordinates = _coordinates(prepared, chosen, (shape[0], shape[1], shape[2]))
    voxels = _nearest(coordinates, prepared.target.shape)
    target = _taken(prepared.target, voxels)
    mask = _taken(prepared.mask, voxels)
    rng = np.random.default_rng(chosen.seed)
    if prepared.codes is not None:
        image = synthesize(_taken(prepared.codes, voxels), rng)
        image = _blur(torch.from_numpy(image)[None, None], _PARTIAL_VOLUME)[0, 0].numpy()
    else:
        assert prepared.image is not None
        image = _sample(prepared.image, coordinates)
    if chosen.flip:
        target = np.array(config.labels.mirrored, dtype=np.uint8)[target]
    image = _degrade(image, mask, chosen, rng, config.preparation.spacing)
    mode = config.preparation.intensity
    if mode == "head":
        mask = np.ones_like(mask)
    elif mode == "brain" and chosen.outline is not None:
        mask = grown(mask, chosen.outline - 1)
    scaled = normalise(image, mode=mode, mask=mask)
    if (chosen.contrast, chosen.brightness) != (1.0, 0.0):
        shift, factor = np.float32(chosen.brightness), np.float32(chosen.contrast)
        scaled = np.where(mask, scaled * factor + shift, scaled)
    return scaled, target


def brain_centre(
    prepared: Prepared, chosen: Augmentation, config: TrainConfig
) -> NDArray[np.float64]:
    """(3,) where the middle of the brain lies in a training crop, in voxels of the crop.

    The smooth displacement, a millimetre or two, is left out.
    """
    crop = config.loop.crop
    linear, middle, offset = _placed(prepared, chosen, (crop[0], crop[1], crop[2]))
    place: NDArray[np.float64] = middle + np.linalg.solve(linear, prepared.brain_centre - offset)
    return place


def _placed(
    prepared: Prepared, chosen: Augmentation, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How a crop lies in an image: voxel x of it at ``linear @ (x - middle) + offset``."""
    linear = chosen.linear.copy()
    if chosen.flip:
        linear[:, 0] *= -1
    middle = (np.array(shape) - 1) / 2
    # a plain crop lies voxel on voxel: without a shift, labels are never half-way
    offset = np.round(np.array(prepared.centre) - middle) + middle + chosen.shift
    return linear, middle, offset


def _coordinates(prepared: Prepared, chosen: Augmentation, shape: tuple[int, int, int]) -> Tensor:
    """(1, *shape, 3) normalised coordinates, in the order that grid_sample wants."""
    linear, middle, offset = _placed(prepared, chosen, shape)
    axes = [
        torch.arange(n, dtype=torch.float32) - float(m) for n, m in zip(shape, middle, strict=True)
    ]
    moved = torch.from_numpy(smooth(chosen.elastic, shape)) if chosen.elastic.any() else None
    sizes = prepared.target.shape
    out = torch.empty((1, *shape, 3))
    for row in range(3):
        plane = (
            float(linear[row, 0]) * axes[0][:, None, None]
            + float(linear[row, 1]) * axes[1][None, :, None]
            + float(linear[row, 2]) * axes[2][None, None, :]
            + float(offset[row])
        )
        if moved is not None:
            plane = plane + moved[row]
        out[0, ..., 2 - row] = plane * (2 / max(sizes[row] - 1, 1)) - 1
    return out


def _nearest(coordinates: Tensor, sizes: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Of each place the nearest voxel (its flat number), and whether it is in the image.

    The arithmetic is that of ``grid_sample``; done once, it serves every label map.
    """
    flat, inside = None, None
    for axis, size in enumerate(sizes):
        at = coordinates[0, ..., 2 - axis].add(1).div_(2).mul_(size - 1).round_()
        within = (at >= 0) & (at < size)
        index = at.clamp_(0, size - 1).to(torch.int32)
        flat = index if flat is None else flat.mul_(size).add_(index)
        inside = within if inside is None else inside.logical_and_(within)
    assert flat is not None and inside is not None
    return flat.numpy(), inside.numpy()


def _taken(data: NDArray[T], voxels: tuple[NDArray[Any], NDArray[np.bool_]]) -> NDArray[T]:
    """The values at the nearest voxels; zero outside of the image."""
    flat, inside = voxels
    taken: NDArray[T] = np.take(data.ravel(), flat)
    taken[~inside] = 0
    return taken


def _sample(data: Array, coordinates: Tensor) -> NDArray[np.float32]:
    """Values between voxels; zero outside of the image.

    Plane after plane, as if each were an image of a batch: that is how torch shares the work
    among threads.
    """
    planes = coordinates[0][:, None]
    source = torch.from_numpy(data).float()[None, None].expand(len(planes), -1, -1, -1, -1)
    taken: NDArray[np.float32] = functional.grid_sample(
        source, planes, mode="bilinear", padding_mode="zeros", align_corners=True
    )[:, 0, 0].numpy()
    return taken


def _degrade(
    image: NDArray[np.float32],
    mask: NDArray[np.bool_],
    chosen: Augmentation,
    rng: np.random.Generator,
    spacing: float,
) -> NDArray[np.float32]:
    """Everything that happens to intensities, from the tissue to the scanner to the user."""
    if chosen.curve is not None:
        knots = np.linspace(0, max(float(image.max()), 1e-6), len(chosen.curve))
        image = np.interp(image, knots, chosen.curve).astype(np.float32)
    elif chosen.gamma != 1:
        top = max(float(image.max()), 1e-6)
        image = (np.clip(image, 0, None) / top) ** np.float32(chosen.gamma)
    if chosen.bias.any():
        image = image * np.exp(smooth(chosen.bias[None], image.shape)[0])
    if chosen.shading is not None:
        image = image * shade(chosen.shading, image.shape, spacing)
    x = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    if chosen.blur > 0.2:
        x = _blur(x, chosen.blur)
    axis, thickness = chosen.thick
    if thickness > 1.2:
        x = _thick(x, (axis,), thickness)
    if chosen.coarse > 1.2:
        x = _thick(x, (0, 1, 2), chosen.coarse)
    image = x[0, 0].numpy()
    if chosen.noise:
        level = np.float32(chosen.noise * float(image.std()))
        real, imaginary = rng.standard_normal((2, *image.shape), dtype=np.float32) * level
        image = np.hypot(image + real, imaginary)  # a magnitude image
    if chosen.outline is not None:
        image = np.where(grown(mask, chosen.outline), image, np.float32(0))
    if chosen.deface is not None and mask.any():
        image = np.where(_face(mask, chosen.deface, spacing), np.float32(0), image)
    return image


def _blur(x: Tensor, sigma: float) -> Tensor:
    reach = max(1, int(2.5 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(taps)
        pad = [0, 0, 0]
        pad[axis] = reach
        x = functional.conv3d(x, taps.reshape(shape), padding=pad)
    return x


def _thick(x: Tensor, axes: tuple[int, ...], thickness: float) -> Tensor:
    """Average over thick slices and interpolate back to the size it had."""
    size = list(x.shape[2:])
    coarse = list(size)
    for axis in axes:
        coarse[axis] = max(4, round(size[axis] / thickness))
    small = functional.interpolate(x, size=coarse, mode="area")
    return functional.interpolate(small, size=size, mode="trilinear", align_corners=False)


def _face(
    mask: NDArray[np.bool_], plane: tuple[float, float, float], spacing: float
) -> NDArray[np.bool_]:
    """What lies beyond a tilted plane in front of and below the brain (RAS axes)."""
    forward, up, room = plane
    y, z = np.meshgrid(np.arange(mask.shape[1]), np.arange(mask.shape[2]), indexing="ij")
    ahead = forward * y + up * z
    reach = float(np.where(mask.any(axis=0), ahead, -np.inf).max())
    beyond: NDArray[np.bool_] = np.broadcast_to(ahead > reach + room / spacing, mask.shape)
    return beyond

"""Training on slices of T1w and FLAIR: real pairs, and label maps to make pairs from.

The counterpart of :mod:`deepmrseg_bids.train.augment` for networks in 2D: a sample is
prepared once (:func:`prepare`), a crop is drawn and made of it (:func:`crop`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.files import replacing
from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.morphology import filled
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_grid, read_labels, read_volume
from deepmrseg_bids.tasks.flair_slices import across, prepare_pair, slice_grid
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    confidences,
    label_map,
    measure,
)
from deepmrseg_bids.tasks.spec import MODALITIES, PAIRED, T1W
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.label_codes import check_codes, reference_classes
from deepmrseg_bids.train.lesion_bank import from_mni, ventricle_distance
from deepmrseg_bids.train.samples import Sample
from deepmrseg_bids.train.scene import T1W_LEVELS, Anatomy, draw_scene
from deepmrseg_bids.train.smooth_fields import smooth
from deepmrseg_bids.train.synthetic_slices import render
from deepmrseg_bids.train.tissues import (
    FREESURFER_OF_MUSE,
    OUTSIDE_BRAIN,
    TISSUE_OF,
    Tissue,
    tissue_shares,
)

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["Pair", "crop", "prepare", "prepare_real", "segment_pair"]

_VERSION = 3  # of what prepare makes: another number leaves the old cache aside
_PLACES = 4096
_DARKEST = 0.85  # of deep white matter in a texture
_CONTROL = 6


@dataclass(frozen=True, eq=False)
class Pair:
    """A real pair as the network sees it, and its reference.

    Attributes:
        image: (2, slices, H, W) float16 FLAIR and T1w, scaled.
        mask: (slices, H, W) the brain.
        target: (slices, H, W) uint8, the classes.
        places: (N, 3) voxels with a class above zero.
        thickness: of a slice, millimetres.
        mirrors: whether a slice may be mirrored along its first axis.
    """

    image: NDArray[np.float16]
    mask: NDArray[np.bool_]
    target: NDArray[np.uint8]
    places: NDArray[np.int64]
    thickness: float
    mirrors: bool
    weight: float = 1.0


def prepare(sample: Sample, config: TrainConfig, cache: Path | None = None) -> Pair | Anatomy:
    """Prepare a sample, or take it from the cache.

    Raises:
        ImageError, SegmentationError, RegistrationError: an image cannot be used.
        TrainingError: a label map lacks what is needed, or holds codes that the settings do not
            mention.
    """
    images = map(sample.images.get, MODALITIES)
    files = (*images, sample.dseg, sample.mask, sample.protocol)
    made_of = (_VERSION, *files, sample.lesions is None)
    settings = (config.labels, config.preparation, config.protocols, config.ignore)
    key = hashlib.sha256(repr((made_of, settings)).encode()).hexdigest()[:20]
    kept = cache / f"{key}.npz" if cache else None
    if kept is not None and kept.is_file():
        with np.load(kept) as stored:
            arrays = dict(stored)
    else:
        arrays = _real(sample, config) if PAIRED in sample.images else _synthetic(sample, config)
        if kept is not None:
            with replacing(kept) as stream:
                np.savez_compressed(stream, **arrays)
    if PAIRED not in sample.images:
        return Anatomy(
            arrays["codes"], arrays.get("target"), arrays["near"], arrays.get("to_mni"),
            arrays["places"], arrays["shares"], sample.lesions, sample.weight,
            arrays.get("texture"),
        )  # fmt: skip
    return Pair(
        arrays["image"], arrays["mask"], arrays["target"], np.argwhere(arrays["target"]),
        float(arrays["thickness"]), bool(arrays["mirrors"]), sample.weight,
    )  # fmt: skip


def _synthetic(sample: Sample, config: TrainConfig) -> dict[str, Any]:
    labels = read_labels(sample.dseg)
    grid = canonical_grid(labels.grid, 1.0)
    codes = resample(labels.data.astype(np.int16), labels.grid, grid, order=0)
    if T1W in sample.images:
        codes = FREESURFER_OF_MUSE[codes]
    brain = np.argwhere((codes > 0) & (codes < OUTSIDE_BRAIN))
    if not len(brain):
        raise TrainingError(f"{sample.dseg}: it contains no code of the brain (1 to 499)")
    chosen = np.random.default_rng(0).integers(len(brain), size=_PLACES)
    out: dict[str, Any] = {
        "codes": codes,
        "near": ventricle_distance(codes),
        "places": brain[chosen].astype(np.int16),
        "shares": tissue_shares(codes),
    }
    if sample.lesions is None:
        check_codes(labels, sample.dseg, sample.protocol, config, limit=OUTSIDE_BRAIN)
        target = reference_classes(LabelMap(codes, grid), sample.protocol, config)
        if not target.any():
            raise TrainingError(f"{sample.dseg}: it contains none of the labels")
        out["target"] = target
    else:
        out["to_mni"] = from_mni(codes, grid)
    if T1W in sample.images:
        out["texture"] = _texture(read_volume(sample.images[T1W]), codes, grid)
    return out


def _texture(t1w: Volume, codes: NDArray[np.int16], grid: Grid) -> NDArray[np.float16]:
    """A T1w with fluid, grey and white matter at the levels of a texture, (*grid.shape).

    Deep in the white matter it is never as dark as a lesion.
    """
    image = resample(t1w.data, t1w.grid, grid)
    tissue = TISSUE_OF[codes]
    white = ndimage.binary_erosion(tissue == Tissue.WHITE)
    fluid = ndimage.binary_erosion(tissue == Tissue.FLUID)
    parts = (fluid, tissue == Tissue.CORTEX, white)
    levels = [float(np.median(image[part])) if part.any() else np.nan for part in parts]
    if not levels[0] < levels[1] < levels[2]:
        raise TrainingError("the T1w has no T1-like contrast in the tissues of its label map")
    top = levels[2] + (levels[2] - levels[1]) * 0.5 / (T1W_LEVELS[2] - T1W_LEVELS[1])
    scaled = np.interp(image, [0.0, *levels, top], [0.0, *T1W_LEVELS, 1.5])
    return np.where(white, np.maximum(scaled, _DARKEST), scaled).astype(np.float16)


def _real(sample: Sample, config: TrainConfig) -> dict[str, Any]:
    image, mask, grid = prepare_real(sample, config)
    labels = read_labels(sample.dseg)
    check_codes(labels, sample.dseg, sample.protocol, config)
    classes = reference_classes(labels, sample.protocol, config)
    target = np.zeros(grid.shape, dtype=np.uint8)
    best = np.full(grid.shape, 0.5, dtype=np.float32)
    for number in sorted(set(np.unique(classes).tolist()) - {0}):
        share = resample((classes == number).astype(np.float32), labels.grid, grid)
        target[share > best] = number
        np.maximum(best, share, out=best)
    return {
        "image": image.astype(np.float16),
        "mask": mask,
        "target": target,
        "thickness": grid.spacing[0],
        "mirrors": across(grid),
    }


def prepare_real(
    sample: Sample, config: TrainConfig, *, extracted: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Grid]:
    """The pair of a sample as the pipeline prepares it.

    Without a ``mask`` in the table the scans are raw heads: the brain is found in the FLAIR
    and the T1w registered to it (left out, if it does not lie there). With one, on any grid of
    the FLAIR's space, or with ``extracted`` (zero outside the brain), both scans lie in one
    space already.
    """
    from deepmrseg_bids.tasks.coregistration import pair_scans

    flair = read_volume(sample.images[PAIRED])
    t1w = read_volume(sample.images[T1W]) if T1W in sample.images else None
    rigid = None
    mask_on: Callable[[Grid], NDArray[np.bool_]]
    if sample.mask is not None:
        mask_on = _drawn(read_volume(sample.mask))
    elif extracted:
        inside = filled(flair.data > 0)
        mask_on = _drawn(Volume(inside.astype(np.float32), flair.grid))
    else:
        pair = pair_scans(flair, t1w, _brain_predictor())
        t1w, rigid, mask_on = pair.t1w, pair.rigid, pair.brain.mask_on
    grid = slice_grid(flair.grid, mask_on(flair.grid), spacing=config.preparation.spacing)
    mask = mask_on(grid)
    return prepare_pair(flair, t1w, mask, grid, rigid=rigid), mask, grid


def segment_pair(
    sample: Sample, config: TrainConfig, predictor: Predictor, *, prepared: bool = False
) -> Segmentation:
    """What a network of slices finds in a sample, on the FLAIR's own grid.

    Args:
        prepared: FLAIR and T1w are brain-extracted and lie in one space.
    """
    image, mask, grid = prepare_real(sample, config, extracted=prepared)
    answer = predictor.slices(image, mirrored=across(grid))
    answer[0][~mask], answer[1:, ~mask] = 1, 0
    bundle = predictor.bundle
    posteriors = Posteriors(answer, grid, (0, *bundle.labels.indices))
    labels = label_map(posteriors, read_grid(sample.images[PAIRED]))
    rows = measure(labels, bundle.labels, confidences(posteriors), bundle)
    return Segmentation(bundle.task, labels, bundle.labels, rows, (posteriors,))


def _drawn(outline: Volume) -> Callable[[Grid], NDArray[np.bool_]]:
    """A mask that is above zero in the brain, on other grids."""
    inside = (outline.data > 0).astype(np.float32)
    return lambda grid: resample(inside, outline.grid, grid) > 0.5


@remember
def _brain_predictor() -> Any:
    from deepmrseg_bids.inference.predictor import PredictorPool

    return PredictorPool()("brain")


def crop(
    prepared: Pair | Anatomy, rng: np.random.Generator, config: TrainConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """One random crop: (2, *crop) float32 and its classes (*crop)."""
    edges = (config.loop.crop[0], config.loop.crop[1])
    if isinstance(prepared, Anatomy):
        scene = draw_scene(rng, prepared, config.pairs, config.augment)
        return render(prepared, scene, edges)
    return _changed(prepared, _draw(rng, prepared, config), edges)


@dataclass(frozen=True, eq=False)
class _Change:
    """All random choices for a crop of a real pair.

    Attributes:
        place: slice, and the pixel in the crop's middle.
        slices: how many are averaged, as if they had been scanned as one.
        linear: (2, 2) from crop offsets to pixels.
        curve: (2,) logarithm of the exponents of the intensities.
    """

    place: NDArray[np.float64]
    slices: int
    linear: NDArray[np.float64]
    elastic: NDArray[np.float32]
    bias: NDArray[np.float32]
    curve: NDArray[np.float64]
    blur: float
    noise: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    no_t1w: bool
    seed: int


def _draw(rng: np.random.Generator, pair: Pair, config: TrainConfig) -> _Change:
    augment, pairs = config.augment, config.pairs
    inside = pair.places
    every = max(1, len(pair.mask) // 8)
    if not len(inside) or rng.random() < 0.3:
        inside = np.argwhere(pair.mask[::every]) * np.array([every, 1, 1])
    place: NDArray[np.float64] = inside[int(rng.integers(len(inside)))].astype(np.float64)
    place[1:] += rng.uniform(-1, 1, 2) * augment.shift_mm / config.preparation.spacing
    angle = np.radians(rng.uniform(-1, 1) * augment.rotate_deg)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = linear @ np.diag(np.exp(rng.uniform(-1, 1, 2) * augment.scale))
    if rng.random() < augment.flip and pair.mirrors:
        linear[:, 0] *= -1
    most = max(1, int(pairs.thick_mm / pair.thickness))
    return _Change(
        place=place,
        slices=int(rng.integers(1, most + 1)) if rng.random() < 0.4 else 1,
        linear=linear,
        elastic=(rng.standard_normal((2, _CONTROL, _CONTROL)) * augment.elastic_mm).astype("f4"),
        bias=(rng.uniform(-1, 1, (2, 4, 4)) * augment.bias * 0.5 * rng.random()).astype("f4"),
        curve=rng.uniform(-1, 1, 2) * augment.gamma,
        blur=float(rng.random() * augment.blur_mm * (rng.random() < 0.4)),
        noise=rng.random(2) * augment.noise * 0.5 * (rng.random() < 0.5),
        scale=np.exp(rng.uniform(-1, 1, 2) * augment.contrast),
        shift=rng.uniform(-1, 1, 2) * augment.brightness,
        no_t1w=bool(rng.random() < pairs.drop_t1w),
        seed=int(rng.integers(2**31)),
    )


def _changed(
    pair: Pair, chosen: _Change, edges: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Apply the choices: slices averaged, then one resampling in the plane."""
    middle = int(chosen.place[0])
    first = max(0, min(middle - (chosen.slices - 1) // 2, len(pair.mask) - chosen.slices))
    part = slice(first, first + chosen.slices)
    classes = pair.target[part]
    target = np.zeros(classes.shape[1:], np.float32)
    for number in np.unique(classes[classes > 0]):
        target[(classes == number).mean(0) >= 0.5] = number
    planes = np.concatenate([
        pair.image[:, part].astype(np.float32).mean(1),
        (pair.mask[part].mean(0, keepdims=True) > 0.5).astype(np.float32),
        target[None],
    ])  # fmt: skip
    where = _places(chosen, edges, target.shape)
    x = torch.from_numpy(planes)[None]
    soft = functional.grid_sample(x[:, :2] - OUTSIDE, where, align_corners=True)[0] + OUTSIDE
    hard = functional.grid_sample(x[:, 2:], where, mode="nearest", align_corners=True)[0]
    inside = hard[0].numpy() > 0.5
    image = _degraded(soft.numpy(), chosen)
    image = np.where(inside, np.clip(image, -5, 5), np.float32(OUTSIDE)).astype(np.float32)
    if chosen.no_t1w:
        image[1] = OUTSIDE
    return image, hard[1].numpy().astype(np.uint8) * inside


def _places(chosen: _Change, edges: tuple[int, int], size: tuple[int, ...]) -> torch.Tensor:
    """(1, *edges, 2) where to sample, as grid_sample wants it."""
    grid = np.stack(
        np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in edges), indexing="ij")
    ).astype(np.float32)
    if chosen.elastic.any():
        grid += smooth(chosen.elastic, edges)
    at = np.tensordot(chosen.linear.astype(np.float32), grid, axes=1)
    at += chosen.place[1:].astype(np.float32)[:, None, None]
    scaled = at * (2 / (np.array(size, dtype=np.float32) - 1))[:, None, None] - 1
    return torch.from_numpy(np.ascontiguousarray(scaled[::-1].transpose(1, 2, 0)))[None].float()


def _degraded(image: NDArray[np.float32], chosen: _Change) -> NDArray[np.float32]:
    """Intensities: the contrast bent, then bias, smoothing and noise."""
    rng = np.random.default_rng(chosen.seed)
    field = smooth(chosen.bias, image.shape[1:])
    out = np.empty_like(image)
    for channel, plane in enumerate(image):
        low = np.float32(OUTSIDE)
        unit = (plane - low) / (-2 * low)  # 0 outside, 1 for very bright
        bent = np.sign(unit) * np.abs(unit) ** np.float32(np.exp(chosen.curve[channel]))
        plane = low + bent * np.exp(field[channel]) * (-2 * low)
        if chosen.blur > 0.3:
            plane = ndimage.gaussian_filter(plane, chosen.blur)
        if chosen.noise[channel]:
            level = np.float32(chosen.noise[channel])
            plane = plane + level * rng.standard_normal(plane.shape, dtype=np.float32)
        out[channel] = plane * chosen.scale[channel] + chosen.shift[channel]
    return out

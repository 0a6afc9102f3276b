"""The crops that a network learns from: samples made ready, and what each step sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deepmrseg_bids.imaging.intensity import brain_coordinates
from deepmrseg_bids.train import slice_pairs
from deepmrseg_bids.train.augment import Augmentation, apply, brain_centre, draw
from deepmrseg_bids.train.config import AugmentConfig, TrainConfig
from deepmrseg_bids.train.samples import Prepared, Sample, prepare_sample
from deepmrseg_bids.train.scene import Anatomy

__all__ = ["Ready", "batches", "prepared", "whole"]

Ready: TypeAlias = Prepared | slice_pairs.Pair | Anatomy
"""A sample that crops are taken from."""


def prepared(
    samples: Sequence[Sample], config: TrainConfig, cache: Path | None = None
) -> list[Ready]:
    """Make samples ready for a network in 3D, or for one in 2D."""
    prepare = slice_pairs.prepare if config.network.spatial_dims == 2 else prepare_sample
    return [prepare(sample, config, cache) for sample in samples]


def batches(
    ready: Sequence[Ready], config: TrainConfig, steps: range, workers: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """The crops of ``steps``, in their order: images (N, C, *crop), classes (N, *crop)."""
    loader = DataLoader(
        _Steps(ready, config), batch_size=None, sampler=steps, num_workers=workers,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    return iter(loader)


class _Steps(Dataset[tuple[Tensor, Tensor]]):
    """The crops of every step, fixed by the seed and the step alone."""

    def __init__(self, ready: Sequence[Ready], config: TrainConfig) -> None:
        self._ready, self._config = ready, config

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        ready, config = self._ready, self._config
        rng = np.random.default_rng([config.loop.seed, step])
        weights = np.array([sample.weight for sample in ready], dtype=np.float64)
        chosen = rng.choice(len(ready), size=config.loop.batch, p=weights / weights.sum())
        crops = [_random(ready[k], rng, config) for k in chosen]
        images = torch.from_numpy(np.stack([image for image, _ in crops]))
        targets = torch.from_numpy(np.stack([target for _, target in crops])).long()
        return images, targets


def _random(
    ready: Ready, rng: np.random.Generator, config: TrainConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A random crop (C, *crop) and its classes (*crop)."""
    if not isinstance(ready, Prepared):
        return slice_pairs.crop(ready, rng, config)
    return _seen(ready, draw(rng, config.augment, spacing=config.preparation.spacing), config)


def whole(ready: Ready, config: TrainConfig) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What validation sees of a sample, unchanged.

    Returns:
        Images and classes: of one crop in 3D, (1, C, *crop) and (*crop); of all slices of a
        pair, (slices, C, H, W) and (slices, H, W).
    """
    if isinstance(ready, Prepared):
        plain = draw(np.random.default_rng(0), AugmentConfig(), spacing=1.0)
        image, target = _seen(ready, plain, config)
        return image[None], target
    assert isinstance(ready, slice_pairs.Pair)  # label maps never judge
    return ready.image.swapaxes(0, 1).astype(np.float32), ready.target


def _seen(
    ready: Prepared, chosen: Augmentation, config: TrainConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A crop (C, *crop) as the network sees it, and its classes (*crop)."""
    image, target = apply(ready, chosen, config)
    if not config.preparation.coordinates:
        return image[None], target
    centre = brain_centre(ready, chosen, config)
    shape = (image.shape[0], image.shape[1], image.shape[2])
    places = brain_coordinates(shape, centre.tolist(), config.preparation.spacing)
    return np.concatenate([image[None], places]), target

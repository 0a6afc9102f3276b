"""A brain has one size: not one for each amount of air, neck or tilt around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import canonical_grid, resample
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks import deepbrain
from deepmrseg_bids.tasks.brain import find_brain
from deepmrseg_bids.tasks.results import Segmentation
from tests.field.real_head import head, padded, pool, tilted, usual_brain


def in_noise(volume: Volume, voxels: int) -> Volume:
    wide = padded(volume, voxels)
    noise = np.random.default_rng(0).uniform(0, 0.01 * volume.data.max(), wide.data.shape)
    return replace(wide, data=np.maximum(wide.data, noise).astype(np.float32))


def without_air(volume: Volume) -> Volume:
    there = np.argwhere(volume.data > 0.1 * volume.data.max())
    start, stop = there.min(axis=0), there.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return Volume(volume.data[box].copy(), volume.grid.crop(start.tolist(), stop.tolist()))


AROUND = {
    "30 voxels of 0": lambda v: padded(v, 30),
    "20 voxels of noise": lambda v: in_noise(v, 20),
    "air cropped": without_air,
    "tilted by -20 degrees and padded": lambda v: tilted(padded(v, 15), -20, 2),
}


@pytest.mark.parametrize("name", AROUND)
def test_air_around_a_head_and_a_tilted_header_do_not_change_its_brain(name: str) -> None:
    usual = usual_brain()
    changed = AROUND[name](head())
    found = find_brain(changed, pool()("brain"))
    mask, before = found.mask_on(changed.grid), usual.mask_on(head().grid)
    size, was = (m.sum() * head().grid.voxel_volume for m in (mask, before))
    assert size == pytest.approx(was, rel=0.01)


def deep(volume: Volume) -> Segmentation:
    brain = usual_brain() if volume is head() else find_brain(volume, pool()("brain"))
    return deepbrain.segment(volume, brain, pool()("deepbrain"))


def test_structures_of_a_head_do_not_depend_on_the_tilt_of_its_header() -> None:
    usual, found = ([row.volume_mm3 for row in deep(v).measures]
                    for v in (head(), tilted(head(), 25, 0)))  # fmt: skip
    three_voxels = 3 * head().grid.voxel_volume
    np.testing.assert_allclose(found, usual, atol=three_voxels, rtol=0.005)


def test_structures_of_a_head_that_lies_tilted_are_found_in_a_turned_crop() -> None:
    turned = tilted(head(), 25, 0)
    upright = canonical_grid(turned.grid, 2.0)
    found = deep(Volume(resample(turned.data, turned.grid, upright), upright))
    usual = deep(head())
    assert found.posteriors[0].grid.obliquity > 15 > usual.posteriors[0].grid.obliquity
    sizes = [[row.volume_mm3 for row in result.measures] for result in (found, usual)]
    assert np.abs(np.array(sizes[0]) / sizes[1] - 1).max() < 0.2

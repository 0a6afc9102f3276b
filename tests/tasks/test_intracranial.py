"""The inside of the skull: it holds the brain, whatever its network says."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import resample
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.intracranial import find_inside, mask_beside, row_of
from tests.tasks.phantom import box, paint

GRID = box(120, 2.0)


@pytest.mark.parametrize("radius", [20, 30, 44])
@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.0])
def test_the_mask_holds_the_brain_on_every_grid(radius: int, spacing: float) -> None:
    head = paint(GRID, [((0, 0, 0), (50, 50, 50), 100.0), ((0, 0, 0), (30, 30, 30), 60.0)], 1.0)
    brain = 0.9 * paint(GRID, [((0, 0, 0), (36, 36, 36), 1.0)])
    skull = paint(GRID, [((0, 0, 0), (radius,) * 3, 0.95)])
    inside = find_inside(
        Volume(head, GRID),
        GRID,
        brain,
        lambda _: np.stack([1 - skull, skull]),  # type: ignore[arg-type]
    )
    scan = box(117, spacing, (0.7, -0.3, 0.4))
    outlined = paint(scan, [((0, 0, 0), (38, 38, 38), 1)]).astype(np.uint8)
    mask = mask_beside(inside, LabelMap(outlined, scan))
    found = (resample(brain, GRID, scan) > 0.5) | (outlined > 0)
    assert found.any() and not (found & ~(mask.labels.data > 0)).any()
    row = row_of(mask, inside)
    assert row.volume_mm3 == pytest.approx(mask.labels.data.sum() * scan.voxel_volume)
    assert inside.volume_mm3 >= float((brain > 0.5).sum()) * GRID.voxel_volume

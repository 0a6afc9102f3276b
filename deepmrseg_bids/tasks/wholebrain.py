"""``wholebrain``: every structure of the brain, from cortex to brainstem, at 1 mm.

One network takes both sides of a structure for one class, so that either side teaches it the
other; a second one, at 2 mm, tells the sides apart. Of the deep structures, the network of
``deepbrain`` knows more: the mean of both counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.findings import Finding, Severity
from deepmrseg_bids.imaging.grid import Array, Grid, axes_of, centred_grid, resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks import deepbrain
from deepmrseg_bids.tasks.averaging import average_in
from deepmrseg_bids.tasks.brain import MODELS, brain_of, t1w_of
from deepmrseg_bids.tasks.crops import MaskOn, around_brain, extracted_brain, look
from deepmrseg_bids.tasks.qc import check_volumes
from deepmrseg_bids.tasks.regions import measure_regions, read_regions
from deepmrseg_bids.tasks.results import (
    Measure,
    Posteriors,
    Segmentation,
    Sides,
    found_in,
    label_map,
    measure,
)
from deepmrseg_bids.tasks.soft_counts import count
from deepmrseg_bids.tasks.spec import T1W, Costs, Figure, Predictors, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = ["REGIONS", "TABLE", "TASK", "segment", "segment_prepared"]

TABLE = LabelTable.read(Path(__file__).with_name("wholebrain_labels.tsv"))
REGIONS = Path(__file__).with_name("wholebrain_regions.tsv")

_ROOM_MM = 3.0
_FEW_LOST = 0.05  # of all structures
# MUSE divides the white matter of a side: lobes, fornix, internal capsule; 95 is the callosum
_WHITE_OF_MUSE = {44: (*range(81, 95, 2), 95), 45: (*range(82, 95, 2), 95)}
_RIGHT, _LEFT = 1, 2  # the classes of the network that tells the sides apart
_UNDECIDED = 1e-4  # of a side: the place of the voxel counts as much as that


def segment(
    volume: Volume,
    box: Grid,
    mask_on: MaskOn,
    predictors: Predictors,
    *,
    deep: Segmentation | None = None,
    within: MaskOn | None = None,
    regions: Path = REGIONS,
) -> Segmentation:
    """All structures of a brain.

    Args:
        box: around the brain, at the spacing of the structures' network.
        mask_on: the brain, as the networks see it.
        deep: the result of ``deepbrain`` for the same scan, where it found something.
        within: the mask that no label leaves, if it is another one.
        regions: the table of composite regions.

    Raises:
        SignalError: no voxel of the scan is brain, or all are equal.
    """
    structures, sides = predictors("wholebrain"), predictors("sides")
    beside = Sides(_right(volume, box, mask_on, sides), _left_of(TABLE))
    found = look(volume, box, mask_on, structures, packed=True)
    if deep is not None:
        average_in(found, deep.posteriors[0], _same(deep.table, found, beside))
    outside = ~mask_on(box)
    np.copyto(found.data[1:], 0, where=outside)
    np.copyto(found.data[0], found.one, where=outside, casting="unsafe")
    found = replace(found, sides=beside)
    counts = count(found)
    labels = label_map(found, volume.grid)
    if within is not None:
        labels = LabelMap(labels.data * within(volume.grid), labels.grid)
    rows = measure(labels, TABLE, counts.confidences(), structures.bundle)
    composites = measure_regions(labels, read_regions(regions), counts, structures.bundle)
    return Segmentation(
        TASK.name, labels, TABLE, rows, (found,), (*_lost(rows), *check_volumes(rows)),
        regions=composites,
    )  # fmt: skip


def _same(deep: LabelTable, found: Posteriors, sides: Sides) -> dict[int, int]:
    """The class, by its label, in which the structures' network has each deep structure."""
    known = {label.name: label.index for label in TABLE}
    same = {label.index: known[label.name] for label in deep if label.name in known}
    merged = {index: sides.right_of.get(label, label) for index, label in same.items()}
    return {index: label for index, label in merged.items() if label in found.indices[1:]}


def _lost(rows: Sequence[Measure]) -> list[Finding]:
    """The structures that were not found; one small region of the cortex is no disaster."""
    names = [row.name for row in rows if row.volume_mm3 == 0]
    if not names:
        return []
    severity: Severity = "error" if len(names) > _FEW_LOST * len(rows) else "warning"
    return [Finding("structure-missing", severity, f"not found: {', '.join(names)}")]


def _right(volume: Volume, box: Grid, mask_on: MaskOn, sides: Predictor) -> Array:
    """How likely each voxel of the box lies on the right, (*box.shape) in [0, 1]."""
    preparation = sides.bundle.preparation
    middle = box.to_world([[(edge - 1) / 2 for edge in box.shape]])[0]
    grid = centred_grid(middle, preparation.shape, preparation.spacing, axes=axes_of(box))
    answer = look(volume, grid, mask_on, sides)
    right, left = answer.data[_RIGHT], answer.data[_LEFT]
    beside = np.arange(grid.shape[0]) > (grid.shape[0] - 1) / 2  # where neither side is likely
    share = (right + _UNDECIDED * beside[:, None, None]) / (right + left + _UNDECIDED)
    return resample(share, grid, box)


def _left_of(table: LabelTable) -> dict[int, int]:
    """The label on the left for each on the right."""
    place = {label.name: label.index for label in table}
    return {
        index: place[name.replace("Right-", "Left-", 1)]
        for name, index in place.items()
        if name.startswith("Right-")
    }


def segment_prepared(volume: Volume, predictors: Predictors) -> Segmentation:
    """All structures of a brain-extracted scan (zero outside the brain)."""
    _, mask_on = extracted_brain(volume)
    inside = (volume.data > 0).astype(np.float32)
    spacing = predictors("wholebrain").bundle.preparation.spacing
    box = around_brain(inside, volume.grid, spacing, room_mm=_ROOM_MM)
    try:
        deep = deepbrain.segment_prepared(volume, predictors("deepbrain"))
    except SegmentationError:
        deep = None
    return segment(volume, box, mask_on, predictors, deep=deep)


def _segment_session(context: SessionContext) -> Segmentation:
    brain = brain_of(context)
    spacing = context.predictors("wholebrain").bundle.preparation.spacing
    box = around_brain(brain.probability, brain.grid, spacing, room_mm=_ROOM_MM)
    try:
        deep, _ = deepbrain.deep_structures_of(context)
    except SegmentationError:  # the task deepbrain says so
        deep = None
    found = segment(
        t1w_of(context), box, brain.mask_on, context.predictors,
        deep=deep, within=brain.outlined_on, regions=context.regions or REGIONS,
    )  # fmt: skip
    return found_in(brain, found)


def _segment_prepared(images: Mapping[str, Volume], predictors: Predictors) -> Segmentation:
    return segment_prepared(images[T1W], predictors)


TASK = TaskSpec(
    name="wholebrain",
    title="Whole brain",
    description="Structures of the whole brain",
    segment=_segment_session,
    segment_prepared=_segment_prepared,
    models=(*MODELS, "deepbrain", "sides", "wholebrain"),
    table=TABLE,
    regions=REGIONS,
    parts=_WHITE_OF_MUSE,
    whole_brain=True,
    probabilities=False,
    methods=(
        "All structures of the brain were segmented together; right and left were distinguished by "
        "a second network. In the deep structures, the probabilities are the mean of those of the "
        "first network and of one that was trained on these structures alone."
    ),
    figure=Figure(margin_mm=15.0, plane=1),
    costs=Costs(window_seconds=0.4, network_mib=950, labels=134, crop_mm3=150 * 180 * 150),
)

"""``icv``: the intracranial volume, from a raw head."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepmrseg_bids.errors import SkippedTask
from deepmrseg_bids.imaging.grid import resample
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.brain import brain_of
from deepmrseg_bids.tasks.pipeline import SessionContext
from deepmrseg_bids.tasks.results import Posteriors, Segmentation, found_in, measure
from deepmrseg_bids.tasks.spec import Costs, Figure, Output, Predictors, TaskSpec

__all__ = ["TABLE", "TASK"]

TABLE = LabelTable((Label(1, "Intracranial", "IC", "#4363d8"),))


def _segment(context: SessionContext) -> Segmentation:
    """The inside of the skull on the scan's own grid.

    Raises:
        SkippedTask: the image is skull-stripped.
    """
    brain = brain_of(context)
    if brain.inside is None:
        raise SkippedTask("the image appears skull-stripped: it has no intracranial volume")
    inside, volume = brain.inside, context.t1w
    likely = resample(inside.probability, inside.grid, volume.grid)
    labels = LabelMap((likely > 0.5).astype(np.uint8), volume.grid)
    bundle = context.predictors("icv").bundle
    rows = measure(labels, TABLE, {1: inside.confidence}, bundle)
    posteriors = Posteriors(
        np.stack([1 - inside.probability, inside.probability]), inside.grid, (0, 1)
    )
    return found_in(brain, Segmentation("icv", labels, TABLE, rows, (posteriors,)))


def _segment_prepared(images: Mapping[str, Volume], predictors: Predictors) -> Segmentation:
    return _segment(SessionContext(images, predictors))


TASK = TaskSpec(
    name="icv",
    title="Intracranial volume",
    description="Intracranial mask",
    segment=_segment,
    segment_prepared=_segment_prepared,
    models=("brain", "icv"),
    table=TABLE,
    intracranial=True,
    output=Output({"desc": "icv"}, suffix="mask", kind="ROI"),
    judged_raw=True,
    methods="The inside of the skull was segmented by a network of its own.",
    figure=Figure(margin_mm=45.0, plane=0, window_inside=True),
    costs=Costs(window_seconds=0.3, network_mib=180),
)

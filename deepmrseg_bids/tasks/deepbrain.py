"""``deepbrain``: 14 deep structures, in a crop around them at 1 mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.brain import (
    MODELS,
    Brain,
    brain_of,
    may_be_turned,
    orientation_of,
    t1w_of,
)
from deepmrseg_bids.tasks.crops import extracted_brain, settle
from deepmrseg_bids.tasks.pose import TILTED_DEG, tilt, upright_axes
from deepmrseg_bids.tasks.qc import check_structures
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    confidences,
    found_in,
    largest_parts,
    segmented,
)
from deepmrseg_bids.tasks.spec import T1W, Costs, Predictors, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = ["TASK", "deep_structures_of", "segment", "segment_prepared"]

_WHAT = "deep structure"
_DOUBTFUL = {"structure-missing", "structure-unsure"}  # findings that call for another look


def segment(volume: Volume, brain: Brain, predictor: Predictor) -> Segmentation:
    """The deep structures of a raw head whose brain was found.

    Raises:
        SegmentationError: the deep structures are not in the image.
    """
    if brain.centre is None:
        raise SegmentationError(
            f"{volume.source or 'the image'}: no deep structures were found in the brain"
        )
    centre = np.array(brain.centre)
    posteriors = settle(volume, centre, brain.mask_on, predictor, what=_WHAT, axes=brain.axes)
    posteriors = _upright(volume, brain, posteriors, predictor)
    result = segmented("deepbrain", volume, largest_parts(posteriors), predictor.bundle)
    doubts = check_structures(result, brain.mask_on(result.posteriors[0].grid))
    return replace(result, findings=(*result.findings, *doubts))


def _upright(volume: Volume, brain: Brain, first: Posteriors, predictor: Predictor) -> Posteriors:
    """The same in a crop that is turned with the head, where that is much tilted and helps.

    The network was trained on heads that lie as people do.
    """
    axes = upright_axes(first, predictor.bundle.labels)
    if axes is None or tilt(axes, brain.axes) <= TILTED_DEG:
        return first
    middle = first.grid.to_world([[(edge - 1) / 2 for edge in first.grid.shape]])[0]
    try:
        again = settle(volume, middle, brain.mask_on, predictor, what=_WHAT, axes=axes)
    except SegmentationError:
        return first
    return max(first, again, key=_sureness)


def _sureness(posteriors: Posteriors) -> float:
    """The mean confidence of the structures; of one that was not found it is 0."""
    sure = confidences(posteriors)
    return sum(value or 0.0 for value in sure.values()) / len(sure)


def segment_prepared(volume: Volume, predictor: Predictor) -> Segmentation:
    """The deep structures of a brain-extracted scan (zero outside the brain)."""
    middle, mask_on = extracted_brain(volume)
    posteriors = settle(volume, middle, mask_on, predictor, what=_WHAT)
    return segmented("deepbrain", volume, largest_parts(posteriors), predictor.bundle)


def deep_structures_of(context: SessionContext) -> tuple[Segmentation, tuple[Finding, ...]]:
    """The deep structures of a session, looked for once, and whether its scan is turned over.

    Raises:
        SkippedTask: there is no T1w.
        SegmentationError: no brain, or no deep structure, was found.
    """
    result = context.once("deepbrain", lambda: _found(context))
    doubtful = _DOUBTFUL & {finding.code for finding in result.findings}
    odd = bool(doubtful) or may_be_turned(brain_of(context))
    return result, orientation_of(context) if odd else ()


def _found(context: SessionContext) -> Segmentation:
    brain = brain_of(context)
    try:
        return segment(t1w_of(context), brain, context.predictors("deepbrain"))
    except SegmentationError as error:
        doubts = "".join(f"; {finding.message}" for finding in orientation_of(context))
        raise SegmentationError(f"{error}{doubts}") from error


def _segment_session(context: SessionContext) -> Segmentation:
    brain = brain_of(context)
    result, turned = deep_structures_of(context)
    return found_in(brain, result, *turned)


def _segment_prepared(images: Mapping[str, Volume], predictors: Predictors) -> Segmentation:
    return segment_prepared(images[T1W], predictors("deepbrain"))


TASK = TaskSpec(
    name="deepbrain",
    title="Deep brain structures",
    description="Deep brain structures",
    segment=_segment_session,
    segment_prepared=_segment_prepared,
    models=(*MODELS, "deepbrain"),
    methods="Deep structures were segmented in a crop around them, within the brain.",
    costs=Costs(window_seconds=0.6, network_mib=430, labels=14, crop_mm3=96 * 96 * 80, passes=1.2),
)

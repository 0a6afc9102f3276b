"""Tasks of one's own: any bundle at work, as its preparation says.

A network in 3D sees the whole image, the brain, or a crop around structures that ``brain`` and
``deepbrain`` find; one in 2D sees the slices of a FLAIR with the T1w registered to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import BundleError, SegmentationError, UsageError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, centred_grid, resample
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import ModelBundle, Preparation
from deepmrseg_bids.tasks import wml
from deepmrseg_bids.tasks.brain import MODELS, Brain, brain_of, t1w_of
from deepmrseg_bids.tasks.crops import around_brain, look, settle, shown
from deepmrseg_bids.tasks.deepbrain import deep_structures_of
from deepmrseg_bids.tasks.qc import check_structures
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    found_in,
    largest_parts,
    segmented,
)
from deepmrseg_bids.tasks.spec import T1W, Costs, Figure, Predictors, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = ["WHOLE_BRAIN", "segment", "task_of", "unknown_task"]

WHOLE_BRAIN = "Brain"
"""In ``Preparation.around``: the middle of the brain mask."""


def task_of(bundle: ModelBundle) -> TaskSpec:
    """The task of a bundle that is of none of the known ones.

    Raises:
        BundleError: its name cannot stand in a file name.
    """
    if not (bundle.task.isascii() and bundle.task.isalnum()):
        raise BundleError(
            f"{bundle.path}: a model of the task {bundle.task!r}; the name of a task has letters "
            "and digits only"
        )
    title = str(bundle.facts.get("title") or bundle.task)
    if bundle.network.spatial_dims == 2:
        return TaskSpec(
            name=bundle.task,
            title=title,
            description=title,
            segment=partial(_segment_slices, model=bundle.task),
            segment_prepared=partial(_slices_prepared, model=bundle.task),
            models=(*MODELS, bundle.task),
            required=wml.TASK.required,
            optional=wml.TASK.optional,
            native=wml.TASK.native,
            methods=wml.TASK.methods.replace("Lesions", "Structures"),
            figure=wml.TASK.figure,
            costs=wml.TASK.costs,
        )
    where = bundle.preparation
    return TaskSpec(
        name=bundle.task,
        title=title,
        description=title,
        segment=partial(_segment_session, model=bundle.task),
        segment_prepared=partial(_segment_prepared, model=bundle.task),
        models=(*_models_before(where), bundle.task),
        methods=_methods(where),
        costs=Costs(labels=len(bundle.labels), crop_mm3=_crop_mm3(where), passes=1.2),
    )


def unknown_task(name: str, facts: Mapping[str, object]) -> TaskSpec:
    """A task of which only the results are there, to gather and show them.

    Args:
        facts: what OUT_DIR says of it; see :func:`deepmrseg_bids.bids.derivatives.task_facts`.
    """
    title = str(facts.get("TaskTitle") or name)

    def refuse(*_: object) -> Segmentation:
        raise UsageError(f"unknown task {name!r}: add --model {name}=PATH with its bundle")

    in_slices = facts.get("NativeImage") == wml.TASK.native
    return TaskSpec(
        name=name,
        title=title,
        description=str(facts.get("TaskDescription") or title),
        segment=refuse,
        segment_prepared=refuse,
        models=(name,),
        native=wml.TASK.native if in_slices else T1W,
        figure=wml.TASK.figure if in_slices else Figure(),
    )


def _segment_slices(context: SessionContext, model: str) -> Segmentation:
    return replace(wml.segment_pair_of(context, model), lesions=None)


def _slices_prepared(
    images: Mapping[str, Volume], predictors: Predictors, model: str
) -> Segmentation:
    flair = images.get(wml.TASK.native)
    found = wml.segment_prepared(images.get(T1W), flair, predictors(model))
    return replace(found, lesions=None)


def _models_before(where: Preparation) -> tuple[str, ...]:
    """The models that find the crop."""
    if set(where.around) - {WHOLE_BRAIN}:
        return (*MODELS, "deepbrain")
    return MODELS if _needs_brain(where) else ()


def _needs_brain(where: Preparation) -> bool:
    return bool(any(where.shape) or where.around or where.intensity == "brain")


def _methods(where: Preparation) -> str:
    if not _needs_brain(where):
        return "The structures were segmented in the whole image."
    if not any(where.shape):
        return "The structures were segmented within the brain."
    names = ", ".join(where.around) if where.around else "the deep structures of the brain"
    return f"The structures were segmented in a crop around {names}."


def _crop_mm3(where: Preparation) -> float:
    edges = where.shape if any(where.shape) else (160, 200, 160)
    return float(np.prod(edges)) * (where.spacing**3 if any(where.shape) else 1.0)


def _segment_session(context: SessionContext, model: str) -> Segmentation:
    predictor = context.predictors(model)
    where = predictor.bundle.preparation
    if not _needs_brain(where):
        return segment(context.t1w, predictor)
    brain = brain_of(context)
    turned: tuple[Finding, ...] = ()
    if any(where.shape):
        centre, turned = _centre(context, brain, where)
        posteriors = settle(t1w_of(context), centre, brain.mask_on, predictor, axes=brain.axes)
    else:
        posteriors = look(
            t1w_of(context),
            around_brain(brain.probability, brain.grid, where.spacing),
            brain.mask_on,
            predictor,
        )
    result = segmented(model, context.t1w, largest_parts(posteriors), predictor.bundle)
    doubts = check_structures(result, brain.mask_on(posteriors.grid))
    result = replace(result, findings=(*result.findings, *doubts))
    return found_in(brain, result, *turned)


def _segment_prepared(
    images: Mapping[str, Volume], predictors: Predictors, model: str
) -> Segmentation:
    return segment(images[T1W], predictors(model))


def _centre(
    context: SessionContext, brain: Brain, where: Preparation
) -> tuple[Array, tuple[Finding, ...]]:
    """Where to look first, RAS+ millimetres, and what is odd about the way there."""
    if where.around == (WHOLE_BRAIN,):
        inside = np.argwhere(brain.probability > 0.5)
        return brain.grid.to_world([inside.mean(axis=0)])[0], ()
    if not where.around:
        if brain.centre is None:
            raise SegmentationError(
                f"{context.t1w.source or 'the image'}: no deep structures were found in the brain"
            )
        return np.array(brain.centre), ()
    deep, turned = deep_structures_of(context)
    found = deep.posteriors[0]
    known = {label.name: number for number, label in enumerate(deep.table, start=1)}
    unknown = [name for name in where.around if name not in known]
    if unknown:
        raise SegmentationError(
            f"the crop of the model is centred on {', '.join(unknown)}, which "
            f"deepbrain does not segment; it segments {', '.join(known)}"
        )
    voxels = np.argwhere(np.isin(found.labels(), [known[name] for name in where.around]))
    if not len(voxels):
        raise SegmentationError(
            f"{context.t1w.source or 'the image'}: {', '.join(where.around)} not "
            "found, so no crop can be made"
        )
    return found.grid.to_world([(voxels.min(axis=0) + voxels.max(axis=0)) / 2])[0], turned


def segment(volume: Volume, predictor: Predictor) -> Segmentation:
    """The labels of the model's own table, on the image's grid.

    The image is turned to RAS and brought to the model's voxel size around its middle. Its
    intensities are scaled by what counts in it: by the whole field of view (mode ``crop``),
    by the voxels above zero (``brain``), or by the head (``head``).

    Raises:
        SignalError: nothing in the image counts, or all that counts is equal.
    """
    bundle = predictor.bundle
    grid = _around(volume.grid, bundle.preparation.shape, bundle.preparation.spacing)
    image = resample(volume.data, volume.grid, grid)
    mode = bundle.preparation.intensity
    if mode == "brain":
        counted = resample((volume.data > 0).astype(np.float32), volume.grid, grid) > 0.5
    else:
        counted = resample(np.ones(volume.grid.shape, np.uint8), volume.grid, grid, order=0) > 0
    answer = predictor(shown(image, counted, bundle.preparation))
    posteriors = Posteriors(answer, grid, (0, *bundle.labels.indices))
    return segmented(bundle.task, volume, posteriors, bundle)


def _around(grid: Grid, shape: tuple[int, int, int], spacing: float) -> Grid:
    """The whole field of view, and at least ``shape`` voxels, around its middle."""
    corners = grid.corners()
    edges: NDArray[np.int_] = np.ceil(np.ptp(corners, axis=0) / spacing).astype(int)
    wide = np.maximum(edges, shape)
    # the middle of an odd edge lies in a voxel, that of an even one between two
    wide += (wide - edges) % 2
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    return centred_grid(middle, (int(wide[0]), int(wide[1]), int(wide[2])), spacing)

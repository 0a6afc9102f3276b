"""``brain``: from a raw head to the brain mask, and to where the deep structures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, canonical_grid, overlap, resample
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.qc import check_brain
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    expected_dice,
    found_in,
    measure,
)
from deepmrseg_bids.tasks.spec import T1W, Costs, Figure, Output, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.bundle import Preparation
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = [
    "TABLE",
    "TASK",
    "Brain",
    "brain_of",
    "check_orientation",
    "find_brain",
    "orientation_of",
    "segment",
]

TABLE = LabelTable((Label(1, "Brain", "BR", "#3cb44b"),))

_SMALLEST_ML, _LARGEST_ML = 300.0, 2800.0
_SMOOTHED_MM = 1.2  # sigma of the second look
_DEEP = 0.2  # low, so that both sides of a doubtful case hang together
_TURNED, _TURNED_MORE = 0.7, 0.05  # upright heads: 0.8 and more, at least 0.07 above turned ones
_SMALLEST_DEEP_ML = 5.0  # of 14 structures that together measure 40 to 60 ml


@dataclass(frozen=True, eq=False)
class Brain:
    """The brain of a head, at the resolution of its network.

    Attributes:
        probability: (I, J, K) of being brain, zero outside the largest connected part.
        grid: RAS+, the network's spacing.
        centre: middle of the deep structures, RAS+ millimetres; None if none were found.
        confidence: see :class:`deepmrseg_bids.tasks.results.Measure`.
    """

    probability: NDArray[np.float32]
    grid: Grid
    centre: tuple[float, float, float] | None
    confidence: float | None
    findings: tuple[Finding, ...] = ()

    @property
    def volume_mm3(self) -> float:
        """Volume of the mask, at the network's resolution."""
        return float((self.probability > 0.5).sum()) * self.grid.voxel_volume

    def mask_on(self, grid: Grid) -> NDArray[np.bool_]:
        """The brain mask on any grid, (*grid.shape)."""
        out = np.zeros(grid.shape, dtype=bool)
        found = ndimage.find_objects((self.probability > 0).astype(np.uint8))[0]
        start = [max(0, s.start - 1) for s in found]
        stop = [min(n, s.stop + 1) for s, n in zip(found, self.grid.shape, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        source = self.grid.crop(start, stop)
        part = overlap(source, grid)
        if part is not None:
            target = grid.crop([s.start for s in part], [s.stop for s in part])
            out[part] = resample(self.probability[box], source, target) > 0.5
        return out


def find_brain(volume: Volume, predictor: Predictor) -> Brain:
    """Find the brain in a raw head.

    Raises:
        SegmentationError: what was found cannot be a whole human brain.
    """
    grid = _roomy(volume.grid, predictor.bundle.preparation)
    image = resample(volume.data, volume.grid, grid)
    posteriors, inside, millilitres = _look(image, grid, predictor)
    smoothed = not _plausible(millilitres)
    if smoothed:  # strong noise hides a brain
        again = ndimage.gaussian_filter(image, _SMOOTHED_MM / grid.spacing[0])
        posteriors, inside, retried = _look(again, grid, predictor)
        if not _plausible(retried):
            raise SegmentationError(
                f"{volume.source or 'the image'}: {millilitres:.0f} ml found, but a brain "
                f"has {_SMALLEST_ML:.0f} to {_LARGEST_ML:.0f} ml: not a whole head, or "
                "not an MRI of a head; inspect the image"
            )
    probability = 1 - posteriors[0]
    filled = ndimage.binary_fill_holes(inside)
    probability = np.where(
        filled & ~inside, 1, np.where(ndimage.binary_dilation(inside), probability, 0)
    ).astype(np.float32)
    centre = _deep_centre(posteriors[2], inside, grid)
    unseen = Finding("no-deep-structures", "error", "the deep structures were not found")
    confidence = expected_dice(probability, filled)
    findings = check_brain(filled, image, grid, volume.grid, confidence=confidence)
    findings = findings if centre else (unseen, *findings)
    if smoothed:
        text = "the brain was found only after smoothing: is the image noisy?"
        findings = (*findings, Finding("brain-noisy", "warning", text))
    return Brain(probability, grid, centre, confidence, findings)


def check_orientation(volume: Volume, predictor: Predictor) -> tuple[Finding, ...]:
    """Whether the deep structures are easier to find in a scan that is turned over.

    A network that was never shown such a head is less sure of it. Worth its three looks only
    where something is odd. Left and right look the same: a header that exchanges them cannot
    be noticed so.
    """
    grid = _roomy(volume.grid, predictor.bundle.preparation)
    image = normalise(resample(volume.data, volume.grid, grid), mode="head")
    ways = {"": (), "upside down": (2,), "back to front": (1,),
            "upside down and back to front": (1, 2)}  # fmt: skip
    sure = {}
    for way, axes in ways.items():
        posteriors = predictor(np.ascontiguousarray(np.flip(image, axes)))
        deep = posteriors[2] > np.maximum(posteriors[0], posteriors[1])
        sure[way] = expected_dice(posteriors[2], deep) or 0.0
    best = max(sure, key=lambda way: sure[way])
    if sure[best] < max(_TURNED, sure[""] + _TURNED_MORE):
        return ()
    text = (
        "confidence of the deep structures is higher with the image turned "
        f"{best} ({sure[best]:.2f} compared with {sure['']:.2f}): the "
        "orientation in the header is wrong"
    )
    return (Finding("orientation-doubtful", "error", text),)


def segment(volume: Volume, brain: Brain, predictor: Predictor) -> Segmentation:
    """The brain mask on the scan's own grid."""
    labels = LabelMap(brain.mask_on(volume.grid).astype(np.uint8), volume.grid)
    rows = measure(labels, TABLE, {1: brain.confidence}, predictor.bundle)
    outside = np.stack([1 - brain.probability, brain.probability])
    return Segmentation(
        "brain", labels, TABLE, rows, (Posteriors(outside, brain.grid, (0, 1)),), brain.findings
    )


def _look(
    image: Array, grid: Grid, predictor: Predictor
) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
    """Posteriors of background, brain and deep structures; the brain; its millilitres."""
    posteriors = predictor(normalise(image, mode="head"))
    inside = _largest(posteriors[0] < 0.5)
    return posteriors, inside, float(inside.sum()) * grid.voxel_volume / 1000


def _plausible(millilitres: float) -> bool:
    return _SMALLEST_ML <= millilitres <= _LARGEST_ML


def _roomy(view: Grid, preparation: Preparation) -> Grid:
    """The network's grid over a field of view, with air around one smaller than its window.

    The network was never shown less than a window: of a low field of view as it is, it finds
    half of the brain.
    """
    grid = canonical_grid(view, preparation.spacing)
    short = np.maximum(np.array(preparation.window) - grid.shape, 0)
    before = short // 2
    return grid.crop((-before).tolist(), (grid.shape + short - before).tolist())


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest: NDArray[np.bool_] = pieces == sizes.argmax()
    return largest


def _deep_centre(
    probability: NDArray[np.float32], inside: NDArray[np.bool_], grid: Grid
) -> tuple[float, float, float] | None:
    """The middle of the box around the deep structures."""
    deep = _largest((probability > _DEEP) & inside)
    if float(deep.sum()) * grid.voxel_volume / 1000 < _SMALLEST_DEEP_ML:
        return None
    low, high = np.percentile(np.argwhere(deep), (0.5, 99.5), axis=0)
    centre = grid.to_world([(low + high) / 2])[0]
    return float(centre[0]), float(centre[1]), float(centre[2])


def brain_of(context: SessionContext) -> Brain:
    """The brain in the T1w of a session, looked for once.

    Raises:
        SkippedTask: there is no T1w.
        SegmentationError: no brain was found.
    """
    return context.once("brain", lambda: find_brain(context.t1w, context.predictors("brain")))


def orientation_of(context: SessionContext) -> tuple[Finding, ...]:
    """Whether the T1w looks better turned over; asked only where something is odd."""
    return context.once(
        "orientation", lambda: check_orientation(context.t1w, context.predictors("brain"))
    )


def _segment(context: SessionContext) -> Segmentation:
    brain = brain_of(context)
    turned = orientation_of(context) if brain.centre is None else ()
    result = found_in(brain, segment(context.t1w, brain, context.predictors("brain")), *turned)
    (row,) = result.measures or (None,)
    return result if row is None else replace(result, brain_mm3=row.volume_mm3)


def _segment_prepared(images: Mapping[str, Volume], predictor: Predictor) -> Segmentation:
    volume = images[T1W]
    return segment(volume, find_brain(volume, predictor), predictor)


TASK = TaskSpec(
    name="brain",
    title="Brain",
    description="Brain mask",
    segment=_segment,
    segment_prepared=_segment_prepared,
    models=("brain",),
    table=TABLE,
    output=Output({"desc": "brain"}, suffix="mask", kind="Brain"),
    brain_mask=True,
    whole_brain=True,
    methods="The brain was extracted from the head.",
    judged_raw=True,
    figure=Figure(margin_mm=45.0, plane=0, window_inside=True),
    costs=Costs(window_seconds=0.3, network_mib=180),
)

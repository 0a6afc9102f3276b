"""``brain``: from a raw head to the brain mask, and to where the deep structures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import SegmentationError, SignalError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.brightness import Gradient, brightness_gradient
from deepmrseg_bids.imaging.grid import (
    Array,
    Grid,
    axes_of,
    canonical_grid,
    covered,
    overlap,
    resample,
)
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.morphology import box_of, closed, dilated, filled, largest
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.intracranial import Intracranial, find_inside, mask_beside, row_of
from deepmrseg_bids.tasks.outline import Outline, find_outline, is_fine
from deepmrseg_bids.tasks.qc import check_brain, check_given_mask
from deepmrseg_bids.tasks.results import (
    Part,
    Posteriors,
    Segmentation,
    expected_dice,
    found_in,
    measure,
)
from deepmrseg_bids.tasks.spec import T1W, Costs, Figure, Output, Predictors, TaskSpec

if TYPE_CHECKING:
    from deepmrseg_bids.inference.bundle import Preparation
    from deepmrseg_bids.inference.predictor import Predictor
    from deepmrseg_bids.tasks.pipeline import SessionContext

__all__ = [
    "MODELS",
    "TABLE",
    "TASK",
    "Brain",
    "brain_of",
    "carried",
    "check_orientation",
    "find_brain",
    "may_be_turned",
    "orientation_of",
    "segment",
    "t1w_of",
]

MODELS = ("brain", "icv", "outline")
"""What :func:`brain_of` needs."""
TABLE = LabelTable((Label(1, "Brain", "BR", "#3cb44b"),))

_SMALLEST_ML, _LARGEST_ML = 300.0, 2800.0
_SMOOTHED_MM = 1.2  # sigma of the second look
_GLANCE = 0.1  # overlap of windows that only tell where the brain is
_BOX_MM = 212.0  # edge of the cube that counts: any brain, however it is turned, and little neck
_LOOKS = 4  # in that cube, at most; two are usual
_APART_MM = 60.0  # the middles of two heads are further from each other
_STEP_MM = 8.0  # its middle lies on a lattice
_CORE = 0.7  # of the largest depth: deep inside a brain, never in a neck
_REACH_MM = 115.0  # from there to its farthest end
_UPPER_MM, _BELOW_TOP_MM = 100.0, 58.0  # of a height of 120 to 150 mm
_EMPTY = 0.02  # of the brain's median: noise of what was taken away
_CLOSED_MM = 2.0  # gaps in a mask that came with a scan
_LEAST_COMMON, _MOST_MORE = 0.9, 1.5  # of that mask and the brain that the network finds
_LARGEST_GIVEN_ML = 2300.0
_OF_THE_NETWORK = {"brain-unsure", "brain-volume"}  # findings about a mask that is not used
_UNEVEN, _UNEVEN_USUAL = 1.75, 1.6  # 29 real scans of four kinds: 1.03 to 1.60
_SURE = 0.9  # a mask below is looked for again in the smoothed scan
_SURER = 0.02  # by which that has to be better
_DEEP = 0.2  # low, so that both sides of a doubtful case hang together
_ODD = {"brain-cut", "brain-shape", "brain-volume"}  # what a head that lies wrong may have, too
_TURNED, _TURNED_MORE = 0.7, 0.05  # upright heads: 0.8 and more, at least 0.07 above turned ones
_UPRIGHT = 0.76  # no turned head is so sure
_Way = tuple[tuple[int, ...], tuple[int, ...]]  # order of the axes, and those turned round
_FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
# upright as the header says, turned over, then on a side; mirrored ones look as others do
_WAYS: tuple[_Way, ...] = tuple(
    (order, flips) for order in permutations(range(3)) for flips in _FLIPS
)
_AXES = ("left-right", "back-front", "bottom-top")
_SMALLEST_DEEP_ML = 5.0  # of 14 structures that together measure 40 to 60 ml


@dataclass(frozen=True, eq=False)
class Brain:
    """The brain of a head, at the resolution of its network.

    Attributes:
        probability: (I, J, K) of being brain, zero outside the largest connected part.
        grid: the network's spacing; its axes are those of the scan that point to right, front
            and top.
        centre: middle of the deep structures, RAS+ millimetres; None if none were found.
        confidence: see :class:`deepmrseg_bids.tasks.results.Measure`.
        given: the mask of a skull-stripped scan, on the scan's grid; it is the brain.
        inside: of the skull; None if it was not looked for, or if there is no skull.
        outline: the brain at 1 mm; None if it was not looked for, in a coarse scan, in a
            skull-stripped one, and where its network failed.
        uneven: how its brightness changes from end to end, where that is a lot.
        deep_confidence: how sure the network is of the deep structures.
    """

    probability: NDArray[np.float32]
    grid: Grid
    centre: tuple[float, float, float] | None
    confidence: float | None
    findings: tuple[Finding, ...] = ()
    given: LabelMap | None = None
    inside: Intracranial | None = None
    outline: Outline | None = None
    uneven: Gradient | None = None
    deep_confidence: float | None = None

    @property
    def volume_mm3(self) -> float:
        """Volume of the mask, at its network's resolution."""
        finest = self.outline or self
        return float((finest.probability > 0.5).sum()) * finest.grid.voxel_volume

    @property
    def icv_mm3(self) -> float | None:
        """The intracranial volume; None where it is not known."""
        return None if self.inside is None else self.inside.volume_mm3

    @property
    def axes(self) -> NDArray[np.float64]:
        """(3, 3) towards right, front and top of the scan; crops are cut along them."""
        return axes_of(self.grid)

    def outlined_on(self, grid: Grid) -> NDArray[np.bool_]:
        """The brain mask as it is published, on any grid, (*grid.shape)."""
        if self.outline is None:
            return self.mask_on(grid)
        return carried(self.outline.probability, self.outline.grid, grid)

    def mask_on(self, grid: Grid) -> NDArray[np.bool_]:
        """The brain and the fluid of its sulci, which networks see, on any grid, (*grid.shape)."""
        if self.given is not None:
            if grid == self.given.grid:
                return self.given.data > 0
            return carried(self.given.data, self.given.grid, grid)
        return carried(self.probability, self.grid, grid)


def carried(share: Array, source: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Where a share of the brain is more than half, on another grid."""
    return _carried(share, source, grid) > 0.5


def _carried(share: Array, source: Grid, grid: Grid) -> NDArray[np.float32]:
    """A share of the brain on another grid; only the box that holds it is looked at."""
    out = np.zeros(grid.shape, dtype=np.float32)
    box = box_of(share > 0)
    if box is None:
        return out
    part = Part.needed(source, box, grid)
    here = overlap(part.grid, grid)
    if here is not None:
        target = grid.part(here)
        out[here] = resample(share[part.box], part.grid, target)
    return out


@dataclass(frozen=True, eq=False)
class _Look:
    """What the network saw, and said of it.

    Attributes:
        image: (I, J, K) on ``grid``.
        posteriors: (3, I, J, K) background, brain, deep structures.
        parts: (I, J, K) all of what was scanned that may be brain.
        inside: (I, J, K) the brain: the largest connected part.
    """

    grid: Grid
    image: Array
    posteriors: NDArray[np.float32]
    parts: NDArray[np.bool_]
    inside: NDArray[np.bool_]

    @property
    def second(self) -> NDArray[np.bool_]:
        """(I, J, K) the second largest part."""
        return largest(self.parts & ~self.inside)

    @property
    def millilitres(self) -> float:
        return float(self.inside.sum()) * self.grid.voxel_volume / 1000

    @property
    def plausible(self) -> bool:
        return _SMALLEST_ML <= self.millilitres <= _LARGEST_ML

    @cached_property
    def confidence(self) -> float:
        """The Dice that the posteriors promise; 0 for a mask that cannot be a brain."""
        if not self.plausible:
            return 0.0
        return expected_dice(1 - self.posteriors[0], self.inside) or 0.0

    @property
    def middle(self) -> NDArray[np.float64]:
        """(3,) RAS+ millimetres: the middle of the brain, by its top and its sides.

        Its lower end is not asked: a neck that was taken for brain would move it.
        """
        box = box_of(self.inside) or ()
        coarse = np.pad(self.inside[box][::2, ::2, ::2], 1)
        depth = ndimage.distance_transform_edt(coarse)[1:-1, 1:-1, 1:-1]
        core = 2 * np.argwhere(depth > _CORE * depth.max()).mean(axis=0) + [s.start for s in box]
        voxels = np.argwhere(self.inside)
        spacing = self.grid.spacing[0]
        near = voxels[(np.abs(voxels - core) <= _REACH_MM / spacing).all(axis=1)]
        top = np.percentile(near[:, 2], 99.5)
        low, high = np.percentile(near[near[:, 2] > top - _UPPER_MM / spacing], (0.5, 99.5), axis=0)
        x, y, _ = (low + high) / 2
        middle: NDArray[np.float64] = self.grid.to_world([[x, y, top - _BELOW_TOP_MM / spacing]])[0]
        return middle


def find_brain(volume: Volume, predictor: Predictor, *, given: bool = True) -> Brain:
    """Find the brain in a raw head.

    The whole field of view tells where it is. What counts is a second look, in a cube around
    it: how much air or neck was scanned around a brain makes no difference to it.

    Args:
        given: the brain of a skull-stripped scan is what is left in it, not what is found.

    Raises:
        SegmentationError: what was found cannot be a whole human brain.
    """
    view = _roomy(volume.grid, predictor.bundle.preparation)
    whole = _look(volume, view, predictor, overlap=_GLANCE)
    look, smoothed = _settled(volume, whole, predictor, smoothed=False), False
    if look.confidence < _SURE:  # strong noise hides a brain
        again = _look(volume, view, predictor, smoothed=True, overlap=_GLANCE)
        again = _settled(volume, again, predictor, smoothed=True)
        if smoothed := again.confidence > look.confidence + _SURER:
            look = again
    if not look.plausible:
        raise _no_brain(volume, whole.millilitres)
    inside, grid = look.inside, look.grid
    image = resample(volume.data, volume.grid, grid) if smoothed else look.image
    probability = 1 - look.posteriors[0]
    whole_brain = filled(inside)
    probability = np.where(
        whole_brain & ~inside, 1, np.where(dilated(inside), probability, 0)
    ).astype(np.float32)
    centre = _deep_centre(look.posteriors[2], inside, grid)
    unseen = Finding("no-deep-structures", "error", "the deep structures were not found")
    confidence = expected_dice(probability, whole_brain)
    findings = check_brain(whole_brain, image, grid, volume.grid, confidence=confidence)
    findings = findings if centre else (unseen, *findings)
    sure = _deep_confidence(look.posteriors)
    brain = Brain(probability, grid, centre, confidence, findings, deep_confidence=sure)
    brain = _lit(brain, image, whole_brain)
    if given and "skull-stripped" in {finding.code for finding in findings}:
        brain = _with_given_mask(volume, brain)
    odd = _several(volume, whole, look, predictor)
    if smoothed:
        text = "the brain was found only after smoothing: is the image noisy?"
        odd = (*odd, Finding("brain-noisy", "warning", text))
    return replace(brain, findings=(*brain.findings, *odd))


def _several(
    volume: Volume, whole: _Look, found: _Look, predictor: Predictor
) -> tuple[Finding, ...]:
    """Whether there is another brain than the one that was found.

    What the whole field of view shows may be neck: it is looked at in a cube around it, as the
    brain was, and a look that ends at the same brain found no other.
    """
    apart = replace(whole, inside=whole.second)
    if apart.millilitres < _SMALLEST_ML:
        return ()
    try:
        other = _settled(volume, apart, predictor, smoothed=False)
    except SignalError:  # all of it is equal
        return ()
    if not other.plausible or np.linalg.norm(other.middle - found.middle) < _APART_MM:
        return ()
    text = (
        f"the image contains a second brain ({other.millilitres:.0f} ml): several heads in one "
        "image? One of them was segmented"
    )
    return (Finding("several-heads", "error", text),)


def _lit(brain: Brain, image: Array, inside: NDArray[np.bool_]) -> Brain:
    """A brain with how unevenly it is lit, if that is more than usual."""
    gradient = brightness_gradient(image, inside, brain.grid)
    if gradient is None or gradient.ratio <= _UNEVEN:
        return brain
    text = (
        f"brightness changes by a factor of {gradient.ratio:.1f} across the brain (usual: 1.0 to "
        f"{_UNEVEN_USUAL}), for example because of a surface coil: it was evened out before the "
        "structures were segmented; check them"
    )
    finding = Finding("brightness-uneven", "warning", text)
    return replace(brain, findings=(*brain.findings, finding), uneven=gradient)


def _with_given_mask(volume: Volume, brain: Brain) -> Brain:
    """The brain of a skull-stripped scan: what is left in it, if that can be a brain.

    The network was trained on whole heads, and finds too little in what has no skull.
    """
    found = brain.mask_on(volume.grid)
    middle = float(np.median(volume.data[found])) if found.any() else 0.0
    least = _EMPTY * abs(middle)
    left = largest((volume.data > least) | (volume.data < -least))
    steps = [max(1, round(_CLOSED_MM / edge)) for edge in volume.grid.spacing]
    given = filled(closed(left, steps))
    millilitres = float(given.sum()) * volume.grid.voxel_volume / 1000
    share = float(given[found].mean()) if found.any() else 0.0
    more = float(given.sum()) / max(float(found.sum()), 1.0)
    if share < _LEAST_COMMON or more > _MOST_MORE or millilitres > _LARGEST_GIVEN_ML:
        text = (
            f"the mask of the skull-stripped image ({millilitres:.0f} ml) does not agree with the "
            "brain that was found: it was not used, and the brain mask may be too small"
        )
        return replace(brain, findings=(*brain.findings, Finding("mask-doubtful", "warning", text)))
    mask = LabelMap(given.astype(np.uint8), volume.grid)
    probability = _carried(mask.data, volume.grid, brain.grid)
    kept = [one for one in brain.findings if one.code not in _OF_THE_NETWORK]
    text = (
        "the image appears skull-stripped: its own mask was used as the brain mask "
        f"({millilitres:.0f} ml; the network finds {brain.volume_mm3 / 1000:.0f} ml in it)"
    )
    kept = [replace(f, message=text) if f.code == "skull-stripped" else f for f in kept]
    findings = (*kept, *check_given_mask(given, volume.grid))
    confidence = expected_dice(brain.probability, probability > 0.5)
    return replace(
        brain, probability=probability, confidence=confidence, findings=findings, given=mask
    )


def _settled(volume: Volume, look: _Look, predictor: Predictor, *, smoothed: bool) -> _Look:
    """The look in a cube around the brain, once its middle stays where it is.

    Much neck may have been taken for brain before: a look that found too much is followed.
    """
    if look.millilitres < _SMALLEST_ML:
        return look
    spacing = predictor.bundle.preparation.spacing
    window = predictor.bundle.preparation.window
    edge = 2 * round(_BOX_MM / spacing / 2)
    shape = (max(edge, window[0]), max(edge, window[1]), max(edge, window[2]))
    whole = canonical_grid(volume.grid, spacing, axes=axes_of(volume.grid))
    cube = _cube_around(look.middle, whole, shape)
    for _ in range(_LOOKS):
        look = _look(volume, cube, predictor, smoothed=smoothed)
        if not look.plausible:
            break
        before, cube = cube, _cube_around(look.middle, whole, shape)
        if cube == before:
            break
    return look


def _cube_around(point: NDArray[np.float64], whole: Grid, shape: tuple[int, int, int]) -> Grid:
    """A cube of voxels of ``whole``, near a point (3,) in RAS+ millimetres.

    It begins at one of few places, so that looks that began apart end in the same cube.
    """
    axes = whole.affine[:3, :3] / np.array(whole.spacing)
    place = axes @ (np.round(axes.T @ point / _STEP_MM) * _STEP_MM)
    start = np.round(whole.to_voxel(place[None])[0] - (np.array(shape) - 1) / 2).astype(int)
    return whole.crop(start.tolist(), (start + shape).tolist())


def _no_brain(volume: Volume, millilitres: float) -> SegmentationError:
    return SegmentationError(
        f"{volume.source or 'the image'}: {millilitres:.0f} ml found, but a brain "
        f"has {_SMALLEST_ML:.0f} to {_LARGEST_ML:.0f} ml: not a whole head, or "
        "not an MRI of a head; inspect the image"
    )


def check_orientation(volume: Volume, predictor: Predictor) -> tuple[Finding, ...]:
    """Whether the deep structures are easier to find in a scan that is turned over or on its side.

    A network that was never shown such a head is less sure of it. Worth its looks only where
    something is odd. Left and right look the same: a header that exchanges them cannot be
    noticed so.
    """
    grid = _roomy(volume.grid, predictor.bundle.preparation)
    image = normalise(resample(volume.data, volume.grid, grid), mode="head")
    sure: dict[_Way, float] = {}
    for order, flips in _WAYS:
        turned = np.flip(image.transpose(order), flips)
        posteriors = predictor(np.ascontiguousarray(turned))
        sure[order, flips] = _deep_confidence(posteriors)
        if sure[order, flips] >= _UPRIGHT:
            break  # none of the others can be better by much
    as_it_is = sure[_WAYS[0]]
    best = max(sure, key=lambda way: sure[way])
    if sure[best] < max(_TURNED, as_it_is + _TURNED_MORE):
        return ()
    text = (
        "confidence of the deep structures is higher with the image turned "
        f"{_described(*best)} ({sure[best]:.2f} compared with {as_it_is:.2f}): the "
        "orientation in the header is wrong; convert the scan again, or correct its header"
    )
    return (Finding("orientation-doubtful", "error", text),)


def _described(order: tuple[int, ...], flips: tuple[int, ...]) -> str:
    """A way to turn a head, in words."""
    over = " and ".join(("back to front", "upside down")[axis - 1] for axis in reversed(flips))
    swapped = ", ".join(
        f"{_AXES[told]} in the header is {_AXES[axis]} of the head"
        for axis, told in enumerate(order)
        if axis != told
    )
    return "; ".join(filter(None, (f"by 90 degrees: {swapped}" if swapped else "", over)))


def _deep_confidence(posteriors: NDArray[np.float32]) -> float:
    """How sure the network is of the deep structures; 0 where it finds none."""
    deep = posteriors[2] > np.maximum(posteriors[0], posteriors[1])
    return expected_dice(posteriors[2], deep) or 0.0


def may_be_turned(brain: Brain) -> bool:
    """Whether a brain is odd in a way in which one that lies wrong is."""
    unsure = brain.deep_confidence is not None and brain.deep_confidence < _UPRIGHT
    odd = not _ODD.isdisjoint(finding.code for finding in brain.findings)
    return brain.centre is None or unsure or odd


def segment(volume: Volume, brain: Brain, predictor: Predictor) -> Segmentation:
    """The brain mask on the scan's own grid.

    Args:
        predictor: of the network that drew it.

    Raises:
        SegmentationError: what would be written cannot be a brain.
    """
    labels = LabelMap(brain.outlined_on(volume.grid).astype(np.uint8), volume.grid)
    finest = brain.outline or brain
    rows = measure(labels, TABLE, {1: finest.confidence}, predictor.bundle)
    if brain.given is not None:  # not an error of the network
        rows = tuple(replace(row, low_mm3=None, high_mm3=None) for row in rows)
    if not _SMALLEST_ML <= rows[0].volume_mm3 / 1000 <= _LARGEST_ML:
        raise _no_brain(volume, rows[0].volume_mm3 / 1000)
    outside = np.stack([1 - finest.probability, finest.probability])
    posteriors = Posteriors(outside, finest.grid, (0, 1))
    return Segmentation(
        "brain", labels, TABLE, rows, (posteriors,), brain.findings, how=_how(volume, brain)
    )


def _how(volume: Volume, brain: Brain) -> str:
    """How the mask of this scan was made, a sentence."""
    if brain.given is not None:
        return "The mask of the skull-stripped image was used."
    if brain.outline is not None:
        mm = brain.outline.grid.spacing[0]
        return f"The mask follows the sulci: it was outlined at {mm:g} mm."
    coarse = "" if is_fine(volume.grid) else ", because the voxels of the image are large"
    return f"The mask was drawn at {brain.grid.spacing[0]:g} mm{coarse}."


def _look(
    volume: Volume,
    grid: Grid,
    predictor: Predictor,
    *,
    smoothed: bool = False,
    overlap: float = 0.5,
) -> _Look:
    """What the network says of one part of a scan."""
    image = resample(volume.data, volume.grid, grid)
    if smoothed:
        image = ndimage.gaussian_filter(image, _SMOOTHED_MM / grid.spacing[0])
    scanned = covered(volume.grid, grid)
    if not scanned.any():
        return _Look(grid, image, np.zeros((3, *grid.shape), np.float32), scanned, scanned)
    posteriors = predictor(normalise(image, mode="head", scanned=scanned), overlap=overlap)
    # the last voxels of a scan count whole
    parts = (posteriors[0] < 0.5) & dilated(scanned)
    return _Look(grid, image, posteriors, parts, largest(parts))


def _roomy(view: Grid, preparation: Preparation) -> Grid:
    """The network's grid over a field of view, with air around one smaller than its window.

    The network was never shown less than a window: of a low field of view as it is, it finds
    half of the brain.
    """
    grid = canonical_grid(view, preparation.spacing, axes=axes_of(view))
    short = np.maximum(np.array(preparation.window) - grid.shape, 0)
    before = short // 2
    return grid.crop((-before).tolist(), (grid.shape + short - before).tolist())


def _deep_centre(
    probability: NDArray[np.float32], inside: NDArray[np.bool_], grid: Grid
) -> tuple[float, float, float] | None:
    """The middle of the box around the deep structures."""
    deep = largest((probability > _DEEP) & inside)
    if float(deep.sum()) * grid.voxel_volume / 1000 < _SMALLEST_DEEP_ML:
        return None
    x, y, z = (float(mm) for mm in grid.to_world(_middle(deep)[None])[0])
    return x, y, z


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(3,) the middle of the box that holds 99 % of a mask along each axis, to parts of a voxel."""
    middle = []
    for axis, edge in enumerate(mask.shape):
        slices = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        below = np.concatenate([[0], np.cumsum(slices)]) / slices.sum()
        middle.append(np.interp((0.005, 0.995), below, np.arange(edge + 1) - 0.5).mean())
    return np.array(middle)


def brain_of(context: SessionContext) -> Brain:
    """The brain in the T1w of a session, looked for once.

    Raises:
        SkippedTask: there is no T1w.
        SegmentationError: no brain was found.
    """
    return context.once("brain", lambda: _found(context))


def _found(context: SessionContext) -> Brain:
    brain = find_brain(context.t1w, context.predictors("brain"))
    if any(finding.code == "skull-stripped" for finding in brain.findings):
        return brain
    inside = find_inside(context.t1w, brain.grid, brain.probability, context.predictors("icv"))
    brain = replace(brain, inside=inside)
    if not is_fine(context.t1w.grid):
        return brain
    volume, network = _evened(context.t1w, brain), context.predictors("outline")
    outline = find_outline(volume, brain.probability, brain.grid, brain.mask_on, network)
    return replace(brain, outline=outline)


def _evened(volume: Volume, brain: Brain) -> Volume:
    """A scan, its brightness evened out where it is very uneven."""
    if brain.uneven is None:
        return volume
    return replace(volume, data=brain.uneven.evened(volume.data, volume.grid))


def t1w_of(context: SessionContext) -> Volume:
    """The T1w of a session, its brightness evened out where it is very uneven."""
    return context.once("evened", lambda: _evened(context.t1w, brain_of(context)))


def orientation_of(context: SessionContext) -> tuple[Finding, ...]:
    """Whether the T1w looks better turned over; asked only where something is odd."""
    return context.once(
        "orientation", lambda: check_orientation(context.t1w, context.predictors("brain"))
    )


def _segment(context: SessionContext) -> Segmentation:
    brain = brain_of(context)
    turned = orientation_of(context) if may_be_turned(brain) else ()
    drawn_by = context.predictors("brain" if brain.outline is None else "outline")
    result = found_in(brain, segment(context.t1w, brain, drawn_by), *turned)
    if result.measures:
        result = replace(result, brain_mm3=result.measures[0].volume_mm3)
    if brain.inside is None:
        return result
    mask = mask_beside(brain.inside, result.labels)
    row = row_of(mask, brain.inside)
    rows = (*result.measures, row)
    return replace(result, measures=rows, beside=(mask,), icv_mm3=row.volume_mm3)


def _segment_prepared(images: Mapping[str, Volume], predictors: Predictors) -> Segmentation:
    volume, predictor = images[T1W], predictors("brain")
    return segment(volume, find_brain(volume, predictor), predictor)


TASK = TaskSpec(
    name="brain",
    title="Brain",
    description="Brain mask",
    segment=_segment,
    segment_prepared=_segment_prepared,
    models=("icv", "outline", "brain"),
    table=TABLE,
    output=Output({"desc": "brain"}, suffix="mask", kind="Brain"),
    brain_mask=True,
    whole_brain=True,
    methods=(
        "In heads with a skull, the brain was extracted at 2 mm and, where voxels are at most "
        "1.5 mm wide, outlined at 1 mm, and the inside of the skull was segmented. For "
        "skull-stripped images, the mask of the image was used."
    ),
    judged_raw=True,
    figure=Figure(margin_mm=45.0, plane=0, window_inside=True),
    costs=Costs(window_seconds=0.3, network_mib=180),
)

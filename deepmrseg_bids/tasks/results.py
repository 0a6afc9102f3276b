"""What every task gives back, and the way from posteriors to labels on the input's grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, overlap, resample, sample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.morphology import box_above, box_of, widened
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.calibration import Calibration
from deepmrseg_bids.tasks.spec import Output
from deepmrseg_bids.wording import counted

__all__ = [
    "Beside",
    "Box",
    "Measure",
    "Part",
    "Posteriors",
    "Segmentation",
    "Sides",
    "confidences",
    "expected_dice",
    "found_in",
    "label_map",
    "labels_at",
    "largest_parts",
    "measure",
    "native_posteriors",
    "segmented",
]

Box: TypeAlias = tuple[slice, ...]
_ROUNDING = 1e-3  # of what a class needs
_LEAST = 0.1  # it would take ten other classes, all as unlikely


@dataclass(frozen=True)
class Measure:
    """The numbers of one structure.

    Attributes:
        volume_mm3: voxels with the label times the volume of a voxel.
        low_mm3, high_mm3: 90 % interval from the model's errors on scans it never saw; None
            where the model was not calibrated, or, if nothing was found, not for that.
        confidence: the Dice to expect, in [0, 1]; None if nothing was found.
        floor_mm3: volumes below it are not distinguishable from none; None where the model
            states no floor.
    """

    index: int
    name: str
    volume_mm3: float
    low_mm3: float | None = None
    high_mm3: float | None = None
    confidence: float | None = None
    floor_mm3: float | None = None

    @property
    def below_floor(self) -> bool:
        """Whether the volume is not distinguishable from none."""
        return self.floor_mm3 is not None and self.volume_mm3 < self.floor_mm3


@dataclass(frozen=True, eq=False)
class Sides:
    """On which side of the brain each voxel lies.

    Attributes:
        right: (I, J, K) the probability of the right side, on the grid of the posteriors.
        left_of: the label on the left for each label on the right that stands for both.
    """

    right: NDArray[np.float32]
    left_of: Mapping[int, int]

    @cached_property
    def right_of(self) -> dict[int, int]:
        """The label on the right for each on the left."""
        return {left: right for right, left in self.left_of.items()}

    def told_apart(self, labels: NDArray[Any], right: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """The same labels where it is known how far each lies on the right; both (...)."""
        table = np.arange(max(*self.left_of, *self.left_of.values(), 0) + 1).astype(labels.dtype)
        for one, other in self.left_of.items():
            table[one] = other
        return np.where(right < 0.5, table[labels], labels)


@dataclass(frozen=True, eq=False)
class Posteriors:
    """What a network answered.

    Attributes:
        data: (classes, I, J, K) probabilities, background first; float32, or uint16 of which
            ``one`` stands for certainty.
        grid: where the network worked.
        indices: (classes,) the label index of each class, 0 for the background.
        sides: of a network that takes both sides of a structure for one class.
    """

    data: NDArray[np.float32] | NDArray[np.uint16]
    grid: Grid
    indices: tuple[int, ...]
    sides: Sides | None = None

    def __post_init__(self) -> None:
        if self.data.shape[1:] != self.grid.shape or len(self.indices) != len(self.data):
            raise ValueError(
                f"posteriors of shape {self.data.shape} on a grid of {self.grid.shape} for "
                f"{counted(len(self.indices), 'class', 'classes')}"
            )

    @property
    def one(self) -> float:
        """What stands for certainty in ``data``."""
        return 65535.0 if self.data.dtype == np.uint16 else 1.0

    def labels(self) -> NDArray[np.uint8]:
        """The most likely class in each voxel, (I, J, K), not to be written to."""
        return self._labels

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        best = self.data[0].copy()
        likely = np.zeros(self.grid.shape, dtype=np.uint8)
        wins = np.empty(self.grid.shape, dtype=bool)  # a new one for each class would take longer
        for number, share in enumerate(self.data[1:], start=1):  # faster than argmax
            np.putmask(likely, np.greater(share, best, out=wins), number)
            np.maximum(best, share, out=best)
        likely.flags.writeable = False
        return likely

    def chosen(self) -> NDArray[np.unsignedinteger[Any]]:
        """The label index in each voxel, (I, J, K)."""
        label: NDArray[Any] = np.array(self.indices, dtype=self.label_type)
        found: NDArray[np.unsignedinteger[Any]] = label[self.labels()]
        return found if self.sides is None else self.sides.told_apart(found, self.sides.right)

    @property
    def label_type(self) -> np.dtype[Any]:
        """The smallest unsigned type for its label indices."""
        paired = () if self.sides is None else self.sides.left_of.values()
        return np.min_scalar_type(max(*self.indices, *paired))

    def of(self, index: int) -> NDArray[np.float32] | None:
        """The probability of a label, (I, J, K); None for one that the network does not know."""
        sides = self.sides
        known = index if sides is None else sides.right_of.get(index, index)
        if known not in self.indices[1:]:
            return None
        data = self.data[self.indices.index(known, 1)]
        whole: NDArray[np.float32] = data.astype(np.float32, copy=False)
        if self.one != 1:
            whole = whole / np.float32(self.one)
        if sides is None or known not in sides.left_of:
            return whole
        share: NDArray[np.float32] = whole * (sides.right if index == known else 1 - sides.right)
        return share


class BrainFound(Protocol):
    """What :func:`found_in` reads of a brain."""

    @property
    def volume_mm3(self) -> float: ...
    @property
    def icv_mm3(self) -> float | None: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...


@dataclass(frozen=True, eq=False)
class Beside:
    """A mask that is written beside a label map; the table of volumes has a row for it.

    Attributes:
        output: how BIDS names it.
        description: for its sidecar.
    """

    output: Output
    labels: LabelMap
    description: str


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of one task for one image.

    Attributes:
        labels: on the input's own grid.
        posteriors: what the labels were made from; several where a task works in parts.
        findings: what a careful reader should know.
        brain_mm3: volume of the brain mask of the same scan.
        icv_mm3: its intracranial volume.
        regions: composite regions, see :mod:`deepmrseg_bids.tasks.regions`.
        beside: further masks.
        how: what was special about the way to it, a sentence for its sidecar.
    """

    task: str
    labels: LabelMap
    table: LabelTable
    measures: tuple[Measure, ...]
    posteriors: tuple[Posteriors, ...] = ()
    findings: tuple[Finding, ...] = ()
    brain_mm3: float | None = None
    icv_mm3: float | None = None
    regions: tuple[Measure, ...] = ()
    beside: tuple[Beside, ...] = ()
    how: str = ""


def found_in(brain: BrainFound, result: Segmentation, *findings: Finding) -> Segmentation:
    """A result with what is known of the brain it was found in, each finding once.

    Args:
        brain: whose volume and findings hold for the result too.
        findings: more of the way to the result.
    """
    every = tuple(dict.fromkeys((*brain.findings, *findings, *result.findings)))
    return replace(result, brain_mm3=brain.volume_mm3, icv_mm3=brain.icv_mm3, findings=every)


def label_map(posteriors: Posteriors, grid: Grid) -> LabelMap:
    """Bring posteriors to the input's own grid and only then choose a label in each voxel.

    Returns:
        Labels on ``grid``; outside the posteriors' field of view they are 0.
    """
    kind = posteriors.label_type
    out = np.zeros(grid.shape, dtype=kind)
    part = overlap(posteriors.grid, grid)
    if part is not None:
        box = grid.part(part)
        best = resample(posteriors.data[0], posteriors.grid, box, fill=posteriors.one)
        chosen = np.zeros(box.shape, dtype=kind)
        # the most likely of some classes has one share at least, and of many never so little
        least = (1 - _ROUNDING) * max(1 / len(posteriors.data), _LEAST) * posteriors.one
        for index, data in zip(posteriors.indices[1:], posteriors.data[1:], strict=True):
            near = _where_it_can_win(data, least, posteriors.grid, box)
            if near is None:
                continue
            here, source = near
            share = resample(data[source.box], source.grid, box.part(here))
            chosen[here][share > best[here]] = index
            np.maximum(best[here], share, out=best[here])
        if posteriors.sides is not None:
            right = resample(posteriors.sides.right, posteriors.grid, box)
            chosen = posteriors.sides.told_apart(chosen, right)
        out[part] = chosen
    return LabelMap(out, grid)


@dataclass(frozen=True)
class Part:
    """A box of a grid, and the grid of that box."""

    box: Box
    grid: Grid

    @classmethod
    def of(cls, grid: Grid, box: Box, room: int) -> Part:
        """A box with some voxels around it, as far as the grid has them."""
        wide = widened(box, room, grid.shape)
        return cls(wide, grid.part(wide))

    @classmethod
    def needed(cls, grid: Grid, box: Box, target: Grid) -> Part:
        """What another grid needs of a box: as far as interpolation, and averaging, reaches."""
        return cls.of(grid, box, 2 + 2 * int(np.ceil(max(target.spacing) / min(grid.spacing))))


def _where_it_can_win(
    posterior: Array, least: float, grid: Grid, target: Grid
) -> tuple[Box, Part] | None:
    """The voxels of ``target`` that a class may get, and the part of its posterior they need.

    Args:
        least: with less a class never wins.
    """
    core = box_above(posterior, least)
    if core is None:
        return None
    part = Part.needed(grid, core, target)
    here = overlap(part.grid, target)
    return None if here is None else (here, part)


def labels_at(parts: Sequence[Posteriors], points: Array) -> NDArray[np.uint32]:
    """Bring posteriors to any points and only then choose a label at each of them.

    Args:
        parts: of one segmentation; where two know a label, the later one wins.
        points: (3, ...), RAS+ millimetres of the scan.

    Returns:
        (...), the shape of the points; outside the posteriors' field of view it is 0.
    """
    flat = points.reshape(3, -1)
    out = np.zeros(flat.shape[1], dtype=np.uint32)
    for part in parts:
        corners = part.grid.corners()
        near = np.ones(len(out), dtype=bool)  # a box first: most points are far from a crop
        for axis in range(3):
            near &= (flat[axis] >= corners[:, axis].min()) & (flat[axis] <= corners[:, axis].max())
        inside = sample(np.ones(part.grid.shape, np.float32), part.grid, flat[:, near]) > 0
        chosen = _likeliest(part, flat[:, near])
        if part.sides is not None:
            right = sample(part.sides.right, part.grid, flat[:, near])
            chosen = part.sides.told_apart(chosen, right)
        out[near] = np.where(inside & (chosen > 0), chosen, out[near])
    return out.reshape(points.shape[1:])


def _likeliest(posteriors: Posteriors, points: Array) -> NDArray[np.uint32]:
    """The most likely label at each of the points (3, N); class after class, to save memory."""
    best = sample(posteriors.data[0], posteriors.grid, points)
    chosen = np.zeros(points.shape[1], dtype=np.uint32)
    for index, data in zip(posteriors.indices[1:], posteriors.data[1:], strict=True):
        share = sample(data, posteriors.grid, points)
        chosen[share > best] = index
        np.maximum(best, share, out=best)
    return chosen


def largest_parts(posteriors: Posteriors, *, smallest_share: float = 0.2) -> Posteriors:
    """Give the scattered pieces of each class back to the background.

    A connected piece (26 neighbours) stays if it has at least ``smallest_share`` of the
    voxels of the largest one.
    """
    labels = posteriors.labels()
    data = posteriors.data
    copied = False
    for number, box in enumerate(ndimage.find_objects(labels, max_label=len(data) - 1), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(labels[box] == number, structure=np.ones((3, 3, 3)))
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        small = np.isin(pieces, np.flatnonzero(sizes < smallest_share * sizes.max()))
        small &= pieces > 0
        if small.any():
            data = data if copied else data.copy()
            copied = True
            lost = data[number][box]
            data[0][box][small] += lost[small]
            lost[small] = 0
    return replace(posteriors, data=data)


def measure(
    labels: LabelMap,
    table: LabelTable,
    sureness: Mapping[int, float | None],
    bundle: ModelBundle,
    *,
    calibrated_as: Mapping[int, str] | None = None,
) -> tuple[Measure, ...]:
    """Volumes, intervals and confidence of every structure of a table.

    Args:
        sureness: the confidence of each structure, by label index.
        calibrated_as: the name under which the bundle knows a label, where it is another.
    """
    counts = _counts(labels.data, max(table.indices))
    known_as = calibrated_as or {}
    rows = []
    for label in table:
        volume = float(counts[label.index]) * labels.grid.voxel_volume
        known = Calibration.of(bundle.facts, known_as.get(label.index, label.name))
        low, high = known.interval(volume)
        rows.append(
            Measure(
                index=label.index,
                name=label.name,
                volume_mm3=volume,
                low_mm3=low,
                high_mm3=high,
                confidence=known.confidence(sureness.get(label.index), volume),
                floor_mm3=known.floor_mm3 or None,
            )
        )
    return tuple(rows)


def segmented(
    task: str, volume: Volume, posteriors: Posteriors, bundle: ModelBundle
) -> Segmentation:
    """Labels on the grid of a scan and their measures, by the table of a bundle.

    A structure that was not found is an error among the findings.
    """
    labels = label_map(posteriors, volume.grid)
    rows = measure(labels, bundle.labels, confidences(posteriors), bundle)
    lost = tuple(
        Finding("structure-missing", "error", f"{row.name} was not found")
        for row in rows
        if row.volume_mm3 == 0
    )
    return Segmentation(task, labels, bundle.labels, rows, (posteriors,), lost)


def _counts(labels: NDArray[np.integer[Any]], largest: int) -> NDArray[np.int64]:
    """(largest + 1,) voxels of each label; plane by plane, as counting takes a wider type."""
    part = labels[box_of(labels) or ()]
    counts = np.zeros(max(largest, int(part.max(initial=0))) + 1, dtype=np.int64)
    for plane in np.moveaxis(part, int(np.argmax(np.abs(part.strides))), 0):
        counts += np.bincount(plane.ravel(order="K"), minlength=len(counts))
    counts[0] += labels.size - part.size
    return counts


def native_posteriors(result: Segmentation) -> Iterator[NDArray[np.float32]]:
    """Posteriors of each label of the table in turn, (I, J, K) on the input's own grid.

    One after the other: all of them together can take many times the memory of the scan.
    """
    grid = result.labels.grid
    for index in result.table.indices:
        out = np.zeros(grid.shape, dtype=np.float32)
        for part in result.posteriors:
            window = overlap(part.grid, grid)
            data = part.of(index)
            if window is None or data is None:
                continue
            box = grid.part(window)
            out[window] = resample(data, part.grid, box)
        yield out


def confidences(
    posteriors: Posteriors, chosen: NDArray[np.uint8] | None = None
) -> dict[int, float | None]:
    """The confidence of each label that the posteriors know, by label index.

    Args:
        chosen: (I, J, K) the class of each voxel, where it is not the most likely one.
    """
    likely = posteriors.labels() if chosen is None else chosen
    return {
        index: expected_dice(posteriors.data[number], likely == number)
        for number, index in enumerate(posteriors.indices)
        if index
    }


def expected_dice(posterior: Array, chosen: NDArray[np.bool_]) -> float | None:
    """The Dice of ``chosen`` against a truth drawn from the posterior, to first order.

    ``2 sum(p over chosen) / (sum(chosen) + sum(p))``; None where nothing was chosen.
    """
    size = int(chosen.sum())
    if size == 0:
        return None
    total = float(posterior.sum(dtype=np.float64))
    inside = float(posterior[chosen].sum(dtype=np.float64))
    return 2 * inside / (size + total)

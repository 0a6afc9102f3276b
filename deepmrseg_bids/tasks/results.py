"""What every task gives back, and the way from posteriors to labels on the input's grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, overlap, resample, sample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.inference.bundle import ModelBundle

__all__ = [
    "Measure",
    "Posteriors",
    "Segmentation",
    "confidences",
    "expected_dice",
    "found_in",
    "label_map",
    "labels_at",
    "largest_parts",
    "measure",
    "native_posteriors",
]


@dataclass(frozen=True)
class Measure:
    """The numbers of one structure.

    Attributes:
        volume_mm3: voxels with the label times the volume of a voxel.
        low_mm3, high_mm3: 90 % interval from the model's errors on scans it never saw; None
            where the model was not calibrated.
        confidence: the Dice that the posteriors promise, in [0, 1]; None if nothing was found.
    """

    index: int
    name: str
    volume_mm3: float
    low_mm3: float | None = None
    high_mm3: float | None = None
    confidence: float | None = None


@dataclass(frozen=True, eq=False)
class Posteriors:
    """What a network answered.

    Attributes:
        data: (classes, I, J, K) probabilities, background first.
        grid: where the network worked.
        indices: (classes,) the label index of each class, 0 for the background.
    """

    data: NDArray[np.float32]
    grid: Grid
    indices: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.data.shape[1:] != self.grid.shape or len(self.indices) != len(self.data):
            raise ValueError(
                f"posteriors of shape {self.data.shape} on a grid of {self.grid.shape} for "
                f"{len(self.indices)} classes"
            )

    def labels(self) -> NDArray[np.uint8]:
        """The most likely class in each voxel, (I, J, K)."""
        likely: NDArray[np.uint8] = self.data.argmax(axis=0).astype(np.uint8)
        return likely


class BrainFound(Protocol):
    """What :func:`found_in` reads of a brain."""

    @property
    def volume_mm3(self) -> float: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The result of one task for one image.

    Attributes:
        labels: on the input's own grid.
        posteriors: what the labels were made from; several where a task works in parts.
        findings: what a careful reader should know.
        brain_mm3: volume of the brain mask of the same scan.
    """

    task: str
    labels: LabelMap
    table: LabelTable
    measures: tuple[Measure, ...]
    posteriors: tuple[Posteriors, ...] = ()
    findings: tuple[Finding, ...] = ()
    brain_mm3: float | None = None


def found_in(brain: BrainFound, result: Segmentation, *findings: Finding) -> Segmentation:
    """A result with what is known of the brain it was found in, each finding once.

    Args:
        brain: whose volume and findings hold for the result too.
        findings: more of the way to the result.
    """
    every = tuple(dict.fromkeys((*brain.findings, *findings, *result.findings)))
    return replace(result, brain_mm3=brain.volume_mm3, findings=every)


def label_map(posteriors: Posteriors, grid: Grid) -> LabelMap:
    """Bring posteriors to the input's own grid and only then choose a label in each voxel.

    Returns:
        Labels on ``grid``; outside the posteriors' field of view they are 0.
    """
    kind = np.min_scalar_type(max(posteriors.indices))
    out = np.zeros(grid.shape, dtype=kind)
    part = overlap(posteriors.grid, grid)
    if part is not None:
        box = grid.crop([s.start for s in part], [s.stop for s in part])
        best = resample(posteriors.data[0], posteriors.grid, box, fill=1.0)
        chosen = np.zeros(box.shape, dtype=kind)
        for number in range(1, len(posteriors.data)):
            if posteriors.data[number].max() < 1 / len(posteriors.data):
                continue  # it cannot win anywhere
            share = resample(posteriors.data[number], posteriors.grid, box)
            chosen[share > best] = posteriors.indices[number]
            np.maximum(best, share, out=best)
        out[part] = chosen
    return LabelMap(out, grid)


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
        shares = sample(part.data, part.grid, flat[:, near])
        chosen = np.array(part.indices, dtype=np.uint32)[shares.argmax(axis=0)]
        out[near] = np.where(inside & (chosen > 0), chosen, out[near])
    return out.reshape(points.shape[1:])


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
    factors = bundle.facts.get("volume_interval", {})
    known_as = calibrated_as or {}
    rows = []
    for label in table:
        volume = float(counts[label.index]) * labels.grid.voxel_volume
        low, high = factors.get(known_as.get(label.index, label.name), (None, None))
        rows.append(
            Measure(
                index=label.index,
                name=label.name,
                volume_mm3=volume,
                low_mm3=None if low is None else volume * low,
                high_mm3=None if high is None else volume * high,
                confidence=sureness.get(label.index),
            )
        )
    return tuple(rows)


def _counts(labels: NDArray[np.integer[Any]], largest: int) -> NDArray[np.int64]:
    """(largest + 1,) voxels of each label; plane by plane, as counting takes a wider type."""
    counts = np.zeros(max(largest, int(labels.max(initial=0))) + 1, dtype=np.int64)
    for plane in np.moveaxis(labels, int(np.argmax(np.abs(labels.strides))), 0):
        counts += np.bincount(plane.ravel(order="K"), minlength=len(counts))
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
            if window is None or index not in part.indices[1:]:
                continue
            box = grid.crop([s.start for s in window], [s.stop for s in window])
            data = part.data[part.indices.index(index, 1)]
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

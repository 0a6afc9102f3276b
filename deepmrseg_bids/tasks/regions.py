"""Composite regions: lobes, hemispheres, tissues, from the structures of a label map.

A table says of each region which labels it is made of. White matter has one label a side; a
region of it is the part that lies nearer to the cortex of its lobe than to that of any other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import LabelTableError
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.calibration import Calibration
from deepmrseg_bids.tasks.results import Measure
from deepmrseg_bids.tasks.soft_counts import SoftCounts
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.tsv import NOT_KNOWN, read_foreign_tsv

__all__ = [
    "Region",
    "composition_of",
    "measure_regions",
    "read_composition",
    "read_regions",
    "region_volumes",
    "with_regions",
]

_STEP_MM = 2.0  # between the voxels that are asked what they lie near


@dataclass(frozen=True)
class Region:
    """What a region is made of.

    Attributes:
        labels: indices of the label map.
        near: of several regions with the same labels, a voxel belongs to the one whose ``near``
            it is closest to; empty: all of the labels is in the region.
    """

    index: int
    name: str
    labels: tuple[int, ...]
    near: tuple[int, ...] = ()


def read_regions(path: str | os.PathLike[str]) -> tuple[Region, ...]:
    """Read a table with the columns ``index``, ``name``, ``labels`` and ``near``.

    Raises:
        LabelTableError: a column is missing, or a row makes no sense.
    """
    table = read_foreign_tsv(path)
    table.require("index", "name", "labels", "near")
    regions = []
    for line, row in zip(table.lines, table.rows, strict=True):
        try:
            region = Region(
                int(row["index"]), row["name"], _codes(row["labels"]), _codes(row["near"])
            )
        except ValueError as error:
            raise LabelTableError(f"{path}, line {line}: not a region ({error})") from error
        if not region.labels or not region.name:
            raise LabelTableError(f"{path}, line {line}: a region has a name and labels")
        regions.append(region)
    if len({region.name for region in regions}) < len(regions):
        raise LabelTableError(f"{path}: a region is named twice")
    return tuple(regions)


def with_regions(task: TaskSpec, path: Path | None) -> TaskSpec:
    """A task with another table of composite regions, if it measures any.

    Raises:
        LabelTableError: the table cannot be read, or names labels that the task has not.
    """
    if path is None or task.regions is None or task.table is None:
        return task
    for region in read_regions(path):
        if unknown := sorted({*region.labels, *region.near} - set(task.table.indices)):
            raise LabelTableError(
                f"{path}: {region.name}: {task.name} has no label {unknown[0]}; its label table "
                "lists them"
            )
    return replace(task, regions=path)


def composition_of(regions: Sequence[Region]) -> dict[str, dict[str, list[int]]]:
    """What regions are made of, by their names, for the sidecar of their table."""
    return {
        region.name: {"Labels": list(region.labels)}
        | ({"Near": list(region.near)} if region.near else {})
        for region in regions
    }


def read_composition(stated: Any, rows: Sequence[tuple[int, str]]) -> tuple[Region, ...]:
    """The inverse of :func:`composition_of`; what is not understood is left out.

    Args:
        rows: index and name of each region, from the table.
    """
    regions = []
    for index, name in rows:
        try:
            made_of = stated[name]
            labels, near = (tuple(map(int, made_of.get(key, ()))) for key in ("Labels", "Near"))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        regions.append(Region(index, name, labels, near))
    return tuple(regions)


def region_volumes(labels: LabelMap, regions: Sequence[Region]) -> dict[str, float]:
    """The volume of each region, mm3, by its name."""
    largest = max((max(region.labels) for region in regions), default=0)
    counts = np.bincount(labels.data.ravel(), minlength=largest + 1)
    shares = _shares(labels, [region for region in regions if region.near])
    return {
        region.name: float(counts[list(region.labels)].sum())
        * labels.grid.voxel_volume
        * shares.get(region.name, 1.0)
        for region in regions
    }


def measure_regions(
    labels: LabelMap, regions: Sequence[Region], counts: SoftCounts, bundle: ModelBundle
) -> tuple[Measure, ...]:
    """Volume, interval and confidence of each region.

    Where a region is a part of its labels, its confidence is not known.
    """
    volumes = region_volumes(labels, regions)
    rows = []
    for region in regions:
        volume = volumes[region.name]
        low, high = Calibration.of(bundle.facts, region.name).interval(volume)
        sure = None if region.near else counts.expected_dice(region.labels)
        rows.append(Measure(region.index, region.name, volume, low, high, sure))
    return tuple(rows)


def _codes(text: str) -> tuple[int, ...]:
    return () if text in ("", NOT_KNOWN) else tuple(int(code) for code in text.split(","))


def _shares(labels: LabelMap, regions: Sequence[Region]) -> dict[str, float]:
    """Which part of its labels lies in each region, from voxels on a coarser grid."""
    from scipy.spatial import cKDTree  # takes a while to import

    shares = {}
    for members in {region.labels for region in regions}:
        group = [region for region in regions if region.labels == members]
        points = _sampled(labels, members)
        places = [_sampled(labels, region.near) for region in group]
        owner = np.repeat(np.arange(len(group)), [len(part) for part in places])
        if not len(points) or not len(owner):
            shares.update({region.name: 0.0 for region in group})
            continue
        nearest = cKDTree(np.concatenate(places)).query(points)[1]
        parts = np.bincount(owner[nearest], minlength=len(group)) / len(points)
        shares.update({r.name: float(part) for r, part in zip(group, parts, strict=True)})
    return shares


def _sampled(labels: LabelMap, codes: Sequence[int]) -> NDArray[np.float64]:
    """(N, 3) places of some voxels with one of the codes, millimetres, evenly spread."""
    steps = [max(1, round(_STEP_MM / edge)) for edge in labels.grid.spacing]
    thin = labels.data[tuple(slice(None, None, step) for step in steps)]
    wanted = np.zeros(int(max(thin.max(), *codes)) + 1, dtype=bool)
    wanted[list(codes)] = True
    places: NDArray[np.float64] = labels.grid.to_world(np.argwhere(wanted[thin]) * steps)
    return places

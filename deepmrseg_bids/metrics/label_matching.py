"""A label map against a reference of another origin: labels by name, grids made one.

The reference's grid is that of the comparison, so that the reference stays as somebody drew it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.imaging.grid import Grid, covered, resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.morphology import filled
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.metrics.overlap import (
    LesionAgreement,
    StructureAgreement,
    labelmap_agreement,
    lesion_agreement,
)

__all__ = [
    "FEWEST_NUMBERS",
    "Comparison",
    "compare",
    "joined",
    "match_by_name",
    "match_by_number",
    "whole_brain",
]

_CLOSE = 0.01  # mm: headers hold affines as float32, so equal grids may differ by less
_SMALLEST_BRAIN = 300_000.0  # mm3, less than at birth
FEWEST_NUMBERS = 4
"""So many equal numbers are no accident."""
_MOST = 0.95  # of many numbers: a small structure may be missing in a person


@dataclass(frozen=True)
class Comparison:
    """What became of one pair of label maps.

    Attributes:
        structures: one entry a label, with the indices of the first label map.
        lesions: counted instead of voxels; None if that was not asked for.
        resampled: the first label map was brought to the reference's grid.
    """

    structures: tuple[StructureAgreement, ...]
    lesions: LesionAgreement | None
    resampled: bool


def match_by_name(ours: LabelTable, theirs: LabelTable) -> dict[int, int]:
    """Which of their labels is each of ours: index to index, for names that both have.

    Names are compared without regard to case, spaces, hyphens, underscores and the word
    "proper" (``Left-Thalamus-Proper`` is FreeSurfer's ``Left-Thalamus``). Tables of one label
    each match whatever its name is.

    >>> from deepmrseg_bids.imaging.labels import Label
    >>> ours = LabelTable((Label(30, "Left-Accumbens-Area"), Label(60, "Left-Thalamus-Proper")))
    >>> theirs = LabelTable((Label(10, "left thalamus"), Label(26, "Left-Accumbens-area")))
    >>> match_by_name(ours, theirs)
    {30: 26, 60: 10}
    """
    if len(ours) == len(theirs) == 1:
        return {ours.indices[0]: theirs.indices[0]}
    known = {_plain(label.name): label.index for label in theirs}
    return {label.index: known[_plain(label.name)] for label in ours if _plain(label.name) in known}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).replace("proper", "")


def match_by_number(ours: Iterable[int], reference: LabelMap) -> dict[int, int]:
    """Our own numbers, if a reference without a label table seems to use them; else nothing.

    That is so if there are at least `FEWEST_NUMBERS` of ours, and (nearly) all of them are in it.
    """
    wanted = set(ours)
    common = wanted & set(np.unique(reference.data).tolist())
    same = len(wanted) >= FEWEST_NUMBERS and len(common) >= _MOST * len(wanted)
    return {index: index for index in wanted} if same else {}


def joined(reference: LabelMap, parts: Mapping[int, Sequence[int]]) -> LabelMap:
    """A reference with the parts of some structures put together.

    Args:
        parts: for an index of ours, the numbers of the reference that are parts of it. A number
            that several have is divided: each of its voxels goes to the nearest of them.

    Returns:
        A copy; the reference itself where it has all of our indices, or none of the parts.
    """
    numbers = set(np.unique(reference.data).tolist())
    ours = [index for index in parts if index not in numbers and numbers & set(parts[index])]
    if not ours:
        return reference
    whose = {code: [index for index in ours if code in parts[index]] for code in numbers}
    data = reference.data.astype(np.result_type(reference.data, np.min_scalar_type(max(ours))))
    for code, owners in whose.items():
        if len(owners) == 1:
            data[reference.data == code] = owners[0]
    shared = np.isin(reference.data, [code for code, owners in whose.items() if len(owners) > 1])
    if shared.any():
        _divide(data, shared, ours, reference.grid.spacing)
    return LabelMap(data, reference.grid)


def _divide(
    data: NDArray[np.integer],
    where: NDArray[np.bool_],
    among: Sequence[int],
    zooms: Sequence[float],
) -> None:
    """Give some voxels to the nearest of several structures, in place."""
    known = np.isin(data, among) & ~where
    if not known.any():
        return
    nearest = ndimage.distance_transform_edt(
        ~known, sampling=zooms, return_distances=False, return_indices=True
    )
    data[where] = data[tuple(axis[where] for axis in nearest)]


def whole_brain(reference: LabelMap) -> LabelMap:
    """The brain mask (1) of a label map of all of it: any label, holes filled.

    Raises:
        MetricError: too small for a brain, so its labels are only parts of one.
    """
    inside = reference.data > 0
    if inside.any():
        # filling is slow, and there is nothing to fill outside of the labels
        (box,) = ndimage.find_objects(inside.astype(np.uint8))
        inside[box] = filled(inside[box])
    size = float(np.count_nonzero(inside)) * reference.grid.voxel_volume
    if size < _SMALLEST_BRAIN:
        raise MetricError(
            f"its labels fill {size / 1000:.0f} ml, less than a whole brain: not "
            "compared with the brain mask"
        )
    return LabelMap(inside.astype(np.uint8), reference.grid)


def compare(
    ours: LabelMap, reference: LabelMap, matches: Mapping[int, int], *, lesions: bool = False
) -> Comparison:
    """The agreement of each matched label, on the reference's grid (nearest neighbour).

    Args:
        matches: our index to theirs.
        lesions: count lesions too, over all matched labels together.

    Raises:
        MetricError: the two images have no place in common.
    """
    data, resampled = ours.data, not _same_grid(ours.grid, reference.grid)
    if resampled:
        if not covered(ours.grid, reference.grid).any():
            raise MetricError(
                "the two images do not overlap in space: are they of one scan, and not in the "
                "space of a template?"
            )
        data = resample(data, ours.grid, reference.grid, order=0)
    numbers = np.zeros(int(reference.data.max(initial=0)) + 1, dtype=np.int32)
    for index, their_index in matches.items():
        if their_index < len(numbers):
            numbers[their_index] = index
    expected = numbers[reference.data]
    structures = labelmap_agreement(data, expected, matches, zooms=reference.grid.spacing)
    counted = None
    if lesions:
        counted = lesion_agreement(np.isin(data, list(matches)), expected > 0)
    return Comparison(tuple(structures), counted, resampled)


def _same_grid(one: Grid, other: Grid) -> bool:
    return one.shape == other.shape and bool(np.abs(one.corners() - other.corners()).max() < _CLOSE)

"""The header guard: what is odd about a scan before, and about a segmentation after.

Nothing here stops a run. Thresholds were set on real heads, so that healthy ones raise no
warning; ``docs/troubleshooting.md`` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding, Severity
from deepmrseg_bids.imaging.grid import Array, Grid, covered
from deepmrseg_bids.imaging.morphology import box_of, dilated, eroded, widened
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.contrast import check_contrast
from deepmrseg_bids.tasks.results import Measure, Segmentation

__all__ = [
    "check_brain",
    "check_given_mask",
    "check_hippocampus",
    "check_image",
    "check_structures",
]

_OBLIQUE_DEG = 1.0  # below that the rim of a head moves by less than two voxels
_THICK_MM = 2.55  # a little more than the coarsest voxels that all networks were trained on
_COARSE_MM = 5.0  # along two axes: small structures have a few voxels, or none
_UNEVEN = 2.5
_HEAD_MM = {"left to right": 120.0, "back to front": 150.0, "bottom to top": 110.0}  # small brains
_SLAB = 0.6  # of those: too little to be a head, whatever is in it
_FEW = 24  # an 8-bit head has more than 100 intensities, a label map rarely more than 20
_LABELS = 512  # whole numbers: an atlas has at most so many
_MOST_EQUAL = 0.4  # neighbours in all three directions
_SAMPLED = 500_000  # voxels that are looked at for the count of intensities
_GRIDS = {
    ((256, 256, 256), 1.0): "FreeSurfer's conformed grid",
    ((182, 218, 182), 1.0): "the grid of MNI152 (FSL)",
    ((91, 109, 91), 2.0): "the grid of MNI152 (FSL)",
    ((193, 229, 193), 1.0): "the grid of MNI152NLin2009cAsym",
    ((97, 115, 97), 2.0): "the grid of MNI152NLin2009cAsym",
    ((197, 233, 189), 1.0): "the grid of MNI152 (2009)",
}

_BRAIN_ML = (850.0, 2200.0)  # adults; the mask holds ventricles and the fluid of the sulci
_BRAIN_UNSURE = 0.9
_CUT_MM2 = {"bottom": 1500.0}  # the brain stem may run out of the image
_CUT_ANYWHERE_MM2 = 400.0
_BLANK_MM2 = 1200.0  # 24 whole heads have up to 540
_EMPTY = 1e-4  # of the brightest
_FLAT_MM2 = 2500.0
_AIR, _MOST_AIR = 0.05, 0.05  # of the median; whole heads have up to 0.8 % in the brain mask
_DETAIL_MM = 2.0
_REACH = 5  # voxels: of what is compared there
_BLURRED, _NOISY = 2.2, 7.5  # fine to coarse; 2.4 to 6.5 in 22 real scans of five kinds
_LEAST_SPREAD = 0.25  # 0.55 to 1.25 in MRI
_SIDES = ("left", "right", "back", "front", "bottom", "top")
_LONGER = 1.02  # a brain is longer than it is wide or high
_SLENDER = 0.6  # of its length; 66 brains are 0.70 to 0.93 as wide, 0.71 to 0.95 as high
_STRIPPED = 0.02  # share of the voxels further than 1 cm from the brain that hold something
_AWAY_MM = 10.0
_NO_NOISE, _ONLY_NOISE = 0.25, 0.005  # of the median; 26 whole heads have 0.012 and more of that

_UNSURE = 0.7  # healthy heads have 0.85 and more in every structure
_INSIDE = 0.95
_HIPPOCAMPUS = 0.6
_RANGE_MM3: Mapping[str, tuple[float, float]] = {
    # one side: half of the smallest to 1.6 times the largest of 28 manual segmentations
    "Accumbens-Area": (75, 1200),
    "Amygdala": (300, 2000),
    "Caudate": (1100, 7000),
    "Hippocampus": (1400, 7400),
    "Hippocampus-Anterior": (500, 4100),  # the same of 200 manual segmentations of the parts
    "Hippocampus-Posterior": (490, 3500),
    "Pallidum": (320, 3500),
    "Putamen": (1600, 9200),
    "Thalamus-Proper": (2900, 15400),
}
_ASYMMETRY = {"Accumbens-Area": 100.0, "Pallidum": 75.0, "Amygdala": 60.0}  # percent of the mean
_ASYMMETRY_OTHERS = 40.0  # more than the largest of the same 28: 24


def check_image(volume: Volume) -> tuple[Finding, ...]:
    """Look at a scan before any network does: its voxels, its field of view, its values.

    What was noticed while it was read (``volume.findings``) is not said again.
    """
    return (*_position(volume), *_view(volume), *_values(volume))


def _position(volume: Volume) -> list[Finding]:
    grid, found = volume.grid, []
    if grid.obliquity > _OBLIQUE_DEG:
        text = f"oblique slices by {grid.obliquity:.0f} degrees"
        found.append(Finding("oblique", "info", text))
    voxels = " x ".join(f"{edge:.2f}" for edge in grid.spacing)
    thick, thin = max(grid.spacing), min(grid.spacing)
    if thick > _THICK_MM:
        text = f"voxels of {voxels} mm: volumes of small structures are unreliable"
        coarse = sorted(grid.spacing)[1] > _COARSE_MM
        found.append(Finding("thick-slices", "error" if coarse else "warning", text))
    elif thick > _UNEVEN * thin:
        text = f"voxels of {voxels} mm, {thick / thin:.1f} times longer than wide"
        found.append(Finding("uneven-voxels", "info", text))
    shape = tuple(sorted(grid.shape))
    for (edges, spacing), name in _GRIDS.items():
        if shape == tuple(sorted(edges)) and np.allclose(grid.spacing, spacing, atol=0.01):
            text = f"the image is on {name}: it was resampled before"
            found.append(Finding("not-scanner-space", "info", text))
    return found


def _view(volume: Volume) -> list[Finding]:
    """Whether the field of view can hold a head."""
    edges = np.abs(volume.grid.affine[:3, :3]) * np.array(volume.grid.shape)
    held = edges.max(axis=1)  # millimetres along x, y, z
    short = {
        way: (float(mm), need)
        for (way, need), mm in zip(_HEAD_MM.items(), held, strict=True)
        if mm < need
    }
    if not short:
        return []
    listed = ", ".join(f"{mm:.0f} mm from {way}" for way, (mm, _) in short.items())
    slab = any(mm < _SLAB * need for mm, need in short.values())
    severity: Severity = "error" if slab else "warning"
    return [Finding("small-view", severity, f"not a whole head: the image covers {listed}")]


def _values(volume: Volume) -> list[Finding]:
    data, found = volume.data, []
    step = max(1, data.size // _SAMPLED)
    values = np.unique(data.ravel(order="K")[::step])
    count, share = len(values), _plateaus(data)
    labels = share > _MOST_EQUAL and count < _LABELS and bool(np.all(values == np.rint(values)))
    if count < _FEW or labels:
        text = f"only {count} different intensities: is this a label map?"
        found.append(Finding("few-intensities", "warning", text))
    if share > _MOST_EQUAL:
        text = (
            f"{100 * share:.0f} % of the voxels have exactly the value of their neighbours: "
            "a label map, a mask or a phantom, not an MRI?"
        )
        found.append(Finding("flat-regions", "error", text))
    return found


def _plateaus(data: Array) -> float:
    """Of the voxels that hold something, the share equal to the next one along every axis."""
    middle = tuple(slice(n // 4, max(n // 4 + 2, 3 * n // 4)) for n in data.shape)
    inner = data[middle]
    here = inner[:-1, :-1, :-1]
    equal = (here == inner[1:, :-1, :-1]) & (here == inner[:-1, 1:, :-1])
    equal &= here == inner[:-1, :-1, 1:]
    something = here != 0
    return float(equal[something].mean()) if something.any() else 0.0


def check_brain(
    mask: NDArray[np.bool_], image: Array, grid: Grid, view: Grid, *, confidence: float | None
) -> tuple[Finding, ...]:
    """Look at the brain that was found in a head.

    Args:
        mask: (I, J, K) of the brain.
        image: (I, J, K) intensities of the scan.
        grid: where both lie, RAS+, isotropic.
        view: the scan's own grid.
        confidence: see :class:`deepmrseg_bids.tasks.results.Measure`.
    """
    found = _contents(mask, image)
    found += _volume(mask, grid)
    if confidence is not None and confidence < _BRAIN_UNSURE:
        text = f"low confidence: brain mask ({_short_of(confidence)} < {_BRAIN_UNSURE:.2f})"
        found.append(Finding("brain-unsure", "warning", text))
    if cut := _cut(mask, grid, view):
        listed = ", ".join(f"{side} ({mm2 / 100:.0f} cm²)" for side, mm2 in cut.items())
        text = f"the brain touches the edge of the image: {listed}; part of it may be missing"
        found.append(Finding("brain-cut", "warning", text))
    else:
        found += _shape(mask, grid)
    stripped = _stripped(mask, image, grid)
    blank = [] if stripped or cut else _blanked(mask, image, grid, view)
    detail = _detail(mask, image, grid)
    return (*found, *blank, *check_contrast(mask, image, grid), *detail, *stripped)


def _detail(mask: NDArray[np.bool_], image: Array, grid: Grid) -> list[Finding]:
    """Whether fine detail is missing, or noise: how much there is beside coarser detail.

    Known for voxels of 2 mm, those of the brain's network.
    """
    if max(abs(edge - _DETAIL_MM) for edge in grid.spacing) > 0.1:
        return []
    box = box_of(mask)
    if box is None:
        return []
    reach = widened(box, _REACH, mask.shape)
    core, image = eroded(mask[reach], 2), image[reach]
    if not core.any():
        return []
    fine = np.abs(ndimage.laplace(image))[core].mean()
    coarse = np.abs(ndimage.laplace(ndimage.gaussian_filter(image, 1.0)))[core].mean()
    if coarse <= 0:
        return []
    ratio = float(fine / coarse)
    if ratio < _BLURRED:
        text = (
            "fine detail is missing (blurred, smoothed, or of low resolution): small structures "
            "are not reliable"
        )
        return [Finding("image-blurred", "warning", text)]
    if ratio > _NOISY:
        text = "the image is very noisy: small structures are not reliable"
        return [Finding("image-noisy", "warning", text)]
    return []


def _volume(mask: NDArray[np.bool_], grid: Grid) -> list[Finding]:
    millilitres = float(mask.sum()) * grid.voxel_volume / 1000
    low, high = _BRAIN_ML
    if low <= millilitres <= high:
        return []
    text = f"brain volume {millilitres:.0f} ml, expected {low:.0f} to {high:.0f} ml"
    return [Finding("brain-volume", "warning", text)]


def _contents(mask: NDArray[np.bool_], image: Array) -> list[Finding]:
    """Whether what was found has the intensities of a brain: several tissues, and no air."""
    inner = image[eroded(mask, 2)]
    if not inner.size:
        return []
    low, middle, high = np.percentile(inner, (5, 50, 95))
    found = []
    air = float((inner < _AIR * middle).mean())
    if air > _MOST_AIR:
        text = f"{100 * air:.0f} % of the brain mask is air or empty: it is not a whole brain"
        found.append(Finding("brain-air", "error", text))
    spread = float(high - low) / max(abs(float(middle)), 1e-12)
    if spread < _LEAST_SPREAD:
        text = (
            "fluid, grey and white matter have nearly the same intensity (they differ by "
            f"{100 * spread:.0f} % of the median): a CT, a phantom or a mask, not an MRI?"
        )
        found.append(Finding("no-tissue-contrast", "error", text))
    return found


def _blanked(mask: NDArray[np.bool_], image: Array, grid: Grid, view: Grid) -> list[Finding]:
    """Whether the brain borders on voxels of the scan that were emptied.

    Skull and scalp lie between a brain and the air around a head.
    """
    empty = np.abs(image) < _EMPTY * float(image.max())
    empty = dilated(eroded(empty)) & covered(view, grid)
    beside = dilated(mask, 2) & ~mask & empty
    mm2 = float(beside.sum()) * grid.spacing[0] ** 2
    if mm2 <= _BLANK_MM2:
        return []
    text = (
        f"the brain borders on empty voxels ({mm2 / 100:.0f} cm²): part of it was removed, "
        "by defacing or by slices without signal; volumes are too small"
    )
    return [Finding("brain-cut", "warning", text)]


def check_given_mask(mask: NDArray[np.bool_], grid: Grid) -> tuple[Finding, ...]:
    """Look at the brain mask that a skull-stripped scan brings along, (I, J, K) on its grid."""
    found = _volume(mask, grid)
    for axis in range(3):
        slices = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        filled = np.flatnonzero(slices)
        face = grid.voxel_volume / grid.spacing[axis]
        ends = {"first": filled[0], "last": filled[-1]}
        # the tip of a brain is small; a plane through it is not
        flat = [k for k in ends.values() if slices[k] * face > _FLAT_MM2]
        gaps = np.flatnonzero(np.diff(filled) > 1)
        if flat or len(gaps):
            text = (
                "the skull-stripped brain ends in a plane, or lacks slices: part of it is missing"
            )
            return (*found, Finding("brain-cut", "warning", text))
    return tuple(found)


def _cut(mask: NDArray[np.bool_], grid: Grid, image: Grid) -> dict[str, float]:
    """How much of each face of the field of view is brain, in mm2, where it is too much."""
    view = covered(image, grid)
    faces = {}
    for axis in range(3):
        for side, step in ((_SIDES[2 * axis], 1), (_SIDES[2 * axis + 1], -1)):
            beyond = np.roll(view, step, axis)  # the neighbour further out is in the image
            rim = [slice(None)] * 3
            rim[axis] = slice(0, 1) if step > 0 else slice(-1, None)
            beyond[tuple(rim)] = False
            mm2 = float((mask & view & ~beyond).sum()) * grid.spacing[0] ** 2
            if mm2 > _CUT_MM2.get(side, _CUT_ANYWHERE_MM2):
                faces[side] = mm2
    return faces


def _shape(mask: NDArray[np.bool_], grid: Grid) -> list[Finding]:
    """Whether the brain is longest from back to front, as upright brains are, and not flat."""
    if not mask.any():
        return []
    spread = np.ptp(np.percentile(np.argwhere(mask), (0.5, 99.5), axis=0), axis=0)
    wide, long, high = (float(mm) for mm in spread * np.array(grid.spacing))
    if long < _LONGER * max(wide, high):
        odd = "but brains are longest from back to front: is the orientation in the header correct?"
    elif min(wide, high) < _SLENDER * long:
        odd = "too narrow or too low for its length: is the voxel size in the header correct?"
    else:
        return []
    size = f"the brain is {wide:.0f} mm wide, {long:.0f} mm long and {high:.0f} mm high"
    return [Finding("brain-shape", "warning", f"{size}, {odd}")]


def _stripped(mask: NDArray[np.bool_], image: Array, grid: Grid) -> list[Finding]:
    """Whether there is anything but the brain."""
    steps = max(1, round(_AWAY_MM / grid.spacing[0]))
    away = ~dilated(mask, steps)
    something = np.abs(image - np.percentile(image, 1)) > 0.02 * float(np.ptp(image[mask]))
    if not away.any():
        return []
    if float(something[away].mean()) <= _STRIPPED:
        return [Finding("skull-stripped", "info", "the image appears skull-stripped")]
    bright = float((image[away] > _NO_NOISE * np.median(image[mask])).mean())
    if bright <= _ONLY_NOISE:
        text = (
            "the image appears skull-stripped, with noise around the brain: its own mask cannot "
            "be used, and the brain mask may be up to 10 % too small; set what is outside to 0"
        )
        return [Finding("mask-doubtful", "warning", text)]
    return []


def check_structures(result: Segmentation, mask: NDArray[np.bool_]) -> tuple[Finding, ...]:
    """Look at the deep structures.

    Args:
        result: of the task ``deepbrain``.
        mask: the brain on the grid of the result's posteriors, (I, J, K).
    """
    posteriors = result.posteriors[0]
    labels = posteriors.labels()
    there = [row for row in result.measures if row.volume_mm3 > 0]
    found = _unsure(there, len(result.measures))
    found += _implausible(there)
    found += _asymmetric(there)
    number = {label.name: k for k, label in enumerate(result.table, start=1)}
    inside = {name: mask[labels == k] for name, k in number.items()}
    loose = [name for name, voxels in inside.items() if voxels.sum() < _INSIDE * len(voxels)]
    if loose:
        text = f"more than {100 * (1 - _INSIDE):.0f} % outside the brain: {', '.join(loose)}"
        found.append(Finding("structures-outside", "warning", text))
    return (*found, *_crossed(labels, number, posteriors.grid))


def check_volumes(rows: Sequence[Measure]) -> tuple[Finding, ...]:
    """Look at the volumes of structures of which it is known what people have."""
    there = [row for row in rows if row.volume_mm3 > 0 and _structure(row.name) in _RANGE_MM3]
    return (*_implausible(there), *_asymmetric(there))


def check_hippocampus(result: Segmentation, deepbrain: Segmentation) -> tuple[Finding, ...]:
    """Look at the parts of the hippocampus, beside what ``deepbrain`` found.

    Args:
        result: of the task ``hippocampus``.
        deepbrain: of the same scan.
    """
    there = [row for row in result.measures if row.volume_mm3 > 0]
    found = _unsure(there, len(result.measures))
    whole = {row.name: row.volume_mm3 for row in deepbrain.measures}
    less = []
    for side in ("Left", "Right"):
        parts = sum(row.volume_mm3 for row in there if row.name.startswith(side))
        share = parts / (whole.get(f"{side}-Hippocampus") or np.inf)
        if 0 < share < _HIPPOCAMPUS:
            less.append(f"{side.lower()} {100 * share:.0f} %")
    if less:
        text = (
            f"hippocampus smaller than in deepbrain: {', '.join(less)}; the volumes "
            "of its parts are too small"
        )
        found.append(Finding("hippocampus-small", "warning", text))
    return (*found, *_implausible(there), *_asymmetric(there))


def _implausible(there: Sequence[Measure]) -> list[Finding]:
    """Structures of a volume that nobody has."""
    odd = [
        f"{row.name} ({row.volume_mm3:.0f} mm³, expected {low:.0f} to {high:.0f} mm³)"
        for row in there
        for low, high in [_RANGE_MM3.get(_structure(row.name), (0.0, np.inf))]
        if not low <= row.volume_mm3 <= high
    ]
    if not odd:
        return []
    return [Finding("structure-volume", "warning", f"implausible volume: {', '.join(odd)}")]


def _structure(name: str) -> str:
    """The name without its side."""
    return name.partition("-")[2] if name.startswith(("Left-", "Right-")) else name


def _pairs(rows: Sequence[Measure]) -> list[tuple[str, Measure, Measure]]:
    """Structures that were found on both sides: name, left, right."""
    by_name = {row.name: row for row in rows}
    return [
        (_structure(row.name), row, by_name[other])
        for row in rows
        if row.name.startswith("Left-") and (other := f"Right-{_structure(row.name)}") in by_name
    ]


def _short_of(value: float) -> str:
    """Two decimals of a value below a limit: cut off, so that it never looks like the limit."""
    return f"{math.floor(100 * value) / 100:.2f}"


def _unsure(there: Sequence[Measure], asked: int) -> list[Finding]:
    """Structures of low confidence; an error if most structures are, or are missing."""
    unsure = [
        f"{row.name} ({_short_of(row.confidence)} < {_UNSURE:.2f})"
        for row in there
        if row.confidence is not None and row.confidence < _UNSURE
    ]
    if not unsure:
        return []
    lost = asked - len(there) + len(unsure)
    severity: Severity = "error" if lost > asked / 2 else "warning"
    text = f"low confidence: {', '.join(unsure)}"
    return [Finding("structure-unsure", severity, text)]


def _asymmetric(there: Sequence[Measure]) -> list[Finding]:
    odd = []
    for name, left, right in _pairs(there):
        mean = (left.volume_mm3 + right.volume_mm3) / 2
        percent = 100 * (left.volume_mm3 - right.volume_mm3) / mean
        if abs(percent) > _ASYMMETRY.get(name, _ASYMMETRY_OTHERS):
            odd.append(f"{name} ({percent:+.0f} %)")
    if not odd:
        return []
    text = f"large left/right asymmetry, in percent of the mean: {', '.join(odd)}"
    return [Finding("structures-asymmetric", "warning", text)]


def _crossed(
    labels: NDArray[np.uint8], number: Mapping[str, int], grid: Grid
) -> tuple[Finding, ...]:
    """Left structures whose middle lies right of that of their partner."""
    seen = {name: k for name, k in number.items() if (labels == k).any()}
    middles = ndimage.center_of_mass(labels > 0, labels, list(seen.values()))
    across = {
        name: float(grid.to_world([middle])[0, 0])
        for name, middle in zip(seen, middles, strict=True)
    }
    crossed = [
        _structure(name)
        for name, x in across.items()
        if name.startswith("Left-") and x > across.get(f"Right-{_structure(name)}", np.inf)
    ]
    if not crossed:
        return ()
    text = f"left structure to the right of its counterpart: {', '.join(crossed)}"
    return (Finding("sides-crossed", "error", text),)

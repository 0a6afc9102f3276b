"""Agreement between a segmentation and its reference: overlap, surfaces, lesions, volumes.

Masks are boolean, label maps integer, both on one voxel grid with axes ``(I, J, K)``. ``zooms``
are the voxel's edge lengths in mm, one per axis. Distances are in mm, volumes in mm3.

A structure may be missing on one side or on both. The choices are made here, once:

======== ========== ========= ======= ======= ====== ======== ==========================
status   prediction reference f1, f2  bacc    hd95   volumes  enters the means of
======== ========== ========= ======= ======= ====== ======== ==========================
both     present    present   formula formula mm     measured F1, F2, BACC
missed   empty      present   0       TNR / 2 nan    0 and V  F1, F2, BACC
false    present    empty     0       nan     nan    V and 0  F1, F2 (TPR is undefined)
absent   empty      empty     nan     nan     nan    0 and 0  none; never counted as 1
======== ========== ========= ======= ======= ====== ======== ==========================

Every score that can be nan therefore travels with its status (`Confusion.status`,
`StructureAgreement.status`, `LesionAgreement.status`). BACC is also nan where its region holds no
negative voxel. The concordance of volumes uses every sample, an empty side as 0 mm3.

F1, F2 and BACC are the paper's scores (Doshi et al., DeepMRSeg, arXiv 1907.02110), with precision
P, recall R, and the true positive and true negative rates TPR and TNR: F1 = 2PR / (P + R),
F2 = 5PR / (4P + R), BACC = (TPR + TNR) / 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.imaging.morphology import eroded
from deepmrseg_bids.metrics.reliability import concordance

__all__ = [
    "Confusion",
    "LesionAgreement",
    "Status",
    "StructureAgreement",
    "StructureSummary",
    "average_surface_distance",
    "balanced_accuracy",
    "confusion",
    "f1",
    "f2",
    "f_beta",
    "hd95",
    "labelmap_agreement",
    "lesion_agreement",
    "presence",
    "structure_agreement",
    "summarise",
    "volumes_mm3",
]

Status: TypeAlias = Literal["both", "missed", "false", "absent"]

_Mask: TypeAlias = npt.NDArray[np.bool_]
_LabelMap: TypeAlias = npt.NDArray[np.integer[Any]]
_Floats: TypeAlias = npt.NDArray[np.float64]
_Box: TypeAlias = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Voxel counts of a binary segmentation against its reference, none negative.

    >>> Confusion(tp=3, fp=1, fn=0, tn=6).precision
    0.75
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __post_init__(self) -> None:
        if min(self.tp, self.fp, self.fn, self.tn) < 0:
            raise MetricError(f"voxel counts must not be negative, got {self}")

    @property
    def precision(self) -> float:
        """P = tp / (tp + fp); nan if nothing was predicted."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def sensitivity(self) -> float:
        """R = TPR = tp / (tp + fn); nan if the reference is empty."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """TNR = tn / (tn + fp); nan if there is no negative voxel."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def status(self) -> Status:
        """On which sides the structure is present (the module's table)."""
        return presence(self.tp + self.fp, self.tp + self.fn)


@dataclass(frozen=True, slots=True)
class StructureAgreement:
    """One structure of one sample; the module's table says what each status implies.

    ``hd95_mm`` and ``asd_mm`` (`average_surface_distance`) are in mm, the volumes in mm3, the
    other scores lie in [0, 1] or are nan.
    """

    index: int
    f1: float
    f2: float
    bacc: float
    hd95_mm: float
    volume_mm3: float
    reference_volume_mm3: float
    status: Status
    asd_mm: float = math.nan


@dataclass(frozen=True, slots=True)
class StructureSummary:
    """One structure over samples: means, standard deviations (ddof 1), concordance of volumes.

    ``n`` samples entered the means of F1 and F2, ``n_bacc`` that of BACC, every sample ``ccc``.
    A mean of none, a deviation of fewer than two and a ``ccc`` of fewer than two are nan.
    """

    index: int
    n: int
    f1_mean: float
    f1_sd: float
    f2_mean: float
    f2_sd: float
    bacc_mean: float
    bacc_sd: float
    ccc: float
    n_bacc: int


@dataclass(frozen=True, slots=True)
class LesionAgreement:
    """Lesions (26-connected components) counted instead of voxels.

    ``n_detected`` of ``n_reference`` lesions were found (recall); ``n_confirmed`` of
    ``n_predicted`` lesions are real (precision).
    """

    n_reference: int
    n_detected: int
    n_predicted: int
    n_confirmed: int

    @property
    def recall(self) -> float:
        """Share of the reference's lesions that were found; nan if it has none."""
        return _ratio(self.n_detected, self.n_reference)

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that are real; nan if none was predicted."""
        return _ratio(self.n_confirmed, self.n_predicted)

    @property
    def f1(self) -> float:
        """2PR / (P + R); 0 if only one side has lesions or none matches, nan if neither has."""
        if self.status == "absent":
            return math.nan
        if self.n_detected == 0 or self.n_confirmed == 0:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)

    @property
    def status(self) -> Status:
        """On which sides there are lesions (the module's table)."""
        return presence(self.n_predicted, self.n_reference)


def confusion(prediction: _Mask, reference: _Mask, *, region: _Mask | None = None) -> Confusion:
    """Count the voxels of two boolean masks of one shape ``(I, J, K)``.

    ``region`` (boolean, same shape; default the whole image) says which true negatives count;
    tp, fp and fn always count everywhere. So BACC depends on it, F1 and F2 do not.

    Raises `MetricError` if a mask is not boolean or the shapes differ.

    >>> confusion(np.array([True, True, False, False]), np.array([True, False, True, False]))
    Confusion(tp=1, fp=1, fn=1, tn=1)
    """
    _check_masks(prediction, reference, region)
    return _count(prediction, reference, region, _region_size(reference, region))


def f_beta(c: Confusion, beta: float) -> float:
    """F-score (1 + b2) P R / (b2 P + R) with b2 = beta squared, in [0, 1].

    Computed from the counts, (1 + b2) tp / ((1 + b2) tp + b2 fn + fp), so that a structure on one
    side only gives 0. nan exactly if ``c.status`` is ``"absent"``.

    Raises `MetricError` unless beta is positive and finite.

    >>> round(f_beta(Confusion(tp=2, fp=2, fn=1, tn=5), 2.0), 3)  # P 1/2, R 2/3
    0.625
    """
    if not (math.isfinite(beta) and beta > 0):
        raise MetricError(f"beta must be positive and finite, got {beta}")
    b2 = beta * beta
    return _ratio((1 + b2) * c.tp, (1 + b2) * c.tp + b2 * c.fn + c.fp)


def f1(c: Confusion) -> float:
    """F1 = 2PR / (P + R), the Dice coefficient 2 tp / (2 tp + fp + fn) (the paper's F1).

    >>> f1(Confusion(tp=1, fp=1, fn=1, tn=1))
    0.5
    """
    return f_beta(c, 1.0)


def f2(c: Confusion) -> float:
    """F2 = 5PR / (4P + R): recall weighs more than precision (the paper's F2).

    >>> f2(Confusion(tp=2, fp=2, fn=1, tn=5))
    0.625
    """
    return f_beta(c, 2.0)


def balanced_accuracy(c: Confusion) -> float:
    """BACC = (TPR + TNR) / 2 (the paper's BACC); it depends on the region of ``c.tn``.

    nan if the reference is empty (TPR undefined) or nothing is negative (TNR undefined).

    >>> balanced_accuracy(Confusion(tp=3, fp=2, fn=1, tn=2))
    0.625
    """
    return (c.sensitivity + c.specificity) / 2


def hd95(prediction: _Mask, reference: _Mask, zooms: Sequence[float]) -> float:
    """Symmetric 95th percentile surface distance in mm.

    The greater of two numbers: the 95th percentile (linear interpolation) of the distances from
    each surface voxel of the prediction to the nearest one of the reference, and the same from
    reference to prediction. A surface voxel has a face neighbour outside the mask (outside the
    image counts); distances run between voxel centres. nan if a side is empty.

    Raises `MetricError` if the masks do not fit each other or ``zooms``.

    >>> mask = np.zeros((4, 4, 4), dtype=bool)
    >>> mask[0, 0, 0] = True
    >>> hd95(mask, np.roll(mask, 2, axis=1), (1.0, 1.5, 1.0))
    3.0
    """
    _check_masks(prediction, reference)
    _check_zooms(zooms, reference.ndim)
    return _surface_scores(*_crop_pair(prediction, reference), zooms)[0]


def average_surface_distance(prediction: _Mask, reference: _Mask, zooms: Sequence[float]) -> float:
    """Average symmetric surface distance in mm: the mean of both directions' distances pooled.

    Surfaces, distances, empty sides and errors as in `hd95`.

    >>> mask = np.zeros((4, 4, 4), dtype=bool)
    >>> mask[0, 0, 0] = True
    >>> average_surface_distance(mask, np.roll(mask, 2, axis=1), (1.0, 1.5, 1.0))
    3.0
    """
    _check_masks(prediction, reference)
    _check_zooms(zooms, reference.ndim)
    cropped_prediction, cropped_reference = _crop_pair(prediction, reference)
    return _surface_scores(cropped_prediction, cropped_reference, zooms)[1]


def structure_agreement(
    prediction: _Mask,
    reference: _Mask,
    *,
    index: int,
    zooms: Sequence[float],
    region: _Mask | None = None,
) -> StructureAgreement:
    """All scores of one structure from two boolean masks of one shape ``(I, J, K)``.

    ``index`` only names the structure; ``region`` as in `confusion`.

    Raises `MetricError` if the masks do not fit each other, ``zooms`` or ``region``.

    >>> mask = np.array([[[True, True, False]]])
    >>> found = structure_agreement(mask, mask, index=17, zooms=(1.0, 1.0, 2.0))
    >>> found.f1, found.volume_mm3, found.status
    (1.0, 4.0, 'both')
    """
    _check_masks(prediction, reference, region)
    _check_zooms(zooms, reference.ndim)
    box = _bounding_box(prediction | reference)
    inside = None if region is None else region[box]
    n_region = _region_size(reference, region)
    counts = _count(prediction[box], reference[box], inside, n_region)
    return _agreement(prediction[box], reference[box], counts, index, zooms)


def labelmap_agreement(
    prediction: _LabelMap,
    reference: _LabelMap,
    indices: Iterable[int],
    *,
    zooms: Sequence[float],
    region: _Mask | None = None,
) -> list[StructureAgreement]:
    """`structure_agreement` of each label, in the order of ``indices`` (all 1 or more).

    Label maps are integer arrays of one shape ``(I, J, K)``; labels that are not asked for are
    background. Each label is worked on inside its own bounding box.

    Raises `MetricError` as `structure_agreement`, for an index below 1 and for label maps that
    are not integer.

    >>> reference = np.array([[[0, 1, 1, 2]]])
    >>> prediction = np.array([[[0, 0, 2, 2]]])
    >>> [a.status for a in labelmap_agreement(prediction, reference, [1, 2], zooms=(1, 1, 1))]
    ['missed', 'both']
    """
    _check_shapes(prediction, reference, region)
    _check_zooms(zooms, reference.ndim)
    wanted = list(indices)
    predicted, expected = _label_boxes(prediction, wanted), _label_boxes(reference, wanted)
    n_region = _region_size(reference, region)
    agreements = []
    for index in wanted:
        box = _union([b[index] for b in (predicted, expected) if index in b], reference.ndim)
        p, r = prediction[box] == index, reference[box] == index
        counts = _count(p, r, None if region is None else region[box], n_region)
        agreements.append(_agreement(p, r, counts, index, zooms))
    return agreements


def lesion_agreement(
    prediction: _Mask, reference: _Mask, *, min_overlap_voxels: int = 1
) -> LesionAgreement:
    """Compare lesions, the 26-connected components of two boolean masks ``(I, J, K)``.

    A reference lesion is detected if at least ``min_overlap_voxels`` of its voxels are predicted
    (by whichever lesions), or all of them if it has fewer. A predicted lesion is confirmed by the
    same rule with the sides exchanged.

    Raises `MetricError` if the masks do not fit each other or ``min_overlap_voxels`` is below 1.

    >>> reference = np.array([[[True, True, False, True, False]]])
    >>> prediction = np.array([[[False, True, False, False, False]]])
    >>> lesion_agreement(prediction, reference)
    LesionAgreement(n_reference=2, n_detected=1, n_predicted=1, n_confirmed=1)
    """
    _check_masks(prediction, reference)
    if min_overlap_voxels < 1:
        raise MetricError(f"min_overlap_voxels must be 1 or more, got {min_overlap_voxels}")
    p, r = _crop_pair(prediction, reference)
    n_reference, n_detected = _lesions_hit(r, p, min_overlap_voxels)
    n_predicted, n_confirmed = _lesions_hit(p, r, min_overlap_voxels)
    return LesionAgreement(n_reference, n_detected, n_predicted, n_confirmed)


def volumes_mm3(
    labelmap: _LabelMap, indices: Iterable[int], *, voxel_volume_mm3: float
) -> dict[int, float]:
    """Volume in mm3 of each label of an integer label map ``(I, J, K)``; 0.0 if it is absent.

    Raises `MetricError` for an index below 1, a label map that is not integer, or a voxel volume
    that is not positive and finite.

    >>> volumes_mm3(np.array([[[0, 1, 1, 4]]]), [1, 2], voxel_volume_mm3=1.5)
    {1: 3.0, 2: 0.0}
    """
    if not (math.isfinite(voxel_volume_mm3) and voxel_volume_mm3 > 0):
        raise MetricError(f"voxel_volume_mm3 must be positive, got {voxel_volume_mm3}")
    wanted = list(indices)
    boxes = _label_boxes(labelmap, wanted)
    voxels = {i: int(np.count_nonzero(labelmap[box] == i)) for i, box in boxes.items()}
    return {index: voxels.get(index, 0) * float(voxel_volume_mm3) for index in wanted}


def summarise(per_structure: Sequence[StructureAgreement]) -> StructureSummary:
    """Summarise one structure over samples; the module's table says who enters which mean.

    Raises `MetricError` if there is no sample, or samples of more than one structure.

    >>> one = StructureAgreement(4, 0.5, 0.5, 0.75, 1.0, 10.0, 10.0, "both")
    >>> two = StructureAgreement(4, 0.0, 0.0, 0.5, math.nan, 0.0, 20.0, "missed")
    >>> summary = summarise([one, two])
    >>> summary.n, summary.f1_mean, summary.bacc_mean
    (2, 0.25, 0.625)
    """
    indices = sorted({sample.index for sample in per_structure})
    if len(indices) != 1:
        raise MetricError(f"expected samples of one structure, got structures {indices}")
    present = [sample for sample in per_structure if sample.status != "absent"]
    f1s, f2s = [sample.f1 for sample in present], [sample.f2 for sample in present]
    baccs = [sample.bacc for sample in present if not math.isnan(sample.bacc)]
    volumes = [sample.volume_mm3 for sample in per_structure]
    references = [sample.reference_volume_mm3 for sample in per_structure]
    return StructureSummary(
        index=indices[0],
        n=len(present),
        f1_mean=_mean(f1s),
        f1_sd=_sd(f1s),
        f2_mean=_mean(f2s),
        f2_sd=_sd(f2s),
        bacc_mean=_mean(baccs),
        bacc_sd=_sd(baccs),
        ccc=concordance(volumes, references) if len(volumes) > 1 else math.nan,
        n_bacc=len(baccs),
    )


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def presence(predicted: float, expected: float) -> Status:
    """On which sides a structure of these sizes is present (the module's table)."""
    if predicted:
        return "both" if expected else "false"
    return "missed" if expected else "absent"


def _count(p: _Mask, r: _Mask, region: _Mask | None, n_region: int) -> Confusion:
    """Count masks that may be cropped; ``n_region`` is the size of the uncropped region."""
    tp, positive = int(np.count_nonzero(p & r)), p | r
    n_positive = int(np.count_nonzero(positive if region is None else positive & region))
    return Confusion(
        tp=tp,
        fp=int(np.count_nonzero(p)) - tp,
        fn=int(np.count_nonzero(r)) - tp,
        tn=n_region - n_positive,
    )


def _agreement(
    p: _Mask, r: _Mask, c: Confusion, index: int, zooms: Sequence[float]
) -> StructureAgreement:
    """Scores of masks cropped to their joint bounding box, whose counts are ``c``."""
    voxel_volume_mm3 = math.prod(float(zoom) for zoom in zooms)
    hd95_mm, asd_mm = _surface_scores(p, r, zooms)
    return StructureAgreement(
        index=index,
        f1=f1(c),
        f2=f2(c),
        bacc=balanced_accuracy(c),
        hd95_mm=hd95_mm,
        volume_mm3=(c.tp + c.fp) * voxel_volume_mm3,
        reference_volume_mm3=(c.tp + c.fn) * voxel_volume_mm3,
        status=c.status,
        asd_mm=asd_mm,
    )


def _surface_scores(p: _Mask, r: _Mask, zooms: Sequence[float]) -> tuple[float, float]:
    """HD95 and average surface distance in mm; nan if a side is empty."""
    if not (p.any() and r.any()):
        return math.nan, math.nan
    p_to_r, r_to_p = _surface_distances(p, r, zooms)
    hd95_mm = max(float(np.percentile(p_to_r, 95)), float(np.percentile(r_to_p, 95)))
    return hd95_mm, float(np.concatenate([p_to_r, r_to_p]).mean())


def _surface_distances(p: _Mask, r: _Mask, zooms: Sequence[float]) -> tuple[_Floats, _Floats]:
    """Distances in mm from p's surface to r's, and from r's to p's; neither may be empty."""
    surface_p, surface_r = p & ~eroded(p), r & ~eroded(r)
    to_r = np.asarray(ndimage.distance_transform_edt(~surface_r, sampling=zooms))
    p_to_r = to_r[surface_p]
    del to_r  # a map of a whole head is large: hold one at a time
    to_p = np.asarray(ndimage.distance_transform_edt(~surface_p, sampling=zooms))
    return p_to_r, to_p[surface_r]


def _lesions_hit(lesions: _Mask, other: _Mask, min_overlap_voxels: int) -> tuple[int, int]:
    """How many components ``lesions`` has, and how many of them ``other`` overlaps enough."""
    everywhere = ndimage.generate_binary_structure(lesions.ndim, lesions.ndim)
    components, n = ndimage.label(lesions, structure=everywhere)
    sizes = np.bincount(components[lesions], minlength=n + 1)[1:]
    overlaps = np.bincount(components[lesions & other], minlength=n + 1)[1:]
    return n, int(np.count_nonzero(overlaps >= np.minimum(sizes, min_overlap_voxels)))


def _bounding_box(mask: _Mask) -> _Box:
    """Find the smallest box around the mask; one corner voxel if it is empty."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, 1))
    return tuple(box)


def _crop_pair(prediction: _Mask, reference: _Mask) -> tuple[_Mask, _Mask]:
    box = _bounding_box(prediction | reference)
    return prediction[box], reference[box]


def _union(boxes: list[_Box], ndim: int) -> _Box:
    """Find the smallest box around all; one corner voxel if there is none."""
    if not boxes:
        return (slice(0, 1),) * ndim
    return tuple(
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*boxes, strict=True)
    )


def _label_boxes(labelmap: _LabelMap, indices: list[int]) -> dict[int, _Box]:
    """Find the bounding box of each wanted label that the map holds, in one pass."""
    if labelmap.dtype.kind not in "iu":
        raise MetricError(f"a label map must be of an integer type, got {labelmap.dtype}")
    if any(index < 1 for index in indices):
        raise MetricError(f"label indices must be 1 or more (0 is background), got {indices}")
    top = min(max(indices, default=0), int(labelmap.max(initial=0)))
    boxes = ndimage.find_objects(labelmap, max_label=top) if top > 0 else []
    of_index = {index: boxes[index - 1] for index in indices if index <= top}
    return {index: box for index, box in of_index.items() if box is not None}


def _region_size(reference: npt.NDArray[Any], region: _Mask | None) -> int:
    return reference.size if region is None else int(np.count_nonzero(region))


def _check_masks(prediction: _Mask, reference: _Mask, region: _Mask | None = None) -> None:
    _check_shapes(prediction, reference, region)
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise MetricError(
                f"the {name} must be boolean, got {mask.dtype}: compare it with a label first, "
                f"for example {name} == 1"
            )


def _check_shapes(
    prediction: npt.NDArray[Any], reference: npt.NDArray[Any], region: _Mask | None
) -> None:
    if prediction.shape != reference.shape:
        raise MetricError(
            f"prediction and reference must have one shape, got {prediction.shape} and "
            f"{reference.shape}: resample one of them to the other's grid first"
        )
    if region is not None and (region.shape != reference.shape or region.dtype != np.bool_):
        raise MetricError(
            f"the region must be boolean of shape {reference.shape}, "
            f"got {region.dtype} of shape {region.shape}"
        )


def _check_zooms(zooms: Sequence[float], ndim: int) -> None:
    if len(zooms) != ndim or not all(math.isfinite(zoom) and zoom > 0 for zoom in zooms):
        raise MetricError(f"zooms must be {ndim} positive lengths in mm, got {tuple(zooms)}")

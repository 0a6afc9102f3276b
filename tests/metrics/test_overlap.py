"""Agreement scores: worked numbers, properties, absent structures, a brute-force comparison."""

from __future__ import annotations

import dataclasses
import itertools
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deepmrseg_bids.errors import DeepMRSegError, MetricError
from deepmrseg_bids.metrics import overlap
from deepmrseg_bids.metrics import reliability as paired_numbers
from deepmrseg_bids.metrics.overlap import (
    Confusion,
    StructureAgreement,
    average_surface_distance,
    balanced_accuracy,
    confusion,
    f1,
    f2,
    f_beta,
    hd95,
    labelmap_agreement,
    lesion_agreement,
    presence,
    structure_agreement,
    summarise,
    volumes_mm3,
)
from deepmrseg_bids.metrics.reliability import (
    bland_altman,
    concordance,
    concordance_interval,
    icc,
    paired_test,
)

MM = (1.0, 1.0, 1.0)
PROPERTY = settings(max_examples=60, deadline=None)

counts = st.builds(Confusion, *[st.integers(0, 10_000)] * 4)
masks = hnp.arrays(np.bool_, (4, 5, 3))
label_maps = hnp.arrays(np.uint8, (5, 4, 4), elements=st.integers(0, 4))
volumes = st.integers(0, 20_000).map(float)  # whole mm3: no differences lost to rounding
volume_pairs = st.integers(3, 12).flatmap(
    lambda n: st.tuples(*[st.lists(volumes, min_size=n, max_size=n)] * 2)
)


def box(corner: tuple[int, int, int], size: tuple[int, int, int], shape=(20, 20, 20)):
    """A boolean image with one filled box."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = True
    return mask


def same(a, b) -> bool:
    """Equal dataclasses, nan equal to nan, floats to 1e-12."""
    pairs = zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True)
    return all(
        x == y if isinstance(x, str) else x == pytest.approx(y, rel=1e-12, nan_ok=True)
        for x, y in pairs
    )


def sample(status="both", f=0.5, bacc=0.75, volume=10.0, reference=10.0, index=1):
    return StructureAgreement(index, f, f, bacc, 1.0, volume, reference, status)


# Overlap


def test_confusion_counts_each_kind_of_voxel():
    prediction = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    reference = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert confusion(prediction, reference) == Confusion(tp=3, fp=2, fn=1, tn=4)


def test_scores_of_a_worked_example_follow_the_papers_formulas():
    c = Confusion(tp=3, fp=2, fn=1, tn=4)  # P = 3/5, R = TPR = 3/4, TNR = 4/6
    assert c.precision == 3 / 5
    assert c.sensitivity == 3 / 4
    assert c.specificity == 4 / 6
    assert f1(c) == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))  # = 2/3
    assert f1(c) == pytest.approx(2 / 3)
    assert f2(c) == pytest.approx(5 * (3 / 5) * (3 / 4) / (4 * (3 / 5) + 3 / 4))  # = 5/7
    assert f2(c) == pytest.approx(5 / 7)
    assert balanced_accuracy(c) == pytest.approx((3 / 4 + 4 / 6) / 2)  # = 17/24
    assert f_beta(c, 0.5) == pytest.approx(1.25 * 0.6 * 0.75 / (0.25 * 0.6 + 0.75))  # = 0.625


def test_dice_of_two_half_overlapping_boxes_is_one_half():
    c = confusion(box((2, 2, 2), (4, 4, 4)), box((4, 2, 2), (4, 4, 4)))
    assert (c.tp, c.fp, c.fn) == (32, 32, 32)
    assert f1(c) == 0.5


def test_a_region_limits_true_negatives_and_nothing_else():
    prediction = np.array([1, 1, 0, 0, 0, 0], dtype=bool)
    reference = np.array([1, 0, 1, 0, 0, 0], dtype=bool)
    region = np.array([0, 0, 1, 1, 0, 0], dtype=bool)
    assert confusion(prediction, reference, region=region) == Confusion(tp=1, fp=1, fn=1, tn=1)
    assert confusion(prediction, reference) == Confusion(tp=1, fp=1, fn=1, tn=3)


def test_balanced_accuracy_depends_on_the_region_and_dice_does_not():
    prediction, reference = box((2, 2, 2), (4, 4, 4)), box((3, 2, 2), (4, 4, 4))
    around = box((0, 0, 0), (8, 8, 8))
    whole = structure_agreement(prediction, reference, index=1, zooms=MM)
    limited = structure_agreement(prediction, reference, index=1, zooms=MM, region=around)
    assert limited.f1 == whole.f1 == 0.75
    # tp 48, fp = fn = 16; negatives: all 8000 or 512 voxels, less the 64 of the reference
    assert whole.bacc == pytest.approx((48 / 64 + (8000 - 80) / (8000 - 64)) / 2)
    assert limited.bacc == pytest.approx((48 / 64 + (512 - 80) / (512 - 64)) / 2)


def test_balanced_accuracy_without_a_negative_voxel_is_nan():
    full = np.ones((2, 2, 2), dtype=bool)
    assert math.isnan(balanced_accuracy(confusion(full, full)))
    assert f1(confusion(full, full)) == 1.0


@PROPERTY
@given(counts)
def test_scores_lie_between_0_and_1_or_are_nan_for_the_stated_reason(c: Confusion):
    for score in (f1(c), f2(c), f_beta(c, 0.3)):
        assert math.isnan(score) if c.status == "absent" else 0 <= score <= 1
    undefined = c.tp + c.fn == 0 or c.tn + c.fp == 0
    bacc = balanced_accuracy(c)
    assert math.isnan(bacc) if undefined else 0 <= bacc <= 1


@PROPERTY
@given(counts)
def test_f_scores_equal_their_precision_and_recall_forms(c: Confusion):
    assume(c.tp > 0)
    p, r = c.precision, c.sensitivity
    assert f1(c) == pytest.approx(2 * p * r / (p + r))
    assert f2(c) == pytest.approx(5 * p * r / (4 * p + r))
    assert balanced_accuracy(Confusion(c.tp, c.fp, c.fn, c.tn + 1)) == pytest.approx(
        (r + (c.tn + 1) / (c.tn + 1 + c.fp)) / 2
    )


@PROPERTY
@given(masks, masks)
def test_f1_is_the_dice_coefficient_and_symmetric(a, b):
    assume(a.any() or b.any())
    dice = 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))
    assert f1(confusion(a, b)) == pytest.approx(dice)
    assert f1(confusion(a, b)) == f1(confusion(b, a))


@PROPERTY
@given(masks)
def test_a_perfect_segmentation_scores_1_and_0_mm(mask):
    assume(mask.any() and not mask.all())
    found = structure_agreement(mask, mask.copy(), index=3, zooms=MM)
    assert (found.f1, found.f2, found.bacc, found.hd95_mm) == (1.0, 1.0, 1.0, 0.0)
    assert found.status == "both"


@PROPERTY
@given(counts)
def test_f2_is_above_f1_exactly_when_recall_is_above_precision(c: Confusion):
    assume(c.tp > 0 and c.fp != c.fn)
    assert (f2(c) > f1(c)) == (c.sensitivity > c.precision)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_beta_must_be_positive_and_finite(beta):
    with pytest.raises(MetricError, match="beta must be positive"):
        f_beta(Confusion(1, 1, 1, 1), beta)


def test_negative_counts_are_refused():
    with pytest.raises(MetricError, match="must not be negative"):
        Confusion(tp=1, fp=-1, fn=0, tn=0)


# Absent structures

SOME = box((1, 1, 1), (2, 2, 2), (6, 6, 6))
NONE = np.zeros((6, 6, 6), dtype=bool)


def test_a_missed_structure_scores_0_and_half_its_specificity():
    found = structure_agreement(NONE, SOME, index=5, zooms=(1.0, 1.0, 2.0))
    # TPR = 0/8, TNR = 208/208
    assert same(found, StructureAgreement(5, 0.0, 0.0, 0.5, math.nan, 0.0, 16.0, "missed"))


def test_a_false_structure_scores_0_and_has_no_balanced_accuracy():
    found = structure_agreement(SOME, NONE, index=5, zooms=(1.0, 1.0, 2.0))
    assert same(found, StructureAgreement(5, 0.0, 0.0, math.nan, math.nan, 16.0, 0.0, "false"))


def test_a_structure_absent_from_both_sides_has_no_score_at_all():
    found = structure_agreement(NONE, NONE, index=5, zooms=MM)
    nan = math.nan
    assert same(found, StructureAgreement(5, nan, nan, nan, nan, 0.0, 0.0, "absent"))


def test_structures_that_do_not_touch_score_0_but_have_a_distance():
    far = box((1, 1, 5), (2, 2, 1), (6, 6, 6))
    found = structure_agreement(far, SOME, index=1, zooms=MM)
    assert (found.f1, found.f2, found.status) == (0.0, 0.0, "both")
    assert found.hd95_mm == 4.0  # reference voxels at k = 1 and 2, prediction at k = 5


@pytest.mark.parametrize(("p", "r"), [(NONE, SOME), (SOME, NONE), (NONE, NONE)])
def test_distances_to_an_empty_side_are_nan(p, r):
    assert math.isnan(hd95(p, r, MM))
    assert math.isnan(average_surface_distance(p, r, MM))


# Surface distances


def test_distance_of_two_voxels_is_measured_in_mm_along_each_axis():
    a, b = box((1, 1, 1), (1, 1, 1)), box((4, 5, 1), (1, 1, 1))
    assert hd95(a, b, MM) == 5.0  # 3, 4, 0
    assert hd95(a, b, (2.0, 1.0, 1.0)) == pytest.approx(math.sqrt(6**2 + 4**2))
    assert average_surface_distance(a, b, (2.0, 1.0, 1.0)) == pytest.approx(math.sqrt(52))


def test_parallel_plates_are_their_gap_apart():
    a, b = box((3, 2, 2), (1, 10, 10)), box((7, 2, 2), (1, 10, 10))
    assert hd95(a, b, (1.5, 1.0, 1.0)) == 6.0
    assert average_surface_distance(a, b, (1.5, 1.0, 1.0)) == 6.0


def test_hd95_of_a_cube_inside_a_cube_is_the_edge_diagonal():
    inner, outer = box((7, 7, 7), (5, 5, 5)), box((6, 6, 6), (7, 7, 7))
    # From the 5^3 - 3^3 = 98 inner surface voxels: 1 mm. From the 7^3 - 5^3 = 218 outer ones:
    # 150 face voxels 1, 60 edge voxels sqrt 2, 8 corners sqrt 3. The 95th percentile lies at
    # position 0.95 * 217 = 206.15, among the edges (150 to 209).
    assert hd95(inner, outer, MM) == pytest.approx(math.sqrt(2))
    mean = (98 * 1 + 150 * 1 + 60 * math.sqrt(2) + 8 * math.sqrt(3)) / (98 + 218)
    assert average_surface_distance(inner, outer, MM) == pytest.approx(mean)


def test_hd95_is_the_greater_of_the_two_directed_percentiles():
    line = box((5, 5, 0), (1, 1, 10))
    with_outlier = line | box((15, 5, 0), (1, 1, 1))
    # line to outlier: ten zeros. Back: ten zeros and 10 mm, at position 0.95 * 10 = 9.5: 5 mm.
    # (Pooled, 20 zeros and 10 mm at position 19 would give 0.)
    assert hd95(line, with_outlier, MM) == pytest.approx(5.0)
    assert average_surface_distance(line, with_outlier, MM) == pytest.approx(10 / 21)


def test_the_edge_of_the_image_counts_as_surface():
    at_the_edge, inside = box((0, 0, 0), (5, 5, 5), (8, 8, 8)), box((1, 1, 1), (5, 5, 5), (8, 8, 8))
    padded = [np.pad(mask, 3) for mask in (at_the_edge, inside)]
    assert hd95(at_the_edge, inside, MM) == hd95(*padded, MM)
    assert average_surface_distance(at_the_edge, inside, MM) == pytest.approx(
        average_surface_distance(*padded, MM)
    )


def surface_points(mask, zooms):
    """Surface voxels by looking at each voxel's six neighbours, in mm."""
    padded = np.pad(mask, 1)
    points = []
    for voxel in np.argwhere(mask):
        steps = [s * e for e in np.eye(3, dtype=int) for s in (-1, 1)]
        if not all(padded[tuple(voxel + 1 + step)] for step in steps):
            points.append(voxel * np.array(zooms))
    return np.array(points)


def brute_force_distances(p, r, zooms):
    """HD95 and average surface distance."""
    if not (p.any() and r.any()):
        return math.nan, math.nan
    a, b = surface_points(p, zooms), surface_points(r, zooms)
    distances = np.linalg.norm(a[:, None] - b[None], axis=-1)
    nearest = [distances.min(axis=axis) for axis in (0, 1)]
    return max(np.percentile(d, 95) for d in nearest), np.concatenate(nearest).mean()


@PROPERTY
@given(masks, masks)
def test_surface_distances_equal_all_pairs_of_surface_points(a, b):
    zooms = (0.8, 1.0, 2.5)
    expected = brute_force_distances(a, b, zooms)
    assert hd95(a, b, zooms) == pytest.approx(expected[0], nan_ok=True)
    assert average_surface_distance(a, b, zooms) == pytest.approx(expected[1], nan_ok=True)


@PROPERTY
@given(masks, masks, st.tuples(*[st.integers(0, 6)] * 3))
def test_distances_do_not_change_when_both_masks_move(a, b, shift):
    assume(a.any() and b.any())
    after = tuple(6 - s for s in shift)
    moved = [np.pad(m, list(zip(shift, after, strict=True))) for m in (a, b)]
    zooms = (0.8, 1.0, 2.5)
    assert hd95(*moved, zooms) == hd95(a, b, zooms)
    assert average_surface_distance(*moved, zooms) == average_surface_distance(a, b, zooms)


@PROPERTY
@given(masks, masks)
def test_distances_are_symmetric_and_scale_with_the_voxel(a, b):
    assume(a.any() and b.any())
    assert hd95(a, b, MM) == hd95(b, a, MM)
    assert hd95(a, b, (2.0, 2.0, 2.0)) == pytest.approx(2 * hd95(a, b, MM))
    asd = average_surface_distance(a, b, MM)
    assert asd == pytest.approx(average_surface_distance(b, a, MM))
    assert average_surface_distance(a, b, (3.0, 3.0, 3.0)) == pytest.approx(3 * asd)


def test_distances_are_computed_on_the_joint_bounding_box_only(monkeypatch):
    seen = []
    real = ndimage.distance_transform_edt

    def recording(image, **options):
        seen.append(image.shape)
        return real(image, **options)

    monkeypatch.setattr(overlap.ndimage, "distance_transform_edt", recording)
    shape = (96, 96, 96)
    a, b = box((40, 50, 60), (5, 6, 7), shape), box((42, 50, 60), (5, 6, 7), shape)
    hd95(a, b, MM)
    average_surface_distance(a, b, MM)
    structure_agreement(a, b, index=1, zooms=MM)
    labelmap_agreement(a.astype(np.uint8), b.astype(np.uint8), [1], zooms=MM)
    assert seen == [(7, 6, 7)] * 8


# Label maps


def test_volumes_are_voxels_times_the_voxel_volume():
    labels = np.zeros((4, 4, 4), dtype=np.int16)
    labels[:2, :2, :2], labels[3, 3, 3] = 17, 300
    found = volumes_mm3(labels, [300, 17, 5], voxel_volume_mm3=0.5)
    assert found == {300: 0.5, 17: 4.0, 5: 0.0}
    assert list(found) == [300, 17, 5]


def test_an_empty_label_map_has_no_volume():
    assert volumes_mm3(np.zeros((2, 2, 2), np.uint8), [1], voxel_volume_mm3=1.0) == {1: 0.0}


def test_an_index_far_above_every_label_is_absent():
    labels = np.ones((2, 2, 2), dtype=np.uint8)
    assert volumes_mm3(labels, [1, 2**40], voxel_volume_mm3=1.0) == {1: 8.0, 2**40: 0.0}


def brute_force_agreement(p, r, index, zooms, region) -> StructureAgreement:
    """One structure straight from the formulas, on whole images."""
    tp, fp, fn = np.sum(p & r), np.sum(p & ~r), np.sum(~p & r)
    tn = np.sum(~p & ~r & region)
    status = {(1, 1): "both", (0, 1): "missed", (1, 0): "false", (0, 0): "absent"}
    bacc = (tp / (tp + fn) + tn / (tn + fp)) / 2 if r.any() and tn + fp else math.nan
    return StructureAgreement(
        index=index,
        f1=2 * tp / (2 * tp + fp + fn) if p.any() or r.any() else math.nan,
        f2=5 * tp / (5 * tp + 4 * fn + fp) if p.any() or r.any() else math.nan,
        bacc=bacc,
        hd95_mm=brute_force_distances(p, r, zooms)[0],
        volume_mm3=np.sum(p) * np.prod(zooms),
        reference_volume_mm3=np.sum(r) * np.prod(zooms),
        status=status[int(p.any()), int(r.any())],
        asd_mm=brute_force_distances(p, r, zooms)[1],
    )


@PROPERTY
@given(label_maps, label_maps, hnp.arrays(np.bool_, (5, 4, 4)))
def test_label_map_agreement_equals_brute_force(prediction, reference, region):
    zooms = (0.5, 1.0, 3.0)
    found = labelmap_agreement(prediction, reference, [4, 1, 9], zooms=zooms, region=region)
    assert [agreement.index for agreement in found] == [4, 1, 9]
    for agreement in found:
        p, r = prediction == agreement.index, reference == agreement.index
        expected = brute_force_agreement(p, r, agreement.index, zooms, region)
        assert same(agreement, expected)
        alone = structure_agreement(p, r, index=agreement.index, zooms=zooms, region=region)
        assert same(agreement, alone)


def test_label_maps_may_differ_in_their_integer_type():
    reference = np.zeros((4, 4, 4), dtype=">i4")
    reference[1, 1, 1], reference[2, 2, 2] = 300, 2
    prediction = np.zeros((4, 4, 4), dtype=np.uint8)
    prediction[2, 2, 2] = 2
    found = labelmap_agreement(prediction, reference, [2, 300], zooms=MM)
    assert [agreement.status for agreement in found] == ["both", "missed"]


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_a_label_map_must_be_integer(dtype):
    labels = np.ones((2, 2, 2), dtype=dtype)
    with pytest.raises(MetricError, match=f"integer type, got {np.dtype(dtype)}"):
        volumes_mm3(labels, [1], voxel_volume_mm3=1.0)
    with pytest.raises(MetricError, match="integer type"):
        labelmap_agreement(labels, labels, [1], zooms=MM)


def test_the_background_is_not_a_structure():
    labels = np.zeros((2, 2, 2), dtype=np.uint8)
    with pytest.raises(MetricError, match=r"1 or more .* got \[1, 0\]"):
        labelmap_agreement(labels, labels, [1, 0], zooms=MM)


@pytest.mark.parametrize("volume", [0.0, -1.0, math.nan, math.inf])
def test_a_voxel_volume_must_be_positive(volume):
    with pytest.raises(MetricError, match="voxel_volume_mm3 must be positive"):
        volumes_mm3(np.zeros((2, 2, 2), np.uint8), [1], voxel_volume_mm3=volume)


# Arrays that do not fit


@pytest.mark.parametrize(
    "score",
    [
        confusion,
        lambda p, r: hd95(p, r, MM),
        lambda p, r: average_surface_distance(p, r, MM),
        lambda p, r: structure_agreement(p, r, index=1, zooms=MM),
        lambda p, r: labelmap_agreement(p.astype(int), r.astype(int), [1], zooms=MM),
        lesion_agreement,
    ],
)
def test_different_shapes_are_an_error_that_names_both(score):
    with pytest.raises(MetricError, match=r"\(2, 3, 4\).*\(4, 3, 2\)"):
        score(np.ones((2, 3, 4), dtype=bool), np.ones((4, 3, 2), dtype=bool))


def test_a_mask_that_is_not_boolean_is_an_error_that_says_what_to_do():
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(MetricError, match=r"prediction must be boolean, got uint8.*== 1"):
        confusion(mask.astype(np.uint8), mask)
    with pytest.raises(MetricError, match="reference must be boolean, got float64"):
        hd95(mask, mask.astype(float), MM)


def test_a_region_must_be_a_boolean_mask_of_the_same_shape():
    mask = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(MetricError, match=r"region must be boolean of shape \(2, 2, 2\)"):
        confusion(mask, mask, region=np.ones((2, 2), dtype=bool))
    with pytest.raises(MetricError, match="got int64"):
        confusion(mask, mask, region=mask.astype(np.int64))


@pytest.mark.parametrize("zooms", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_zooms_must_be_one_positive_length_per_axis(zooms):
    mask = np.ones((2, 2, 2), dtype=bool)
    for score in (hd95, average_surface_distance):
        with pytest.raises(MetricError, match="zooms must be 3 positive lengths"):
            score(mask, mask, zooms)
    with pytest.raises(MetricError, match="zooms must be 3 positive lengths"):
        structure_agreement(mask, mask, index=1, zooms=zooms)


def test_metric_errors_belong_to_the_packages_errors():
    assert issubclass(MetricError, DeepMRSegError)


# Lesions


def test_lesions_are_counted_not_voxels():
    big, small = box((1, 1, 1), (6, 6, 6)), box((12, 12, 12), (1, 1, 1))
    other_small, false = box((12, 1, 1), (1, 1, 1)), box((1, 15, 15), (2, 2, 2))
    found = lesion_agreement(big | false, big | small | other_small)
    assert (found.n_reference, found.n_detected) == (3, 1)
    assert (found.n_predicted, found.n_confirmed) == (2, 1)
    assert found.recall == 1 / 3
    assert found.precision == 1 / 2
    assert found.f1 == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))  # = 2/5


def test_voxels_that_share_only_a_corner_are_one_lesion():
    diagonal = box((3, 3, 3), (1, 1, 1)) | box((4, 4, 4), (1, 1, 1))
    apart = box((3, 3, 3), (1, 1, 1)) | box((5, 5, 5), (1, 1, 1))
    assert lesion_agreement(diagonal, diagonal).n_reference == 1
    assert lesion_agreement(apart, apart).n_reference == 2


def test_a_detected_lesion_needs_the_given_overlap():
    reference, prediction = box((2, 2, 2), (4, 1, 1)), box((4, 2, 2), (4, 1, 1))  # 2 in common
    assert lesion_agreement(prediction, reference, min_overlap_voxels=2).recall == 1.0
    assert lesion_agreement(prediction, reference, min_overlap_voxels=3).recall == 0.0
    assert lesion_agreement(prediction, reference, min_overlap_voxels=3).precision == 0.0


def test_a_lesion_smaller_than_the_overlap_counts_if_all_of_it_is_found():
    tiny, wide = box((3, 3, 3), (1, 1, 1)), box((2, 2, 2), (3, 3, 3))
    found = lesion_agreement(wide, tiny, min_overlap_voxels=2)
    assert (found.n_detected, found.n_confirmed) == (1, 0)
    assert found.f1 == 0.0


@PROPERTY
@given(masks, st.integers(1, 5))
def test_a_perfect_lesion_map_scores_1_at_every_overlap(mask, overlap):
    assume(mask.any())
    found = lesion_agreement(mask, mask.copy(), min_overlap_voxels=overlap)
    assert (found.recall, found.precision, found.f1) == (1.0, 1.0, 1.0)


@PROPERTY
@given(masks, masks)
def test_exchanging_the_sides_exchanges_lesion_recall_and_precision(a, b):
    assume(a.any() and b.any())
    there, back = lesion_agreement(a, b), lesion_agreement(b, a)
    assert (there.recall, there.precision) == (back.precision, back.recall)
    assert there.f1 == pytest.approx(back.f1)
    assert 0 <= there.f1 <= 1


def test_missing_lesions_follow_the_table_of_absent_structures():
    missed, false = lesion_agreement(NONE, SOME), lesion_agreement(SOME, NONE)
    absent = lesion_agreement(NONE, NONE)
    assert (missed.status, missed.recall, missed.f1) == ("missed", 0.0, 0.0)
    assert math.isnan(missed.precision)
    assert (false.status, false.precision, false.f1) == ("false", 0.0, 0.0)
    assert math.isnan(false.recall)
    assert absent.status == "absent"
    assert all(math.isnan(score) for score in (absent.recall, absent.precision, absent.f1))


def test_an_overlap_below_one_voxel_is_refused():
    with pytest.raises(MetricError, match="1 or more, got 0"):
        lesion_agreement(SOME, SOME, min_overlap_voxels=0)


# Agreement of volumes


def test_concordance_of_a_worked_example():
    # x = 1 2 3 4, y = 1 3 2 6: means 2.5 and 3, s_x^2 = 5/4, s_y^2 = 14/4,
    # s_xy = (1.5*2 + 0.5*0 + 0.5*(-1) + 1.5*3) / 4 = 7/4; (0.5)^2 = 1/4
    assert concordance([1, 2, 3, 4], [1, 3, 2, 6]) == pytest.approx(
        (7 / 2) / (5 / 4 + 14 / 4 + 1 / 4)
    )


@PROPERTY
@given(volume_pairs)
def test_concordance_is_symmetric_and_never_above_pearson(pair):
    x, y = map(np.array, pair)
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    ccc = concordance(x, y)
    assert ccc == pytest.approx(concordance(y, x), abs=1e-12)
    assert abs(ccc) <= abs(np.corrcoef(x, y)[0, 1]) + 1e-9


@PROPERTY
@given(volume_pairs, st.floats(1, 1e4))
def test_concordance_with_itself_is_1_and_a_shift_lowers_it(pair, shift):
    x = np.array(pair[0])
    assume(np.ptp(x) > 0)
    assert concordance(x, x) == 1.0
    assert concordance(x, x + shift) < 1.0
    assert concordance(x, x + 2 * shift) < concordance(x, x + shift)


@PROPERTY
@given(volume_pairs)
def test_concordance_does_not_depend_on_the_unit_or_the_order_of_samples(pair):
    x, y = map(np.array, pair)
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    assert concordance(x, y) == pytest.approx(concordance(x / 1000, y / 1000), abs=1e-9)
    assert concordance(x, y) == pytest.approx(concordance(x[::-1], y[::-1]), abs=1e-9)


def test_concordance_of_mirrored_values_is_minus_1():
    assert concordance([1, 2, 3], [3, 2, 1]) == -1.0


@pytest.mark.parametrize("score", [concordance, icc])
def test_identical_constant_volumes_are_no_evidence_of_agreement(score):
    assert math.isnan(score([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]))  # 0.1 * 3 / 3 is not 0.1


@pytest.mark.parametrize("score", [concordance, icc])
def test_a_constant_side_agrees_with_nothing(score):
    assert score([0.1, 0.1, 0.1], [0.2, 0.2, 0.2]) == 0.0
    assert score([0.1, 0.1, 0.1], [1.0, 2.0, 4.0]) == 0.0
    assert score([1.0, 2.0, 4.0], [0.1, 0.1, 0.1]) == 0.0


@pytest.mark.parametrize("score", [concordance, concordance_interval, icc, bland_altman])
def test_pairs_that_do_not_fit_are_refused(score):
    with pytest.raises(MetricError, match=r"\(3,\) and \(2,\)"):
        score([1, 2, 3], [1, 2])
    with pytest.raises(MetricError, match="vectors of one length"):
        score([[1, 2, 3]], [[1, 2, 3]])
    with pytest.raises(MetricError, match="pairs are needed, got 1"):
        score([1], [1])
    with pytest.raises(MetricError, match="must be finite"):
        score([1, 2, math.nan], [1, 2, 3])


def test_concordance_interval_of_a_worked_example():
    # x = 1 2 3 4, y = 1 3 2 6 as above: CCC = 3.5/5 = 0.7, r = 1.75 / sqrt(1.25 * 3.5) = 0.83666,
    # r^2 = 0.7, C = 0.83666, C^2 = 0.7, u^2 = 0.25 / sqrt(4.375) = 0.119523, 1 - CCC^2 = 0.51:
    # (0.3 * 0.7 / 0.51 + 2 * 0.49 * 0.3 * 0.83666 * 0.119523 / 0.2601
    #  - 0.49 * 0.7 * 0.0142857 / (2 * 0.2601)) / 2
    # = (0.4117647 + 0.1130334 - 0.0094195) / 2 = 0.2576893, its root 0.5076311
    # z = atanh(0.7) = 0.8673005 -/+ 1.9599640 * 0.5076311 = -0.1276382, 1.8622393
    low, high = concordance_interval([1, 2, 3, 4], [1, 3, 2, 6])
    assert low == pytest.approx(math.tanh(-0.1276382), abs=1e-5)
    assert high == pytest.approx(math.tanh(1.8622393), abs=1e-5)


def test_concordance_interval_has_the_spread_that_simulation_has():
    rng = np.random.default_rng(20190702)
    n, repeats = 200, 3000
    x = rng.standard_normal((repeats, n))
    y = 0.5 + 1.4 * (0.8 * x + 0.6 * rng.standard_normal((repeats, n)))
    cov = np.mean((x - x.mean(1, keepdims=True)) * (y - y.mean(1, keepdims=True)), axis=1)
    ccc = 2 * cov / (x.var(1) + y.var(1) + (x.mean(1) - y.mean(1)) ** 2)
    half_width = 1.959964 * np.arctanh(ccc).std()
    intervals = np.arctanh([concordance_interval(a, b) for a, b in zip(x[:300], y, strict=False)])
    assert np.mean(intervals[:, 1] - intervals[:, 0]) / 2 == pytest.approx(half_width, rel=0.05)


@PROPERTY
@given(volume_pairs, st.floats(0.5, 0.9), st.floats(0.91, 0.999))
def test_concordance_interval_holds_its_estimate_and_widens_with_its_level(pair, narrow, wide):
    x, y = map(np.array, pair)
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    ccc = concordance(x, y)
    low, high = concordance_interval(x, y, level=narrow)
    lower, higher = concordance_interval(x, y, level=wide)
    assert -1 <= lower <= low <= ccc + 1e-9
    assert ccc - 1e-9 <= high <= higher <= 1


def test_concordance_interval_at_its_limits():
    assert concordance_interval([1, 2, 3], [1, 2, 3]) == (1.0, 1.0)
    assert concordance_interval([1, 2, 3], [3, 2, 1]) == (-1.0, -1.0)
    assert all(map(math.isnan, concordance_interval([1, 2, 3], [2, 2, 2])))
    uncorrelated = concordance_interval([-1, 1, -1, 1], [-1, -1, 1, 1])  # r = 0: no division by r
    assert uncorrelated[0] == pytest.approx(-uncorrelated[1])
    assert uncorrelated[1] == pytest.approx(math.tanh(1.959964 / math.sqrt(2)))


def test_concordance_interval_needs_three_pairs_and_a_level_below_1():
    with pytest.raises(MetricError, match="at least 3 pairs are needed, got 2"):
        concordance_interval([1, 2], [1, 2])
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(MetricError, match="level must lie between 0 and 1"):
            concordance_interval([1, 2, 3], [1, 2, 4], level=level)


def test_icc_of_a_worked_example():
    # Subjects (1, 2), (3, 3), (5, 7): row means 1.5, 3, 6, column means 3, 4, grand mean 3.5.
    # MSR = 2 (4 + 0.25 + 6.25) / 2 = 10.5; MSC = 3 (0.25 + 0.25) / 1 = 1.5;
    # differences -1, 0, -2 about -1: SSE = (0 + 1 + 1) / 2 = 1, MSE = 1 / 2 = 0.5
    expected = (10.5 - 0.5) / (10.5 + 0.5 + 2 * (1.5 - 0.5) / 3)
    assert icc([1, 3, 5], [2, 3, 7]) == pytest.approx(expected)


@PROPERTY
@given(volume_pairs)
def test_icc_equals_its_covariance_form(pair):
    x, y = map(np.array, pair)
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    xx, xy, _, yy = np.cov(x, y).ravel()
    chance = (xx + yy - 2 * xy) / x.size
    denominator = xx + yy + (x.mean() - y.mean()) ** 2 - chance
    assume(denominator > 1e-6 * (xx + yy))
    assert icc(x, y) == pytest.approx(2 * xy / denominator, abs=1e-6)
    assert icc(x, y) <= 1 + 1e-12


def test_icc_is_1_for_equal_and_below_1_for_shifted_volumes():
    x = np.array([1.0, 5.0, 9.0])
    assert icc(x, x) == 1.0
    assert icc(x, x + 4) == pytest.approx(16 / (16 + 16 / 2))  # s^2 = 16, d^2 / 2 = 8


def test_icc_without_a_denominator_is_nan():
    assert math.isnan(icc([0.0, 1.0], [1.0, 0.0]))


def test_bland_altman_of_a_worked_example():
    # differences 1, -1, 3, 1: mean 1, squares about it 0 + 4 + 4 + 0, sd = sqrt(8 / 3)
    found = bland_altman([2, 3, 8, 5], [1, 4, 5, 4])
    assert (found.bias, found.n) == (1.0, 4)
    assert found.sd == pytest.approx(math.sqrt(8 / 3))
    assert found.lower == pytest.approx(1 - 1.96 * math.sqrt(8 / 3))
    assert found.upper == pytest.approx(1 + 1.96 * math.sqrt(8 / 3))


@PROPERTY
@given(volume_pairs)
def test_exchanging_the_sides_mirrors_bland_altman(pair):
    there, back = bland_altman(*pair), bland_altman(*reversed(pair))
    assert there.bias == pytest.approx(-back.bias)
    assert there.lower == pytest.approx(-back.upper)
    assert there.lower <= there.bias <= there.upper


# Paired tests


def test_the_signed_rank_test_of_a_worked_example():
    # differences 1 -2 3 4 5 6: the ranks against are 2, those in favour 19; of 64 signs of six
    # ranks three give 2 or less (none, {1}, {2}), so p = 2 * 3 / 64
    found = paired_test([11, 8, 13, 14, 15, 16], [10.0] * 6)
    assert (found.n, found.w) == (6, 2.0)
    assert found.p == pytest.approx(6 / 64)
    assert found.rank_biserial == pytest.approx(17 / 21)
    assert found.mean == pytest.approx(17 / 6)
    assert found.median == pytest.approx(3.5)
    # squares about the mean: 91 - 17^2 / 6, over 5
    assert found.dz == pytest.approx((17 / 6) / math.sqrt((91 - 17**2 / 6) / 5))


def test_pairs_without_a_value_or_a_difference_do_not_enter_the_ranks():
    found = paired_test([2.0, math.nan, 5.0, 7.0], [1.0, 1.0, 5.0, math.nan])
    assert (found.n, found.w, found.rank_biserial, found.p) == (2, 0.0, 1.0, 1.0)
    equal = paired_test([1.0, 2.0], [1.0, 2.0])
    assert (equal.p, equal.rank_biserial, equal.mean) == (1.0, 0.0, 0.0)
    assert math.isnan(equal.dz)


@PROPERTY
@given(volume_pairs)
def test_exchanging_the_sides_turns_the_paired_test_around(pair):
    there, back = paired_test(*pair), paired_test(*reversed(pair))
    assert (there.p, there.w, there.n) == pytest.approx((back.p, back.w, back.n))
    assert there.rank_biserial == pytest.approx(-back.rank_biserial)
    assert there.mean == pytest.approx(-back.mean)
    assert 0 <= there.p <= 1
    assert -1 <= there.rank_biserial <= 1


def test_pairs_that_cannot_be_paired_are_refused():
    with pytest.raises(MetricError, match=r"\(3,\) and \(2,\)"):
        paired_test([1, 2, 3], [1, 2])
    with pytest.raises(MetricError, match="no pair"):
        paired_test([math.nan], [1.0])


@pytest.mark.parametrize(
    ("found", "expected", "status"),
    [(2.0, 1.0, "both"), (0, 3, "missed"), (4, 0, "false"), (0, 0, "absent")],
)
def test_presence_says_on_which_side_a_structure_is(found, expected, status):
    assert presence(found, expected) == status


# Summaries


def test_summary_of_a_worked_example():
    found = summarise(
        [
            sample(f=0.8, bacc=0.9, volume=10.0, reference=12.0),
            sample(f=0.6, bacc=0.7, volume=20.0, reference=18.0),
        ]
    )
    assert (found.index, found.n, found.n_bacc) == (1, 2, 2)
    assert found.f1_mean == found.f2_mean == pytest.approx(0.7)
    assert found.f1_sd == found.f2_sd == pytest.approx(math.sqrt((0.1**2 + 0.1**2) / 1))
    assert found.bacc_mean == pytest.approx(0.8)
    # volumes 10, 20 against 12, 18: variances 25 and 9, covariance 15, equal means
    assert found.ccc == pytest.approx(30 / 34)


def test_an_absent_structure_enters_no_mean_but_its_volumes_count():
    nan = math.nan
    absent = sample("absent", nan, nan, 0.0, 0.0)
    present = [
        sample(f=0.8, volume=10.0, reference=12.0),
        sample(f=0.4, volume=20.0, reference=18.0),
    ]
    found = summarise([*present, absent])
    assert (found.n, found.n_bacc) == (2, 2)
    assert found.f1_mean == pytest.approx(0.6)  # not (0.8 + 0.4 + 1) / 3
    assert found.ccc == pytest.approx(concordance([10, 20, 0], [12, 18, 0]))
    assert found.ccc != pytest.approx(concordance([10, 20], [12, 18]))


def test_a_missed_structure_lowers_every_mean():
    found = summarise([sample(f=0.8, bacc=0.9), sample("missed", 0.0, 0.5, 0.0, 30.0)])
    assert (found.n, found.n_bacc) == (2, 2)
    assert found.f1_mean == pytest.approx(0.4)
    assert found.bacc_mean == pytest.approx(0.7)


def test_a_false_structure_lowers_the_f_means_and_leaves_balanced_accuracy():
    found = summarise([sample(f=0.8, bacc=0.9), sample("false", 0.0, math.nan, 30.0, 0.0)])
    assert (found.n, found.n_bacc) == (2, 1)
    assert found.f1_mean == pytest.approx(0.4)
    assert found.bacc_mean == pytest.approx(0.9)
    assert math.isnan(found.bacc_sd)


def test_a_structure_that_no_sample_has_gets_no_mean():
    nan = math.nan
    found = summarise([sample("absent", nan, nan, 0.0, 0.0)] * 3)
    assert (found.n, found.n_bacc) == (0, 0)
    assert math.isnan(found.f1_mean)
    assert math.isnan(found.bacc_mean)
    assert math.isnan(found.ccc)


def test_one_sample_has_a_mean_but_no_deviation_and_no_concordance():
    found = summarise([sample(f=0.8)])
    assert (found.n, found.f1_mean) == (1, 0.8)
    assert math.isnan(found.f1_sd)
    assert math.isnan(found.ccc)


def test_samples_of_different_structures_are_not_averaged():
    with pytest.raises(MetricError, match=r"got structures \[1, 2\]"):
        summarise([sample(index=2), sample(index=1)])
    with pytest.raises(MetricError, match=r"got structures \[\]"):
        summarise([])


# The module


def test_records_cannot_be_changed():
    records = [
        Confusion(1, 1, 1, 1),
        sample(),
        summarise([sample()]),
        lesion_agreement(SOME, SOME),
        bland_altman([1, 2], [1, 3]),
    ]
    for record, name in itertools.product(records, ["index", "tp", "n", "n_reference"]):
        if hasattr(record, name):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(record, name, 0)


@pytest.mark.parametrize("module", [overlap, paired_numbers], ids=lambda one: one.__name__)
def test_every_public_name_exists_and_is_documented(module):
    listed = set(module.__all__)
    assert module.__all__ == sorted(listed)
    public = {n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    assert {n for n in public if not n.startswith("_")} == listed - {"Status"}
    for name in listed - {"Status"}:
        assert getattr(module, name).__doc__

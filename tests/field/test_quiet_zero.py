"""What is no T1w of a head gets a finding in plain words, or fails; never a quiet number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.brain import Brain, find_brain, segment
from deepmrseg_bids.tasks.lesions import check_lesions
from deepmrseg_bids.tasks.qc import check_image
from tests.field.real_head import as_read, head, pool, usual_brain

SHAPE = head().data.shape


def mask() -> np.ndarray:
    return usual_brain().mask_on(head().grid)


def ct() -> np.ndarray:
    """Air at -1000, soft tissue at 40, bone at 1000, a brain of one level."""
    rng = np.random.default_rng(0)
    inside = mask()
    around = ndimage.binary_dilation(inside, iterations=8)
    bone = ndimage.binary_dilation(inside, iterations=4) & ~inside
    levels = np.where(bone, 1000.0, np.where(around, 40.0, -1000.0))
    return np.where(inside, 35 + 4 * head().data / head().data.max(), levels) + rng.normal(
        0, 4, SHAPE
    )


def where_air_is_constant() -> np.ndarray:
    return np.where(ndimage.binary_dilation(mask(), iterations=8), ct(), -1000.0)


STORED: dict[str, Callable[[], np.ndarray]] = {
    "noise": ct,
    "constant air": where_air_is_constant,
    "without sign": lambda: where_air_is_constant() + 1024,
    "without sign, from 0": lambda: where_air_is_constant() + 1000,
    "without sign, noise": lambda: ct() + 1024,
    "a round field of view": lambda: np.where(away_from_axis() > 50, -3024.0, ct()),
    "the same without sign": lambda: np.where(away_from_axis() > 50, 0.0, ct() + 1024),
    "a brain alone": lambda: np.where(mask(), ct(), -1024.0),
    "a brain alone, without sign": lambda: np.where(mask(), ct() + 1024, 0.0),
    "of much noise": lambda: ct() + np.random.default_rng(1).normal(0, 25, SHAPE),
}


def away_from_axis() -> np.ndarray:
    i, j, _ = np.indices(SHAPE)
    return np.hypot(i - SHAPE[0] / 2, j - SHAPE[1] / 2)


@pytest.mark.robustness(
    "a CT named T1w",
    tried="Hounsfield units with noise or one value as air, stored without sign (+1024, +1000), "
    "padded with -3024, a brain alone",
)
def test_a_ct_is_one_however_it_was_stored(came_out: Callable[[str], None]) -> None:
    told = {
        kind: [one.tag for one in as_read(make()).findings if one.severity == "error"]
        for kind, make in STORED.items()
    }
    assert set(map(tuple, told.values())) == {("error:computed-tomography",)}, told
    came_out("error computed-tomography")


@pytest.mark.parametrize("share", [25, 50, 75])
@pytest.mark.parametrize("stripped", [False, True])
def test_an_mri_of_the_same_numbers_is_none(share: int, stripped: bool) -> None:
    data = np.where(mask(), head().data, 0) if stripped else head().data
    level = float(np.percentile(head().data[mask()], share))
    for zero in (0.0, 1024.0, 1000.0):
        numbers = data * (1030 / level) - 1000 + zero
        assert "computed-tomography" not in {one.code for one in as_read(numbers).findings}


def ellipsoid() -> np.ndarray:
    middle = np.array(SHAPE)[:, None, None, None] / 2
    away = ((np.indices(SHAPE) - middle) / np.array([34, 44, 34])[:, None, None, None]) ** 2
    rng = np.random.default_rng(0)
    return np.abs(100.0 * (away.sum(axis=0) < 1) + rng.normal(0, 3, SHAPE))


def label_map() -> np.ndarray:
    """Regions of one value each, as many as an atlas has."""
    parts = np.add.outer(np.arange(SHAPE[0]) // 12, np.arange(SHAPE[1]) // 12)[..., None]
    return np.where(mask(), 1 + parts * 7 + np.arange(SHAPE[2]) // 12, 0)


SHEARED = np.array([[1, 0, 0.35, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
NO_T1W: dict[str, tuple[Callable[[], Volume], str]] = {
    "a CT": (lambda: as_read(ct()), "computed-tomography"),
    "a CT with a sheared header": (
        lambda: as_read(ct(), Grid(SHAPE, SHEARED @ head().grid.affine)), "computed-tomography"),
    "an ellipsoid": (lambda: as_read(ellipsoid()), "no-tissue-contrast"),
    "a label map": (lambda: as_read(label_map()), "flat-regions"),
    "noise": (
        lambda: as_read(np.random.default_rng(0).normal(100, 5, SHAPE)), "no-tissue-contrast"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_T1W)
def test_what_is_no_mri_of_a_head_is_told_or_fails(name: str) -> None:
    make, code = NO_T1W[name]
    volume = make()
    findings = [*volume.findings, *check_image(volume)]
    try:
        brain = find_brain(volume, pool()("brain"))
        written = segment(volume, brain, pool()("brain"))
        assert written.labels.data.any()
        findings += brain.findings
    except DeepMRSegError:
        return
    assert code in {one.code for one in findings if one.severity == "error"}, findings


def test_a_mask_that_would_be_written_empty_is_an_error() -> None:
    far = Grid(SHAPE, head().grid.affine + 1000 * np.eye(4)[3] * np.array([[1], [1], [1], [0]]))
    brain: Brain = usual_brain()
    with pytest.raises(DeepMRSegError, match="0 ml found"):
        segment(replace(head(), grid=far), brain, pool()("brain"))


def test_two_heads_in_one_image_are_told() -> None:
    two = np.concatenate([head().data, head().data])
    found = find_brain(as_read(two, Grid(two.shape, head().grid.affine)), pool()("brain"))
    assert "error:several-heads" in {one.tag for one in found.findings}


def ball(radius: float) -> LabelMap:
    grid = canonical_grid(head().grid, 2.0)
    away = np.linalg.norm((np.indices(grid.shape).T - np.array([30, 50, 50])).T, axis=0)
    return LabelMap((away * 2.0 <= radius).astype(np.uint8), grid)


def test_a_tumour_is_no_white_matter_lesion() -> None:
    tumour = ball(17.6)  # 23 ml
    (finding,) = check_lesions(tumour.data > 0, tumour.grid)
    assert finding.severity == "error" and "not typical of white-matter" in finding.message


def test_a_rim_around_a_cavity_is_none_either() -> None:
    rim = (ball(22).data > 0) & (ball(16).data == 0)
    (finding,) = check_lesions(rim, ball(22).grid)
    assert finding.code == "lesion-untypical"


def test_a_large_flat_lesion_is_one() -> None:
    """20 ml along a ventricle, 10 mm thick."""
    grid = canonical_grid(head().grid, 2.0)
    flat = np.zeros(grid.shape, bool)
    flat[40:45, 30:70, 30:43] = True
    assert flat.sum() * grid.voxel_volume > 20_000 and check_lesions(flat, grid) == ()


def test_a_lesion_has_its_thickness_on_any_grid() -> None:
    tumour = ball(17.6)
    thick = Grid((tumour.grid.shape[0], tumour.grid.shape[1], tumour.grid.shape[2] // 2),
                 tumour.grid.affine @ np.diag([1, 1, 2, 1]))  # fmt: skip
    carried = resample(tumour.data, tumour.grid, thick, order=0) > 0
    assert [one.code for one in check_lesions(carried, thick)] == ["lesion-untypical"]

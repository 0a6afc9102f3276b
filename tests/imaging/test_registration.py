"""Registration: known movements are found, templates are reached, and equal is equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deepmrseg_bids.errors import RegistrationError
from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample, sample
from deepmrseg_bids.imaging.nifti import Volume, read_volume
from deepmrseg_bids.imaging.registration import (
    Quality,
    RigidFit,
    carry_points,
    compare,
    register_rigid,
    register_to_template,
)
from tests.integration.conftest import coarse, coarse_brain
from tests.support import stored_as


@pytest.fixture(scope="module")
def head() -> Volume:
    """The MNI152 average at 4 mm."""
    image = coarse(4)
    data = np.asarray(image.dataobj, dtype=np.float32)
    return Volume(data, Grid(data.shape, image.affine))


def movement(angles: tuple[float, ...], shift: tuple[float, ...]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def moved(volume: Volume, matrix: np.ndarray, spacing: float) -> Volume:
    """The same head elsewhere, on other voxels: ``matrix`` takes its points there."""
    there = Grid(volume.grid.shape, matrix @ volume.grid.affine)
    lattice = canonical_grid(there, spacing)
    return Volume(resample(volume.data, there, lattice), lattice)


def off(found: np.ndarray, true: np.ndarray) -> float:
    """The largest distance, in mm, at six points of a head."""
    points = np.c_[80 * np.vstack([np.eye(3), -np.eye(3)]), np.ones(6)]
    return float(np.linalg.norm((points @ (found - true).T)[:, :3], axis=1).max())


def test_a_known_movement_is_found_whatever_the_contrast_and_orientation(head: Volume) -> None:
    true = movement((9, -6, 14), (12, -8, 15))
    there = moved(head, true, 4.5)
    bright = np.float32(there.data.max())
    data, grid = stored_as(np.where(there.data > 0.05 * bright, bright - there.data, 0),
                           there.grid, "PSR")  # fmt: skip
    fit = register_rigid(Volume(data, grid), head, spacing=4.0)
    assert off(fit.matrix, true) < 1.5
    assert fit.quality.information > 2 * fit.before.information
    assert fit.angle == pytest.approx(Rotation.from_matrix(true[:3, :3]).magnitude() * 57.3, abs=1)
    back = resample(data, fit.place(grid), head.grid)
    assert compare(back, head.data, head.data > 30).correlation < -0.5  # it is the negative


def test_images_that_lie_on_each_other_stay_there(head: Volume) -> None:
    fit = register_rigid(replace(head, data=head.data + 5), head, spacing=4.0)
    assert off(fit.matrix, np.eye(4)) < 0.1


def test_place_undoes_the_movement() -> None:
    grid = Grid((4, 5, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
    true = movement((0, 0, 90), (5, 0, 0))
    fit = RigidFit(true, Quality(1, 1), Quality(0, 0))
    there = Grid(grid.shape, true @ grid.affine)
    np.testing.assert_allclose(fit.place(there).affine, grid.affine, atol=1e-9)


@pytest.mark.parametrize("kind", ["constant", "empty"])
def test_images_without_content_do_not_agree(kind: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((8, 8, 8))
    inside = np.full(image.shape, kind == "constant")
    found = compare(np.ones_like(image), image, inside)
    assert (found.correlation, found.information) == (0, 0)


def test_noise_agrees_with_nothing_and_all_with_itself() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 30, 30, 30))
    inside = np.ones(one.shape, bool)
    assert compare(one, other, inside).information < 0.02
    assert compare(-one, one, inside).information > 0.9
    halves = (inside, np.indices(one.shape)[0] < 15)
    assert compare(one, one, inside, masks=halves).overlap == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """The brain of ``head``."""
    return np.asarray(coarse_brain(4).dataobj) > 0


@pytest.fixture(scope="module")
def warped(
    head: Volume, brain: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Volume, np.ndarray, Path, Path]:
    """A turned, wider head on the average: the scan, the movement, two folders of transforms."""
    true = movement((5, 4, -8), (10, 5, -12)) @ np.diag([1.06, 0.96, 1.0, 1.0])
    scan = moved(head, true, 4.0)
    own = moved(replace(head, data=brain.astype(np.float32)), true, 4.0).data > 0.5
    folders = [tmp_path_factory.mktemp("xfm") for _ in range(2)]
    for folder in folders:
        fit = register_to_template(scan, own, head, brain, folder=folder)
        assert fit.quality.correlation > 0.8
        assert fit.quality.overlap is not None and fit.quality.overlap > 0.95
    return scan, true, *folders


def test_points_of_the_template_are_found_in_the_scan(
    head: Volume, brain: np.ndarray, warped: tuple[Volume, np.ndarray, Path, Path]
) -> None:
    _, true, folder, _ = warped
    points = carry_points(folder / "Composite.h5", head.grid)
    voxels = np.argwhere(brain)
    expected = head.grid.to_world(voxels) @ true[:3, :3].T + true[:3, 3]
    away = np.linalg.norm(points[(slice(None), *voxels.T)].T - expected, axis=1)
    assert np.median(away) < 1.5  # of voxels of 4 mm


def test_what_ants_makes_of_the_file_is_what_we_make_of_it(
    head: Volume, warped: tuple[Volume, np.ndarray, Path, Path], tmp_path: Path
) -> None:
    import ants

    scan, _, folder, _ = warped
    for name, volume in (("fixed", head), ("moving", scan)):
        nib.save(nib.Nifti1Image(volume.data, volume.grid.affine), tmp_path / f"{name}.nii")
    fixed, moving = (ants.image_read(str(tmp_path / f"{name}.nii")) for name in ("fixed", "moving"))
    theirs = ants.apply_transforms(fixed, moving, [str(folder / "Composite.h5")]).numpy()
    ours = sample(scan.data, scan.grid, carry_points(folder / "Composite.h5", head.grid))
    np.testing.assert_allclose(ours, theirs, atol=0.02 * theirs.max())
    back = ants.apply_transforms(moving, fixed, [str(folder / "InverseComposite.h5")]).numpy()
    assert compare(back, scan.data, back > 0).correlation > 0.9


def test_the_same_scan_gives_the_same_bytes(
    warped: tuple[Volume, np.ndarray, Path, Path],
) -> None:
    *_, one, other = warped
    for name in ("Composite.h5", "InverseComposite.h5"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_what_is_no_head_does_not_reach_the_template(
    head: Volume, brain: np.ndarray, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).random(head.data.shape).astype(np.float32)
    with pytest.raises(RegistrationError, match="correlation 0"):
        register_to_template(replace(head, data=noise), brain, head, brain, folder=tmp_path)


def test_an_empty_brain_mask_is_refused(head: Volume, brain: np.ndarray, tmp_path: Path) -> None:
    empty = np.zeros(head.data.shape, bool)
    with pytest.raises(RegistrationError, match="0 voxels"):
        register_to_template(head, empty, head, brain, folder=tmp_path)


@pytest.mark.shared_data
def test_a_real_head_turned_by_forty_degrees_is_found_to_a_tenth_of_a_millimetre(
    shared_data: Path,
) -> None:
    real = read_volume(shared_data / "heads/sub-IXI015/anat/sub-IXI015_T1w.nii.gz")
    true = movement((20, 15, -25), (30, -40, 20))
    fit = register_rigid(moved(real, true, 2.5), real)
    assert off(fit.matrix, true) < 0.1

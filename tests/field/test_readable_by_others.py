"""What we write lies where its scan lies, for ANTs (ITK) as for nibabel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import (
    LabelMap,
    read_labels,
    read_volume,
    write_labels,
    write_probabilities,
)
from deepmrseg_bids.imaging.registration import itk_text
from tests.field.conftest import Study, fill
from tests.field.headers import Header

SHAPE = (20, 25, 22)
TURN = np.array([10.0, -7.0, 15.0])


def oblique(*, shear: float = 0.0, shift: float = 0.0) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", TURN, degrees=True).as_matrix()
    unit = np.eye(3)
    unit[0, 1] = shear
    affine[:3, :3] = turn @ np.diag([-4.0, 4.0, 5.0]) @ unit
    affine[:3, 3] = np.array([30.0, -40.0, 20.0]) + shift
    return affine


GOOD = oblique()
FORMS = {  # sform, qform, their codes; the codes of a label map
    "scanner": (GOOD, GOOD, (1, 1), (1, 1)),
    "aligned and MNI": (GOOD, GOOD, (2, 4), (2, 4)),
    "MNI and scanner": (GOOD, GOOD, (4, 1), (4, 1)),
    "another template": (GOOD, GOOD, (5, 5), (5, 5)),
    "an sform alone": (GOOD, None, (2, 0), (2, 2)),
    "a qform alone": (None, GOOD, (0, 2), (2, 2)),
    "an sform sheared by rounding": (oblique(shear=0.0008), GOOD, (1, 1), (1, 1)),
    "an sform of two digits": (np.round(GOOD, 2), GOOD, (1, 1), (1, 1)),
    "a qform elsewhere": (GOOD, oblique(shift=9), (1, 1), (1, 1)),
    "another space elsewhere": (GOOD, oblique(shift=9), (2, 1), (2, 1)),
    "an sform that is sheared": (oblique(shear=0.2), GOOD, (2, 1), (2, 1)),
}


def placed(path: Path) -> np.ndarray:
    """Where ITK finds the corners of an image, in its own world."""
    image = ants.image_read(str(path))
    ends = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) * 10
    steps = image.direction[:3, :3] * np.array(image.spacing[:3])
    return ends @ steps.T + np.array(image.origin[:3])


@pytest.mark.parametrize("kind", FORMS)
def test_a_label_map_lies_where_its_scan_lies_for_everyone(kind: str, tmp_path: Path) -> None:
    sform, qform, given, expected = FORMS[kind]
    data = np.random.default_rng(0).integers(1, 90, SHAPE).astype("<i2")
    scan = Header.of(data, sform=sform, qform=qform, codes=given).save(tmp_path / "scan.nii.gz")
    volume = read_volume(scan)
    labels, shares = tmp_path / "dseg.nii.gz", tmp_path / "probseg.nii.gz"
    write_labels(labels, LabelMap((volume.data > 40).astype(np.uint8), volume.grid))
    write_probabilities(shares, [np.ones(SHAPE)] * 2, volume.grid, count=2)
    for path in (labels, shares):
        header, source = nib.load(path).header, nib.load(scan).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == expected
        assert header.get_xyzt_units() == ("mm", "sec")
        assert np.allclose(header.get_best_affine(), source.get_best_affine(), atol=1e-5)
        if qform is not None:
            assert np.allclose(header.get_qform(), source.get_qform(), atol=1e-5)
        assert np.allclose(placed(path), placed(scan), atol=1e-4)
    assert np.allclose(read_labels(labels).grid.affine, volume.grid.affine, atol=1e-5)


def test_a_part_of_a_scan_has_not_the_forms_of_the_whole(tmp_path: Path) -> None:
    data = np.arange(11000, dtype="<f4").reshape(SHAPE)
    scan = Header.of(data, sform=GOOD, qform=GOOD, codes=(2, 4)).save(tmp_path / "scan.nii")
    grid = read_volume(scan).grid
    assert grid.forms is not None
    part = grid.crop((2, 3, 4), (10, 11, 12))
    write_labels(tmp_path / "part.nii.gz", LabelMap(np.ones((8, 8, 8), np.uint8), part))
    found = nib.load(tmp_path / "part.nii.gz")
    assert np.allclose(found.affine, part.affine, atol=1e-4)
    assert np.allclose(found.get_qform(), part.affine, atol=1e-3)


def test_metres_become_millimetres_in_both_forms(tmp_path: Path) -> None:
    metres = np.diag([1e-3, 1e-3, 1e-3, 1.0]) @ GOOD
    data = np.random.default_rng(0).integers(1, 90, SHAPE).astype("<i2")
    scan = Header.of(data, sform=metres, qform=metres).put("units", 1).save(tmp_path / "scan.nii")
    volume = read_volume(scan)
    write_labels(tmp_path / "d.nii.gz", LabelMap(np.ones(SHAPE, np.uint8), volume.grid))
    found = nib.load(tmp_path / "d.nii.gz").header
    assert np.allclose(found.get_sform(), GOOD, atol=1e-3)
    assert np.allclose(found.get_qform(), GOOD, atol=1e-3)


def test_a_grid_without_a_file_is_written_in_scanner_space(tmp_path: Path) -> None:
    write_labels(tmp_path / "d.nii.gz", LabelMap(np.ones(SHAPE, np.uint8), Grid(SHAPE, GOOD)))
    header = nib.load(tmp_path / "d.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)


def test_ants_reads_our_transforms(tmp_path: Path) -> None:
    matrix = oblique() @ np.diag([-0.25, 0.25, 0.2, 1.0])
    (tmp_path / "xfm.txt").write_text(itk_text(matrix))
    found = ants.read_transform(str(tmp_path / "xfm.txt"))
    flip = np.array([-1.0, -1.0, 1.0])  # the world of ITK is LPS+
    for point in np.random.default_rng(1).normal(0, 50, (5, 3)):
        expected = (matrix @ [*point, 1])[:3]
        assert np.allclose(flip * found.apply_to_point(list(flip * point)), expected, atol=1e-4)


@pytest.mark.robustness(
    "sform sheared by rounding, qform good",
    tried="such a T1w with the codes 2 and 1, and posteriors; every image in OUT_DIR read with "
    "nibabel and ANTs (ITK)",
)
def test_every_image_of_a_run_lies_where_its_scan_lies(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path, came_out: Callable[[str], None]
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, "sub-01_T1w")
    source = study.raw / "sub-01/anat/sub-01_T1w.nii.gz"
    image = nib.load(source)
    rounded = image.affine.copy()
    rounded[0, 1] = 0.003
    data = np.asarray(image.dataobj).astype("<f4")
    Header.of(data, sform=rounded, qform=image.affine, codes=(2, 1)).save(source)
    ended = study.run("--probabilities")
    assert ended.code == 0, ended.err
    images = sorted(study.out.rglob("*.nii.gz"))
    assert {path.name for path in images} == {
        "sub-01_desc-brain_mask.nii.gz", "sub-01_desc-icv_mask.nii.gz",
        "sub-01_seg-brain_probseg.nii.gz",
    }  # fmt: skip
    for path in images:
        header = nib.load(path).header
        assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 1)
        assert np.allclose(header.get_sform(), rounded) and header.get_xyzt_units()[0] == "mm"
        assert np.allclose(placed(path), placed(source), atol=1e-4)
    came_out("exit code 0; each image has the sform, the qform and the codes of the T1w, and ANTs "
             "places it as the T1w")  # fmt: skip

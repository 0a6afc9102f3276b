"""Reading bad scans and writing good ones: the rows of the robustness list that files meet."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis.extra.numpy as hnp
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import HeaderError, ImageReadError, SignalError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import (
    LabelMap,
    Volume,
    _in_file_order,
    read_labels,
    read_volume,
    write_labels,
    write_probabilities,
)
from tests.support import no_root, stored_as

SHAPE = (5, 6, 7)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1.5, 0, -20], [0, 0, 2.0, 5], [0, 0, 0, 1]])
GRID = Grid(SHAPE, AFFINE)


def scan(kind: type = np.float32) -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(kind)


def oblique(shear: float = 0.0) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, :3] = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ AFFINE[:3, :3]
    affine[0, 1] += shear
    return affine


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write an array with nibabel, with full command of its header."""

    def write(
        data: np.ndarray,
        name: str = "scan.nii.gz",
        *,
        sform: np.ndarray | None = AFFINE,
        qform: np.ndarray | None = AFFINE,
        slope: float | None = None,
        inter: float = 0,
    ) -> Path:
        image = nib.Nifti1Image(data, None)
        image.set_sform(sform, code=0 if sform is None else 1)
        image.set_qform(qform, code=0 if qform is None else 1)
        if slope is not None:
            image.header.set_slope_inter(slope, inter)
        nib.save(image, tmp_path / name)
        return tmp_path / name

    return write


# --- files that are not images


def test_a_sound_scan_is_read_as_float32_on_its_own_grid_without_findings(save) -> None:
    path = save(scan())
    volume = read_volume(path)
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data, scan())
    assert volume.grid.shape == SHAPE
    assert np.allclose(volume.grid.affine, AFFINE)
    assert volume.findings == ()
    assert volume.source == path


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_gzip_is_refused(save, share: float) -> None:
    path = save(np.random.default_rng(0).random((20, 20, 20)).astype("f4"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageReadError, match=r"scan\.nii\.gz: .*(truncated|not a readable)"):
        read_volume(path)


def test_a_gzip_with_flipped_bytes_is_refused(save) -> None:
    path = save(np.random.default_rng(0).random((20, 20, 20)).astype("f4"))
    data = bytearray(path.read_bytes())
    for place in range(2000, 2400):
        data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ImageReadError, match=r"damaged|not a readable"):
        read_volume(path)


def test_a_gzip_whose_damage_looks_like_voxels_is_refused_by_its_checksum(save) -> None:
    data = np.zeros((40, 40, 40), np.uint8)
    data[:20] = np.random.default_rng(0).integers(0, 255, (20, 40, 40))
    path = save(data)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    packed = bytearray(gzip.compress(bytes(raw), 0))  # stored, so any byte is a valid voxel
    packed[len(packed) // 2] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(ImageReadError, match="CRC check failed"):
        read_volume(path)


def test_a_truncated_plain_nifti_is_refused(save) -> None:
    path = save(scan(), "scan.nii")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ImageReadError, match="truncated"):
        read_volume(path)


@pytest.mark.parametrize("name", ["empty.nii.gz", "empty.nii"])
def test_an_empty_file_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ImageReadError, match="is empty; copy or download it again"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("text", ["not an image", "x" * 1000])
@pytest.mark.parametrize("name", ["text.nii.gz", "text.nii"])
def test_text_with_the_name_of_an_image_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageReadError, match="not a readable NIfTI image"):
        read_volume(tmp_path / name)


def test_compressed_text_with_the_name_of_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"hello" * 200))
    with pytest.raises(ImageReadError, match="not a readable NIfTI image"):
        read_volume(tmp_path / "text.nii.gz")


def test_a_broken_annex_link_is_refused_with_git_annex_get(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").symlink_to(".git/annex/objects/none")
    with pytest.raises(ImageReadError, match="git annex get"):
        read_volume(tmp_path / "scan.nii.gz")


def test_a_sound_link_is_followed(save, tmp_path: Path) -> None:
    (tmp_path / "link.nii.gz").symlink_to(save(scan()))
    assert np.array_equal(read_volume(tmp_path / "link.nii.gz").data, scan())


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    for name, told in (("none.nii.gz", "no such file"), ("folder.nii.gz", "found a folder")):
        with pytest.raises(ImageReadError, match=told):
            read_volume(tmp_path / name)


def test_a_file_without_permission_is_refused(save, open_folder: Path) -> None:
    path = open_folder / "scan.nii.gz"
    shutil.copy(save(scan()), path)
    with no_root():
        assert np.array_equal(read_volume(path).data, scan())
    path.chmod(0)
    with no_root(), pytest.raises(ImageReadError):
        read_volume(path)


def test_another_image_format_is_refused_by_its_name(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(scan(), AFFINE), tmp_path / "scan.mgz")
    with pytest.raises(ImageReadError, match=r"a FreeSurfer volume .*; convert it"):
        read_volume(tmp_path / "scan.mgz")


def test_colour_images_are_refused(save) -> None:
    colour = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(ImageReadError):
        read_volume(save(colour))


# --- shapes


def test_4d_with_one_volume_is_taken_as_3d_with_a_warning(save) -> None:
    volume = read_volume(save(scan()[..., None]))
    assert np.array_equal(volume.data, scan())
    assert volume.findings == (
        Finding("single-volume-4d", "warning", "4D image with one volume: processed as 3D"),
    )


@pytest.mark.parametrize(
    ("shape", "told"),
    [((5, 6, 7, 3), "5 x 6 x 7 x 3"), ((5, 6), "5 x 6"), ((5, 6, 1), "5 x 6")],
)
def test_anything_but_one_3d_volume_is_refused_with_its_shape(save, shape, told: str) -> None:
    with pytest.raises(ImageReadError, match=f"one 3D volume was expected, found {told}"):
        read_volume(save(np.arange(np.prod(shape), dtype="f4").reshape(shape)))


# --- values


def test_nan_and_infinity_become_zero_with_a_count(save) -> None:
    data = scan()
    data[0, 0, 0], data[1, 0, 0], data[2, 0, 0] = np.nan, np.inf, -np.inf
    volume = read_volume(save(data))
    assert volume.findings == (
        Finding("nan-voxels", "warning", "3 NaN or infinite voxels were set to 0"),
    )
    assert np.isfinite(volume.data).all()
    assert volume.data[2, 0, 0] == 0
    assert volume.data[3, 0, 0] == data[3, 0, 0]


@pytest.mark.parametrize("value", [0, 7, -2, np.nan])
def test_an_image_of_one_value_has_no_signal(save, value: float) -> None:
    with pytest.raises(SignalError, match="no signal"):
        read_volume(save(np.full(SHAPE, value, np.float32)))


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"]
)
def test_every_number_type_gives_the_same_scan(save, kind) -> None:
    volume = read_volume(save(scan(np.dtype(kind))))
    assert np.array_equal(volume.data, scan())
    assert volume.data.dtype == np.float32
    assert volume.findings == ()


def test_negative_values_stay_and_are_told(save) -> None:
    read = read_volume(save(scan() - 100))
    # air, the darkest, is moved to 0; what is brighter stays brighter by as much
    np.testing.assert_allclose(read.data - read.data.min(), scan(), atol=1e-3)
    (finding,) = read.findings
    assert (finding.code, finding.severity) == ("negative-values", "info")


def test_scaled_integers_are_scaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(scan(np.int16), AFFINE)
    image.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "scan.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "scan.nii.gz").data, scan() * 0.5 - 3)


# --- headers


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1, 0, 1]),
        np.diag([0.0, 0, 0, 1]),
        np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.diag([1.0, 1, 1000, 1]),
        np.diag([1e-4, 1, 1, 1]),
    ],
)
def test_an_affine_without_volume_or_with_impossible_voxels_is_refused(save, affine) -> None:
    with pytest.raises(HeaderError, match="singular or its voxels are impossible"):
        read_volume(save(scan(), sform=affine, qform=None))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_affine_with_nan_or_infinity_is_refused(save, value: float) -> None:
    affine = AFFINE.copy()
    affine[1, 3] = value
    with pytest.raises(HeaderError, match="NaN or infinite"):
        read_volume(save(scan(), sform=affine, qform=None))


def test_neither_sform_nor_qform_is_refused_with_the_reason(save) -> None:
    with pytest.raises(HeaderError, match="left and right cannot be determined"):
        read_volume(save(scan(), sform=None, qform=None))


def test_the_qform_is_used_where_there_is_no_sform(save) -> None:
    volume = read_volume(save(scan(), sform=None, qform=oblique()))
    assert np.allclose(volume.grid.affine, oblique(), atol=1e-5)
    assert volume.findings == ()


def test_the_sform_is_used_and_a_different_qform_is_told(save) -> None:
    volume = read_volume(save(scan(), sform=oblique(), qform=AFFINE))
    assert np.allclose(volume.grid.affine, oblique(), atol=1e-5)
    assert [one.code for one in volume.findings] == ["sform-qform-differ"]


def test_rounding_between_sform_and_qform_is_not_told(save) -> None:
    nearly = AFFINE.copy()
    nearly[0, 3] += 0.01
    assert read_volume(save(scan(), qform=nearly)).findings == ()


def test_a_broken_quaternion_is_no_harm_where_the_sform_is_set(save) -> None:
    path = save(scan(), "scan.nii")
    data = bytearray(path.read_bytes())
    data[256:268] = np.array([9, 9, 9], "<f4").tobytes()  # quatern_b, c, d
    path.write_bytes(data)
    assert np.allclose(read_volume(path).grid.affine, AFFINE)


# --- label maps


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.int32]), (3, 4, 5),
                  elements=st.integers(0, 255) | st.just(60)))  # fmt: skip
def test_labels_written_and_read_are_the_same_labels(
    tmp_path_factory: pytest.TempPathFactory, data: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("labels") / "dseg.nii.gz"
    write_labels(path, LabelMap(data, Grid(data.shape, AFFINE)))
    found = read_labels(path)
    assert np.array_equal(found.data, data)
    assert np.allclose(found.grid.affine, AFFINE)


@pytest.mark.parametrize(
    ("largest", "kind"),
    [(0, "u1"), (1, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")],
)
def test_labels_are_stored_in_the_smallest_type_that_fits(tmp_path, largest, kind) -> None:
    data = np.zeros(SHAPE, np.int64)
    data[0, 0, 0] = largest
    write_labels(tmp_path / "d.nii.gz", LabelMap(data, GRID))
    assert nib.load(tmp_path / "d.nii.gz").get_data_dtype() == np.dtype(kind)
    assert read_labels(tmp_path / "d.nii.gz").data.dtype == np.dtype(kind)
    assert read_labels(tmp_path / "d.nii.gz").data.max() == largest


def test_equal_labels_are_equal_files_whatever_name_time_type_and_memory_layout(tmp_path) -> None:
    data = (scan(np.int64) % 7).astype(np.uint8)
    names = ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    arrays = [data, data.astype(np.int32), np.asfortranarray(data)]
    hashes = set()
    for name, array in zip(names, arrays, strict=True):
        write_labels(tmp_path / name, LabelMap(array, GRID))
        hashes.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)  # no time in the gzip header


def test_written_labels_say_where_they_lie_in_both_forms(tmp_path: Path) -> None:
    write_labels(tmp_path / "d.nii.gz", LabelMap(np.ones(SHAPE, np.uint8), Grid(SHAPE, oblique())))
    header = nib.load(tmp_path / "d.nii.gz").header
    assert np.allclose(header.get_sform(), oblique(), atol=1e-5)
    assert np.allclose(header.get_qform(), oblique(), atol=1e-3)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_intent()[0] == "label"
    assert np.allclose(header.get_zooms(), (1, 1.5, 2))


def test_the_qform_is_dropped_where_it_cannot_hold_the_affine(tmp_path: Path) -> None:
    sheared = Grid(SHAPE, oblique(shear=0.3))
    write_labels(tmp_path / "d.nii.gz", LabelMap(np.ones(SHAPE, np.uint8), sheared))
    header = nib.load(tmp_path / "d.nii.gz").header
    assert int(header["qform_code"]) == 0
    assert np.allclose(read_labels(tmp_path / "d.nii.gz").grid.affine, sheared.affine, atol=1e-5)


def test_labels_keep_their_place_in_every_orientation(tmp_path: Path, orientation: str) -> None:
    data, grid = stored_as((scan(np.int64) % 5).astype(np.uint8), GRID, orientation)
    write_labels(tmp_path / "d.nii.gz", LabelMap(data, grid))
    image = nib.load(tmp_path / "d.nii.gz")
    assert np.allclose(image.affine, grid.affine, atol=1e-5)
    assert np.array_equal(np.asarray(image.dataobj), data)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_fractions_negatives_and_nan_are_no_labels(save, value: float) -> None:
    data = np.ones(SHAPE, np.float32)
    data[1, 2, 3] = value
    with pytest.raises(ImageReadError, match="whole numbers >= 0"):
        read_labels(save(data))


def test_labels_too_large_to_be_read_exactly_are_refused(save) -> None:
    data = np.ones(SHAPE, np.int32)
    data[0, 0, 0] = 2**24 + 2
    with pytest.raises(ImageReadError, match="is it a label map"):
        read_labels(save(data))


def test_whole_numbers_stored_as_floats_are_labels(save) -> None:
    found = read_labels(save((scan() % 5).astype(np.float64)))
    assert found.data.dtype == np.uint8
    assert np.array_equal(found.data, scan() % 5)


def test_an_empty_label_map_is_a_label_map(save) -> None:
    assert not read_labels(save(np.zeros(SHAPE, np.uint8))).data.any()


def test_label_maps_are_3d_or_4d_with_one_volume(save) -> None:
    assert read_labels(save(np.ones((*SHAPE, 1), np.uint8))).data.shape == SHAPE
    with pytest.raises(ImageReadError, match=r"3D label map was expected, found shape \(5, 6"):
        read_labels(save(np.ones((*SHAPE, 2), np.uint8)))


# --- probabilities


def test_probabilities_survive_to_half_a_step_of_their_8_bits(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((3, *SHAPE)).astype(np.float32)
    data[:, 0, 0, 0] = 0, 1, 0.5
    write_probabilities(tmp_path / "p.nii.gz", data, GRID, count=3)
    image = nib.load(tmp_path / "p.nii.gz")
    found = np.moveaxis(image.get_fdata(), -1, 0)
    assert image.get_data_dtype() == np.uint8
    assert np.abs(found - data).max() <= 0.5 / 255 + 1e-6
    assert np.allclose(found[:2, 0, 0, 0], (0, 1), atol=1e-6)
    assert np.allclose(image.affine, AFFINE)


def test_equal_probabilities_are_equal_files(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((2, *SHAPE))
    for name, array in (("a.nii.gz", data), ("b.nii.gz", np.asfortranarray(data))):
        write_probabilities(tmp_path / name, array, GRID, count=2)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_posteriors_than_promised_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(ValueError, match=f"do not fill an image of .*{count}"):
        write_probabilities(tmp_path / "p.nii.gz", np.zeros((2, *SHAPE)), GRID, count=count)


# --- arrays and grids that do not belong together


def test_an_array_on_a_grid_of_another_shape_is_refused(tmp_path: Path) -> None:
    other = np.zeros((7, 6, 5), np.uint8)
    with pytest.raises(ValueError, match=r"\(7, 6, 5\) on a grid of \(5, 6, 7\)"):
        LabelMap(other, GRID)
    with pytest.raises(ValueError, match=r"\(7, 6, 5\) on a grid of \(5, 6, 7\)"):
        Volume(other.astype(np.float32), GRID)
    with pytest.raises(ValueError, match=r"\(7, 6, 5\) on a grid of \(5, 6, 7\)"):
        write_probabilities(tmp_path / "p.nii.gz", other[None], GRID, count=1)


@pytest.mark.parametrize("kind", ["u1", "u2", ">u2", "u4", "f4", "?"])
@pytest.mark.parametrize("order", ["C", "F", "turned"])
def test_the_bytes_of_a_file_are_those_of_the_whole_array(kind: str, order: str) -> None:
    data = np.zeros((7, 9, 5), kind)
    for filled in (0, 1, 2, 200):
        places = np.random.default_rng(filled).integers(0, data.size, filled)
        data.reshape(-1)[places] = 1
        asked = data.transpose(2, 0, 1)[::-1] if order == "turned" else np.array(data, order=order)
        assert bytes(_in_file_order(asked)) == asked.tobytes(order="F")

"""A file is what it contains, whatever its name; what is no NIfTI image is told by what it is."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.bids.sidecar_check import check_beside
from deepmrseg_bids.errors import BundleError, ImageReadError
from deepmrseg_bids.imaging.nifti import read_grid, read_labels, read_volume, voxel_count
from deepmrseg_bids.inference.bundle import ModelBundle
from tests.field.conftest import Study, fill
from tests.field.headers import Header
from tests.warm import Ended, warm_run

SHAPE = (20, 22, 24)
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])
DATA = np.random.default_rng(0).integers(0, 900, SHAPE).astype("<f4")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ANNEX = b"/annex/objects/SHA256E-s9834--4d7a.nii.gz\n"


def whole(data: np.ndarray = DATA, kind: type[nib.Nifti1Image] = nib.Nifti1Image) -> bytes:
    return bytes(Header.of(data, sform=AFFINE, qform=AFFINE, kind=kind).content)


def swapped() -> bytes:
    """The same with the bytes of each number the other way round."""
    image = nib.Nifti1Image(DATA.astype(">f4"), AFFINE, nib.Nifti1Header(endianness=">"))
    stream = BytesIO()
    image.to_file_map({"image": nib.FileHolder(fileobj=stream)})
    return stream.getvalue()


READABLE: dict[str, Callable[[], bytes]] = {
    "plain.nii": whole,
    "plain named.nii.gz": whole,
    "packed.nii.gz": lambda: gzip.compress(whole()),
    "packed named.nii": lambda: gzip.compress(whole()),
    "in parts.nii.gz": lambda: gzip.compress(whole()[:9000]) + gzip.compress(whole()[9000:]),
    "version 2.nii": lambda: whole(kind=nib.Nifti2Image),
    "version 2.nii.gz": lambda: gzip.compress(whole(kind=nib.Nifti2Image)),
    "other byte order.nii.gz": lambda: gzip.compress(swapped()),
    "without an ending": whole,
}


@pytest.mark.parametrize("name", READABLE)
def test_what_is_nifti_is_read_whatever_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(READABLE[name]())
    volume = read_volume(path)
    assert volume.findings == () and np.array_equal(volume.data, DATA)
    assert read_grid(path) == volume.grid == read_labels(path).grid
    assert voxel_count(path) == DATA.size


def mgh() -> bytes:
    stream = BytesIO()
    nib.MGHImage(DATA, AFFINE).to_file_map({"image": nib.FileHolder(fileobj=stream)})
    return stream.getvalue()


def zipped() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("scan.nii", whole())
    return stream.getvalue()


def pair(name: str, kind: type[nib.Nifti1Pair] = nib.Nifti1Pair) -> bytes:
    files = {part: nib.FileHolder(fileobj=BytesIO()) for part in ("header", "image")}
    kind(DATA, AFFINE).to_file_map(files)
    return files[name].fileobj.getvalue()


TOLD: dict[str, tuple[Callable[[], bytes], str]] = {
    "dicom": (lambda: bytes(128) + b"DICM" + bytes(400), "a DICOM file; .* dcm2niix"),
    "1.dcm": (lambda: bytes(128) + b"DICM" + bytes(400), "a DICOM file; .* dcm2niix"),
    "lfs.nii.gz": (lambda: LFS, "a Git LFS pointer file; .*`git lfs pull`"),
    "annex.nii.gz": (lambda: ANNEX, "a git-annex pointer file; .*`git annex get`"),
    "annex windows.nii": (
        lambda: ANNEX.replace(b"/", b"\\"), "a git-annex pointer file; .*`git annex get`"),
    "page.nii.gz": (lambda: b"\n<!DOCTYPE html><html>", "an HTML page .*; download"),
    "page packed.nii.gz": (lambda: gzip.compress(b"<HTML>Sign in"), "an HTML page .*; download"),
    "zip.nii.gz": (zipped, "a zip archive; unpack it"),
    "tar.nii.gz": (lambda: gzip.compress(bytes(257) + b"ustar" + bytes(800)), "a tar archive"),
    "bz.nii.gz": (lambda: b"BZh91AY&SY", "compressed with bzip2; decompress"),
    "twice.nii.gz": (lambda: gzip.compress(gzip.compress(whole())), "compressed twice"),
    "pair.hdr": (lambda: pair("header"), r"a NIfTI pair .*; write both into one"),
    "pair.img": (lambda: pair("image"), r"in two files .*; write both into one"),
    "pair named.nii": (lambda: pair("header"), r"a NIfTI pair .*; write both into one"),
    "analyze.nii": (
        lambda: pair("header", nib.AnalyzeImage), r"in two files .*; write both into one"),
    "scan.mgz": (lambda: gzip.compress(mgh()), "a FreeSurfer volume .*; .* mri_convert"),
    "scan.mgh": (mgh, "a FreeSurfer volume .*; .* mri_convert"),
    "mgz.nii.gz": (lambda: gzip.compress(mgh()), "a FreeSurfer volume .*; .* mri_convert"),
    "scan.nrrd": (lambda: b"NRRD0004\ntype: short\n", "an NRRD image; convert it"),
    "picture.nii": (lambda: b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    "sidecar.nii": (lambda: b'{"EchoTime": 1}', "a JSON file"),
    "text.nii.gz": (lambda: b"not an image", "a text file; copy or download"),
    "zeros.nii.gz": (lambda: bytes(4096), "zero bytes only; copy or download"),
    "noise.nii.gz": (lambda: bytes(range(1, 256)) * 9, "another kind of file, or a damaged"),
    "half a header.nii": (lambda: whole()[:200], "another kind of file, or a damaged"),
    "start of a gzip.nii.gz": (lambda: b"\x1f\x8b\x08", "copy or download it again"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOLD)
def test_what_is_no_nifti_is_told_by_what_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(TOLD[name][0]())
    for read in (read_volume, read_labels, read_grid):
        with pytest.raises(ImageReadError, match=TOLD[name][1]) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
    assert voxel_count(path) == 0


def test_folders_and_pipes_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "empty.nii.gz").mkdir()
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM0001").write_bytes(bytes(128) + b"DICM")
    os.mkfifo(tmp_path / "pipe.nii")
    for name, told in {
        "empty.nii.gz": "a folder; give the NIfTI file",
        "series": "a folder of DICOM files; .* dcm2niix",
        "pipe.nii": "no such file",
    }.items():
        with pytest.raises(ImageReadError, match=told):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("ones", [1, 2, 3, 4])
def test_edges_of_length_1_behind_the_third_do_not_count(ones: int, tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(whole(DATA.reshape(*SHAPE, *[1] * ones))))
    volume = read_volume(path)
    assert np.array_equal(volume.data, DATA)
    assert [one.tag for one in volume.findings] == ["warning:single-volume-4d"]
    assert f"{3 + ones}D image" in volume.findings[0].message
    assert read_grid(path) == volume.grid and read_labels(path).data.shape == SHAPE


@pytest.mark.parametrize("more", [(2,), (1, 2), (1, 1, 1, 3)])
def test_two_volumes_are_two_volumes_wherever_they_stand(more: tuple, tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    many = np.broadcast_to(DATA.reshape(*SHAPE, *[1] * len(more)), (*SHAPE, *more)).copy()
    path.write_bytes(whole(many))
    with pytest.raises(ImageReadError, match=" x ".join(map(str, (*SHAPE, *more)))):
        read_volume(path)


@pytest.mark.parametrize("kind", ["f8", "f4", "u8", "i8", "u4", "i4", "u2", "i2", "u1", "i1"])
def test_every_type_of_number_is_read(kind: str, tmp_path: Path) -> None:
    data = (DATA / 8).astype(kind)
    (tmp_path / "scan.nii").write_bytes(whole(data))
    volume = read_volume(tmp_path / "scan.nii")
    assert volume.findings == () and np.array_equal(volume.data, data.astype("f4"))


@pytest.mark.parametrize("kind", ["f8", "f4"])
@pytest.mark.parametrize("factor", [1e300, 1e60, 1e18, 1e-8, 1e-30, 1e-60, 1e-300])
def test_intensities_of_any_size_are_read(factor: float, kind: str, tmp_path: Path) -> None:
    """Those that float32 can hold but not square, too; single voxels do not set the scale."""
    if kind == "f4" and not 1e-31 < abs(factor) < 1e31:
        return
    data = (DATA.astype("f8") * factor).astype(kind)
    data[0, 0, 0], data[1, 0, 0] = np.nan, data[1, 0, 0] * 1e4
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(whole(data), 1))
    volume = read_volume(tmp_path / "scan.nii.gz")
    assert [one.code for one in volume.findings] == ["rescaled-values", "nan-voxels"]
    ratio = volume.data[2:] / (DATA[2:] + 1e-9)
    expected = 1000 / np.percentile(DATA, 99.5)
    assert np.allclose(ratio[DATA[2:] > 0], expected, rtol=1e-2)


def test_negative_intensities_of_any_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(whole(DATA.astype("f8") * -1e60))
    volume = read_volume(tmp_path / "scan.nii")
    assert "rescaled-values" in [one.code for one in volume.findings]
    assert np.corrcoef(volume.data.ravel(), DATA.ravel())[0, 1] < -0.999


@pytest.mark.parametrize("value", [1e60, np.inf, -np.inf])
def test_single_voxels_beyond_32_bits_cost_nothing_else(value: float, tmp_path: Path) -> None:
    data = DATA.astype("f8")
    data[3, 4, 5] = value
    (tmp_path / "scan.nii").write_bytes(whole(data))
    volume = read_volume(tmp_path / "scan.nii")
    assert [one.code for one in volume.findings] == ["nan-voxels"]
    expected = DATA.copy()
    expected[3, 4, 5] = 0
    assert np.array_equal(volume.data, expected)


@pytest.mark.parametrize(
    "kind", ["c8", "c16", [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=["c8", "c16", "colour"]
)
def test_numbers_that_are_no_intensity_are_told(kind: object, tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(whole(np.zeros(SHAPE, kind)))
    with pytest.raises(ImageReadError, match=r"colour or complex image.*convert it"):
        read_volume(tmp_path / "scan.nii")


@pytest.mark.parametrize(("content", "told"), [(LFS, "`git lfs pull`"), (ANNEX, "`git annex get`")])
def test_pointers_are_told_where_they_stand_for_sidecars_and_weights_too(
    content: bytes, told: str, tiny_model: Path, tmp_path: Path
) -> None:
    image = tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    image.parent.mkdir(parents=True)
    image.with_name("sub-01_ses-1_T1w.json").write_bytes(content)
    (found,) = check_beside(image)
    assert found.code == "sidecar-unreadable" and told in found.message
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=told):
        ModelBundle.open(tmp_path / "model")


def test_a_sidecar_whose_content_is_not_here_is_told(tmp_path: Path) -> None:
    image = tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    image.parent.mkdir(parents=True)
    image.with_name("sub-01_ses-1_T1w.json").symlink_to("../../../.git/annex/objects/x")
    (found,) = check_beside(image)
    assert "git annex get" in found.message


def predict(study: Study, *words: object) -> Ended:
    return warm_run(
        ["predict", *words, "--model", study.model, "-o", study.out], command="deepmrseg"
    )


@pytest.mark.robustness(
    "git-annex pointer file, Git LFS pointer file, HTML page, DICOM named .nii.gz",
    tried="one of each instead of a T1w, next to a good one stored without compression",
)
def test_a_file_that_is_something_else_costs_its_session_alone(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path, came_out: Callable[[str], None]
) -> None:
    study = Study(tmp_path, tiny_model)
    fill(study.raw, scan, *(f"sub-{number:02d}_T1w" for number in range(1, 6)))
    content = {"02": ANNEX, "03": LFS, "04": b"<html>", "05": bytes(128) + b"DICM"}
    content["01"] = gzip.decompress(scan(1).read_bytes())
    for name, data in content.items():
        (study.raw / f"sub-{name}/anat/sub-{name}_T1w.nii.gz").write_bytes(data)
    ended = study.run("--no-reports")
    assert ended.code == 3 and "Traceback" not in ended.err
    reasons = {name: study.rows[f"sub-{name}"] for name in content}
    assert reasons.pop("01") == ("done", "")
    told = {"02": "`git annex get`", "03": "`git lfs pull`", "04": "HTML page", "05": "dcm2niix"}
    for name, words in told.items():
        assert reasons[name][0] == "failed" and words in reasons[name][1]
        warnings = [line for line in ended.err.splitlines() if "WARNING" in line]
        assert sum(reasons[name][1] in line for line in warnings) == 1
    came_out(f"exit code 3; their sessions failed: {', '.join(told.values())}; the good one is "
             "done")  # fmt: skip


def test_a_bad_image_of_predict_costs_no_other_one(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, tiny_model)
    (tmp_path / "b.nii.gz").write_bytes(LFS)
    (tmp_path / "c.nii").mkdir()
    shutil.copy(scan(1), tmp_path / "a_T1w.nii")  # a gzip
    images = [tmp_path / name for name in ("b.nii.gz", "c.nii", "a_T1w.nii")]
    ended = predict(study, *images)
    assert ended.code == 3 and "Traceback" not in ended.err
    assert "b: " in ended.err and "`git lfs pull`" in ended.err and "a folder" in ended.err
    assert sorted(path.name for path in study.out.iterdir()) == [
        "a_desc-brain_mask.nii.gz", "a_desc-icv_mask.nii.gz", "a_seg-brain_morph.json",
        "a_seg-brain_morph.tsv",
    ]  # fmt: skip


def test_a_broken_flair_of_predict_costs_the_tasks_of_the_flair_alone(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, tiny_model)
    (tmp_path / "f.nii.gz").write_bytes(ANNEX)
    ended = predict(study, scan(1), "--task", "wml", "--flair", tmp_path / "f.nii.gz")
    assert ended.code == 3
    assert "wml: " in ended.err and "git annex get" in ended.err and "brain: /" not in ended.err
    assert (study.out / "sub-01_desc-brain_mask.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--task", "wml"), "wml requires the FLAIR of the T1w: add --flair FILE"),
        (("--task", "wml", "--flair", "a.nii", "--flair", "b.nii"), "one --flair was expected"),
    ],
)
def test_flairs_are_counted_before_any_work(
    words: tuple[str, ...], told: str, scan: Callable[[int], Path], tmp_path: Path
) -> None:
    ended = warm_run(["predict", scan(1), *words, "-o", tmp_path / "out"], command="deepmrseg")
    assert ended.code == 2 and told in ended.err
    assert not (tmp_path / "out").exists()


def test_a_task_that_lacks_its_flair_does_not_stop_the_others(
    scan: Callable[[int], Path], tiny_model: Path, tmp_path: Path
) -> None:
    study = Study(tmp_path, tiny_model)
    ended = predict(study, scan(1), "--task", "wml")  # and the task of the model
    assert ended.code == 3
    assert "add --flair FILE" in ended.err and "the session has none" not in ended.err
    assert (study.out / "sub-01_desc-brain_mask.nii.gz").exists()

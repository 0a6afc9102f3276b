"""Bad inputs, one by one: a clear line, the right exit code, nothing lost."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.bundle import shipped_bundles
from tests.integration.conftest import (
    Finished,
    add_scan,
    app,
    coarse,
    command,
    make_dataset,
    packed,
    read_tsv,
)


def singular(image: nib.Nifti1Image) -> bytes:
    raw = bytearray(image.to_bytes())
    raw[280:328] = struct.pack("<12f", 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0)  # srow_x = srow_y
    raw[252:256] = struct.pack("<hh", 0, 1)
    return packed(bytes(raw))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Finished]:
    """A data set with one good session among bad ones, and its run."""
    root = make_dataset(tmp_path_factory.mktemp("broken") / "bids")
    good = coarse()
    data = np.asarray(good.dataobj).astype(np.float32)
    whole = packed(good.to_bytes())
    add_scan(root, "sub-good_T1w", good)
    add_scan(root, "sub-truncated_T1w", whole[: len(whole) // 2])
    add_scan(root, "sub-empty_T1w", b"")
    add_scan(root, "sub-text_T1w", b"this is no image")
    add_scan(root, "sub-zeros_T1w", nib.Nifti1Image(data * 0, good.affine))
    several = np.stack([data, data], axis=-1)
    add_scan(root, "sub-several_T1w", nib.Nifti1Image(several, good.affine))
    holes = data.copy()
    holes[40:43, 40, 40] = np.nan
    add_scan(root, "sub-nan_T1w", nib.Nifti1Image(holes, good.affine))
    add_scan(root, "sub-singular_T1w", singular(good))
    link = add_scan(root, "sub-annex_T1w", b"x")
    link.unlink()
    link.symlink_to("../../../.git/annex/objects/Xx/Yy/MD5E-s123--0.nii.gz/MD5E-s123--0.nii.gz")
    (root / "sub-bare" / "anat").mkdir(parents=True)
    nib.save(good, root / "sub-bare" / "anat" / "sub-bare_FLAIR.nii.gz")
    noise = np.random.default_rng(0).normal(100, 5, (60, 70, 60)).astype(np.float32)
    add_scan(root, "sub-phantom_T1w", nib.Nifti1Image(noise, good.affine))
    out = tmp_path_factory.mktemp("broken-out") / "out"
    ended = app(root, out, "participant", home=tmp_path_factory.mktemp("h") / "h")
    return root, out, ended


def status(broken: tuple[Path, Path, Finished], subject: str) -> tuple[set[str], str]:
    rows = [
        row
        for row in read_tsv(broken[1] / "logs" / "sessions.tsv")
        if row["participant_id"] == f"sub-{subject}"
    ]
    assert rows, f"sub-{subject} is not in sessions.tsv"
    return {row["status"] for row in rows}, rows[0]["reason"]


def test_some_bad_sessions_end_the_run_with_three(broken: tuple[Path, Path, Finished]) -> None:
    assert broken[2].code == 3, broken[2].output


def test_bad_sessions_do_not_cost_the_good_one(broken: tuple[Path, Path, Finished]) -> None:
    assert status(broken, "good")[0] == {"done"}
    assert (broken[1] / "sub-good" / "anat" / "sub-good_seg-deepbrain_dseg.nii.gz").exists()


def test_nan_voxels_are_mended_and_said(broken: tuple[Path, Path, Finished]) -> None:
    assert status(broken, "nan")[0] == {"done"}
    sidecar = broken[1] / "sub-nan" / "anat" / "sub-nan_seg-deepbrain_dseg.json"
    assert "3 voxels are NaN" in " ".join(json.loads(sidecar.read_text())["Warnings"])


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("truncated", "truncated or damaged"),
        ("empty", "the file is empty"),
        ("text", "not a readable NIfTI image"),
        ("zeros", "no signal"),
        ("several", "one 3D volume was expected"),
        ("singular", "singular"),
        ("annex", "git annex get"),
    ],
)
def test_a_bad_scan_fails_with_its_reason(
    broken: tuple[Path, Path, Finished], subject: str, expected: str
) -> None:
    found, reason = status(broken, subject)
    assert found == {"failed"}
    assert expected in reason
    assert not list((broken[1] / f"sub-{subject}").rglob("*.nii.gz"))


def test_a_phantom_is_flagged_and_gets_no_structures(broken: tuple[Path, Path, Finished]) -> None:
    folder = broken[1] / "sub-phantom" / "anat"
    rows = read_tsv(broken[1] / "logs" / "sessions.tsv")
    reasons = {row["task"]: row["reason"] for row in rows if row["participant_id"] == "sub-phantom"}
    assert "no deep structures were found" in reasons["deepbrain"]
    assert not list(folder.glob("*_dseg.nii.gz"))
    for sidecar in folder.glob("*_mask.json"):
        assert "the deep structures were not found" in json.loads(sidecar.read_text())["Warnings"]


def test_a_session_without_t1w_is_skipped_with_the_reason(
    broken: tuple[Path, Path, Finished],
) -> None:
    found, reason = status(broken, "bare")
    assert found == {"skipped"} and "no T1w" in reason


def test_every_failure_is_said_in_the_terminal(broken: tuple[Path, Path, Finished]) -> None:
    for subject in ("truncated", "empty", "annex", "bare"):
        assert f"sub-{subject}" in broken[2].output


def test_the_page_of_a_failed_subject_says_why(broken: tuple[Path, Path, Finished]) -> None:
    page = (broken[1] / "sub-truncated.html").read_text(encoding="utf-8")
    assert "truncated or damaged" in page


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_dataset(tmp_path_factory.mktemp("small") / "bids")
    add_scan(root, "sub-01_T1w", coarse())
    return root


def test_when_nothing_can_be_processed_the_run_ends_with_four(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "bids")
    add_scan(root, "sub-01_T1w", b"")
    ended = app(root, tmp_path / "out", "participant", home=tmp_path / "h")
    assert ended.code == 4
    assert "the file is empty" in ended.output


def test_an_unknown_subject_is_an_error_that_lists_the_known(small: Path, tmp_path: Path) -> None:
    ended = app(small, tmp_path / "out", "participant", "--participant-label", "02", "01",
                home=tmp_path / "h")  # fmt: skip
    assert ended.code == 2
    assert "02" in ended.output and "01" in ended.output


@pytest.mark.parametrize("place", ["", "results", "sub-01/out"])
def test_results_inside_the_raw_data_set_are_refused(
    small: Path, tmp_path: Path, place: str
) -> None:
    ended = app(small, small / place, "participant", home=tmp_path / "h")
    assert ended.code == 2
    assert "derivatives" in ended.output
    assert not (small / "results").exists()


def test_results_under_derivatives_are_allowed(small: Path, tmp_path: Path) -> None:
    root = tmp_path / "bids"
    shutil.copytree(small, root)
    out = root / "derivatives" / "deepmrseg"
    ended = app(root, out, "participant", "--tasks", "brain", home=tmp_path / "h")
    assert ended.code == 0, ended.output
    assert (out / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz").exists()


def test_changed_weights_are_refused_before_any_work(small: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(shipped_bundles()["brain"], model)
    weights = model / "weights.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    ended = app(small, tmp_path / "out", "participant", "--model", f"brain={model}",
                home=tmp_path / "h")  # fmt: skip
    assert ended.code == 2
    assert "expected SHA-256" in ended.output and "found" in ended.output
    assert not (tmp_path / "out" / "logs" / "sessions.tsv").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tasks", "everything"],
        ["--model", "brain"],
        ["--model", "nose=/x"],
        ["--nprocs", "0"],
        ["--device", "toaster"],
        ["--device", "cuda:77"],
        ["--precision", "int4"],
    ],
)
def test_a_flag_that_means_nothing_is_wrong_usage(
    small: Path, tmp_path: Path, arguments: list[str]
) -> None:
    ended = app(small, tmp_path / "out", "participant", *arguments, home=tmp_path / "h")
    assert ended.code == 2
    assert "error" in ended.output
    assert not (tmp_path / "out").exists()


def test_group_without_results_ends_with_four(small: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    ended = app(small, tmp_path / "out", "group", home=tmp_path / "h")
    assert ended.code == 4
    assert "participant level" in ended.output


def test_asking_for_lesions_without_a_model_skips_with_the_reason(
    small: Path, tmp_path: Path
) -> None:
    ended = app(small, tmp_path / "out", "participant", "--tasks", "wml", home=tmp_path / "h")
    assert ended.code == 4
    assert read_tsv(tmp_path / "out" / "logs" / "sessions.tsv")[0]["status"] == "skipped"


def test_predict_fails_on_the_bad_image_and_does_the_good_one(tmp_path: Path) -> None:
    nib.save(coarse(), tmp_path / "good_T1w.nii.gz")
    (tmp_path / "bad_T1w.nii.gz").write_bytes(b"")
    ended = command(
        "deepmrseg", "predict", tmp_path / "good_T1w.nii.gz", tmp_path / "bad_T1w.nii.gz",
        "--task", "brain", "-o", tmp_path / "out", home=tmp_path / "h",
    )  # fmt: skip
    assert ended.code == 3
    assert "the file is empty" in ended.output
    assert (tmp_path / "out" / "good_desc-brain_mask.nii.gz").exists()

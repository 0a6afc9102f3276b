"""Bad inputs, one by one: a clear line, the right exit code, nothing lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import pytest

from deepmrseg_bids.inference.bundle import shipped_bundles
from tests.integration.conftest import (
    add_scan,
    app,
    coarse,
    command,
    make_dataset,
    read_tsv,
)


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
    assert "the file is empty" in (tmp_path / "out" / "sub-01.html").read_text(encoding="utf-8")


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
        ["--shard", "4/3"],
        ["--use-plugin", "no-such-file.yml"],
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


def test_asking_for_lesions_without_a_flair_skips_with_the_reason(
    small: Path, tmp_path: Path
) -> None:
    ended = app(small, tmp_path / "out", "participant", "--tasks", "wml", home=tmp_path / "h")
    assert ended.code == 4
    (row,) = read_tsv(tmp_path / "out" / "logs" / "sessions.tsv")
    assert row["status"] == "skipped"
    assert "requires a FLAIR" in row["reason"]


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

"""Every row of docs/robustness.md about images, headers and heads, in two runs of the real app.

All bad sessions of a run lie in one data set with a good one: none of them costs it. The shipped
networks see what is another image to them. What is the same image in another file is read by the
reader, which must find the same voxels in the same places, and run with a network of no size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.imaging.nifti import read_volume
from tests.integration import bad_heads as bad
from tests.integration.conftest import (
    Finished,
    add_scan,
    app,
    coarse,
    make_dataset,
    packed,
    read_tsv,
)
from tests.tiny import tiny_head

SHARED = Path(
    os.environ.get("DEEPMRSEG_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Bad:
    """A run over a data set of bad sessions.

    Attributes:
        labels_end: how the names of the label maps that are compared end.
        usual: codes of findings that every session of the run has.
    """

    raw: Path
    out: Path
    ended: Finished
    labels_end: str
    usual: frozenset[str] = frozenset()

    def rows(self, subject: str) -> list[dict[str, str]]:
        rows = read_tsv(self.out / "logs" / "sessions.tsv")
        return [row for row in rows if row["participant_id"] == f"sub-{subject}"]

    def reason(self, subject: str, status: str = "failed") -> str:
        """The reason of a session all of whose tasks ended so; no file of it is there."""
        rows = self.rows(subject)
        assert {row["status"] for row in rows} == {status}, rows
        assert not list((self.out / f"sub-{subject}").rglob("*.nii.gz"))
        assert f"sub-{subject}" in self.ended.output
        return rows[0]["reason"]

    def findings(self, subject: str) -> dict[str, str]:
        """The severity of each finding of a session, by code."""
        tags = [tag for row in self.rows(subject) for tag in row["findings"].split(",")]
        return {tag.partition(":")[2]: tag.partition(":")[0] for tag in tags if tag != "n/a"}

    def odd(self, subject: str) -> dict[str, str]:
        """The same without what is only good to know."""
        found = self.findings(subject).items()
        return {code: one for code, one in found if one != "info" and code not in self.usual}

    def labels(self, subject: str) -> nib.Nifti1Image:
        """The label map of a session that was done."""
        assert {row["status"] for row in self.rows(subject)} == {"done"}, self.rows(subject)
        folder = self.out / f"sub-{subject}" / "anat"
        (path,) = folder.glob(f"*_{self.labels_end}")
        return nib.load(path)

    def dice(self, subject: str) -> float:
        """How well all structures of a session agree with those of the good one, as a whole."""
        found, good = self.labels(subject), self.labels("good")
        theirs = resample(
            np.asarray(found.dataobj), Grid(found.shape, found.affine),
            Grid(good.shape, good.affine), order=0,
        )  # fmt: skip
        ours = np.asarray(good.dataobj)
        assert ours.any()
        return 2 * ((ours == theirs) & (ours > 0)).sum() / ((ours > 0).sum() + (theirs > 0).sum())

    def read(self, subject: str) -> np.ndarray:
        """What the reader finds of a session, on the grid of the good one, from 0 to 1."""
        good, own = (read_volume(self.raw / f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
                     for name in ("good", subject))  # fmt: skip
        data = resample(own.data.astype(np.float32), own.grid, good.grid, order=0)
        return (data - data.min()) / (data.max() - data.min())

    def differing(self, subject: str, *, by: float = 0.0) -> int:
        """In how many voxels the reader finds something else than in the good session."""
        return int((abs(self.read(subject) - self.read("good")) > by).sum())


def other_files() -> dict[str, nib.Nifti1Image | bytes]:
    """The same small head in other files."""
    good = tiny_head(1, (70, 83, 64), 2.5)
    data = np.asarray(good.dataobj).astype(np.float32)
    holes = data.copy()
    holes[30:33, 30, 30] = np.nan, np.inf, -np.inf
    return {
        "good": good,
        "single": nib.Nifti1Image(data[..., None], good.affine),
        "nan": bad.image(holes, good.affine),
        "negative": bad.image(data - 300, good.affine),
        "double": bad.typed(good, np.float64),
        "int": bad.typed(good, np.int32),
        "scaled": bad.scaled(good),
        "forms": bad.with_other_qform(good),
        "psr": bad.stored(good, "PSR"),
        "ila": bad.stored(good, "ILA"),
    }


def scans() -> dict[str, nib.Nifti1Image | bytes]:
    """A T1w a subject."""
    good = coarse()
    data = np.asarray(good.dataobj).astype(np.float32)
    whole = packed(good.to_bytes())
    nan = float("nan")
    return {
        "good": good,
        "truncated": whole[: len(whole) // 2],
        "corrupt": bad.flipped_bytes(good),
        "empty": b"",
        "text": b"this is no image",
        "annex": b"x",
        "several": nib.Nifti1Image(np.stack([data, data], axis=-1), good.affine),
        "zeros": bad.image(data * 0, good.affine),
        "constant": bad.image(data * 0 + 7, good.affine),
        "singular": bad.with_affine(good, [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
        "zero": bad.with_affine(good, [0] * 12),
        "nanaffine": bad.with_affine(good, [2, 0, 0, nan, 0, 2, 0, 0, 0, 0, 2, 0]),
        "noforms": bad.without_forms(good),
        "oblique": bad.oblique(good),
        "upsidedown": bad.upside_down(good),
        "thick": bad.thick(good),
        "slab": bad.part(good, 2, 45, 55),
        "crop": bad.part(good, 0, 0, 50),
        "enhanced": bad.enhanced(good),
        "t2w": bad.t2w(good),
        "sphere": bad.sphere(),
        "noise": bad.noise(),
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Bad:
    root = make_dataset(tmp_path_factory.mktemp("bad") / "bids")
    for name, scan in scans().items():
        add_scan(root, f"sub-{name}_T1w", scan)
    link = root / "sub-annex" / "anat" / "sub-annex_T1w.nii.gz"
    link.unlink()
    link.symlink_to("../../../.git/annex/objects/Xx/Yy/MD5E-s123--0.nii.gz/MD5E-s123--0.nii.gz")
    (root / "sub-bare" / "anat").mkdir(parents=True)
    nib.save(coarse(), root / "sub-bare" / "anat" / "sub-bare_FLAIR.nii.gz")
    if face := next(SHARED.glob("bids_highres/sub-*/anat/*_T1w.nii.gz"), None):
        scan = nib.load(face)
        grid = canonical_grid(Grid(scan.shape, scan.affine), 2.0)
        add_scan(root, "sub-defaced_T1w", bad.moved(scan, grid))
    out = tmp_path_factory.mktemp("bad-out") / "out"
    ended = app(root, out, "participant", "--tasks", "brain", "deepbrain", "--no-reports",
                home=tmp_path_factory.mktemp("h") / "h")  # fmt: skip
    return Bad(root, out, ended, "seg-deepbrain_dseg.nii.gz")


@pytest.fixture(scope="module")
def same(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bad:
    """The run over other files of the same head."""
    root = make_dataset(tmp_path_factory.mktemp("same") / "bids")
    for name, scan in other_files().items():
        add_scan(root, f"sub-{name}_T1w", scan)
    (root / "sub-int" / "anat" / "sub-int_T1w.json").write_text('{"EchoTime": ')
    (root / "sub-double" / "sub-double_scans.tsv").write_text("filename\tage\nx\n")
    out = tmp_path_factory.mktemp("same-out") / "out"
    ended = app(root, out, "participant", "--tasks", "brain", "--model", f"brain={tiny_model}",
                "--no-reports", home=tmp_path_factory.mktemp("h") / "h")  # fmt: skip
    # a made-up head has no scalp: it looks like a brain in noise
    return Bad(root, out, ended, "desc-brain_mask.nii.gz", frozenset({"mask-doubtful"}))


def test_all_files_of_the_same_head_are_done(same: Bad) -> None:
    assert same.ended.code == 0, same.ended.output
    assert same.odd("good") == {}
    assert {row["status"] for row in read_tsv(same.out / "logs" / "sessions.tsv")} == {"done"}


def test_bad_sessions_do_not_cost_the_good_one(run: Bad) -> None:
    assert run.ended.code == 3, run.ended.output
    assert run.labels("good").shape == coarse().shape
    assert run.odd("good") == {}


@pytest.mark.robustness("truncated gzip", tried="the first half of a good file")
def test_a_truncated_gzip_fails_with_its_reason(run: Bad, came_out: Say) -> None:
    reason = run.reason("truncated")
    assert "sub-truncated_T1w.nii.gz: " in reason and "copy or download it again" in reason
    came_out("failed; the file is named: truncated or damaged, copy or download it again")


@pytest.mark.robustness("corrupt gzip", tried="400 bytes in the middle of a good file flipped")
def test_a_corrupt_gzip_fails_with_its_reason(run: Bad, came_out: Say) -> None:
    assert "truncated or damaged" in run.reason("corrupt")
    came_out("failed; the file is named: truncated or damaged, copy or download it again")


@pytest.mark.robustness("empty file", tried="a T1w of 0 bytes")
def test_an_empty_file_fails_with_its_reason(run: Bad, came_out: Say) -> None:
    assert "the file is empty; copy or download it again" in run.reason("empty")
    came_out("failed; the file is named: empty, copy or download it again")


@pytest.mark.robustness("text named .nii.gz", tried="a sentence in a file named .nii.gz")
def test_text_fails_with_its_reason(run: Bad, came_out: Say) -> None:
    assert "not a readable NIfTI image" in run.reason("text")
    came_out("failed; the file is named: not a readable NIfTI image")


@pytest.mark.robustness(
    "broken annex link", tried="a link to .git/annex/objects that does not exist"
)
def test_a_broken_annex_link_fails_with_its_reason(run: Bad, came_out: Say) -> None:
    assert "run `git annex get`" in run.reason("annex")
    came_out("failed; the file is named: the link points to nothing, run git annex get")


@pytest.mark.robustness("4D with one volume", tried="a good scan of shape I x J x K x 1")
def test_4d_with_one_volume_is_squeezed_with_a_warning(same: Bad, came_out: Say) -> None:
    assert same.odd("single") == {"single-volume-4d": "warning"}
    assert same.differing("single") == 0 and same.dice("single") == 1
    came_out("done, the same labels; warning single-volume-4d")


@pytest.mark.robustness("4D with several volumes", tried="a good scan twice in one file")
def test_4d_with_several_volumes_fails_with_the_shape(run: Bad, came_out: Say) -> None:
    reason = run.reason("several")
    assert "one 3D volume was expected, found 99 x 117 x 95 x 2" in reason
    came_out("failed; the file and its shape are named")


@pytest.mark.robustness("NaN or infinity", tried="NaN, inf and -inf in a good scan")
def test_nan_and_infinity_are_cleaned_with_a_warning(same: Bad, came_out: Say) -> None:
    assert same.odd("nan") == {"nan-voxels": "warning"}
    assert same.differing("nan", by=1e-4) == 3 and same.dice("nan") > 0.98
    sidecar = same.out / "sub-nan" / "anat" / "sub-nan_desc-brain_mask.json"
    assert "3 NaN or infinite voxels were set to 0" in json.loads(sidecar.read_text())["Warnings"]
    came_out("done, Dice with the original above 0.98; warning nan-voxels with their number")


@pytest.mark.robustness("all zeros", tried="a scan of zeros")
def test_all_zeros_fail_as_no_signal(run: Bad, came_out: Say) -> None:
    assert "no signal, every voxel is 0" in run.reason("zeros")
    came_out("failed: no signal, every voxel is 0")


@pytest.mark.robustness("constant", tried="a scan in which every voxel is 7")
def test_a_constant_fails_as_no_signal(run: Bad, came_out: Say) -> None:
    assert "no signal, every voxel is 7" in run.reason("constant")
    came_out("failed: no signal, every voxel is 7")


@pytest.mark.robustness("negative values", tried="300 subtracted from every voxel of a good scan")
def test_negative_values_are_like_others(same: Bad, came_out: Say) -> None:
    assert same.odd("negative") == {} and same.findings("negative")["negative-values"] == "info"
    assert same.differing("negative", by=1e-5) == 0 and same.dice("negative") > 0.98
    came_out("done, Dice with the original above 0.98; info negative-values")


@pytest.mark.robustness("float64", tried="a good scan, times 1000, as float64")
def test_float64_is_like_others(same: Bad, came_out: Say) -> None:
    assert same.differing("double", by=1e-5) == 0 and same.dice("double") > 0.98
    came_out("done, Dice with the original above 0.98")


@pytest.mark.robustness("int32", tried="a good scan, times 1000, as int32")
def test_int32_is_like_others(same: Bad, came_out: Say) -> None:
    assert same.differing("int", by=1e-5) == 0 and same.dice("int") > 0.98
    came_out("done, Dice with the original above 0.98")


@pytest.mark.robustness("scaled ints", tried="a good scan as int16 with slope and intercept")
def test_scaled_integers_are_like_others(same: Bad, came_out: Say) -> None:
    assert same.odd("scaled") == {}
    assert same.differing("scaled", by=1e-4) == 0 and same.dice("scaled") > 0.98
    came_out("done, Dice with the original above 0.98")


@pytest.mark.robustness("singular affine", tried="an sform with two equal rows")
def test_a_singular_affine_fails(run: Bad, came_out: Say) -> None:
    assert "the affine is singular" in run.reason("singular")
    came_out("failed; the file is named: the affine is singular")


@pytest.mark.robustness("zero affine", tried="an sform of zeros")
def test_a_zero_affine_fails(run: Bad, came_out: Say) -> None:
    assert "the affine is singular" in run.reason("zero")
    came_out("failed; the file is named: the affine is singular")


@pytest.mark.robustness("NaN in the affine", tried="an sform with a NaN")
def test_nan_in_the_affine_fails(run: Bad, came_out: Say) -> None:
    assert "the affine contains NaN" in run.reason("nanaffine")
    came_out("failed; the file is named: the affine contains NaN")


@pytest.mark.robustness("sform and qform differ", tried="a qform 7 mm off on each axis")
def test_the_sform_is_used_where_the_qform_differs(same: Bad, came_out: Say) -> None:
    assert same.odd("forms") == {"sform-qform-differ": "warning"}
    assert same.differing("forms") == 0 and same.dice("forms") > 0.98
    came_out("done with the sform, Dice with the original above 0.98; warning sform-qform-differ")


@pytest.mark.robustness("oblique", tried="a good head on a grid rotated by 12 degrees on two axes")
def test_an_oblique_scan_gets_the_same_labels(run: Bad, came_out: Say) -> None:
    assert run.odd("oblique") == {} and run.findings("oblique")["oblique"] == "info"
    assert run.dice("oblique") > 0.85
    came_out("done, Dice of all structures with the original above 0.85; info oblique")


@pytest.mark.robustness(
    "any of the 48 axis orientations",
    tried="a good head stored as PSR and as ILA (all 48 without the app: "
    "tests/imaging/test_grid.py)",
)
def test_other_orientations_get_the_same_labels(same: Bad, came_out: Say) -> None:
    for subject in ("psr", "ila"):
        assert same.odd(subject) == {}
        assert same.differing(subject) == 0 and same.dice(subject) > 0.95
    came_out("done, Dice of all structures with the original above 0.95")


@pytest.mark.robustness("upside-down header", tried="an sform whose third axis points down")
def test_an_upside_down_header_is_flagged(run: Bad, came_out: Say) -> None:
    assert run.odd("upsidedown")["orientation-doubtful"] == "error"
    assert run.odd("upsidedown")["structure-unsure"] == "error"
    came_out("done; error orientation-doubtful reports upside down, error structure-unsure")


@pytest.mark.robustness("5 mm slices", tried="a good head with slices of 5 mm")
def test_thick_slices_work_with_a_warning(run: Bad, came_out: Say) -> None:
    assert run.odd("thick") == {"thick-slices": "warning"}
    assert run.dice("thick") > 0.7
    came_out("done, Dice of all structures with the original above 0.7; warning thick-slices")


@pytest.mark.robustness("20 mm slab", tried="20 mm of a good head")
def test_a_slab_is_no_whole_head(run: Bad, came_out: Say) -> None:
    assert "not a whole head" in run.reason("slab")
    assert run.odd("slab")["small-view"] == "error"
    came_out("failed: not a whole head; error small-view")


@pytest.mark.robustness("a crop", tried="the left half of a good head")
def test_a_crop_is_flagged(run: Bad, came_out: Say) -> None:
    odd = run.odd("crop")
    assert {"small-view", "brain-cut"} <= set(odd)
    came_out("done; warnings small-view (not a whole head) and brain-cut")


@pytest.mark.robustness("skull-stripped", tried="the MNI152 average (skull-stripped)")
def test_a_stripped_head_works(run: Bad, came_out: Say) -> None:
    assert run.odd("good") == {} and run.findings("good")["skull-stripped"] == "info"
    came_out("done without a warning; info skull-stripped")


@pytest.mark.shared_data
@pytest.mark.robustness("defaced", tried="a real defaced head, resampled to 2 mm")
def test_a_defaced_head_works(run: Bad, came_out: Say) -> None:
    if not (SHARED / "bids_highres").exists():
        pytest.skip(f"the real scans are not at {SHARED} (set DEEPMRSEG_SHARED_DATA)")
    assert run.labels("defaced") and run.odd("defaced") == {}
    came_out("done without a warning")


@pytest.mark.robustness("contrast-enhanced", tried="bright vessels around the brain of a good head")
def test_a_contrast_enhanced_head_works(run: Bad, came_out: Say) -> None:
    assert run.odd("enhanced") == {} and run.dice("enhanced") > 0.85
    came_out("done without a warning, Dice of all structures with the original above 0.85")


@pytest.mark.robustness("a T2w named T1w", tried="fluid bright, white matter dark, named T1w")
def test_a_t2w_is_flagged(run: Bad, came_out: Say) -> None:
    rows = run.rows("t2w")
    failed = {row["task"] for row in rows if row["status"] == "failed"}
    assert failed or run.odd("t2w")["contrast-doubtful"] == "error"
    came_out("flagged: contrast-doubtful, or no structures found")


@pytest.mark.robustness("a phantom", tried="a sphere of 40 voxels radius, and noise")
def test_a_phantom_gets_no_structures(run: Bad, came_out: Say) -> None:
    for subject in ("sphere", "noise"):
        reasons = {row["task"]: row["reason"] for row in run.rows(subject)}
        assert "not a whole head" in reasons["deepbrain"] or "no deep" in reasons["deepbrain"]
        assert not list((run.out / f"sub-{subject}").rglob("*_dseg.nii.gz"))
    came_out("deepbrain failed: no deep structures, or not a whole head")


@pytest.mark.robustness("no T1w", tried="a session with a FLAIR alone")
def test_a_session_without_t1w_is_skipped_with_the_reason(run: Bad, came_out: Say) -> None:
    reason = "the session has no T1w image: its anat folder contains sub-bare_FLAIR.nii.gz"
    assert run.reason("bare", "skipped") == reason
    came_out("skipped: the session has no T1w image")


@pytest.mark.robustness("invalid JSON sidecar", tried="a truncated sidecar")
def test_an_invalid_sidecar_is_a_warning(same: Bad, came_out: Say) -> None:
    assert same.odd("int") == {"sidecar-unreadable": "warning"}
    came_out("done; warning sidecar-unreadable names the file")


@pytest.mark.robustness("invalid TSV next to the image", tried="scans.tsv with an incomplete line")
def test_an_invalid_table_is_a_warning(same: Bad, came_out: Say) -> None:
    assert same.odd("double") == {"sidecar-unreadable": "warning"}
    came_out("done; warning sidecar-unreadable names the file")

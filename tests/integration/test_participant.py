"""The participant level, from raw scans to derivative files, on a real image."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.integration.conftest import Run, add_scan, app, make_dataset, read_tsv
from tests.tiny import tiny_head

SESSIONS = ("ses-1", "ses-2")
DEEP_ML = (30, 90)  # fourteen structures together, from small to large brains


def anat(run: Run, session: str) -> Path:
    return run.out / "sub-01" / session / "anat"


def volumes(run: Run, session: str, task: str) -> dict[str, float]:
    table = anat(run, session) / f"sub-01_{session}_seg-{task}_morph.tsv"
    return {row["name"]: float(row["volume_mm3"]) for row in read_tsv(table)}


def labels(run: Run, session: str, task: str) -> nib.Nifti1Image:
    kind = "desc-brain_mask" if task == "brain" else f"seg-{task}_dseg"
    return nib.load(anat(run, session) / f"sub-01_{session}_{kind}.nii.gz")


TASKS = ("brain", "deepbrain", "hippocampus", "wholebrain")


def test_a_run_that_did_all_it_was_asked_for_ends_with_zero(run: Run) -> None:
    assert run.finished.code == 0, run.finished.output


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize(
    "ending",
    ["desc-brain_mask.nii.gz", "seg-brain_morph.tsv"]
    + [
        f"seg-{task}_{kind}"
        for task in ("deepbrain", "hippocampus")
        for kind in ("dseg.nii.gz", "dseg.json", "morph.tsv", "morph.json", "probseg.nii.gz")
    ]
    + ["seg-wholebrain_dseg.nii.gz", "seg-wholebrain_morph.tsv"]
    + ["seg-wholebrain_desc-regions_morph.tsv", "seg-wholebrain_desc-regions_morph.json"],
)
def test_every_file_of_the_contract_is_there(run: Run, session: str, ending: str) -> None:
    path = anat(run, session) / f"sub-01_{session}_{ending}"
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    "name",
    [
        "dataset_description.json",
        ".bidsignore",
        "README",
        "CITATION.md",
        "seg-deepbrain_dseg.tsv",
        "seg-hippocampus_dseg.tsv",
        "sub-01.html",
        "logs/sessions.tsv",
    ],
)
def test_the_data_set_has_its_own_files(run: Run, name: str) -> None:
    assert (run.out / name).stat().st_size > 0


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("task", ["brain", "deepbrain", "hippocampus"])
def test_label_maps_lie_on_the_grid_of_the_scan(run: Run, session: str, task: str) -> None:
    scan = nib.load(run.raw / "sub-01" / session / "anat" / f"sub-01_{session}_T1w.nii.gz")
    found = labels(run, session, task)
    assert found.shape == scan.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-4)
    assert found.get_data_dtype() == np.uint8


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("task", ["deepbrain", "hippocampus"])
def test_left_structures_lie_left_of_right_ones_and_of_the_midline(
    run: Run, session: str, task: str
) -> None:
    image = labels(run, session, task)
    data = np.asarray(image.dataobj)
    for row in read_tsv(run.out / f"seg-{task}_dseg.tsv"):
        voxels = np.argwhere(data == int(row["index"]))
        assert len(voxels) > 0, row["name"]
        x = nib.affines.apply_affine(image.affine, voxels)[:, 0].mean()
        assert (x < -3) if row["name"].startswith("Left") else (x > 3), (row["name"], x)


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize("task", ["deepbrain", "hippocampus"])
def test_no_label_lies_outside_the_brain(run: Run, session: str, task: str) -> None:
    inside = np.asarray(labels(run, session, "brain").dataobj) > 0
    found = np.asarray(labels(run, session, task).dataobj) > 0
    assert (found & ~inside).sum() <= 0.001 * found.sum()


@pytest.mark.parametrize("task", ["brain", "deepbrain", "hippocampus"])
def test_the_same_scan_stored_in_another_orientation_has_the_same_volumes(
    run: Run, task: str
) -> None:
    one, other = volumes(run, "ses-1", task), volumes(run, "ses-2", task)
    for name, volume in one.items():
        assert other[name] == pytest.approx(volume, rel=0.01), name


def test_volumes_are_those_of_a_human_brain(run: Run) -> None:
    brain = volumes(run, "ses-1", "brain")["Brain"] / 1000
    deep = sum(volumes(run, "ses-1", "deepbrain").values()) / 1000
    assert 1000 < brain < 2300
    assert DEEP_ML[0] < deep < DEEP_ML[1]


def test_the_anterior_hippocampus_lies_ahead_of_the_posterior_one(run: Run) -> None:
    image = labels(run, "ses-1", "hippocampus")
    data = np.asarray(image.dataobj)
    middle = {
        index: nib.affines.apply_affine(image.affine, np.argwhere(data == index))[:, 1].mean()
        for index in (1, 2, 3, 4)
    }
    assert middle[1] > middle[2] + 10
    assert middle[3] > middle[4] + 10


def test_both_hippocampus_models_mean_the_same_place(run: Run) -> None:
    parts = np.asarray(labels(run, "ses-1", "hippocampus").dataobj)
    whole = np.asarray(labels(run, "ses-1", "deepbrain").dataobj)
    for side, code in (((1, 2), 48), ((3, 4), 47)):
        one, other = np.isin(parts, side), whole == code
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.6


def test_posteriors_are_highest_where_the_label_is(run: Run) -> None:
    image = nib.load(anat(run, "ses-1") / "sub-01_ses-1_seg-deepbrain_probseg.nii.gz")
    sidecar = json.loads(
        (anat(run, "ses-1") / "sub-01_ses-1_seg-deepbrain_probseg.json").read_text()
    )
    assert len(sidecar["LabelMap"]) == image.shape[3] == 14
    data = np.asarray(labels(run, "ses-1", "deepbrain").dataobj)
    place = sidecar["LabelMap"].index("Left-Thalamus-Proper")
    shares = np.asarray(image.dataobj[..., place])
    assert shares[data == 60].mean() > 0.7
    assert shares[data == 0].mean() < 0.01


def test_the_sidecar_says_what_was_made_from_what(run: Run) -> None:
    scan = run.raw / "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    tree = json.loads((anat(run, "ses-1") / "sub-01_ses-1_seg-deepbrain_dseg.json").read_text())
    uri = "bids:raw:sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    assert tree["Sources"] == [uri]
    assert tree["InputSHA256"][uri] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert set(tree["Models"]) == {"brain", "icv", "outline", "deepbrain"}
    assert len(tree["Models"]["deepbrain"]["SHA256"]) == 64


def test_the_table_of_sessions_has_a_row_a_task(run: Run) -> None:
    rows = read_tsv(run.out / "logs" / "sessions.tsv")
    assert {(row["session_id"], row["task"]) for row in rows} == {
        (session, task) for session in SESSIONS for task in TASKS
    }
    assert {row["status"] for row in rows} == {"done"}
    assert all(float(row["seconds"]) > 0 and float(row["peak_mib"]) > 100 for row in rows)


def test_confidence_lies_between_zero_and_one(run: Run) -> None:
    for task in TASKS:
        for row in read_tsv(anat(run, "ses-1") / f"sub-01_ses-1_seg-{task}_morph.tsv"):
            assert 0.3 < float(row["confidence"]) <= 1, row


def test_intervals_hold_their_volume_between_them(run: Run) -> None:
    rows = read_tsv(anat(run, "ses-1") / "sub-01_ses-1_seg-deepbrain_morph.tsv")
    for row in rows:
        low, high = float(row["volume_low_mm3"]), float(row["volume_high_mm3"])
        assert 0 < low < high
        assert high / low < 9


def test_the_home_directory_stays_empty(run: Run) -> None:
    assert list(run.finished.home.iterdir()) == []


def test_the_raw_data_set_is_left_alone(run: Run) -> None:
    names = {path.name for path in run.raw.rglob("*") if path.is_file()}
    assert names == {
        "dataset_description.json",
        "README",
        "participants.tsv",
        "sub-01_ses-1_T1w.nii.gz",
        "sub-01_ses-2_T1w.nii.gz",
    }


def test_one_process_gives_the_same_bytes_as_two(run: Run, tmp_path: Path) -> None:
    again = app(
        run.raw, tmp_path / "out", "participant", "--nprocs", 1, "--session-label", "1",
        "--no-reports", home=tmp_path / "h",
    )  # fmt: skip
    assert again.code == 0, again.output
    for task in ("deepbrain", "hippocampus", "wholebrain"):
        name = f"sub-01/ses-1/anat/sub-01_ses-1_seg-{task}_dseg.nii.gz"
        assert (tmp_path / "out" / name).read_bytes() == (run.out / name).read_bytes()
    assert not (tmp_path / "out" / "sub-01.html").exists()
    assert not (tmp_path / "out" / "sub-01" / "ses-2").exists()


def made(out: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file of the session folders."""
    return {
        str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted((out / "sub-01").rglob("*"))
        if path.is_file()
    }


def statuses(out: Path) -> dict[tuple[str, str], str]:
    rows = read_tsv(out / "logs" / "sessions.tsv")
    return {(row["session_id"], row["task"]): row["status"] for row in rows}


def test_what_is_finished_is_not_done_again_and_what_is_missing_is(
    run: Run, tmp_path: Path
) -> None:
    out, home = tmp_path / "out", tmp_path / "h"
    shutil.copytree(run.out, out)
    before = made(out)
    written = (out / "sub-01.html").stat().st_mtime_ns
    asked = (run.raw, out, "participant", "--probabilities")
    again = app(*asked, home=home)
    assert again.code == 0, again.output
    assert (out / "sub-01.html").stat().st_mtime_ns == written  # it shows every table there is
    assert "2 of 2 sessions completed by earlier runs" in again.output
    assert set(statuses(out).values()) == {"resumed"}
    assert all(float(row["seconds"]) > 0 for row in read_tsv(out / "logs" / "sessions.tsv"))
    assert made(out) == before
    gone = out / "sub-01/ses-2/anat/sub-01_ses-2_seg-hippocampus_dseg.json"
    gone.unlink()
    third = app(*asked, "-w", tmp_path / "w", home=home)
    assert third.code == 0, third.output
    assert {key for key, status in statuses(out).items() if status == "done"} == {
        ("ses-2", "hippocampus")
    }
    after = made(out)
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in before.items()
    }
    untouched = {name for name in before if "ses-2_seg-hippocampus" not in name}
    assert all(after[name] == before[name] for name in untouched)
    page = (out / "sub-01.html").read_text(encoding="utf-8")
    assert "ses-1" in page and "ses-2" in page  # also the session that had nothing to do


def test_force_does_finished_work_again(tiny_model: Path, tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw")
    add_scan(raw, "sub-01_T1w", tiny_head(1))
    asked = (raw, tmp_path / "out", "participant", "--tasks", "brain", "--no-reports",
             "--model", f"brain={tiny_model}")  # fmt: skip
    assert app(*asked, home=tmp_path / "h").code == 0
    table = tmp_path / "out/logs/sessions.tsv"
    assert [row["status"] for row in read_tsv(table)] == ["done"]
    assert app(*asked, home=tmp_path / "h").code == 0
    assert [row["status"] for row in read_tsv(table)] == ["resumed"]
    assert app(*asked, "--force", home=tmp_path / "h").code == 0
    assert [row["status"] for row in read_tsv(table)] == ["done"]


def test_the_group_level_gathers_every_session(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(run.out, out)
    ended = app(run.raw, out, "group", home=tmp_path / "h")
    assert ended.code == 0, ended.output
    rows = read_tsv(out / "group_seg-deepbrain_morph.tsv")
    assert [(row["participant_id"], row["session_id"]) for row in rows] == [
        ("sub-01", "ses-1"),
        ("sub-01", "ses-2"),
    ]
    assert rows[0]["age"] == "40"
    expected = volumes(run, "ses-2", "deepbrain")["Left-Caudate"]
    assert float(rows[1]["Left-Caudate"]) == pytest.approx(expected, abs=0.1)
    assert "Left-Caudate" in json.loads((out / "group_seg-deepbrain_morph.json").read_text())

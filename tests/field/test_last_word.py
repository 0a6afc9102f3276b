"""The last word of a run: what it says at its end, and why an image was not found, is true."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.app.outcomes import RunOutcome, log_findings, log_rows, log_summary
from deepmrseg_bids.bids.query import find_sessions
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome
from tests.field.conftest import Study, write_tree
from tests.integration.conftest import add_scan, make_dataset
from tests.support import no_root
from tests.tiny import tiny_head

BASE: dict[str, object] = {
    "dataset_description.json": {"Name": "x", "BIDSVersion": "1.8.0"},
    "sub-02/anat/sub-02_T1w.nii.gz": "another",
}


def why(root: Path, modality: str = "T1w", **options: object) -> str:
    """Why sub-01 has no image."""
    found = {session.name: session for session in find_sessions(root, **options)}
    assert modality not in found["sub-01"].images
    return found["sub-01"].missing.get(modality, "")


# -- findings ------------------------------------------------------------------------------


def test_errors_are_named_at_the_end_and_only_they(caplog: pytest.LogCaptureFixture) -> None:
    error = Finding("brain-cut", "error", "the brain touches the edge")
    warning = Finding("oblique", "warning", "tilted")

    def session(number: int, *findings: Finding, status: str = "resumed") -> SessionOutcome:
        tasks = tuple(TaskOutcome(task, status, findings=findings) for task in ("brain", "wml"))
        return SessionOutcome(f"{number:02}", "1", {}, tasks)

    log_findings([session(1, warning), session(2, error, warning), session(3)])
    assert caplog.messages == [
        "1 session with findings of severity error: check them before using the results",
        "sub-02 ses-1: the brain touches the edge (brain-cut)",
    ]
    caplog.clear()
    log_findings([session(number, error) for number in range(30)])
    assert len(caplog.messages) == 12 and caplog.messages[-1].startswith("and 20 more sessions")
    caplog.clear()
    log_findings([session(1, warning), session(2, error, status="failed")])
    assert caplog.messages == []


def test_the_summary_counts_sessions_and_names_whom_to_look_at_worst_first(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    error = Finding("brain-cut", "error", "the brain touches the edge")
    warning = Finding("thick-slices", "warning", "thick slices")

    def session(number: int, status: str = "done", *findings: Finding) -> SessionOutcome:
        return SessionOutcome(
            f"{number:02}", None, {}, (TaskOutcome("brain", status, findings=findings),)
        )

    page = tmp_path / "sub-01.html"
    page.touch()
    caplog.set_level(logging.INFO)
    outcomes = [session(1), session(2, "done", warning), session(3, "failed"),
                session(4, "resumed", error), session(5, "skipped")]  # fmt: skip
    log_summary(outcomes, {"brain": "Brain"}, pages=[page], following="deepmrseg-bids a b group")
    assert caplog.messages == [
        "Summary: 5 sessions: 3 done, 1 failed, 1 skipped; 4 to look at",
        "  problem: sub-03: Brain failed.",
        "  problem: sub-04: The brain touches the edge.",
        "  check: sub-02: Thick slices.",
        "  check: sub-05: Brain skipped.",
        f"  Reports: {page}",
        "  Next: deepmrseg-bids a b group",
    ]
    caplog.clear()
    log_summary([session(number, "done", warning) for number in range(30)], {}, following="x")
    assert len(caplog.messages) == 13 and "and 20 more sessions" in caplog.messages[-2]


@pytest.mark.robustness("a run with findings of severity error", tried="a head with voxels of "
                        "8 x 8 x 4 mm: the run, and the same again")  # fmt: skip
def test_a_run_whose_results_should_not_be_used_says_so_every_time(
    tiny_model: Path, tmp_path: Path, came_out: Callable[[str], None]
) -> None:
    study = Study(tmp_path, tiny_model)
    make_dataset(study.raw)
    head = tiny_head(1)
    data, affine = np.asarray(head.dataobj)[::2, ::2], head.affine @ np.diag([2, 2, 1, 1])
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
    image.set_sform(affine, code="scanner")
    add_scan(study.raw, "sub-01_T1w", image)
    first, again = study.run(), study.run()
    for ended in (first, again):
        assert ended.code == 0, ended
        assert "1 session with findings of severity error" in ended.err
        assert "WARNING sub-01: " in ended.err and "(thick-slices)" in ended.err
        summary, *lines = ended.err[ended.err.index("Summary: ") :].splitlines()
        assert summary.startswith("Summary: 1 session: 1 done, 0 failed; 1 to look at")
        assert "problem: sub-01: " in lines[0] and lines[-1].endswith(" group")
    came_out("exit code 0; the last lines name the session and its findings, in both runs")


def test_completed_by_earlier_runs_is_said_of_what_was_completed(finished: Study) -> None:
    add_scan(finished.raw, "sub-03_ses-1_T1w", b"no image")
    (finished.raw / "sub-04" / "anat").mkdir(parents=True)
    assert "4 of 6 sessions completed by earlier runs" in finished.run().err
    assert "4 of 6 sessions completed by earlier runs" in finished.run().err
    assert "4 of 6 sessions completed by earlier runs" in finished.run("--reports-only").err
    plan = finished.run("--dry-run").out
    assert "4 completed" in plan and "its anat folder is empty" in plan


# -- why an image is missing ---------------------------------------------------------------

CAUSES: dict[str, tuple[dict[str, object], str]] = {
    "no folder": ({"sub-01/dwi/sub-01_dwi.nii.gz": ""}, "no folder called anat (it contains dwi)"),
    "empty folder": ({"sub-01/anat/": ""}, "its anat folder is empty"),
    "folder in capitals": ({"sub-01/Anat/sub-01_T1w.nii.gz": ""}, "the folder Anat must be called"),
    "image without folder": ({"sub-01/sub-01_T1w.nii.gz": ""}, "not in a folder called anat"),
    "ending in capitals": ({"sub-01/anat/sub-01_T1w.NII.GZ": ""}, "must end in .nii or .nii.gz"),
    "ending half in capitals": ({"sub-01/anat/sub-01_T1w.nii.GZ": ""}, "must end in .nii"),
    "suffix in capitals": ({"sub-01/anat/sub-01_t1w.nii.gz": ""}, "must be called ..._T1w"),
    "suffix T1W": ({"sub-01/anat/sub-01_T1W.nii.gz": ""}, "must be called ..._T1w"),
    "another format": ({"sub-01/anat/sub-01_T1w.mgz": ""}, "is not a NIfTI file"),
    "only a sidecar": ({"sub-01/anat/sub-01_T1w.json": {}}, "only its sidecar"),
    "another contrast": ({"sub-01/anat/sub-01_T2w.nii.gz": ""}, "contains sub-01_T2w.nii.gz"),
    "another subject's": ({"sub-01/anat/sub-02_T1w.nii.gz": ""}, "folder of another subject"),
    "a phase image": ({"sub-01/anat/sub-01_part-phase_T1w.nii.gz": ""}, "not a magnitude image"),
    "no BIDS name": ({"sub-01/anat/sub-01_foo-1_T1w.nii.gz": ""}, "not a BIDS"),
    "ignored": (
        {"sub-01/anat/sub-01_T1w.nii.gz": "", ".bidsignore": "# not these\n**/sub-01_T1w*\n"},
        "excluded by .bidsignore",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CAUSES)
def test_the_cause_of_a_missing_image_is_named(case: str, tmp_path: Path) -> None:
    files, said = CAUSES[case]
    folders = [name for name in files if name.endswith("/")]
    root = write_tree(tmp_path, BASE | {n: v for n, v in files.items() if n not in folders})
    for folder in folders:
        (root / folder).mkdir(parents=True)
    assert said in why(root)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, BASE | {"sub-01/anat/sub-01_T1w.nii.gz": "x"})
    for folder in (root, *root.parents):
        if folder != Path("/tmp") and folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    find_sessions(root)  # all is imported: somebody else may not be able to
    (root / "sub-01/anat").chmod(0o000)
    try:
        with no_root():
            assert "cannot be read (Permission denied)" in why(root)
    finally:
        (root / "sub-01/anat").chmod(0o755)


def test_a_filter_is_named_as_the_cause_and_if_it_matches_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_tree(tmp_path, BASE | {
        "sub-01/anat/sub-01_acq-a_T1w.nii.gz": "x", "sub-02/anat/sub-02_acq-b_T1w.nii.gz": "x",
        "sub-01/anat/sub-01_FLAIR.nii.gz": "x",
    })  # fmt: skip
    excluded = "sub-01_acq-a_T1w.nii.gz is excluded by the filter 't1w' of --bids-filter-file"
    assert why(root, filters={"t1w": {"acquisition": "b"}}) == excluded
    assert caplog.messages == []
    nothing = {"acquisition": "c"}
    assert why(root, filters={"t1w": nothing}) == excluded
    (text,) = caplog.messages
    assert "'t1w'" in text and json.dumps(nothing) in text and "sub-01_acq-a_T1w.nii.gz" in text
    caplog.clear()
    assert "'flair'" in why(root, "FLAIR", filters={"flair": nothing})
    assert "matches no FLAIR image" in caplog.text


@pytest.mark.robustness("no T1w, by a filter or by its name", tried="a filter that matches "
                        "nothing; an ending .NII.GZ")  # fmt: skip
def test_the_cause_is_on_the_terminal_in_the_table_and_on_the_page(
    finished: Study, came_out: Callable[[str], None]
) -> None:
    scan = add_scan(finished.raw, "sub-03_T1w", b"x")
    scan.rename(scan.with_name("sub-03_T1w.NII.GZ"))
    ended = finished.run()
    assert ended.code == 3
    status, reason = finished.rows["sub-03"]
    assert status == "skipped" and "must end in .nii or .nii.gz" in reason
    assert f"sub-03: brain skipped: {reason}" in ended.err
    assert "must end in .nii or .nii.gz" in finished.page("03")
    place = finished.folder / "filter.json"
    place.write_text(json.dumps({"t1w": {"acquisition": "none"}}))
    ended = finished.run("--bids-filter-file", place, "--participant-label", "03")
    assert ended.code == 4
    came_out(f"skipped: {reason}")


# -- filters, choice, .bidsignore ----------------------------------------------------------


@pytest.mark.parametrize(("filters", "said"), [
    ({"t1w": {"acq": "a"}}, "did you mean 'acquisition'?"),
    ({"t1w": {"acquisitio": "a"}}, "did you mean 'acquisition'?"),
    ({"t1w": {"colour": "a"}}, "'colour' is not an entity; known are"),
    ({"T1w": {"acquisition": "a"}, "flair": {}}, "use 't1w' instead of 'T1w'"),
])  # fmt: skip
def test_a_filter_that_cannot_be_used_is_told_in_our_words(
    filters: dict[str, object], said: str, tmp_path: Path
) -> None:
    root = write_tree(tmp_path, BASE)
    with pytest.raises(UsageError) as error:
        find_sessions(root, filters=filters)
    assert said in str(error.value)
    assert "invalid_filters" not in str(error.value) and "pybids" not in str(error.value)


@pytest.mark.parametrize(("names", "chosen", "enhanced"), [
    (("ce-gadolinium", "acq-mprage_rec-norm"), "acq-mprage_rec-norm", False),
    (("ce-gadolinium", "acq-mprage_ce-gd_run-2"), "ce-gadolinium", True),
    (("ce-gadolinium",), "ce-gadolinium", True),
    (("ce-gadolinium", "run-2", "run-1"), "run-1", False),
])  # fmt: skip
def test_an_image_with_contrast_agent_is_the_last_choice_and_that_is_said(
    names: tuple[str, ...], chosen: str, enhanced: bool, tmp_path: Path
) -> None:
    files = {f"sub-01/anat/sub-01_{name}_T1w.nii.gz": "x" for name in names}
    session = find_sessions(write_tree(tmp_path, BASE | files))[0]
    assert session.images["T1w"].name == f"sub-01_{chosen}_T1w.nii.gz"
    assert any("acquired with a contrast agent" in note for note in session.notes) is enhanced


def test_bidsignore_of_the_raw_data_is_honoured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_tree(tmp_path, BASE | {
        ".bidsignore": "sub-03/\n*_rec-bad_T1w.nii.gz\n!sub-02_rec-bad_T1w.nii.gz\n",
        "sub-01/anat/sub-01_rec-bad_T1w.nii.gz": "x",
        "sub-01/anat/sub-01_acq-b_rec-c_T1w.nii.gz": "x",
        "sub-03/anat/sub-03_T1w.nii.gz": "x",
    })  # fmt: skip
    sessions = {one.subject: one.images["T1w"].name for one in find_sessions(root)}
    assert sessions == {"01": "sub-01_acq-b_rec-c_T1w.nii.gz", "02": "sub-02_T1w.nii.gz"}
    assert "sub-03: skipped, excluded by .bidsignore" in caplog.text
    (root / ".bidsignore").write_bytes(b"\xff\xfe\x00")
    caplog.set_level(logging.WARNING)
    assert len(find_sessions(root)) == 3 and ".bidsignore: cannot be read" in caplog.text


def test_sessions_of_which_nothing_could_be_done_are_not_counted_as_done(
    finished: Study,
) -> None:
    (finished.raw / "sub-03/anat").mkdir(parents=True)
    ended = finished.run("--force")
    assert ended.code == 3 and "4 of 5 sessions done, 0 failed, 1 skipped" in ended.err, ended


def test_reports_only_after_a_stopped_run_says_why_tasks_are_not_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    stopped = RunOutcome(interrupted=True)
    rows = [SessionRow("sub-1", "", "brain", *stopped.unfinished("sub-1"))] * 2
    rows.append(SessionRow("sub-2", "", "brain", *RunOutcome(stopped=True).unfinished("sub-2")))
    log_rows(rows)
    assert [text.partition(":")[0] for text in caplog.messages] == [
        "2 of 3 tasks not completed",
        "1 of 3 tasks not completed",
    ]
    assert "interrupted; run the same command again" in caplog.messages[0]
    assert "--stop-on-first-crash" in caplog.messages[1]

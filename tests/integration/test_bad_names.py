"""Odd places, names and choices: one run of the real app below a folder with an evil name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import bad_heads as bad
from tests.integration.conftest import Finished, add_scan, app, coarse, make_dataset, read_tsv

Say = Callable[[str], None]
EVIL = 'd\'été & "x" <script>alert(1)<' + "é" * 80


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Finished]:
    """Each oddity in a data set of its own folder: BIDS_DIR, OUT_DIR and how the run ended."""
    root = make_dataset(tmp_path_factory.mktemp("odd") / EVIL / ("y" * 60) / "bids")
    add_scan(root, "sub-01_run-1_T1w", coarse())
    add_scan(root, "sub-01_run-2_T1w", b"")
    add_scan(root, "sub-02_T1w", bad.without_forms(coarse()))
    shutil.copytree(root / "sub-01", root / "sub-<b>é")  # not a BIDS label
    description = {"Name": "<script>alert(2)</script>", "BIDSVersion": "1.10.0",
                   "DatasetDOI": "<script>alert(3)</script>"}  # fmt: skip
    (root / "dataset_description.json").write_text(json.dumps(description))
    people = "participant_id\t<script>alert(4)</script>\nsub-01\t<img src=x onerror=alert(5)>\n"
    (root / "participants.tsv").write_text(people)
    (root / "sub-01" / "anat" / "sub-01_run-1_T1w.json").write_text('{"<script>": ')
    out = root.parent / "out"
    ended = app(root, out, "participant", "--tasks", "brain", "wml", "--force-header",
                home=tmp_path_factory.mktemp("h") / "h")  # fmt: skip
    return root, out, ended


def rows(out: Path, subject: str) -> dict[str, dict[str, str]]:
    table = read_tsv(out / "logs" / "sessions.tsv")
    return {row["task"]: row for row in table if row["participant_id"] == f"sub-{subject}"}


@pytest.mark.robustness(
    "label or path with spaces, accents, quotes, <script>",
    tried="BIDS_DIR and OUT_DIR below a folder with all of these, a folder sub-<b>é, and <script> "
    "in the JSON and TSV files of the data set",
)
def test_evil_names_work_and_pages_escape_them(run, came_out: Say) -> None:
    _, out, ended = run
    assert ended.code == 3, ended.output
    assert rows(out, "01")["brain"]["status"] == "done"
    assert "sub-<b>é: skipped" in ended.output
    assert app(run[0], out, "group", home=out.parent / "h").code == 0
    assert (out / "group.html").exists()
    for page in out.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script>alert" not in text and "<img src=x" not in text
        assert "&lt;script&gt;alert(1)" in text
    assert read_tsv(out / "group_seg-brain_morph.tsv")[0]["participant_id"] == "sub-01"
    came_out(
        "done, and the reports escape every string; a folder with an invalid "
        "BIDS label is skipped with a warning"
    )


@pytest.mark.robustness("path of 200 characters", tried="BIDS_DIR and OUT_DIR longer than that")
def test_a_long_path_works(run, came_out: Say) -> None:
    root, out, _ = run
    assert len(str(out)) > 200 and len(str(root)) > 200
    assert (out / "sub-01" / "anat" / "sub-01_run-1_desc-brain_mask.nii.gz").exists()
    assert rows(out, "01")["brain"]["status"] == "done"
    came_out("done")


@pytest.mark.robustness(
    "no sform and no qform", tried="with --force-header, and without (a second run)"
)
def test_a_header_without_forms_needs_force(run, tmp_path: Path, came_out: Say) -> None:
    root, out, _ = run
    forced = rows(out, "02")["brain"]
    assert forced["status"] == "done" and "warning:assumed-geometry" in forced["findings"]
    again = app(root, tmp_path / "out", "participant", "--tasks", "brain", "--participant-label",
                "02", home=tmp_path / "h")  # fmt: skip
    assert again.code == 4
    plain = rows(tmp_path / "out", "02")["brain"]
    assert plain["status"] == "failed" and "use --force-header" in plain["reason"]
    came_out("done with the warning assumed-geometry; failed, and the flag is named")


@pytest.mark.robustness("no FLAIR", tried="--tasks brain wml in a session without a FLAIR")
def test_lesions_without_flair_are_skipped_with_the_reason(run, came_out: Say) -> None:
    row = rows(run[1], "01")["wml"]
    assert row["status"] == "skipped" and row["reason"] == (
        "wml requires a FLAIR, but the session has none"
    )
    came_out("wml skipped: it requires a FLAIR, but the session has none; brain done")


@pytest.mark.robustness(
    "several T1w in a session", tried="run-1 and run-2 (empty), then a filter for run 2"
)
def test_the_choice_of_several_is_told_and_set_by_a_filter(
    run, tmp_path: Path, came_out: Say
) -> None:
    root, out, ended = run
    assert "sub-01_run-1_T1w.nii.gz is used, not sub-01_run-2_T1w.nii.gz" in ended.output
    assert "sub-01_run-1_T1w.nii.gz is used" in (out / "sub-01.html").read_text(encoding="utf-8")
    wanted = tmp_path / "filter.json"
    wanted.write_text(json.dumps({"t1w": {"run": 2}}))
    app(root, tmp_path / "out", "participant", "--tasks", "brain", "--participant-label", "01",
        "--bids-filter-file", wanted, home=tmp_path / "h")  # fmt: skip
    reason = rows(tmp_path / "out", "01")["brain"]["reason"]
    assert "sub-01_run-2_T1w.nii.gz: the file is empty" in reason
    came_out(
        "run-1 is used, as stated in the log and the report; with the filter "
        "run-2 is used (and fails)"
    )


@pytest.mark.robustness("no dataset_description.json", tried="a data set without it")
def test_a_missing_description_is_an_error_before_any_work(tmp_path: Path, came_out: Say) -> None:
    root = make_dataset(tmp_path / "bids")
    (root / "dataset_description.json").unlink()
    (root / "sub-01").mkdir()
    ended = app(root, tmp_path / "out", "participant", home=tmp_path / "h")
    assert ended.code == 2
    assert f"{root} is not a BIDS data set: it has no dataset_description.json" in ended.output
    assert not (tmp_path / "out" / "logs").exists()
    came_out("exit code 2: the folder is named; nothing is written")


@pytest.mark.robustness("not a BIDS data set", tried="a folder with other files")
def test_a_folder_that_is_not_bids_is_an_error_before_any_work(
    tmp_path: Path, came_out: Say
) -> None:
    root = make_dataset(tmp_path / "stuff")
    ended = app(root, tmp_path / "out", "participant", home=tmp_path / "h")
    assert ended.code == 2
    assert f"BIDS_DIR {root} contains no sub-<label> folder" in ended.output
    assert not (tmp_path / "out" / "logs").exists()
    came_out("exit code 2: the folder is named; nothing is written")

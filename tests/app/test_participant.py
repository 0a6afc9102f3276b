"""Decisions of the participant level: what is done, and what the run ends with."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.app import participant
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import UsageError
from deepmrseg_bids.execution.runner import Verdict
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.session.job import SessionJob, TaskOutcome
from tests.support import images_of

BUNDLES = dict.fromkeys(("brain", "deepbrain", "hippocampus", "wml"))


def rows(*statuses):
    return [SessionRow("sub-01", "n/a", "brain", status) for status in statuses]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["done"], 0),
        (["done", "resumed"], 0),
        (["resumed"], 0),
        (["done", "failed"], 3),
        (["done", "skipped"], 3),
        (["resumed", "failed"], 3),
        (["failed"], 4),
        (["skipped", "failed"], 4),
        ([], 4),
    ],
)
def test_the_exit_code_says_whether_all_some_or_nothing_was_done(statuses, code):
    assert participant._exit_code(rows(*statuses)) == code


def config(**changes):
    return RunConfig(Path("/d"), Path("/o"), "participant", **changes)


@pytest.mark.parametrize(
    ("flair", "expected"),
    [
        (None, ("brain", "deepbrain", "hippocampus")),
        (Path("/f.nii.gz"), ("brain", "deepbrain", "hippocampus", "wml")),
    ],
)
def test_by_default_lesions_are_looked_for_where_there_is_a_flair(flair, expected):
    session = Session("01", None, images_of("/t.nii.gz", flair))
    assert participant._tasks(config(), session, BUNDLES) == expected


def test_by_default_a_task_without_a_model_is_left_out():
    session = Session("01", None, images_of("/t.nii.gz", "/f.nii.gz"))
    assert participant._tasks(config(), session, {"brain": None}) == ("brain",)


def test_what_is_asked_for_is_tried_so_that_its_absence_gets_a_reason():
    session = Session("01", None, images_of("/t.nii.gz"))
    assert participant._tasks(config(tasks=("wml",)), session, {"brain": None}) == ("wml",)


def test_a_model_of_another_task_is_refused_before_any_work(monkeypatch):
    opened = SimpleNamespace(task="wml", path=Path("/m"))
    monkeypatch.setattr(participant.ModelBundle, "open", lambda _: opened)
    with pytest.raises(UsageError, match="--model brain=/m: this model is for the task 'wml'"):
        participant._bundles(config(tasks=("brain",), models=(("brain", Path("/m")),)))


@pytest.mark.parametrize("text", ["{", "[]", '"t1w"'])
def test_a_filter_file_that_holds_no_object_is_refused(tmp_path, text):
    path = tmp_path / "filter.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="--bids-filter-file"):
        participant._filters(path)


def test_a_filter_file_is_read(tmp_path):
    path = tmp_path / "filter.json"
    path.write_text('{"t1w": {"acquisition": "mprage"}}')
    assert participant._filters(path) == {"t1w": {"acquisition": "mprage"}}
    assert participant._filters(None) is None


def test_a_larger_scan_is_expected_to_take_more_memory(monkeypatch):
    session = SessionJob("01", None, Path("/d"), images_of("/d/t.nii.gz"), ("brain",))
    found = []
    for edge in (256, 512):
        grid = Grid((edge,) * 3, np.eye(4))
        monkeypatch.setattr(participant, "read_grid", lambda path, grid=grid, **_: grid)
        found.append(participant._memory_gb(config(), session))
    assert 0.4 < found[0] < found[1] < 4
    bare = replace(session, images={})
    assert 0 < participant._memory_gb(config(), bare) < found[0]


def job(subject, *, tasks=("brain",), finished=()):
    done = tuple(TaskOutcome(task, "resumed") for task in finished)
    return SessionJob(subject, None, Path("/d"), images_of("/d/t.nii.gz"), tasks, finished=done)


@pytest.mark.parametrize(
    ("reports", "pages", "busy"),
    [(True, ("01", "02"), ["01", "01"]), (True, ("01",), ["01", "01", "02"]),
     (False, (), ["01", "01"])],
)  # fmt: skip
def test_a_subject_with_nothing_to_do_but_a_page_gets_its_page(tmp_path, reports, pages, busy):
    for subject in pages:
        (tmp_path / f"sub-{subject}.html").touch()
    jobs = [job("01"), job("01", tasks=(), finished=("brain",)),
            job("02", tasks=(), finished=("brain",))]  # fmt: skip
    asked = replace(config(reports=reports), out_dir=tmp_path)
    assert [one.subject for one in participant._with_work(asked, jobs)] == busy


@pytest.mark.parametrize("age", [-1, 1])
def test_a_page_that_is_older_than_a_result_is_written_again(tmp_path, age):
    page, file = tmp_path / "sub-01.html", tmp_path / "a.json"
    for place, time in ((page, 100), (file, 100 - age)):
        place.touch()
        os.utime(place, (time, time))
    done = (TaskOutcome("brain", "resumed", files=("a.json",)),)
    jobs = [replace(job("01", tasks=()), finished=done)]
    asked = replace(config(), out_dir=tmp_path)
    assert bool(participant._with_work(asked, jobs)) == (age < 0)


@pytest.fixture
def lost(monkeypatch, tmp_path):
    """The tasks of a session that left no record, of which ``deepbrain`` was published."""
    found = (TaskOutcome("deepbrain", "resumed"),)
    monkeypatch.setattr(participant.FinishedWork, "tasks", lambda *_: found)

    def rows(verdict):
        asked = job("01", tasks=("deepbrain", "wml"), finished=("brain",))
        assert participant._recorded(asked, tmp_path) is None
        outcome = participant._lost(asked, tmp_path, BUNDLES, None, verdict)
        return [(task.task, task.status, task.reason) for task in outcome.tasks]

    return rows


@pytest.mark.parametrize(
    ("verdict", "status", "reason"),
    [
        (Verdict({"sub-01": "killed"}), "failed", "killed"),
        (Verdict({"sub-01": "killed"}, interrupted=True), "failed", "killed"),
        (Verdict(), "failed", "ended unexpectedly"),
        (Verdict(interrupted=True), "failed", "interrupted; run the same command again"),
        (Verdict(stopped=True), "skipped", "not started"),
    ],
)
def test_a_session_that_broke_off_keeps_what_was_finished(lost, verdict, status, reason):
    rows = lost(verdict)
    assert rows[:2] == [("brain", "resumed", ""), ("deepbrain", "done", "")]
    task, found, text = rows[2]
    assert (task, found) == ("wml", status) and reason in text


def test_a_session_with_nothing_to_do_needs_no_record(tmp_path):
    found = participant._recorded(job("01", tasks=(), finished=("brain",)), tmp_path)
    assert [task.status for task in found.tasks] == ["resumed"]


def test_sessions_of_a_subject_stay_in_one_batch():
    jobs = [job(subject) for subject in "aaabbcde"]
    batches = [[one.subject for one in batch] for batch in participant._batches(jobs, 2)]
    assert batches == [["a", "a", "a"], ["b", "b"], ["c", "d"], ["e"]]


def test_what_nobody_began_is_counted_and_not_listed(caplog):
    left = [SessionRow("sub-2", "", "brain", "failed", participant._INTERRUPTED)] * 5
    failed = SessionRow("sub-1", "ses-1", "brain", "failed", "no signal")
    participant._tell([failed, *left], Verdict(interrupted=True))
    assert caplog.messages == [
        "sub-1 ses-1: brain failed: no signal",
        "5 of 6 tasks not completed: interrupted; run the same command again to complete it",
    ]


def test_the_shards_of_a_run_share_its_sessions_by_their_work(monkeypatch):
    bundles = {"brain": ModelBundle.shipped("brain")}
    large, *small = sessions = [Session(f"{n:02}", None, images_of(f"/{n}")) for n in range(9)]

    def read(path, **_):
        edge = 400 if path == large.images["T1w"] else 200
        return Grid((edge,) * 3, np.diag([0.5, 0.5, 0.5, 1.0]))

    monkeypatch.setattr(participant, "read_grid", read)
    first = participant._dealt(config(shard="1/2"), sessions, bundles)
    second = participant._dealt(config(shard="2/2"), sessions, bundles)
    assert first[0] == large and len(first) < len(second)
    assert sorted([*first, *second], key=sessions.index) == [large, *small]


def test_a_scan_that_cannot_be_read_has_no_grid(tmp_path):
    broken = tmp_path / "t.nii.gz"
    broken.write_bytes(b"")
    assert participant._grids(config(), images_of(broken)) == {}
    assert participant._grids(config(), {}) == {}


def test_a_shard_without_sessions_is_done_and_leaves_nothing(monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(participant, "_bundles", lambda _: BUNDLES)
    monkeypatch.setattr(participant, "find_sessions",
                        lambda *_, **__: [Session("01", None, {})])  # fmt: skip
    asked = replace(config(shard="2/2"), bids_dir=tmp_path / "raw", out_dir=tmp_path / "out")
    assert participant.run_participant(asked, command="") == 0
    assert "shard 2/2: contains no sessions" in caplog.text
    assert not (tmp_path / "out" / "logs").exists()
